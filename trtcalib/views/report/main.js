// The page: what is chosen, and what follows from it. The address names the tensor, so back and forward work.

const tensorLink = (name) => `#tensor=${encodeURIComponent(name)}`;

class App {
  constructor(report, page) {
    Object.assign(this, { report, page, known: indexed(report), chosen: null });
    this.views = [...report.studies.map((study, i) => ({ study: i, label: study.label })), ...report.histograms.flatMap((set, i) => (missing(set.study) ? [{ set: i, label: set.label }] : []))];
    this.detail = byId("detail") ? new Detail(report, page) : null;
  }

  start() {
    if (this.report.accuracy) this.accuracy = new Accuracy(this.report.accuracy, this.known);
    if (this.report.caches) this.caches = new Caches(this.report.caches, this.known);
    if (!this.views.length) return;
    if (this.report.studies.length) this.heat = new HeatMap((name) => this.go(name));
    fill(byId("view"), this.views.map((view, i) => [String(i), shortened(view.label, 40)]), "0");
    byId("view-control").hidden = this.views.length < 2;
    byId("view").addEventListener("change", () => this.openView(Number(byId("view").value)));
    byId("configuration").addEventListener("change", () => this.refill());
    byId("show").addEventListener("change", () => this.refill());
    byId("filter").addEventListener("input", () => this.refill());
    addEventListener("hashchange", () => this.follow(true));
    byId("tensors").hidden = false;
    this.openView(0);
    this.follow(true);
  }

  go(name) {
    if (location.hash === tensorLink(name)) this.follow(true);
    else location.hash = tensorLink(name);
  }

  openView(index) {
    this.view = this.views[index];
    const study = this.report.studies[this.view.study];
    byId("configuration-control").hidden = byId("show-control").hidden = !study;
    if (study) {
      const names = study.study.configurations.map((c) => c.name);
      const most = [...study.study.configurations].sort((a, b) => b.moved - a.moved)[0];
      fill(byId("configuration"), names.map((name) => [name, shortened(name, 30)]), most.name);
      fill(byId("show"), [["all", "all tensors"], ["here", "moved > 1 % here"], ["anywhere", "moved > 1 % anywhere"], ["doubled", "doubled here"], ["wasted", "half of the bins wasted here"]], "all");
      this.heat.show(study.study);
    }
    const columns = study ? studyColumns(() => this.position) : histogramColumns(this.report.histograms[this.view.set]);
    this.grid = new Grid(byId("table"), { label: "Tensors", columns, link: (row) => tensorLink(row.name), sort: { key: study ? "instability" : "maximum", down: true }, selected: () => this.chosen });
    this.refill();
    this.follow(false);
  }

  refill() {
    const study = this.report.studies[this.view.study];
    const rows = study ? study.study.tensors : this.report.histograms[this.view.set].tensors;
    this.position = study ? study.study.configurations.findIndex((c) => c.name === byId("configuration").value) : 0;
    const text = byId("filter").value.toLowerCase();
    const wanted = study ? FILTERS[byId("show").value] : () => true;
    const shown = rows.filter((row) => wanted(row, this.position, study) && row.name.toLowerCase().includes(text));
    byId("count").textContent = shown.length ? `${integer(shown.length)} of ${integer(rows.length)} tensors` : "No tensor fits: change the filter.";
    this.grid.show(shown);
  }

  /** Show the tensor that the address names; without one, the first of the table. */
  follow(moved) {
    const match = /^#tensor=(.*)$/s.exec(location.hash);
    if (match === null && this.chosen !== null && moved) return;
    let name = match === null ? (this.chosen ?? this.grid.rows[0]?.name) : decoded(match[1]);
    const unknown = match !== null && (name === null || !this.known.has(name));
    say(unknown ? `No tensor named “${shortened(name ?? match[1], 80)}” in this report.` : "", unknown);
    if (unknown) name = this.chosen ?? this.grid.rows[0]?.name;
    if (missing(name)) return;
    this.chosen = name;
    this.grid.mark();
    this.detail.show(this.entry(name));
    if (match !== null && moved && !unknown) this.reveal();
  }

