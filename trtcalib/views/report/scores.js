// Scores as dots with their intervals, one row per method or class, beside FP32's.

const DOT_STEP = 10; // pixels between the dots of one row
const ROW_SPACE = 14; // pixels of a row beside its dots
const NARROW = 700; // pixels below which a plot has short labels
const LONG_LABEL = 60; // letters
const SHORT_LABEL = 18;
const LABEL_SHARE = 20; // a label gets a letter per so many pixels of the plot
const MOST_ROWS = 30; // classes that are drawn of many
const WIDE_SPAN = 20; // ratio of losses from which their axis is logarithmic
const FAR = 6; // points so many times as far from the median as three quarters of them stand at the edge, as arrows
const FAR_INTERVALS = 2; // unless that is within so many widths of the usual interval

/** Shares and noise are drawn in per cent. */
const factor = (metric, kind) => (metric.is_share || (kind === "loss" && metric.name === "sqnr") ? 100 : 1);

const METRICS = { top1: "top-1 accuracy", top5: "top-5 accuracy", agreement: "agreement with FP32", cosine: "cosine similarity to FP32", sqnr: "SQNR" };

const metricName = (metric) => METRICS[metric.name] ?? shortened(metric.name, 40);

const unit = (metric) => (metric.is_share ? " %" : metric.name === "sqnr" ? " dB" : "");

const scoreAxis = (metric) => `${metricName(metric)}${unit(metric) && ` in${unit(metric)}`}`;

function lossAxis(metric) {
  if (metric.is_share) return "loss in points";
  return metric.name === "sqnr" ? "noise in % of the signal" : `loss of ${metricName(metric)}`;
}

/** {value, low, high} in what is drawn; null where there is no number to draw. */
function drawnScore(value, interval, times) {
  const at = (end) => (missing(end) ? null : end * times);
  return { value: at(value), low: at(interval?.low), high: at(interval?.high) };
}

const judged = (judgement, metric) => drawnScore(judgement.value, judgement.interval, factor(metric));
const lost = (judgement, metric) => drawnScore(judgement.loss, judgement.loss_interval, factor(metric, "loss"));

const lettersOf = (element) => Math.max(SHORT_LABEL, Math.min(LONG_LABEL, Math.floor(element.clientWidth / LABEL_SHARE)));

/** Names as labels of so many letters; where one is too long, without what all of them begin and end with. */
function labelled(names, longest) {
  const whole = names.map(printable);
  if (whole.length < 2 || whole.every((name) => name.length <= longest)) return whole.map((name) => shortened(name, longest));
  const begin = sharedStart(whole);
  const rest = whole.map((name) => name.slice(begin));
  const end = sharedEnd(rest);
  return rest.map((name) => shortened(`${begin ? "…" : ""}${name.slice(0, name.length - end)}${end ? "…" : ""}`, longest));
}

const BOUNDARY = /[/.:]/;

/** How many characters up to a slash, a dot or a colon all names begin with. */
function sharedStart(names) {
  let end = 0;
  while (end < names[0].length && names.every((name) => name[end] === names[0][end])) end += 1;
  while (end > 0 && !BOUNDARY.test(names[0][end - 1])) end -= 1;
  return end;
}

function sharedEnd(names) {
  return sharedStart(names.map((name) => name.split("").reverse().join("")));
}

/** Pixels for the labels of rows. */
const labelWidth = (labels) => Math.ceil(16 + TICK_LETTER * Math.max(3, ...labels.map((label) => Array.from(label).length)));

/** Rows from top to bottom, every second one shaded. */
function rowAxis(labels) {
  return {
    tickvals: labels.map((_, i) => i),
    ticktext: labels.map(forPlotly),
    range: [labels.length - 0.5, -0.5],
    fixedrange: true,
    showgrid: false,
    ticks: "",
    tickfont: { size: 12, color: style("--ink") },
  };
}

function stripes(labels) {
  return labels.flatMap((_, i) => (i % 2 ? [{ type: "rect", xref: "paper", x0: 0, x1: 1, yref: "y", y0: i - 0.5, y1: i + 0.5, fillcolor: style("--sunk"), line: { width: 0 }, layer: "below" }] : []));
}

