// Making elements. Text from data enters the page as text nodes only, never as markup.

/** An element: h("td", {class: "best"}, "42.0"). Functions become listeners, false and null leave an attribute out. */
function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

const fixed = (value, digits = 1) => (value == null || Number.isNaN(value) ? "–" : value.toFixed(digits));
const signed = (value, digits = 1) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(digits);
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const SOURCES = { cbp: "CBP", vlp: "VLP", ensemble: "Ensemble" };

/** A labelled select: options are [value, text]. */
function picker(label, options, value, changed) {
  const select = h("select", { change: () => changed(select.value) }, options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text)));
  return h("label", {}, label, select);
}

/** A table that may scroll sideways: columns of {head, text}, rows of cells (elements or text). */
function table(caption, heads, rows, attributes = {}) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption, ...attributes },
    h("table", {}, h("caption", { class: attributes.class?.includes("clip") ? "gone" : false }, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => (head instanceof Node ? head : h("th", { scope: "col" }, head))))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, i) => (cell instanceof Node ? cell : h(i ? "td" : "th", i ? {} : { scope: "row" }, cell))))))));
}

/** A bar for a share between 0 and 1. */
function meter(share, kind = "") {
  const inner = h("span");
  inner.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  return h("span", { class: `meter ${kind}`, "aria-hidden": "true" }, inner);
}

function legend(items) {
  return h("ul", { class: "legend" }, items.map(([kind, text]) => h("li", {}, h("i", { class: kind }), text)));
}

/** Numbers that are pleasant on an axis, about `count` of them between low and high. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1), unit = 10 ** Math.floor(Math.log10(rough || 1));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) || 10);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) found.push(Number((i * step).toPrecision(12)));
  return found;
}