  reveal() {
    const box = byId("detail").getBoundingClientRect();
    if (box.top > 0 && box.top < innerHeight * 0.6) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("detail").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }

  entry(name) {
    const known = this.known.get(name);
    const at = known.studies.find(([study]) => study === this.view.study) ?? known.studies[0];
    const study = at ? this.report.studies[at[0]] : null;
    const own = (set) => (at && this.report.histograms[set].study === at[0] ? 0 : 1);
    const sets = [...known.sets].sort((a, b) => own(a[0]) - own(b[0]));
    const caches = known.caches.map(([cache, scale]) => ({ cache: this.report.caches.caches[cache], scale })).filter(({ cache }) => cache.file !== null);
    const facts = study ? study.study.tensors[at[1]] : histogramFacts(this.report, known);
    return { name, study, position: at?.[1], sets, caches: study ? caches : [], facts };
  }

  /** Draw the plots near the view anew, the others when they come near; all at once for paper and another theme. */
  async redraw(all = false) {
    await drawing.again(all);
  }
}

const FILTERS = {
  all: () => true,
  here: (row, at) => Math.abs(row.outcomes[at]?.change ?? 0) > 0.01,
  anywhere: (row) => row.outcomes.some((outcome) => Math.abs(outcome.change ?? 0) > 0.01),
  doubled: (row, at) => (row.outcomes[at]?.doublings.length ?? 0) > 0,
  wasted: (row, at, study) => (row.outcomes[at]?.wasted_bins ?? 0) * 2 >= study.study.bins,
};

/** name -> where it stands: studies [[study, tensor]], sets [[set, histogram]], caches [[cache, scale]]. */
function indexed(report) {
  const known = new Map();
  const at = (name) => {
    if (!known.has(name)) known.set(name, { studies: [], sets: [], caches: [] });
    return known.get(name);
  };
  report.studies.forEach(({ study }, i) => study.tensors.forEach((tensor, j) => at(tensor.name).studies.push([i, j])));
  report.histograms.forEach((set, i) => set.tensors.forEach((tensor) => {
    const entry = at(tensor.name);
    if (!missing(tensor.histogram)) entry.sets.push([i, tensor.histogram]);
    entry.tensor ??= tensor;
  }));
  for (const row of report.caches?.rows ?? []) {
    row.scales.forEach((scale, i) => scale && known.get(row.name)?.caches.push([i, scale]));
  }
  return known;
}

function histogramFacts(report, known) {
  const [at] = known.sets;
  const histogram = at ? report.histograms[at[0]].histograms[at[1]] : {};
  return { ...known.tensor, maximum: histogram.maximum, values: histogram.values };
}

/** Pixels that names get at least. */
const nameWidth = () => (innerWidth < 600 ? 170 : 300);

function studyColumns(position) {
  const here = (key) => (row) => row.outcomes[position()]?.[key] ?? null;
  const size = (get) => (row) => (missing(get(row)) ? null : Math.abs(get(row)));
  const column = (key, label, title, width, get, format) => ({ key, label, title, width, get, format });
  const times = (row) => row.outcomes[position()]?.doublings.reduce((sum, doubling) => sum + doubling.times, 0) ?? null;
  return [
    { key: "name", label: "tensor", title: "by name", text: true, least: nameWidth(), get: (row) => row.name },
    { ...column("change", "change", "scale in this configuration against the reference; sorted by size", 104, here("change"), change), order: size(here("change")) },
    column("instability", "instability", "(largest − smallest scale) / the reference’s, over all configurations", 112, (row) => row.instability, percent),
    column("scale", "scale", "in this configuration", 108, (row) => (row.outcomes.length ? here("scale")(row) : row.scale), number),
    column("reference", "reference", "scale in the reference configuration", 108, (row) => row.scale, number),
    column("bin_m", "m", "bins kept by the entropy search", 74, here("bin_m"), plain),
    column("maximum", "maximum", "true maximum of |x|", 96, (row) => row.maximum, number),
    column("range", "range", "upper end of the histogram", 96, here("range"), number),
    column("doublings", "doubled", "how often the range doubled", 86, times, integer),
    column("wasted_bins", "wasted bins", "bins above the true maximum", 110, here("wasted_bins"), integer),
    column("clipped", "clipped", "share of values in bins at or above amax", 112, here("clipped"), percent),
    { key: "kind", label: "kind", title: "input, constant, folded, activation", width: 92, text: true, get: (row) => row.kind, cell: (row) => h("td", {}, row.kind) },
  ];
}