/** FP32's value as a line over its interval. */
function reference(band, right) {
  const colour = style("--accent");
  const shapes = [{ type: "line", xref: "x", yref: "paper", x0: band.value, x1: band.value, y0: 0, y1: 1, line: { color: colour, width: 1.5 } }];
  if (!missing(band.low) && !missing(band.high)) {
    shapes.unshift({ type: "rect", xref: "x", yref: "paper", x0: band.low, x1: band.high, y0: 0, y1: 1, fillcolor: colour, opacity: 0.13, line: { width: 0 }, layer: "below" });
  }
  const text = { xref: "x", yref: "paper", x: band.value, y: 1, text: forPlotly(band.text), showarrow: false, xanchor: right ? "right" : "left", yanchor: "bottom", xshift: right ? 6 : -6, font: { size: 12, color: style("--ink") } };
  return { shapes, annotations: [text] };
}

/**
 * rows: labels; series: [{name, colour, symbol, open, points: [{value, low, high}]}], points in the order of the rows.
 * band: {value, low, high, text}, or null.
 */
function dotsHeight(rows, series) {
  return 74 + rows * (ROW_SPACE + DOT_STEP * series);
}

function drawDots(element, { rows, series, band, title, line = null, log = false }) {
  const labels = labelled(rows, lettersOf(element));
  const isFar = log ? () => false : farPoints(series);
  const space = ROW_SPACE + DOT_STEP * series.length;
  const offset = (i) => ((i - (series.length - 1) / 2) * DOT_STEP) / space;
  const places = series.map((one, i) => offset(one.centred ? (series.length - 1) / 2 : i));
  const traces = series.map((one, i) => dots({ ...one, points: one.points.map((point) => (isFar(point) ? { value: null } : point)) }, rows, places[i]));
  if (line) traces.unshift({ x: line.map((at) => (isFar(series[0].points[at]) ? null : series[0].points[at].value)), y: line, type: "scatter", mode: "lines", line: { color: style("--bars"), width: 1.4 }, hoverinfo: "skip" });
  const near = series.flatMap((one) => one.points).filter((point) => !isFar(point));
  const ends = [...near, ...(band ? [band] : [])].flatMap((point) => [point.value, point.low, point.high]).filter((value) => !missing(value));
  const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
  const padding = (high - low || Math.abs(high) || 1) * 0.05;
  const range = log ? undefined : [low - padding, high + padding];
  const marked = band && !missing(band.value) ? reference(band, band.value - low > (high - low) * 0.5) : { shapes: [], annotations: [] };
  const layout = frame(element, dotsHeight(rows.length, series.length), {
    hovermode: "closest",
    margin: { l: labelWidth(labels), r: 14, t: 26, b: 48 },
    xaxis: { title: titled(title), ...(log ? logTicks(ends) : { range, nticks: element.clientWidth > NARROW ? 10 : 5 }) },
    yaxis: rowAxis(labels),
    shapes: [...stripes(labels), ...marked.shapes],
    annotations: [...marked.annotations, ...(range ? series.flatMap((one, i) => arrows(one, isFar, places[i], range)) : [])],
  });
  return Plotly.react(element, traces, layout, CONFIG);
}

