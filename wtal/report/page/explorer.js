// The timeline explorer: the user selects a video and a class, changes thresholds, and sees the detections.

class Explorer {
  constructor(data, run) {
    this.data = data;
    this.protocol = run.protocol;
    this.frames = data.videos.map((video) => Localize.framesOf(video));
    this.alpha = data.tiou.includes(0.5) ? 0.5 : data.tiou[0];
    this.quality = null; // the mAP of each video, computed on this video only
    this.order = data.videos.map((video, v) => v);
    this.current = 0;
    this.place = 0;
    this.settings = new Sliders(data, () => this.update());
    this.timeline = new Timeline((second) => this.read(second));
    this.build();
    this.choose(0);
    this.evaluateSoon(true);
  }

  build() {
    const { videos } = this.data, measured = videos.some((video) => video.truth);
    this.list = h("select", { size: 12, "aria-label": "Video", change: () => this.choose(Number(this.list.value)) });
    this.filter = h("input", { type: "search", placeholder: "filter by name or class", "aria-label": "Filter videos", input: () => this.fillList() });
    this.by = picker("Order", [...(measured ? [["worst", "worst first"], ["best", "best first"]] : []), ["name", "as in the data set"], ["random", "random"]], measured ? "worst" : "name", () => this.sort());
    this.byName = this.by.querySelector("select");
    this.title = h("h3", { class: "video-title" });
    this.classes = h("select", { "aria-label": "Class", change: () => { this.place = Number(this.classes.value); this.update(); } });
    this.readout = h("span", { class: "readout" });
    this.link = h("a", { target: "_blank", rel: "noopener", hidden: true });
    this.result = h("div", { class: "live", role: "status", "aria-live": "polite" });
    this.results = h("div");
    const button = (text, label, act) => h("button", { type: "button", "aria-label": label, title: label, click: act }, text);
    this.element = h("div", {}, this.result,
      h("div", { class: "explorer" },
        h("div", { class: "videos" }, h("div", { class: "order controls" }, this.by), this.filter, this.list,
          h("div", { class: "pair" }, button("← previous", "Previous video", () => this.next(-1)), button("next →", "Next video", () => this.next(1)))),
        h("div", {}, this.title,
          h("div", { class: "controls" }, h("label", {}, "Class", this.classes),
            picker("Matched at tIoU", this.data.tiou.map((value) => [value, String(value)]), this.alpha, (value) => { this.alpha = Number(value); this.update(); })),
          this.timeline.element,
          h("div", { class: "tools" }, button("−", "Zoom out", () => this.timeline.zoom(1 / 1.5)), button("+", "Zoom in", () => this.timeline.zoom(1.5)), button("whole", "Show the whole video", () => this.timeline.fit()), this.link, this.readout),
          legend([["k-0", measured ? "ground truth, and detections that match it (filled)" : "ground truth"], ["miss", "detections that match nothing (outlined)"]]),
          h("p", { class: "note", id: "timeline-keys" }, "Drag to move, Ctrl + wheel or double click to zoom. On the timeline: ← → move, + − zoom, 0 the whole video, n and p the next and previous detection. Dashed lines are the lowest and highest frame threshold."),
          this.settings.element, this.results)));
    this.sort();
  }

  // ---- the list of videos ----

  sort() {
    const by = this.byName.value, { videos } = this.data;
    this.order = videos.map((video, v) => v);
    if (by === "random") for (let i = this.order.length - 1; i > 0; --i) {
      const j = Math.floor(Math.random() * (i + 1));
      [this.order[i], this.order[j]] = [this.order[j], this.order[i]];
    }
    const sign = by === "best" ? -1 : 1, worth = (v) => this.quality[v] ?? Infinity * sign;
    if ((by === "worst" || by === "best") && this.quality) this.order.sort((a, b) => (worth(a) === worth(b) ? a - b : sign * (worth(a) - worth(b))));
    this.fillList();
  }

  fillList() {
    const text = this.filter.value.trim().toLowerCase(), { videos, classes } = this.data;
    this.shown = this.order.filter((v) => !text || videos[v].id.toLowerCase().includes(text) || videos[v].labels.some((label) => classes[label].toLowerCase().includes(text)));
    this.list.replaceChildren(...this.shown.map((v) => h("option", { value: v, selected: v === this.current }, this.optionText(v))));
  }
  optionText(v) {
    const quality = this.quality?.[v];
    return `${this.data.videos[v].id}${quality == null ? "" : `  ·  ${fixed(quality, 0)}`}`;
  }

  next(by) {
    const at = this.shown.indexOf(this.current) + by;
    if (this.shown.length) this.choose(this.shown[(at + this.shown.length) % this.shown.length]);
    this.list.value = this.current;
  }

  choose(v) {
    this.current = v;
    const video = this.data.videos[v], level = video.level[this.settings.source];
    const candidates = video.classes.map((label, place) => place).filter((place) => !video.labels.length || video.labels.includes(video.classes[place]));
    this.place = candidates.reduce((a, b) => (level[b] > level[a] ? b : a), candidates[0]);
    this.title.textContent = video.id;
    this.classes.replaceChildren(...video.classes.map((label, place) => h("option", { value: place, selected: place === this.place }, `${this.data.classes[label]}${video.labels.includes(label) ? " (labelled)" : ""}`)));
    this.update();
  }

  // ---- detections ----

