// Pictures of one tensor. Colours come from the style sheet; lines differ by dash as well.

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const SVG = "http://www.w3.org/2000/svg";
const PAPER_WIDTH = 640; // pixels between the margins of A4 and Letter

const NEAR = "500px"; // plots are drawn when they are so near the view

/** What is drawn where, and when: a plot waits until Plotly is there and the plot comes near the view. */
class Drawing {
  constructor() {
    this.plots = new Map();
    this.observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.seen(entry)), { rootMargin: NEAR });
  }

  /** Draw into an element with paint() from now on; elements that are gone are forgotten. */
  add(element, paint) {
    for (const old of this.plots.keys()) if (!old.isConnected) this.forget(old);
    this.plots.set(element, { paint, near: false, stale: true });
    this.observer.observe(element);
  }

  forget(element) {
    this.observer.unobserve(element);
    this.plots.delete(element);
  }

  seen(entry) {
    const plot = this.plots.get(entry.target);
    if (!plot) return;
    plot.near = entry.isIntersecting;
    this.draw(entry.target, plot);
  }

  async draw(element, plot) {
    if (!window.Plotly || !plot.stale || !plot.near || !element.isConnected) return;
    plot.stale = false;
    await plot.paint();
  }

  /** Draw one plot anew, now or when it comes near the view. */
  redraw(element) {
    const plot = this.plots.get(element);
    plot.stale = true;
    return this.draw(element, plot);
  }

  again(all) {
    return Promise.all([...this.plots].map(([element, plot]) => {
      plot.stale = true;
      plot.near ||= all;
      return this.draw(element, plot);
    }));
  }
}

const drawing = new Drawing();

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colours = (kind, count) => Array.from({ length: count }, (_, i) => style(`--${kind}-${i}`));

function frame(element, height, extra = {}) {
  const width = document.documentElement.classList.contains("printing") ? Math.min(PAPER_WIDTH, 640) : element.clientWidth;
  const axis = { gridcolor: style("--grid"), linecolor: style("--line"), zeroline: false, automargin: false, fixedrange: coarse() };
  const { xaxis = {}, yaxis = {}, ...rest } = extra;
  return {
    width,
    height,
    margin: { l: 58, r: 14, t: 12, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style("--sans"), size: 12.5, color: style("--muted") },
    hoverlabel: { bgcolor: style("--panel"), bordercolor: style("--line"), font: { color: style("--ink"), family: style("--sans") }, align: "left" },
    dragmode: coarse() ? false : "zoom",
    showlegend: false,
    xaxis: { ...axis, ...xaxis },
    yaxis: { ...axis, ...yaxis },
    ...rest,
  };
}

/** On touch screens a finger scrolls the page, and does not zoom a plot. */
const coarse = () => matchMedia("(pointer: coarse)").matches;

const CONFIG = { displayModeBar: false, responsive: false, doubleClick: "reset", showTips: false };

const titled = (text) => ({ text, standoff: 8, font: { size: 12.5 } });

/** Methods by amax, each with its colour, dash and row of text. */
function marks(facts) {
  const palette = colours("method", 6);
  const shown = facts.methods.map((method, i) => ({ ...method, name: `--method-${i % 6}`, colour: palette[i % 6], dash: DASHES[i % 6] }));
  return shown.sort((a, b) => (missing(a.amax) ? 1 : missing(b.amax) ? -1 : a.amax - b.amax));
}

/** A piece of a line as the plot draws it; its colour follows the theme. */
function swatch({ name, dash }) {
  const pattern = { solid: "", dash: "6 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "11 4", longdashdot: "11 3 2 3" }[dash];
  const svg = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "line");
  for (const [key, value] of Object.entries({ x1: 0, x2: 30, y1: 5, y2: 5, style: `stroke:var(${name})`, "stroke-width": 2.4, "stroke-dasharray": pattern })) line.setAttribute(key, value);
  for (const [key, value] of Object.entries({ width: 30, height: 10, "aria-hidden": "true", class: "swatch" })) svg.setAttribute(key, value);
  svg.append(line);
  return svg;
}

const ROW = 15; // pixels between the labels above the histogram
const FLOOR = 0.7; // below one value, so that bins with a single one are seen
const LETTER = 6.6; // pixels that a letter of such a label takes, roughly
const LEAST_EMPTY = 0.22; // share of the bins from which there is room to write into the empty part
const HISTOGRAM_HEIGHT = 420;
const DIVERGENCE_HEIGHT = 270;
const GROWTH_HEIGHT = 320;