function histogramColumns(set) {
  const of = (row) => (missing(row.histogram) ? null : set.histograms[row.histogram]);
  const methods = set.histograms[0]?.methods.map((method) => method.method) ?? [];
  const column = (key, label, title, width, get, format) => ({ key, label, title, width, get, format });
  return [
    { key: "name", label: "tensor", title: "by name", text: true, least: nameWidth(), get: (row) => row.name },
    column("maximum", "maximum", "true maximum of |x|", 112, (row) => of(row)?.maximum ?? null, number),
    column("range", "range", "upper end of the histogram", 100, (row) => of(row)?.range ?? null, number),
    column("doublings", "doubled", "how often the range doubled", 84, (row) => of(row)?.doublings ?? null, integer),
    column("empty_bins", "empty bins", "bins above the true maximum", 96, (row) => of(row)?.empty_bins ?? null, integer),
    ...methods.map((method, i) => column(`amax-${i}`, shortened(method, 18).replace(/^percentile /, "p"), `amax by ${printable(method)}`, 112, (row) => of(row)?.methods[i].amax ?? null, number)),
    { key: "kind", label: "kind", title: "input, constant, folded, activation", width: 92, text: true, get: (row) => row.kind, cell: (row) => h("td", {}, row.kind) },
  ];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

function say(text, bad = false) {
  byId("state").textContent = text;
  byId("state").hidden = text === "";
  byId("state").classList.toggle("bad", bad);
}

function startTheme(redraw) {
  const root = document.documentElement;
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const apply = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    redraw();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    apply();
  });
  system.addEventListener("change", apply);
  button.setAttribute("aria-pressed", String(isDark()));
  button.hidden = false;
}

function startPaper(redraw) {
  const set = (printing) => {
    if (document.documentElement.classList.contains("printing") === printing) return;
    document.documentElement.classList.toggle("printing", printing);
    redraw();
  };
  matchMedia("print").addEventListener("change", (event) => set(event.matches));
  addEventListener("beforeprint", () => set(true));
  addEventListener("afterprint", () => set(false));
}

function loadPlotly(source) {
  document.head.append(h("script", {}, source));
}

/** Give the browser the time to show what stands there. */
const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

/** Tell how far the page is, to who measures it. */
function stage(name) {
  document.documentElement.dataset.ready = name;
  performance.mark(name);
}

async function start() {
  if (!("DecompressionStream" in window)) {
    say("This browser cannot unpack the page’s data; the files named below hold the numbers.", true);
    return;
  }
  const { report, page } = JSON.parse(await unpackText("report-data"));
  const app = new App(report, page);
  say("");
  app.start();
  stage("numbers");
  await painted();
  if (byId("plotly-source")) loadPlotly(await unpackText("plotly-source"));
  startTheme(() => app.redraw(true));
  startPaper(() => app.redraw(true));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    app.redraw();
  });
  await app.redraw();
  stage("plots");
}

start().catch((error) => {
  say(`The page could not be drawn: ${error.message}. The files named below hold the numbers.`, true);
  throw error;
});
