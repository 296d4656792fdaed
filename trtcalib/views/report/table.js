// A table of many rows: only those in view are elements. Sorted by its headers; arrow keys walk its rows.

const COLLATOR = new Intl.Collator("en", { numeric: true });
const LETTER_WIDTH = 7.4; // pixels
const SPARE = 8; // rows beyond the view on either side, so that scrolling shows no gap

class Grid {
  /**
   * columns: [{key, label, title, width, get(row), cell(row), text}], the first one holds the row's link.
   * link(row): the address to go to, or null.
   */
  constructor(box, { label, columns, link, sort, selected }) {
    Object.assign(this, { columns, link, sort, selected });
    this.rows = [];
    this.first = 0;
    this.active = 0;
    this.body = h("tbody", { onkeydown: (event) => this.onKey(event), onclick: (event) => this.onClick(event) });
    this.headers = columns.map((column) => this.header(column));
    const widths = columns.map((column) => h("col", { style: column.width ? `width:${column.width}px` : "" }));
    this.table = h("table", { "aria-label": label, style: `min-width:${this.leastWidth()}px` },
      h("colgroup", {}, ...widths), h("thead", {}, h("tr", { "aria-rowindex": 1 }, ...this.headers)), this.body);
    this.box = h("div", { class: "rows", tabindex: 0, role: "region", "aria-label": label, onscroll: () => this.draw() }, this.table);
    box.replaceChildren(this.box);
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  leastWidth() {
    return this.columns.reduce((sum, column) => sum + (column.width || column.least), 0);
  }

  header(column) {
    const button = h("button", { type: "button", title: column.title, onclick: () => this.sortBy(column.key) }, column.label);
    return h("th", { scope: "col", class: column.text ? "" : "n" }, button);
  }

  sortBy(key) {
    const column = this.columns.find((c) => c.key === key);
    const down = this.sort.key === key ? !this.sort.down : !column.text;
    this.sort = { key, down };
    this.show(this.rows);
    this.box.scrollTop = 0;
    this.draw();
  }

  /** Show other rows, sorted as asked for; what is missing stands last either way. */
  show(rows) {
    const column = this.columns.find((c) => c.key === this.sort.key) || this.columns[0];
    const sign = this.sort.down ? -1 : 1;
    const value = column.order || column.get;
    const keyed = rows.map((row, index) => ({ row, index, key: value(row) }));
    keyed.sort((a, b) => {
      if (missing(a.key) || missing(b.key)) return missing(a.key) - missing(b.key) || a.index - b.index;
      const order = column.text ? COLLATOR.compare(a.key, b.key) : a.key - b.key;
      return sign * order || a.index - b.index;
    });
    this.rows = keyed.map((item) => item.row);
    this.active = Math.max(0, this.rows.findIndex((row) => row.name === this.selected()));
    this.columns.forEach((c, i) => {
      const state = c.key === column.key ? (this.sort.down ? "descending" : "ascending") : null;
      if (state) this.headers[i].setAttribute("aria-sort", state);
      else this.headers[i].removeAttribute("aria-sort");
    });
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
    this.drawn = null;
    this.draw();
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row"));
  }

  draw() {
    const height = this.rowHeight();
    const visible = Math.ceil(this.box.clientHeight / height) || 1;
    const first = Math.max(0, Math.min(Math.floor(this.box.scrollTop / height) - SPARE, this.rows.length - 1));
    const last = Math.min(this.rows.length, first + visible + 2 * SPARE);
    const key = `${first}-${last}-${height}-${this.letters()}`;
    if (this.drawn === key) return;
    this.drawn = key;
    const focused = this.body.contains(document.activeElement);
    if (this.active < first || this.active >= last) this.active = Math.min(first + SPARE, last - 1);
    this.first = first;
    this.body.replaceChildren(
      this.gap(first * height),
      ...this.rows.slice(first, last).map((row, i) => this.row(row, first + i)),
      this.gap((this.rows.length - last) * height),
    );
    if (focused) this.focusLink();
  }

  /** Letters of a name that fit its column; the middle of a longer one is left out, since its end tells most. */
  letters() {
    return Math.max(12, Math.floor((this.headers[0].clientWidth - 26) / LETTER_WIDTH));
  }

  gap(height) {
    return h("tr", { "aria-hidden": "true", class: "gap" }, h("td", { colspan: this.columns.length, style: `height:${height}px` }));
  }

  row(row, index) {
    const chosen = row.name === this.selected();
    const [first, ...rest] = this.columns;
    const target = this.link(row);
    const label = nameElement(row.name, this.letters());
    const link = target === null ? h("span", { tabindex: index === this.active ? 0 : -1 }, label)
      : h("a", { href: target, tabindex: index === this.active ? 0 : -1, "aria-current": chosen ? "true" : null }, label);
    return h("tr", { "aria-rowindex": index + 2, "data-index": index, class: chosen ? "chosen" : null },
      h("th", { scope: "row", "data-key": first.key }, link), ...rest.map((column) => {
        const cell = column.cell ? column.cell(row) : numberCell(column.get(row), column.format);
        cell.dataset.key = column.key;
        return cell;
      }));
  }

  onClick(event) {
    const row = event.target.closest("tr[data-index]");
    if (!row || event.target.closest("a")) return;
    const target = this.link(this.rows[Number(row.dataset.index)]);
    if (target !== null && !String(getSelection())) location.assign(target);
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowHeight()) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.rows.length, End: this.rows.length };
    const step = steps[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.walkTo(Math.max(0, Math.min(this.rows.length - 1, this.active + step)));
  }

  walkTo(index) {
    this.active = index;
    this.reveal(index);
    this.drawn = null;
    this.draw();
    this.focusLink();
  }

  reveal(index) {
    const height = this.rowHeight();
    const head = this.table.tHead.offsetHeight;
    const top = index * height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + height + head > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + height + head - this.box.clientHeight;
    }
  }

  focusLink() {
    this.body.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }

  /** Mark the chosen row anew, and bring it into view. */
  mark() {
    const index = this.rows.findIndex((row) => row.name === this.selected());
    if (index >= 0) {
      this.active = index;
      this.reveal(index);
    }
    this.drawn = null;
    this.draw();
  }
}