function drawHistogram(element, facts, counts) {
  const range = missing(facts.range) ? facts.first_maximum * 2 ** facts.doublings : facts.range || 1;
  const outline = { x: [0], y: [FLOOR] };
  const width = range / counts.length;
  for (let i = 0; i < counts.length; i += 1) {
    const height = Math.max(counts[i], FLOOR);
    outline.x.push(i * width, (i + 1) * width);
    outline.y.push(height, height);
  }
  outline.x.push(range);
  outline.y.push(FLOOR);
  const shown = marks(facts).filter((mark) => !missing(mark.amax));
  const right = Math.max(range, ...shown.map((mark) => mark.amax)) * 1.01;
  const height = HISTOGRAM_HEIGHT + ROW * shown.length;
  const layout = frame(element, height, {
    margin: { l: 58, r: 14, t: 12 + ROW * shown.length, b: 44 },
    hovermode: "closest",
    xaxis: { title: titled("|x|"), range: [0, right] },
    yaxis: { title: titled("values per bin"), type: "log", range: [Math.log10(FLOOR), Math.log10(Math.max(facts.highest, 2)) + 0.15], ...logTicks([1, facts.highest]), tickformat: "~s" },
  });
  const label = labelsAbove(shown, right, layout);
  layout.shapes = label.map(({ line }) => line);
  layout.annotations = label.map(({ text }) => text);
  if (facts.empty_bins > 0) markEmpty(layout, facts, range);
  const trace = { ...outline, type: "scatter", mode: "lines", line: { width: 0.6, color: style("--bars") }, fill: "toself", fillcolor: style("--bars"), hoverinfo: "skip" };
  return Plotly.react(element, [trace], layout, CONFIG);
}

/** A line per method, and its label in a row of its own above the plot: left of its line where there is room. */
function labelsAbove(shown, right, layout) {
  const plotWidth = layout.width - layout.margin.l - layout.margin.r;
  const plotHeight = layout.height - layout.margin.t - layout.margin.b;
  const labels = shown.map((mark) => {
    const text = `${shortened(mark.method, 30)} ${number(mark.amax)}`;
    return { mark, text, leftwards: (mark.amax / right) * plotWidth > text.length * LETTER };
  });
  labels.sort((a, b) => (a.leftwards !== b.leftwards ? b.leftwards - a.leftwards : a.leftwards ? b.mark.amax - a.mark.amax : a.mark.amax - b.mark.amax));
  return labels.map(({ mark, text, leftwards }, i) => {
    const y = 1 + (ROW * (labels.length - i) - 4) / plotHeight;
    return {
      line: { type: "line", xref: "x", yref: "paper", x0: mark.amax, x1: mark.amax, y0: 0, y1: y, line: { color: mark.colour, width: 1.8, dash: mark.dash } },
      text: { xref: "x", yref: "paper", x: mark.amax, y, text: forPlotly(text), showarrow: false, yanchor: "middle", xanchor: leftwards ? "right" : "left", xshift: leftwards ? -5 : 5, borderpad: 0, bgcolor: style("--panel"), font: { size: 12, color: style("--ink") } },
    };
  });
}

/** Shade the bins that doubling left empty. */
function markEmpty(layout, facts, range) {
  layout.shapes.unshift({ type: "rect", xref: "x", yref: "paper", x0: facts.maximum, x1: range, y0: 0, y1: 1, fillcolor: style("--empty"), line: { width: 0 }, layer: "below" });
  if (facts.empty_bins / facts.bins < LEAST_EMPTY) return;
  layout.annotations.push({ xref: "x", yref: "paper", x: (facts.maximum + range) / 2, y: 0.5, text: `${integer(facts.empty_bins)} empty bins<br>above the maximum`, showarrow: false, font: { size: 12, color: style("--muted") } });
}

/** Ticks of a log axis that people can read: 1, 2, 5, 10 over few decades, else the decades. */
function logTicks(values) {
  const above = values.filter((value) => value > 0);
  const decades = above.length ? Math.log10(Math.max(...above) / Math.min(...above)) : 0;
  return { type: "log", dtick: decades < 1 ? "D1" : decades < 2 ? "D2" : Math.ceil(decades / 7), tickformat: decades < 4 ? "~g" : "~e" };
}

