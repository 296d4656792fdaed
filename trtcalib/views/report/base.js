// Elements, text and numbers. Text from files goes into text nodes only.

const byId = (id) => document.getElementById(id);

/** Make an element: h("td", {class: "n"}, "text", child). */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** Escape control characters, direction marks and other unprintables, as trtcalib does in a terminal. */
function printable(text) {
  return text.replace(UNPRINTABLE, (character) => {
    const code = character.codePointAt(0);
    const hex = code.toString(16);
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    if (character === "\r") return "\\r";
    if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  });
}

/** A printable name of at most so many characters, its middle left out. */
function shortened(name, longest = 120) {
  const characters = Array.from(printable(name));
  if (characters.length <= longest) return characters.join("");
  const head = Math.floor(longest / 2);
  return `${characters.slice(0, head).join("")}…${characters.slice(characters.length - (longest - head - 1)).join("")}`;
}

/** A name as an element, whole as its tooltip unless that is absurd. */
function nameElement(name, longest = 120) {
  const short = shortened(name, longest);
  return h("bdi", { title: name.length <= 500 ? printable(name) : shortened(name, 500) }, short);
}

/** Plotly reads tags, entities and $mathematics$ in its texts: a name must show as it is. */
const forPlotly = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");

const NONE = "–";
const missing = (value) => value === null || value === undefined;

const SMALLEST = 1e-3; // numbers below are told with an exponent, so that columns stay narrow

/** Five significant digits. */
function number(value) {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < SMALLEST || size >= 1e6)) return value.toExponential(4);
  return String(Number(value.toPrecision(5)));
}

const integer = (value) => (missing(value) ? NONE : value.toLocaleString("en"));

/** A candidate of the entropy search: a position, and no amount. */
const plain = (value) => (missing(value) ? NONE : String(value));

/** A share or a change in per cent, three significant digits. */
function percent(value, sign = false) {
  if (missing(value)) return NONE;
  const size = Math.abs(100 * value);
  const text = size !== 0 && size < SMALLEST ? (100 * value).toExponential(2) : String(Number((100 * value).toPrecision(3)));
  return `${sign && value > 0 ? "+" : ""}${text.replace(/^-/, "−")} %`;
}

const change = (value) => percent(value, true);

/** A cell that shows a number and carries it unrounded. */
function numberCell(value, format) {
  return h("td", { class: "n", "data-value": missing(value) ? "" : String(value) }, format(value));
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, label]) => h("option", { value, selected: value === chosen }, label)));
}
