// One tensor: where its amax lies, why its range grew, what each configuration made of it.

class Detail {
  constructor(report, page) {
    Object.assign(this, { report, page, box: byId("detail"), set: null });
  }

  /** Show a tensor: {name, study, tensor position, sets: [[set, histogram]], caches}. */
  show(entry) {
    this.entry = entry;
    const sets = entry.sets.map(([set]) => set);
    if (!sets.includes(this.set) || entry.study !== this.study) this.set = sets[0] ?? null;
    this.study = entry.study;
    this.figures = [];
    this.box.replaceChildren(this.heading(), ...[this.distribution(), this.growth(), this.outcomes()].filter(Boolean));
    for (const [plot, paint] of this.figures) drawing.add(plot, paint);
  }

  heading() {
    const { name, facts } = this.entry;
    const whole = printable(name);
    const parts = [facts.kind];
    if (!missing(facts.maximum)) parts.push(h("span", {}, "maximum ", h("b", { "data-fact": "maximum", "data-value": String(facts.maximum) }, number(facts.maximum)), facts.maximum_sample ? h("span", {}, " in sample ", nameElement(facts.maximum_sample, 60)) : ""));
    if (!missing(facts.next_maximum)) parts.push(`the next sample’s ${number(facts.next_maximum)}`);
    if (!missing(facts.values)) parts.push(`${integer(facts.values)} values`);
    if (!missing(facts.instability)) parts.push(h("span", {}, "instability ", h("b", { "data-fact": "instability", "data-value": String(facts.instability) }, percent(facts.instability))));
    if (facts.inherited_from) parts.push(h("span", {}, "carries the scale of ", h("a", { href: tensorLink(facts.inherited_from) }, nameElement(facts.inherited_from, 60))));
    const items = parts.map((part) => h("li", {}, part));
    return h("header", {},
      h("h3", { id: "detail-title", tabindex: "-1" }, nameElement(name, 110)),
      whole.length > 110 ? h("details", { class: "whole" }, h("summary", {}, `whole name, ${integer(whole.length)} characters`), h("code", {}, whole)) : null,
      h("ul", { class: "line" }, ...items));
  }

  figure(title, note, id, height) {
    const plot = h("div", { class: "plot", id, role: "img", "aria-label": title, style: `min-height:${height}px` });
    return [h("figure", { class: "card" }, h("figcaption", {}, h("h4", {}, title), note ? h("p", { class: "note" }, note) : null), plot), plot];
  }

  distribution() {
    const { sets } = this.entry;
    if (!sets.length) {
      const reason = this.report.histograms.length ? "None of the histogram files holds this tensor." : "No histogram files were given, so that there is no distribution to draw.";
      return h("p", { class: "empty card" }, reason);
    }
    const [set, position] = sets.find(([number_]) => number_ === this.set);
    const of = this.report.histograms[set];
    const facts = of.histograms[position];
    const grown = facts.doublings ? `; doubled ${facts.doublings} × from ${number(facts.first_maximum)}` : "";
    const note = `${integer(facts.values)} values in ${integer(facts.bins)} bins over [0, ${number(facts.range)}]${grown}`;
    const [histogram, plot] = this.figure("Histogram of |x| and the amax of each method", note, "histogram", HISTOGRAM_HEIGHT + ROW * facts.methods.length);
    histogram.querySelector("figcaption").append(this.switcher(sets));
    const parts = [this.methods(facts)];
    const curves = () => curvesOf(set, position, this.page);
    this.figures.push([plot, async () => drawHistogram(plot, facts, (await curves()).counts)]);
    if (facts.divergence) {
      const left = facts.divergence.candidates - facts.divergence.allowed;
      const text = `smallest ${number(facts.divergence.smallest)} nats at m = ${facts.divergence.bin_m}${left ? `; ${integer(left)} of ${integer(facts.divergence.candidates)} candidates are not allowed and left out` : ""}`;
      const [figure, element] = this.figure(`KL divergence by candidate, variant ${printable(facts.divergence.variant)}`, text, "divergence", DIVERGENCE_HEIGHT);
      parts.push(figure);
      this.figures.push([element, async () => drawDivergence(element, facts, (await curves()).divergences)]);
    }
    return h("div", { class: "pair" }, histogram, h("div", { class: "stack" }, ...parts));
  }