function drawDivergence(element, facts, points) {
  const search = facts.divergence;
  const above = points.filter((point) => point.kl > 0);
  const chosen = above.find((point) => point.at === search.bin_m - search.first);
  const candidate = (point) => point.at + search.first;
  const line = { x: above.map(candidate), y: above.map((point) => point.kl), type: "scatter", mode: "lines", line: { width: 1.6, color: style("--accent") }, hovertemplate: "candidate %{x}<br>about %{y:.4g} nats<extra></extra>" };
  const minimum = { x: chosen ? [search.bin_m] : [], y: chosen ? [search.smallest > 0 ? search.smallest : chosen.kl] : [], type: "scatter", mode: "markers", marker: { size: 10, symbol: "diamond", color: style("--method-0"), line: { width: 1.5, color: style("--panel") } }, hovertemplate: `m %{x}<br>${number(search.smallest)} nats<extra></extra>` };
  const late = search.bin_m - search.first > 0.6 * search.candidates;
  const layout = frame(element, DIVERGENCE_HEIGHT, {
    hovermode: "closest",
    xaxis: { title: titled("candidate: bins kept"), range: [search.first - 20, search.first + search.candidates + 20] },
    yaxis: { title: titled("KL in nats"), ...logTicks(line.y) },
    shapes: [{ type: "line", xref: "x", yref: "paper", x0: search.bin_m, x1: search.bin_m, y0: 0, y1: 1, line: { color: style("--method-0"), width: 1.4, dash: "dot" } }],
    annotations: [{ xref: "x", yref: "paper", x: search.bin_m, y: 1, text: `m = ${search.bin_m}`, showarrow: false, xanchor: late ? "right" : "left", xshift: late ? -6 : 6, yanchor: "top", font: { size: 12.5, color: style("--ink") } }],
  });
  return Plotly.react(element, [line, minimum], layout, CONFIG);
}

/** One line per configuration; shuffled orders are thin and share their batch size's colour. */
function drawGrowth(element, study, stories, maximum) {
  const configurations = study.configurations;
  const sizes = [...new Set(configurations.map((c) => c.batch_size))].sort((a, b) => a - b);
  const palette = colours("size", 9);
  const colour = (size) => palette[sizes.length < 2 ? 0 : Math.round((sizes.indexOf(size) / (sizes.length - 1)) * 8)];
  const end = study.data.samples;
  const traces = configurations.map((configuration, i) => {
    const growth = stories[i].growth;
    const inOrder = missing(configuration.shuffle);
    const last = growth.length ? [[end, growth[growth.length - 1][1]]] : [];
    const steps = [...growth, ...last];
    return {
      x: steps.map(([samples]) => samples),
      y: steps.map(([, range]) => range),
      name: forPlotly(shortened(configuration.name, 20)),
      type: "scatter",
      mode: "lines+markers",
      showlegend: inOrder,
      line: { shape: "hv", width: inOrder ? 2 : 0.9, color: colour(configuration.batch_size), dash: DASHES[sizes.indexOf(configuration.batch_size) % 6] },
      marker: { size: steps.map((_, j) => (j < growth.length && inOrder ? 6 : 0)), color: colour(configuration.batch_size) },
      opacity: inOrder ? 1 : 0.45,
      hovertemplate: "%{x} samples seen<br>range %{y:.5g}",
    };
  });
  const layout = frame(element, GROWTH_HEIGHT, {
    hovermode: "closest",
    showlegend: true,
    legend: { orientation: "h", x: 0, y: -0.23, yanchor: "top", font: { size: 12, color: style("--ink") } },
    margin: { l: 58, r: 14, t: 12, b: 88 },
    xaxis: { title: titled("samples seen"), ...logTicks([1, end]), tickformat: "~s", range: [-0.04 * Math.log10(end || 1), 1.02 * Math.log10(end || 1)] },
    yaxis: { title: titled("range"), ...logTicks(traces.flatMap((trace) => trace.y)) },
    shapes: missing(maximum) || maximum <= 0 ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: maximum, y1: maximum, line: { color: style("--muted"), width: 1, dash: "dot" } }],
    annotations: missing(maximum) || maximum <= 0 ? [] : [{ xref: "paper", x: 1, y: Math.log10(maximum), text: "true maximum", showarrow: false, xanchor: "right", yanchor: "bottom", font: { size: 12, color: style("--muted") } }],
  });
  return Plotly.react(element, traces, layout, CONFIG);
}
