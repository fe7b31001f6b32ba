// Functions that create elements. Text from the data becomes text nodes only, never markup.

/** An HTML element, e.g. h("td", {class: "best"}, "42.0"). A function becomes an event listener; false and null omit an attribute. */
function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element, with the arguments of h. */
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

/** A select element with a label; options: [[value, text], ...]. */
function picker(label, options, value, changed) {
  const select = h("select", { change: () => changed(select.value) }, options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text)));
  return h("label", {}, label, select);
}

/** A table that can scroll sideways. heads: column titles; rows: [[cell, ...], ...]; each is an element or text. */
function table(caption, heads, rows, attributes = {}) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption, ...attributes },
    h("table", {}, h("caption", { class: attributes.class?.includes("clip") ? "gone" : false }, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => (head instanceof Node ? head : h("th", { scope: "col" }, head))))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, i) => (cell instanceof Node ? cell : h(i ? "td" : "th", i ? {} : { scope: "row" }, cell))))))));
}

/** A bar whose length shows a share between 0 and 1. */
function meter(share, kind = "") {
  const inner = h("span");
  inner.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  return h("span", { class: `meter ${kind}`, "aria-hidden": "true" }, inner);
}

function legend(items) {
  return h("ul", { class: "legend" }, items.map(([kind, text]) => h("li", {}, h("i", { class: kind }), text)));
}

/** Round numbers for the ticks of an axis: about `count` of them between low and high. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1), unit = 10 ** Math.floor(Math.log10(rough || 1));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) || 10);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) values.push(Number((i * step).toPrecision(12)));
  return values;
}
