// What each weighted node costs, and where along the network the noise stands.

const MOST_NODES = 30; // nodes that are drawn; the table holds all
const NODE_ROW = 24; // pixels
const NETWORK_HEIGHT = 330;
const MARKED_NODES = 80; // nodes up to which each has a dot on its line

/** Noise in per cent of the signal; null decibels mean none. */
const noiseOf = (decibels) => (missing(decibels) ? 0 : 100 * 10 ** (-decibels / 10));

/** The lowest SQNR of full INT8's outputs. */
function fullNoise(result) {
  return Math.max(0, ...result.full.outputs.map((output) => noiseOf(output.sqnr_db)));
}

/** What a bar may tell: the metric's loss, or the noise at the outputs. */
function measures(result) {
  const times = factor(result.metric, "loss");
  const noise = { key: "noise", label: "output noise", title: "noise in % of the signal", alone: (layer) => noiseOf(layer.only_sqnr_db), gain: (layer) => fullNoise(result) - noiseOf(layer.all_but_sqnr_db) };
  const loss = { key: "loss", label: metricName(result.metric), title: lossAxis(result.metric), alone: (layer) => layer.only_loss * times, gain: (layer) => layer.gain * times };
  return result.metric.name === "sqnr" ? [noise] : [loss, noise];
}

const layersHeight = (result) => 66 + NODE_ROW * Math.min(MOST_NODES, result.layers.length);

function drawLayers(element, result, measure) {
  const shown = result.layers.slice(0, MOST_NODES);
  const labels = labelled(shown.map((layer) => layer.name), lettersOf(element));
  const parts = [
    { name: "clipping", colour: "--method-0", share: (layer) => layer.clipped_share },
    { name: "rounding", colour: "--bars", share: (layer) => (missing(layer.clipped_share) ? null : 1 - layer.clipped_share) },
    { name: "not known which", colour: "--bars", pattern: "/", share: (layer) => (missing(layer.clipped_share) ? 1 : null) },
  ];
  const told = shown.map((layer) => [forPlotly(shortened(layer.name, 60)), number(measure.alone(layer)), percent(layer.clipped_share), number(measure.gain(layer)), missing(layer.only_sqnr_db) ? "no noise" : `${number(layer.only_sqnr_db)} dB`]);
  const hovertemplate = "%{customdata[0]}<br>alone in INT8: %{customdata[1]} (SQNR %{customdata[4]})<br>clipping: %{customdata[2]} of its noise<br>gain, alone in float: %{customdata[3]}<extra></extra>";
  const traces = parts.map((part) => ({
    type: "bar",
    orientation: "h",
    x: shown.map((layer) => (missing(part.share(layer)) ? 0 : part.share(layer) * measure.alone(layer))),
    y: shown.map((_, i) => i),
    width: 0.62,
    marker: { color: style(part.colour), line: { width: 0 }, ...(part.pattern ? { pattern: { shape: part.pattern, fgcolor: style(part.colour), bgcolor: style("--panel"), size: 6, solidity: 0.4 } } : {}) },
    customdata: told,
    hovertemplate,
  }));
  traces.push({ type: "scatter", mode: "markers", cliponaxis: false, x: shown.map((layer) => measure.gain(layer)), y: shown.map((_, i) => i), marker: { symbol: "diamond", size: 8, color: style("--ink"), line: { width: 1, color: style("--panel") } }, customdata: told, hovertemplate });
  const layout = frame(element, layersHeight(result), {
    barmode: "relative",
    hovermode: "closest",
    margin: { l: labelWidth(labels), r: 14, t: 8, b: 48 },
    xaxis: { title: titled(measure.title), rangemode: "tozero", zeroline: true, zerolinecolor: style("--line"), nticks: element.clientWidth > NARROW ? 10 : 5 },
    yaxis: rowAxis(labels),
    shapes: stripes(labels),
  });
  return Plotly.react(element, traces, layout, CONFIG);
}