  thresholds() { return this.settings.values.theta_loc; }
  detect(v) {
    const video = this.data.videos[v], { source, values } = this.settings;
    const detections = Localize.detect(video, (place) => this.frames[v](source, place), source, values);
    return detections.filter((one) => !Localize.meets([one.from, one.to], video.ambiguous || []));
  }

  /** Updates the current video at once, and all videos after a short delay. */
  update() {
    const video = this.data.videos[this.current], label = video.classes[this.place], { source } = this.settings;
    const truth = (video.truth || []).filter((row) => row[2] === label).map((row) => [row[0], row[1]]);
    const detections = this.detect(this.current).filter((detection) => detection.label === label);
    const snippets = this.protocol === "snippets", same = (segment) => segment;
    const place = snippets ? Localize.positions : same, placeTruth = snippets ? Localize.onGrid : same;
    const taken = Localize.match(detections.map((detection) => place([detection.from, detection.to])), truth.map(placeTruth), this.alpha);
    detections.forEach((detection, i) => { detection.matched = taken[i] >= 0; });
    this.timeline.show({
      video, truth, active: source, detections, thresholds: [Math.min(...this.thresholds()), Math.max(...this.thresholds())],
      lanes: this.data.sources.map((key) => ({ source: key, column: this.frames[this.current](key, this.place) })),
    });
    this.tabulate(video, label, truth, detections);
    this.read(this.timeline.cursor);
    this.evaluateSoon();
  }

  tabulate(video, label, truth, detections) {
    const name = this.data.classes[label], looked = Localize.lookedFor(video, this.settings.source, this.settings.values).includes(this.place);
    const level = video.level[this.settings.source][this.place];
    const hit = detections.filter((detection) => detection.matched).length;
    const facts = `${name}: probability ${level.toFixed(3)}${looked ? "" : ", below the class threshold, not looked for"}. ${detections.length} detections${truth.length ? `, ${hit} of ${truth.length} instances matched at tIoU ${this.alpha}` : ""}.`;
    const rows = detections.slice(0, 100).map((detection, i) => [
      h("th", { scope: "row" }, h("button", { type: "button", class: "link", "aria-label": `Show detection ${i + 1} in the timeline`, click: () => { this.timeline.focusOn(detection.from, detection.to); this.timeline.canvas.focus(); } }, String(i + 1))),
      detection.from.toFixed(2), detection.to.toFixed(2), (detection.to - detection.from).toFixed(2), detection.score.toFixed(4), h("td", { class: "text" }, video.truth ? (detection.matched ? "matches" : "matches nothing") : "", video.file && [" ", h("a", { href: at(video.file, detection.from), target: "_blank", rel: "noopener" }, "video")]),
    ]);
    this.results.replaceChildren(h("p", { class: "note" }, facts), ...(rows.length ? [table(`Detections of ${name}, best first`, ["", "start (s)", "end (s)", "length (s)", "score", h("th", { class: "text", scope: "col" }, "")], rows, { class: "scroll clip" })] : []));
  }

  read(second) {
    const video = this.data.videos[this.current];
    if (second == null) {
      this.readout.textContent = "";
      this.link.hidden = true;
      return;
    }
    const t = Math.min(Math.max(Math.floor(Localize.position(video, second)), 0), video.length - 1);
    this.readout.textContent = `${second.toFixed(2)} s  ${this.data.sources.map((key) => `${SOURCES[key]} ${this.frames[this.current](key, this.place)[t].toFixed(3)}`).join("  ")}`;
    this.link.hidden = !video.file;
    if (video.file) {
      this.link.href = at(video.file, second);
      this.link.textContent = `open the video at ${second.toFixed(1)} s`;
    }
  }

  // ---- all videos ----

  /** Localises and evaluates all videos, in short slices so that the page stays responsive. */
  evaluateSoon(first = false) {
    clearTimeout(this.timer);
    this.measured = null;
    const all = [], { videos } = this.data;
    const slice = () => {
      const until = performance.now() + 12;
      while (all.length < videos.length && performance.now() < until) all.push(this.detect(all.length));
      if (all.length < videos.length) this.timer = setTimeout(slice, 0);
      else this.evaluated(all, first);
    };
    this.timer = setTimeout(slice, first ? 0 : 150);
  }

  evaluated(all, first) {
    const { videos, tiou } = this.data;
    this.measured = Localize.evaluate(videos, all, tiou, this.protocol) || { mean: null, perTiou: [] };
    this.quality = videos.map((video, v) => (video.truth?.length ? Localize.evaluate([video], [all[v]], [this.alpha], this.protocol).mean : null));
    const count = all.reduce((total, listed) => total + listed.length, 0), part = videos.length < this.data.of ? `the ${videos.length} of ${this.data.of} test videos in this page` : `all ${videos.length} test videos`;
    this.result.replaceChildren(...(this.measured.mean == null ? [] : [h("span", {}, h("b", {}, fixed(this.measured.mean)), " mAP, mean"), ...tiou.map((value, k) => h("span", {}, fixed(this.measured.perTiou[k]), h("small", {}, ` at ${value}`)))]), h("span", {}, `${count} detections in ${part}`));
    if (this.byName.value !== "random") this.sort();
    else this.fillList();
    if (first) this.choose(this.order[0]);
    this.list.value = this.current;
  }
}

/** The URL of a video file, starting at the given second. */
const at = (file, second) => `${file}#t=${Math.max(0, second).toFixed(2)}`;
