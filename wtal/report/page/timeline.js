// The timeline: ground truth, scores and detections of one class in one video, on a common time axis.

class Timeline {
  /** view: {video, truth, lanes, thresholds, detections, matched}; see show(). */
  constructor(moved) {
    this.moved = moved; // called with the time under the cursor in seconds, or null
    this.canvas = h("canvas", { tabindex: 0, role: "img", "aria-describedby": "timeline-keys" });
    this.overview = h("canvas", { class: "overview", "aria-hidden": "true" });
    this.element = h("div", { class: "stage" }, this.canvas, this.overview);
    this.view = null;
    this.cursor = null;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /**
   * video: a video of the payload; truth: [[start, end], ...] in seconds; lanes: [{source, column}]; active: the
   * source that is localised; thresholds: the lowest and the highest; detections: those of the class, by descending
   * score, with `matched`.
   */
  show(view) {
    if (this.view?.video !== view.video) {
      const end = Localize.edge(view.video, view.video.length);
      this.span = [Math.min(0, Localize.edge(view.video, 0)), Math.max(end, view.video.duration || 0, ...view.truth.map((segment) => segment[1]))];
      this.window = [...this.span];
      this.cursor = null;
    }
    this.view = view;
    this.rows = pack(view.detections, 12);
    this.canvas.setAttribute("aria-label", `Timeline: ${view.truth.length} instances, ${view.detections.length} detections. The table below says the same.`);
    this.draw();
  }

  // ---- coordinates ----
  left = 78;
  get height() { return 30 + 30 + this.view.lanes.length * 66 + 14 + Math.max(2, this.rows.length) * 15 + 12; }
  x(second) { return this.left + ((second - this.window[0]) / (this.window[1] - this.window[0])) * (this.width - this.left - 8); }
  second(x) { return this.window[0] + ((x - this.left) / (this.width - this.left - 8)) * (this.window[1] - this.window[0]); }

  setWindow(start, end) {
    const [low, high] = this.span, least = Math.min(high - low, 2);
    const length = Math.min(Math.max(end - start, least), high - low);
    const from = Math.min(Math.max((start + end) / 2 - length / 2, low), high - length);
    this.window = [from, from + length];
    this.draw();
  }
  zoom(factor, around = (this.window[0] + this.window[1]) / 2) {
    const [a, b] = this.window;
    this.setWindow(around - (around - a) / factor, around + (b - around) / factor);
  }
  pan(share) {
    const by = share * (this.window[1] - this.window[0]);
    this.setWindow(this.window[0] + by, this.window[1] + by);
  }
  fit() { this.setWindow(...this.span); }
  focusOn(start, end) {
    const pad = Math.max(end - start, 4);
    this.setWindow(start - pad, end + pad);
    this.point(start);
  }
  point(second) {
    this.cursor = second;
    this.moved(second);
    this.draw();
  }

  listen() {
    let drag = null;
    const own = (event) => event.offsetX;
    this.canvas.addEventListener("pointerdown", (event) => {
      drag = { x: own(event), window: [...this.window], moved: false };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (drag && Math.abs(own(event) - drag.x) > 3) {
        drag.moved = true;
        const by = ((drag.x - own(event)) / (this.width - this.left - 8)) * (drag.window[1] - drag.window[0]);
        this.setWindow(drag.window[0] + by, drag.window[1] + by);
      } else if (!drag && this.view) {
        this.moved(own(event) >= this.left ? this.second(own(event)) : this.cursor);
      }
    });
    this.canvas.addEventListener("pointerup", (event) => {
      if (drag && !drag.moved && own(event) >= this.left) this.point(this.second(own(event)));
      drag = null;
    });
    this.canvas.addEventListener("pointercancel", () => { drag = null; });
    this.canvas.addEventListener("pointerleave", () => { if (!drag && this.view) this.moved(this.cursor); });
    this.canvas.addEventListener("dblclick", (event) => this.zoom(2, this.second(own(event))));
    this.canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(-event.deltaY / 300), this.second(own(event)));
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) this.pan((event.deltaX || event.deltaY) / this.width);
      else return; // let the page scroll
      event.preventDefault();
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const act = { ArrowLeft: () => this.pan(-0.2), ArrowRight: () => this.pan(0.2), "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => this.fit(),
        Home: () => this.setWindow(this.span[0], this.span[0] + this.window[1] - this.window[0]), End: () => this.setWindow(this.span[1] - this.window[1] + this.window[0], this.span[1]),
        n: () => this.step(1), p: () => this.step(-1) }[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act();
    });
    let brushing = false;
    const brush = (event) => {
      const at = this.span[0] + ((event.offsetX - this.left) / (this.width - this.left - 8)) * (this.span[1] - this.span[0]), half = (this.window[1] - this.window[0]) / 2;
      this.setWindow(at - half, at + half);
    };
    this.overview.addEventListener("pointerdown", (event) => {
      brushing = true;
      this.overview.setPointerCapture(event.pointerId);
      brush(event);
    });
    this.overview.addEventListener("pointermove", (event) => { if (brushing) brush(event); });
    this.overview.addEventListener("pointerup", () => { brushing = false; });
  }

  /** Moves the cursor to the start of the next or previous detection. */
  step(direction) {
    const starts = this.view.detections.map((detection) => detection.from).sort((a, b) => direction * (a - b));
    const at = this.cursor ?? (direction > 0 ? -Infinity : Infinity);
    const next = starts.find((start) => direction * (start - at) > 1e-9);
    if (next === undefined) return;
    if (next < this.window[0] || next > this.window[1]) this.setWindow(next - (this.window[1] - this.window[0]) / 2, next + (this.window[1] - this.window[0]) / 2);
    this.point(next);
  }

  // ---- drawing ----
  draw() {
    this.width = this.element.clientWidth;
    if (!this.view || !this.width) return;
    const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(`--${name}`).trim();
    const g = this.prepare(this.canvas, this.height);
    g.fillStyle = color("card");
    g.fillRect(0, 0, this.width, this.height);
    g.save();
    g.beginPath();
    g.rect(this.left, 0, this.width - this.left - 8, this.height);
    g.clip();
    for (const second of ticks(this.window[0], this.window[1], Math.max(2, this.width / 120))) {
      const x = Math.round(this.x(second)) + 0.5;
      g.strokeStyle = color("line");
      g.beginPath();
      g.moveTo(x, 20);
      g.lineTo(x, this.height);
      g.stroke();
      g.fillStyle = color("soft");
      const text = clock(second, this.window[1] - this.window[0]), half = g.measureText(text).width / 2;
      g.textAlign = "center";
      g.fillText(text, Math.min(Math.max(x, this.left + half), this.width - 8 - half), 14);
    }
    let top = 30;
    g.fillStyle = color("truth");
    for (const [start, end] of this.view.truth) this.box(g, start, end, top, 20, 0.9, true, color("truth"));
    top += 30;
    for (const lane of this.view.lanes) {
      this.curve(g, lane.column, top, 58, color(lane.source));
      if (lane.source === this.view.active) this.levels(g, top, 58, color("ink"));
      top += 66;
    }
    top += 14;
    const highest = this.view.detections[0]?.score || 1;
    this.rows.forEach((row, r) => row.forEach((detection) => this.box(g, detection.from, detection.to, top + 15 * r, 11, 0.35 + 0.65 * (detection.score / highest), detection.matched, color(detection.matched ? "truth" : "miss"))));
    if (this.cursor !== null) {
      g.strokeStyle = color("ink");
      g.beginPath();
      g.moveTo(this.x(this.cursor), 20);
      g.lineTo(this.x(this.cursor), this.height);
      g.stroke();
    }
    g.restore();
    this.labels(g, color);
    this.drawOverview(color);
  }

  prepare(canvas, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.font = "12px system-ui, sans-serif";
    return g;
  }

  /** Draws a segment, filled or as an outline, at least two pixels wide. */
  box(g, start, end, top, height, alpha, filled, color) {
    const x = this.x(start), width = Math.max(this.x(end) - x, 2);
    g.globalAlpha = alpha;
    g.fillStyle = g.strokeStyle = color;
    if (filled) g.fillRect(x + 0.5, top, Math.max(width - 1, 1.5), height);
    else {
      g.lineWidth = 1.4;
      g.strokeRect(x + 1, top + 0.7, Math.max(width - 2, 0.5), height - 1.4);
      g.lineWidth = 1;
    }
    g.globalAlpha = 1;
  }

  /** Draws scores in [0, 1]. If snippets are narrower than a pixel, each pixel shows the range of their scores. */
  curve(g, column, top, height, color) {
    const { video } = this.view, bottom = top + height, y = (value) => bottom - value * height;
    const from = Math.max(0, Math.floor(Localize.position(video, this.window[0])) - 1), to = Math.min(column.length, Math.ceil(Localize.position(video, this.window[1])) + 1);
    const every = Math.max(1, Math.floor((to - from) / Math.max(1, this.width - this.left)));
    const highs = [], lows = [];
    for (let t = from; t < to; t += every) {
      let low = Infinity, high = -Infinity;
      for (let i = t; i < Math.min(t + every, to); ++i) {
        low = Math.min(low, column[i]);
        high = Math.max(high, column[i]);
      }
      const x = this.x(Localize.center(video, Math.min(t + (every - 1) / 2, to - 1)));
      highs.push([x, y(high)]);
      lows.push([x, y(low)]);
    }
    if (!highs.length) return;
    g.fillStyle = g.strokeStyle = color;
    g.globalAlpha = 0.16;
    g.beginPath();
    g.moveTo(highs[0][0], bottom);
    highs.forEach(([x, at]) => g.lineTo(x, at));
    g.lineTo(highs[highs.length - 1][0], bottom);
    g.fill();
    g.globalAlpha = 1;
    g.lineWidth = 1.5;
    for (const points of every > 1 ? [highs, lows] : [highs]) {
      g.beginPath();
      points.forEach(([x, at], i) => (i ? g.lineTo(x, at) : g.moveTo(x, at)));
      g.stroke();
      g.globalAlpha = 0.45;
    }
    g.globalAlpha = 1;
    g.lineWidth = 1;
  }

  levels(g, top, height, color) {
    g.strokeStyle = color;
    g.globalAlpha = 0.55;
    g.setLineDash([4, 4]);
    for (const threshold of this.view.thresholds) {
      const y = Math.round(top + height - threshold * height) + 0.5;
      g.beginPath();
      g.moveTo(this.left, y);
      g.lineTo(this.width - 8, y);
      g.stroke();
    }
    g.setLineDash([]);
    g.globalAlpha = 1;
  }

  labels(g, color) {
    g.textAlign = "left";
    g.fillStyle = color("soft");
    g.fillText("truth", 10, 44);
    let top = 60;
    for (const lane of this.view.lanes) {
      g.fillStyle = color(lane.source);
      g.fillText(SOURCES[lane.source], 10, top + 33);
      g.strokeStyle = color("line");
      g.beginPath();
      g.moveTo(this.left, top + 58.5);
      g.lineTo(this.width - 8, top + 58.5);
      g.stroke();
      top += 66;
    }
    g.fillStyle = color("soft");
    g.fillText("detections", 10, top + 24);
    const hidden = this.view.detections.length - this.rows.reduce((total, row) => total + row.length, 0);
    if (hidden > 0) g.fillText(`+ ${hidden} more`, 10, top + 40);
  }

  drawOverview(color) {
    const height = 26, g = this.prepare(this.overview, height), [low, high] = this.span;
    const x = (second) => this.left + ((second - low) / (high - low)) * (this.width - this.left - 8);
    g.fillStyle = color("wash");
    g.fillRect(0, 0, this.width, height);
    g.fillStyle = color("truth");
    for (const [start, end] of this.view.truth) g.fillRect(x(start), 4, Math.max(x(end) - x(start), 1.5), 8);
    for (const detection of this.view.detections.slice(0, 2 * this.view.truth.length || 10)) {
      g.fillStyle = color(detection.matched ? "truth" : "miss");
      g.globalAlpha = detection.matched ? 1 : 0.6;
      g.fillRect(x(detection.from), 15, Math.max(x(detection.to) - x(detection.from), 1.5), 6);
    }
    g.globalAlpha = 1;
    g.strokeStyle = color("accent");
    g.lineWidth = 2;
    g.strokeRect(x(this.window[0]), 1, Math.max(x(this.window[1]) - x(this.window[0]), 4), height - 2);
    g.fillStyle = color("soft");
    g.fillText("whole", 10, 17);
  }
}

/** Distributes detections, best first, over as few rows as possible without overlap, and at most `most` rows. */
function pack(detections, most) {
  const rows = [];
  for (const detection of detections) {
    const row = rows.find((candidate) => candidate.every((other) => detection.from >= other.to || detection.to <= other.from));
    if (row) row.push(detection);
    else if (rows.length < most) rows.push([detection]);
  }
  return rows;
}

/** Seconds as text: 1:05, or 65.2 if the visible span is short. */
function clock(second, span) {
  if (span < 20) return `${Number(second.toFixed(2))} s`;
  const minutes = Math.floor(second / 60), rest = second - 60 * minutes;
  return minutes || span >= 60 ? `${minutes}:${String(Math.floor(rest)).padStart(2, "0")}` : `${Number(rest.toFixed(1))} s`;
}