function drawNetwork(element, result) {
  const own = new Map(result.layers.map((layer) => [layer.output, layer]));
  const tensors = result.network;
  const name = (tensor) => forPlotly(shortened(own.get(tensor.output)?.name ?? tensor.output, 60));
  const at = tensors.map((_, i) => i + 1);
  const few = tensors.length <= MARKED_NODES;
  const line = { x: at, y: tensors.map((tensor) => tensor.sqnr_db), type: "scatter", mode: few ? "lines+markers" : "lines", connectgaps: false, line: { color: style("--accent"), width: 1.8 }, marker: { size: 6, color: style("--accent") }, customdata: tensors.map(name), hovertemplate: "%{customdata}<br>node %{x}: %{y:.4g} dB<extra></extra>" };
  const alone = { x: at, y: tensors.map((tensor) => own.get(tensor.output)?.local_sqnr_db ?? null), type: "scatter", mode: "markers", marker: { size: few ? 6 : 4, color: style("--muted") }, customdata: tensors.map(name), hovertemplate: "%{customdata}<br>alone in INT8: %{y:.4g} dB<extra></extra>" };
  const traces = [alone, line];
  const left = new Set(result.fallback?.outputs ?? []);
  const kept = tensors.map((tensor, i) => ({ tensor, i })).filter(({ tensor }) => left.has(tensor.output) && !missing(tensor.sqnr_db));
  if (kept.length) traces.push({ x: kept.map(({ i }) => i + 1), y: kept.map(({ tensor }) => tensor.sqnr_db), type: "scatter", mode: "markers", marker: { size: 13, symbol: "circle-open", color: style("--method-0"), line: { width: 2.2 } }, hoverinfo: "skip" });
  const layout = frame(element, NETWORK_HEIGHT, {
    hovermode: "closest",
    margin: { l: 58, r: 14, t: 12, b: 48 },
    xaxis: { title: titled("weighted node, in graph order"), range: [0.5, tensors.length + 0.5], tickformat: "d", ...(tensors.length < 12 ? { dtick: 1 } : {}) },
    yaxis: { title: titled("SQNR in dB") },
  });
  return Plotly.react(element, traces, layout, CONFIG);
}

const decibels = (value) => (missing(value) ? "no noise" : String(Number(value.toPrecision(4))));

/** The table of all nodes. */
function layerColumns(result) {
  const inFull = new Map(result.network.map((tensor) => [tensor.output, tensor.sqnr_db]));
  const times = factor(result.metric, "loss");
  const unit = result.metric.is_share ? " in points" : result.metric.name === "sqnr" ? ": noise in % of the signal" : "";
  const loss = (value) => (missing(value) ? NONE : number(value * times));
  const column = (key, label, title, width, get, format) => ({ key, label, title, width, get, format });
  return [
    { key: "name", label: "node", title: "by name", text: true, least: nameWidth(), get: (row) => row.name },
    column("rank", "rank", "1: quantizing it alone costs most", 80, (row) => row.rank, integer),
    column("only_loss", "loss alone", `loss with this node alone in INT8${unit}`, 96, (row) => row.only_loss, loss),
    column("gain", "gain", `gained by leaving this node alone in float${unit}`, 76, (row) => row.gain, loss),
    column("only_sqnr_db", "SQNR alone", "lowest of the outputs with this node alone in INT8, in dB", 104, (row) => row.only_sqnr_db, decibels),
    column("all_but_sqnr_db", "SQNR without", "lowest of the outputs with all but this node in INT8, in dB", 116, (row) => row.all_but_sqnr_db, decibels),
    column("local_sqnr_db", "SQNR here", "at its own output with this node alone in INT8, in dB", 98, (row) => row.local_sqnr_db, decibels),
    column("network", "SQNR in full", "at its own output with everything in INT8, in dB", 106, (row) => inFull.get(row.output) ?? null, (value) => (missing(value) ? NONE : decibels(value))),
    column("clipped_share", "clipping", "share of its input’s noise that is clipping", 100, (row) => row.clipped_share, percent),
    column("macs", "MACs", "multiply-accumulates", 110, (row) => row.macs, integer),
    { key: "operator", label: "operator", title: "by operator", width: 92, text: true, get: (row) => row.operator, cell: (row) => h("td", { title: printable(row.operator).slice(0, 200) }, shortened(row.operator, 20)) },
  ];
}
