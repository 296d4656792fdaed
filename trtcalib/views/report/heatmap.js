// Tensors x configurations, coloured by how far the scale moved. The box scrolls; the picture shows the rows in view.

const STEPS = [0.01, 0.05, 0.2, 0.5];
const STEP_LABELS = ["1 %", "5 %", "20 %", "50 %"];
const TALLEST = 528; // pixels of rows in view
const LEAST_COLUMN = 62; // pixels of a column from which its cells are written into
const TICK_LETTER = 7; // pixels that a letter of a row's label takes, roughly

/** -4 .. 4: how many steps the change passes, with its sign. */
function stepOf(value) {
  if (missing(value)) return null;
  const passed = STEPS.filter((step) => Math.abs(value) > step).length;
  return Math.sign(value) * passed;
}

class HeatMap {
  constructor(onPick) {
    Object.assign(this, { box: byId("heat-box"), space: byId("heat-space"), plot: byId("heat"), rows: [], inView: 24 });
    this.onPick = onPick;
    this.box.addEventListener("scroll", () => this.later());
    new ResizeObserver(() => this.study && this.layout() && this.later()).observe(this.box);
    byId("heat-rows").addEventListener("change", (event) => {
      this.inView = Number(event.target.value);
      this.box.scrollTop = 0;
      this.layout();
      this.draw();
    });
  }

  show(study) {
    this.study = study;
    this.rows = study.tensors.filter((tensor) => tensor.outcomes.length);
    this.rows.sort((a, b) => missing(a.instability) - missing(b.instability) || b.instability - a.instability);
    const sizes = [24, 60, 200].filter((size) => size < this.rows.length);
    fill(byId("heat-rows"), [...sizes.map((size) => [String(size), `${size} in view`]), [String(this.rows.length), `all ${this.rows.length}`]], String(this.inView));
    this.inView = sizes.includes(this.inView) ? this.inView : sizes[0] || this.rows.length;
    byId("heat-rows").value = String(this.inView);
    byId("moves").hidden = this.rows.length === 0;
    this.legend();
    this.layout();
    drawing.add(this.box, async () => this.draw());
    this.later();
  }

  legend() {
    const items = [];
    for (let step = -4; step <= 4; step += 1) {
      const size = Math.abs(step);
      const text = size === 0 ? "within 1 %" : `${step < 0 ? "smaller" : "larger"} by more than ${STEP_LABELS[size - 1]}`;
      items.push(h("li", { class: size === 0 ? "zero" : null, title: text }, h("span", { class: "patch", style: `background:var(--heat-${step + 4})` }), size === 0 ? "±1 %" : `${step < 0 ? "< −" : "> +"}${STEP_LABELS[size - 1]}`));
    }
    byId("heat-legend").replaceChildren(...items);
  }

  layout() {
    this.rowHeight = Math.max(Math.min(22, TALLEST / this.inView), 1);
    this.bottom = this.columnWidth() < 44 ? 64 : 30;
    this.boxHeight = Math.ceil(this.rowHeight * Math.min(this.inView, this.rows.length)) + this.bottom;
    this.box.style.height = `${this.boxHeight}px`;
    this.space.style.height = `${Math.ceil(this.rowHeight * this.rows.length) + this.bottom}px`;
    return true;
  }

  letters() {
    return this.box.clientWidth > 700 ? 44 : 16;
  }

  /** Pixels for the rows' labels. */
  left() {
    return Math.ceil(14 + TICK_LETTER * Math.max(...this.rows.map((tensor) => Math.min(tensor.name.length, this.letters()))));
  }

  columnWidth() {
    return (this.box.clientWidth - this.left()) / this.study.configurations.length;
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    if (!this.study || !window.Plotly || this.box.clientWidth === 0) return;
    const first = Math.max(0, Math.min(Math.round(this.box.scrollTop / this.rowHeight), this.rows.length - this.inView));
    const shown = this.rows.slice(first, first + this.inView);
    const names = this.study.configurations.map((configuration) => configuration.name);
    const changes = shown.map((tensor) => tensor.outcomes.map((outcome) => outcome.change));
    const labels = shown.map((tensor) => shortened(tensor.name, this.letters()));
    const [left, column] = [this.left(), this.columnWidth()];
    const scale = Array.from({ length: 9 }, (_, i) => style(`--heat-${i}`)).flatMap((c, i) => [[i / 9, c], [(i + 1) / 9, c]]);
    const fits = this.rowHeight >= 16 && column >= LEAST_COLUMN;
    const trace = {
      type: "heatmap",
      z: changes.map((row) => row.map(stepOf)),
      text: changes.map((row) => row.map((value) => (missing(value) || stepOf(value) === 0 ? "" : change(value)))),
      texttemplate: fits ? "%{text}" : "",
      textfont: { size: 11.5 },
      customdata: shown.map((tensor, i) => changes[i].map((value) => [forPlotly(shortened(tensor.name, 60)), value === null ? NONE : change(value)])),
      hovertemplate: "%{customdata[0]}<br>%{x}: %{customdata[1]}<extra></extra>",
      x: names.map((_, i) => i),
      y: shown.map((_, i) => i),
      xgap: column > 12 ? 1 : 0,
      ygap: this.rowHeight > 8 ? 1 : 0,
      zmin: -4.5,
      zmax: 4.5,
      colorscale: scale,
      showscale: false,
    };
    const ticks = this.rowHeight >= 12;
    const every = Math.ceil(14 / column);
    const layout = frame(this.plot, this.boxHeight, {
      width: this.box.clientWidth,
      margin: { l: left, r: 0, t: 0, b: this.bottom },
      dragmode: false,
      xaxis: { tickvals: trace.x.filter((i) => i % every === 0), ticktext: names.filter((_, i) => i % every === 0).map((name) => forPlotly(shortened(name, 12))), fixedrange: true, showgrid: false, ticks: "", tickangle: column < 44 ? -90 : 0 },
      yaxis: { tickvals: trace.y, ticktext: labels.map(forPlotly), showticklabels: ticks, range: [shown.length - 0.5, -0.5], fixedrange: true, showgrid: false, ticks: "", tickfont: { size: 12, color: style("--ink") } },
    });
    layout.width = this.box.clientWidth;
    this.shown = shown;
    Plotly.react(this.plot, [trace], layout, CONFIG);
    if (!this.listening) {
      this.listening = true;
      this.plot.on("plotly_click", (event) => this.onPick(this.shown[event.points[0].y].name, this.study.configurations[event.points[0].x].name));
    }
  }
}