  switcher(sets) {
    const label = (set) => {
      const { configuration, label: file, study } = this.report.histograms[set];
      if (missing(configuration)) return shortened(file, 40);
      const { label: folder, study: of } = this.report.studies[study];
      const where = this.report.studies.length > 1 ? `${shortened(folder, 20)}: ` : "";
      return `${where}${shortened(configuration, 20)}${configuration === of.reference ? " (reference)" : ""}`;
    };
    if (sets.length === 1) return h("p", { class: "note" }, `from ${label(sets[0][0])}`);
    const choose = (event) => {
      this.set = Number(event.target.value);
      this.show(this.entry);
      this.box.querySelector(`input[value="${this.set}"]`)?.focus();
    };
    return h("fieldset", { class: "switch", onchange: choose }, h("legend", { class: "unseen" }, "Histogram of"),
      ...sets.map(([set]) => h("label", {}, h("input", { type: "radio", name: "set", value: set, checked: set === this.set }), h("span", {}, label(set)))));
  }

  methods(facts) {
    const rows = marks(facts).map((mark) => h("tr", { "data-method": mark.method },
      h("th", { scope: "row" }, swatch(mark), " ", shortened(mark.method, 40)),
      numberCell(mark.amax, number), numberCell(mark.bin_m, plain), numberCell(mark.clipped, percent)));
    const head = ["method", "amax", "m", "clipped"].map((text, i) => h("th", { scope: "col", class: i ? "n" : "" }, text));
    return h("div", { class: "card" }, h("h4", {}, "Where each method clips"),
      h("div", { class: "scroll" }, h("table", { class: "plain methods" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows))));
  }

  growth() {
    const { study, position } = this.entry;
    if (!study || !study.stories[position].some((story) => story.growth.length)) return null;
    const tensor = study.study.tensors[position];
    const [figure, plot] = this.figure("How the range grew", `The first batch sets it; a batch beyond it doubles it.${study.study.orders ? " Thin lines are shuffled orders." : ""}`, "growth", GROWTH_HEIGHT);
    this.figures.push([plot, async () => drawGrowth(plot, study.study, study.stories[position], tensor.maximum)]);
    return figure;
  }

  outcomes() {
    const { study, position, caches } = this.entry;
    const tensor = study?.study.tensors[position];
    const constant = tensor && !tensor.outcomes.length ? h("p", { class: "empty" }, `A constant: its scale ${number(tensor.scale)} is the same in every configuration.`) : null;
    if (!tensor?.outcomes.length && !caches.length) return constant && h("div", { class: "card" }, constant);
    const labels = ["configuration", "change", "scale", "m", "first maximum", "doubled", "range", "wasted bins", "clipped", "why"];
    const head = labels.map((text) => h("th", { scope: "col", class: ["configuration", "why"].includes(text) ? "" : "n" }, text));
    const rows = (tensor?.outcomes || []).map((outcome, i) => this.outcome(outcome, study.study.configurations[i], study.stories[position][i]));
    const others = caches.map(({ cache, scale }) => h("tr", { "data-cache": cache.label }, h("th", { scope: "row" }, nameElement(cache.label, 30)),
      numberCell(missing(scale.ratio) ? null : scale.ratio - 1, change), numberCell(scale.scale, number), ...Array(6).fill(null).map(() => h("td", { class: "n" }, NONE)), h("td", { class: "why" }, `a cache: ${printable(cache.header)}`)));
    return h("div", { class: "card long" }, h("h4", {}, "What each configuration made of it"), constant,
      h("div", { class: "scroll outcomes", tabindex: 0, role: "region", "aria-label": "Outcomes of the chosen tensor" },
        h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows, ...others))));
  }

  outcome(outcome, configuration, story) {
    const times = outcome.doublings.reduce((sum, doubling) => sum + doubling.times, 0);
    const moved = Math.abs(outcome.change ?? 0) > 0.01;
    return h("tr", { "data-configuration": configuration.name, class: moved ? "moved" : null }, h("th", { scope: "row" }, nameElement(configuration.name, 30)),
      numberCell(outcome.change, change), numberCell(outcome.scale, number), numberCell(outcome.bin_m, plain), numberCell(outcome.first_maximum, number),
      numberCell(times, integer), numberCell(outcome.range, number), numberCell(outcome.wasted_bins, integer), numberCell(outcome.clipped, percent),
      h("td", { class: "why" }, printable(story.why).replace(/ %/g, "\u00a0%")));
  }
}