/** Whether a point is so far off that the others would lie upon each other if the axis went on to it. */
function farPoints(series) {
  const points = series.flatMap((one) => one.points).filter((point) => !missing(point.value));
  const at = (values, share) => [...values].sort((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? 0;
  const median = at(points.map((point) => point.value), 0.5);
  const widths = points.filter((point) => !missing(point.low) && !missing(point.high)).map((point) => point.high - point.low);
  const reach = Math.max(FAR * at(points.map((point) => Math.abs(point.value - median)), 0.75), FAR_INTERVALS * at(widths, 0.5));
  return (point) => reach > 0 && !missing(point.value) && Math.abs(point.value - median) > reach;
}

/** Far points, as an arrow at the edge with their value. */
function arrows(one, isFar, offset, [low, high]) {
  return one.points.flatMap((point, i) => {
    if (!isFar(point)) return [];
    const right = point.value > (low + high) / 2;
    return [{ xref: "x", yref: "y", x: right ? high : low, y: i + offset, text: right ? `${number(point.value)} ▶` : `◀ ${number(point.value)}`, showarrow: false, xanchor: right ? "right" : "left", borderpad: 0, font: { size: 10.5, color: style(one.colour) } }];
  });
}

function dots(one, rows, offset) {
  const shown = one.points.map((point, i) => ({ ...point, y: i + offset, row: rows[i] })).filter((point) => !missing(point.value));
  const colour = style(one.colour);
  const between = (point) => (missing(point.low) && missing(point.high) ? "" : ` (${number(point.low)} to ${number(point.high)})`);
  return {
    x: shown.map((point) => point.value),
    y: shown.map((point) => point.y),
    type: "scatter",
    mode: "markers",
    marker: { size: one.size ?? 9, symbol: one.symbol, color: colour, line: { width: 1, color: style("--panel") } },
    error_x: {
      type: "data",
      symmetric: false,
      array: shown.map((point) => (missing(point.high) ? 0 : Math.max(point.high - point.value, 0))),
      arrayminus: shown.map((point) => (missing(point.low) ? 0 : Math.max(point.value - point.low, 0))),
      color: colour,
      thickness: 1.4,
      width: 3,
    },
    customdata: shown.map((point) => [forPlotly(shortened(point.row, 60)), forPlotly(one.name), `${number(point.value)}${between(point)}`]),
    hovertemplate: "%{customdata[0]}<br>%{customdata[1]}: %{customdata[2]}<extra></extra>",
  };
}

const COLUMNS = [
  { name: "weights per tensor", colour: "--method-1", symbol: "circle" },
  { name: "weights per channel", colour: "--method-2", symbol: "square" },
  { name: "activations", colour: "--method-3", symbol: "triangle-up" },
  { name: "both", colour: "--method-0", symbol: "diamond", size: 10 },
];

function fp32(result) {
  const drawn = judged(result.reference, result.metric);
  return missing(drawn.value) ? null : { ...drawn, text: `FP32 ${number(drawn.value)}${unit(result.metric)}` };
}

function ablationDots(result) {
  const series = COLUMNS.map((column, i) => ({ ...column, points: result.rows.map((row) => judged(row.cells[i].judgement, result.metric)) }));
  return { rows: result.rows.map((row) => row.method), series, band: fp32(result), title: scoreAxis(result.metric) };
}

/** Methods as they were tried, then percentiles from low to high, joined by a line. */
function sweepDots(result) {
  const percentile = (candidate) => (typeof candidate.recipe.percentile === "number" ? candidate.recipe.percentile : null);
  const others = result.candidates.filter((candidate) => missing(percentile(candidate)));
  const grid = result.candidates.filter((candidate) => !missing(percentile(candidate))).sort((a, b) => percentile(a) - percentile(b));
  const all = [...others, ...grid];
  const metric = result.search_metric ?? result.metric;
  const losses = all.map((candidate) => lost(candidate.judgement, metric));
  const chosen = winnerOf(all, result.winner);
  const empty = { value: null };
  const values = losses.map((loss) => loss.value);
  return {
    rows: all.map((candidate) => candidate.method),
    series: [
      { name: "loss", colour: "--accent", symbol: "circle", centred: true, points: losses },
      { name: "loss, chosen", colour: "--method-0", symbol: "diamond", size: 13, centred: true, points: losses.map((loss, i) => (i === chosen ? loss : empty)) },
    ],
    band: null,
    title: lossAxis(metric),
    line: grid.map((_, i) => others.length + i),
    log: metric.name === "sqnr" && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > WIDE_SPAN,
  };
}

function winnerOf(candidates, winner) {
  const recipe = JSON.stringify(winner.recipe);
  const same = candidates.findIndex((candidate) => JSON.stringify(candidate.recipe) === recipe);
  return same >= 0 ? same : candidates.findIndex((candidate) => candidate.method === winner.method);
}

function heldOutDots(result) {
  const [baseline, winner] = [result.baseline, result.winner].map((candidate) => judged(candidate.judgement, result.metric));
  return {
    rows: [result.baseline.method, result.winner.method],
    series: [
      { name: "baseline", colour: "--muted", symbol: "circle", centred: true, points: [baseline, { value: null }] },
      { name: "chosen", colour: "--method-0", symbol: "diamond", size: 11, centred: true, points: [{ value: null }, winner] },
    ],
    band: fp32(result),
    title: scoreAxis(result.metric),
  };
}

/** FP32 and INT8 over all samples and per class; of many classes those that differ most. */
function evaluationDots(result) {
  const share = (count, of, interval) => (of.samples ? drawnScore(count / of.samples, interval, factor(result.metric)) : { value: null });
  const change = (of) => (of.samples ? Math.abs(of.right - of.reference) / of.samples : 0);
  const classes = result.classes.length <= MOST_ROWS ? result.classes : [...result.classes].sort((a, b) => change(b) - change(a)).slice(0, MOST_ROWS);
  return {
    rows: ["all samples", ...classes.map((of) => `class ${of.label}`)],
    series: [
      { name: "FP32", colour: "--muted", symbol: "circle", points: [judged(result.reference, result.metric), ...classes.map((of) => share(of.reference, of, of.reference_interval))] },
      { name: "INT8", colour: "--method-0", symbol: "diamond", size: 10, points: [judged(result.judgement, result.metric), ...classes.map((of) => share(of.right, of, of.interval))] },
    ],
    band: null,
    title: scoreAxis(result.metric),
  };
}
