// Caches side by side.

class Caches {
  constructor(comparison, known) {
    Object.assign(this, { caches: comparison.caches, rows: comparison.rows });
    byId("cache-facts").replaceChildren(this.facts());
    const link = (row) => (known.has(row.name) ? tensorLink(row.name) : null);
    this.grid = new Grid(byId("cache-table"), { label: "Scales of the caches", columns: this.columns(), link, sort: { key: "apart", down: true }, selected: () => null });
    fill(byId("cache-show"), [["all", "all tensors"], ["moved", "more than 1 % apart"], ["lacking", "not in every cache"]], "all");
    byId("cache-show").addEventListener("change", () => this.show());
    byId("cache-filter").addEventListener("input", () => this.show());
    byId("caches").hidden = false;
    this.show();
  }

  columns() {
    const first = this.caches[0];
    const cells = this.caches.flatMap((cache, i) => {
      const label = shortened(cache.label, 18);
      const scale = { key: `scale-${i}`, label, title: `scale in ${printable(cache.label)}`, width: 130, get: (row) => row.scales[i]?.scale ?? null, format: number };
      scale.cell = (row) => this.scaleCell(row.scales[i]);
      const ratio = { key: `ratio-${i}`, label: `÷ ${shortened(first.label, 12)}`, title: `scale in ${printable(cache.label)} / in ${printable(first.label)}`, width: 120, get: (row) => row.scales[i]?.ratio ?? null, format: number };
      return i ? [scale, ratio] : [scale];
    });
    const apart = { key: "apart", label: "apart", title: "largest |ratio − 1|", width: 90, get: (row) => row.apart, format: percent };
    return [{ key: "name", label: "tensor", title: "by name", text: true, least: nameWidth(), get: (row) => row.name }, ...(this.caches.length > 1 ? [apart] : []), ...cells];
  }

  scaleCell(scale) {
    if (!scale) return h("td", { class: "n", "data-value": "" }, "not in it");
    const text = missing(scale.scale) ? `${scale.scale_hex} (no number)` : number(scale.scale);
    return h("td", { class: "n", title: scale.scale_hex, "data-value": missing(scale.scale) ? "" : String(scale.scale) }, text);
  }

  facts() {
    const several = this.caches.length > 1;
    const labels = ["cache", "header", "made with", "tensors", ...(several ? ["in common", "same bits", "moved > 1 %"] : []), ...(this.caches.some((c) => c.closest) ? ["closest configuration"] : [])];
    const head = labels.map((text, i) => h("th", { scope: "col", class: i > 2 && i < 7 ? "n" : "" }, text));
    const closest = this.caches.some((c) => c.closest);
    const rows = this.caches.map((cache) => h("tr", {}, h("th", { scope: "row" }, nameElement(cache.label, 50), ...cache.oddities.map((odd) => h("p", { class: "note" }, shortened(odd, 200)))),
      h("td", {}, printable(cache.header)), h("td", {}, this.madeWith(cache)), numberCell(cache.tensors, integer),
      ...(several ? [numberCell(cache.common, integer), numberCell(cache.equal, integer), numberCell(cache.moved, integer)] : []),
      ...(closest ? [h("td", {}, cache.closest ? `${shortened(cache.closest, 30)}: ${integer(cache.closest_equal)} scales the same to the bit` : NONE)] : [])));
    return h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
  }

  madeWith(cache) {
    if (missing(cache.samples)) return "unknown: no manifest beside it";
    const order = missing(cache.shuffle) ? "" : `, order ${cache.shuffle}`;
    return `${shortened(cache.method || "unknown method", 30)}, ${integer(cache.samples)} samples, batch size ${cache.batch_size}${order}`;
  }

  show() {
    const kind = byId("cache-show").value;
    const text = byId("cache-filter").value.toLowerCase();
    const wanted = { all: () => true, moved: (row) => row.apart > 0.01, lacking: (row) => row.scales.includes(null) }[kind];
    const rows = this.rows.filter((row) => wanted(row) && row.name.toLowerCase().includes(text));
    byId("cache-count").textContent = `${integer(rows.length)} of ${integer(this.rows.length)} tensors`;
    this.grid.show(rows);
  }
}
