// Charts as SVG. Each is drawn in its actual width, so that text stays readable on a narrow screen.

/** A chart that is redrawn whenever its width changes; draw(width) returns its element. */
function responsive(draw) {
  const box = h("div", { class: "chart" });
  let last = 0;
  const render = () => {
    const width = Math.round(box.clientWidth);
    if (width && width !== last) {
      last = width;
      box.replaceChildren(...[draw(width, box)].flat());
    }
  };
  new ResizeObserver(render).observe(box);
  return box;
}

/**
 * A line chart.
 * series: [{name, kind, points: [[x, y], ...]}]; x, y: {label, low, high, format}; bands: [{from, to, text}].
 */
function lineChart({ title, series, x, y, bands = [], height = 260 }) {
  const margin = { left: 46, right: 10, top: bands.length ? 24 : 8, bottom: 38 };
  return responsive((width, box) => {
    const right = width - margin.right, bottom = height - margin.bottom;
    const px = (value) => margin.left + ((value - x.low) / (x.high - x.low || 1)) * (right - margin.left);
    const py = (value) => bottom - ((value - y.low) / (y.high - y.low || 1)) * (bottom - margin.top);
    const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": title });
    bands.forEach((band, i) => {
      if (i % 2 === 0) svg.append(s("rect", { class: "band", x: px(band.from), y: margin.top, width: px(band.to) - px(band.from), height: bottom - margin.top }));
      svg.append(s("text", { x: (px(band.from) + px(band.to)) / 2, y: 15, "text-anchor": "middle" }, band.text));
    });
    for (const value of ticks(y.low, y.high, 5)) {
      svg.append(s("line", { class: "grid", x1: margin.left, x2: right, y1: py(value), y2: py(value) }));
      svg.append(s("text", { x: margin.left - 7, y: py(value) + 4, "text-anchor": "end" }, y.format(value)));
    }
    for (const value of ticks(x.low, x.high, Math.max(2, width / 110))) {
      svg.append(s("text", { x: px(value), y: bottom + 17, "text-anchor": "middle" }, x.format(value)));
    }
    svg.append(s("line", { class: "axis", x1: margin.left, x2: right, y1: bottom, y2: bottom }));
    svg.append(s("text", { x: (margin.left + right) / 2, y: height - 3, "text-anchor": "middle" }, x.label));
    for (const line of series) {
      let path = "";
      line.points.forEach(([a, b]) => {
        path += b == null ? " " : `${path === "" || path.endsWith(" ") ? "M" : "L"}${px(a).toFixed(1)},${py(b).toFixed(1)}`;
      });
      svg.append(s("path", { class: line.kind, d: path.trim(), "stroke-dasharray": line.dash || false }));
    }
    const cursor = s("line", { class: "cursor", y1: margin.top, y2: bottom, visibility: "hidden" });
    const tip = h("div", { class: "tip", hidden: true });
    svg.append(cursor);
    svg.addEventListener("pointermove", (event) => {
      const at = x.low + ((event.offsetX - margin.left) / (right - margin.left)) * (x.high - x.low);
      const near = series.map((line) => line.points.reduce((a, b) => (b[1] != null && (!a || Math.abs(b[0] - at) < Math.abs(a[0] - at)) ? b : a), null));
      const first = near.reduce((a, b) => (b && (!a || Math.abs(b[0] - at) < Math.abs(a[0] - at)) ? b : a), null);
      if (!first) return;
      cursor.setAttribute("x1", px(first[0]));
      cursor.setAttribute("x2", px(first[0]));
      cursor.setAttribute("visibility", "visible");
      tip.replaceChildren(h("div", {}, `${x.label} ${x.format(first[0])}`),
        ...series.flatMap((line, i) => (near[i] && near[i][0] === first[0] ? [h("div", {}, `${line.name}  ${y.format(near[i][1], true)}`)] : [])));
      tip.hidden = false;
      const left = px(first[0]) + 12;
      tip.style.left = `${left + tip.offsetWidth > width ? Math.max(0, left - tip.offsetWidth - 24) : left}px`;
      tip.style.top = `${margin.top + 6}px`;
    });
    svg.addEventListener("pointerleave", () => {
      tip.hidden = true;
      cursor.setAttribute("visibility", "hidden");
    });
    return [svg, tip];
  });
}

/** A chart of stacked columns. columns: [{name, values}], with one value per kind. */
function stackedColumns({ title, columns, kinds, xLabel, height = 240 }) {
  const margin = { left: 40, right: 6, top: 8, bottom: 38 };
  return responsive((width) => {
    const bottom = height - margin.bottom, step = (width - margin.left - margin.right) / columns.length;
    const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": title });
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const y = bottom - share * (bottom - margin.top);
      svg.append(s("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y, y2: y }));
      svg.append(s("text", { x: margin.left - 6, y: y + 4, "text-anchor": "end" }, `${100 * share}%`));
    }
    columns.forEach((column, i) => {
      const total = column.values.reduce((a, b) => a + b, 0), left = margin.left + i * step;
      let y = bottom;
      column.values.forEach((value, k) => {
        const tall = total ? (value / total) * (bottom - margin.top) : 0;
        y -= tall;
        svg.append(s("rect", { class: `k-${k}`, x: left + 0.12 * step, width: 0.76 * step, y, height: tall },
          s("title", {}, `${kinds[k]}: ${value} of ${total}`)));
      });
      svg.append(s("text", { x: left + step / 2, y: bottom + 17, "text-anchor": "middle" }, column.name));
    });
    svg.append(s("text", { x: (margin.left + width) / 2, y: height - 3, "text-anchor": "middle" }, xLabel));
    return svg;
  });
}
