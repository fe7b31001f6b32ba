// The sections from the run folder and the analysis: table, classes, precision and recall, errors, training.

const kindOfRun = (i) => `c-${i % 6}`;
const sourcesOf = (runs) => Object.keys(SOURCES).filter((source) => runs.every((run) => run.analyses[source]));
const withVLP = (run) => run.rows.some((row) => row.branch !== "cbp" && row.branch !== "control");
const preferred = (runs) => {
  const sources = sourcesOf(runs);
  return sources[sources.length - 1];
};

/** An element with the content from render(again); a call of again() renders the content again. */
function live(render) {
  const box = h("div");
  const again = () => box.replaceChildren(...[render(again)].flat().filter(Boolean));
  again();
  return box;
}

// ---- the table of rows ----

function resultsSection(runs) {
  const localization = runs.every((run) => run.rows.every((row) => row.per_tiou));
  const dropped = runs.every((run) => run.rows.every((row) => row.ambiguous === "drop")) ? ", ambiguous dropped" : "";
  const what = localization ? `mAP (%) at tIoU, protocol “${runs[0].protocol}”${dropped}` : "video-level mAP (%): there is no temporal ground truth";
  const content = runs.length === 1 ? rowsTable(runs[0], localization, what) : comparisonTable(runs, localization, what);
  const ensemble = localization && runs.some(withVLP) ? " The ensemble needs CLIP features at inference; CBP alone does not." : "";
  return [h("p", { class: "note" }, `What each step of training buys, on the test videos.${ensemble}`), content];
}

function rowsTable(run, localization, what) {
  const tious = localization ? Object.keys(run.rows[0]?.per_tiou || {}) : [];
  const best = Math.max(...run.rows.map((row) => row.mean));
  const heads = ["", ...tious, localization ? "mean" : "mAP", ...(localization ? [] : ["proposals a video"]), h("th", { class: "text", scope: "col" }, h("span", { class: "gone" }, "mean as a bar"))];
  return table(`${what}, ${run.rows[0]?.videos ?? 0} videos`, heads, run.rows.map((row) => [
    row.name, ...tious.map((tiou) => fixed(row.per_tiou[tiou])), h("td", { class: row.mean === best ? "best" : "" }, fixed(row.mean)),
    ...(localization ? [] : [fixed(row.proposals_per_video)]), h("td", { class: "text" }, meter(row.mean / 100, row.branch)),
  ]));
}

function comparisonTable(runs, localization, what) {
  const names = [...new Set(runs.flatMap((run) => run.rows.map((row) => row.name)))];
  const tious = localization ? Object.keys(runs[0].rows[0]?.per_tiou || {}) : [];
  let at = "mean";
  return live((again) => {
    const value = (run, name) => {
      const row = run.rows.find((candidate) => candidate.name === name);
      return at === "mean" ? row?.mean : row?.per_tiou[at];
    };
    const rows = names.map((name) => [name, ...runs.flatMap((run, i) => {
      const own = value(run, name), first = value(runs[0], name);
      return [fixed(own), ...(i ? [difference(own, first)] : [])];
    })]);
    return [
      tious.length > 0 && h("div", { class: "controls" }, picker("tIoU", [["mean", "mean of all"], ...tious.map((tiou) => [tiou, tiou])], at, (chosen) => { at = chosen; again(); })),
      table(`${what}; differences are to ${runs[0].name}`, ["", ...runs.flatMap((run, i) => [run.name, ...(i ? ["difference"] : [])])], rows),
    ];
  });
}

function difference(own, first) {
  if (own == null || first == null) return "–";
  const by = own - first;
  return h("td", { class: Math.abs(by) < 0.05 ? "" : by > 0 ? "up" : "down" }, signed(by));
}

// ---- classes ----

function classesSection(runs) {
  const sources = sourcesOf(runs);
  if (!sources.length) return null;
  let source = preferred(runs);
  return live((again) => {
    const analyses = runs.map((run) => run.analyses[source]), first = analyses[0];
    const order = first.classes.map((name, c) => c).sort((a, b) => mean(first.ap[b]) - mean(first.ap[a]));
    const of = (analysis, name) => {
      const c = analysis.classes.indexOf(name);
      return c < 0 ? null : mean(analysis.ap[c]);
    };
    const heads = runs.length === 1
      ? ["class", "instances", ...first.tiou.map(String), "mean", h("th", { class: "text", scope: "col" }, h("span", { class: "gone" }, "mean as a bar"))]
      : ["class", "instances", ...runs.flatMap((run, i) => [run.name, ...(i ? ["difference"] : [])])];
    const rows = order.map((c) => {
      const name = first.classes[c];
      if (runs.length === 1) return [name, String(first.instances[c]), ...first.ap[c].map((value) => fixed(value)), fixed(mean(first.ap[c])), h("td", { class: "text" }, meter(mean(first.ap[c]) / 100, source))];
      return [name, String(first.instances[c]), ...analyses.flatMap((analysis, i) => [fixed(of(analysis, name)), ...(i ? [difference(of(analysis, name), of(first, name))] : [])])];
    });
    return [
      h("div", { class: "controls" }, picker("Detections of", sources.map((key) => [key, SOURCES[key]]), source, (chosen) => { source = chosen; again(); })),
      table("Average precision (%) of each class, best first", heads, rows, { class: "scroll clip" }),
    ];
  });
}

// ---- precision and recall ----

function precisionSection(runs) {
  const sources = sourcesOf(runs);
  if (!sources.length) return null;
  const first = runs[0].analyses[sources[0]];
  let tiou = first.alpha, label = "", source = preferred(runs);
  const curve = (analysis) => {
    const packed = (analysis.unpacked ??= Localize.unpack(analysis.precision)), points = packed.length / analysis.classes.length / analysis.tiou.length;
    const k = analysis.tiou.indexOf(tiou), labels = label === "" ? analysis.classes.map((name, c) => c) : [analysis.classes.indexOf(label)];
    if (k < 0 || labels[0] < 0) return [];
    return Array.from({ length: points }, (nothing, i) => [i / (points - 1), mean(labels.map((c) => packed[(c * analysis.tiou.length + k) * points + i]))]);
  };
  return live((again) => {
    const lines = runs.length === 1
      ? sources.map((key) => ({ name: SOURCES[key], kind: `c-${key}`, points: curve(runs[0].analyses[key]) }))
      : runs.map((run, i) => ({ name: run.name, kind: kindOfRun(i), points: curve(run.analyses[source]) }));
    const share = (value, exact) => (exact ? `${(100 * value).toFixed(1)}%` : `${Math.round(100 * value)}%`);
    return [
      h("div", { class: "controls" },
        picker("tIoU", first.tiou.map((value) => [value, String(value)]), tiou, (chosen) => { tiou = Number(chosen); again(); }),
        picker("Class", [["", "mean of all classes"], ...first.classes.map((name) => [name, name])], label, (chosen) => { label = chosen; again(); }),
        runs.length > 1 && picker("Detections of", sources.map((key) => [key, SOURCES[key]]), source, (chosen) => { source = chosen; again(); })),
      legend(lines.map((line) => [line.kind, line.name])),
      lineChart({
        title: `Precision over recall at tIoU ${tiou}, ${label || "mean of all classes"}`, series: lines, height: 300,
        x: { label: "recall", low: 0, high: 1, format: share }, y: { label: "precision", low: 0, high: 1, format: share },
      }),
      h("p", { class: "note" }, "Interpolated precision, as average precision uses it: the highest at any recall from there on."),
    ];
  });
}

// ---- errors ----

const EXPLAINED = {
  "double detection": "on an instance that a better detection took",
  "wrong label": "on an instance of another class",
  localization: "overlaps an instance of its class, too little",
  confusion: "overlaps an instance of another class, too little",
  background: "overlaps nothing",
};

function errorsSection(runs, kinds) {
  const sources = sourcesOf(runs);
  if (!sources.length) return null;
  let source = preferred(runs);
  return live((again) => {
    const analyses = runs.map((run) => run.analyses[source]), first = analyses[0];
    const most = Math.max(1, ...analyses.flatMap((analysis) => Object.values(analysis.gains)));
    const gains = table(`Points of mAP at tIoU ${first.alpha} that removing an error would bring`, ["error", ...(runs.length > 1 ? runs.map((run) => run.name) : [h("th", { class: "text", scope: "col" }, h("span", { class: "gone" }, "as a bar")), "mAP"])],
      kinds.slice(1).map((kind) => [
        h("th", { scope: "row", title: EXPLAINED[kind] }, kind),
        ...(runs.length > 1 ? analyses.map((analysis) => signed(analysis.gains[kind])) : [h("td", { class: "text" }, meter(first.gains[kind] / most)), signed(first.gains[kind])]),
      ]));
    const missed = (title, key) => table(title, ["", "instances", ...(runs.length > 1 ? runs.map((run) => run.name) : ["missed", h("th", { class: "text", scope: "col" }, h("span", { class: "gone" }, "as a bar"))])],
      first[key].map((bin, i) => [bin.name, String(bin.instances),
        ...(runs.length > 1 ? analyses.map((analysis) => share(analysis[key][i])) : [share(bin), h("td", { class: "text" }, meter(bin.instances ? bin.missed / bin.instances : 0, "miss"))])]));
    const share = (bin) => (bin && bin.instances ? `${Math.round((100 * bin.missed) / bin.instances)}%` : "–");
    return [
      h("div", { class: "controls" }, picker("Detections of", sources.map((key) => [key, SOURCES[key]]), source, (chosen) => { source = chosen; again(); })),
      h("p", { class: "note" }, `At tIoU ${first.alpha}, after DETAD (Alwassel et al., ECCV 2018). G is the number of instances of a detection's class: the first column holds the G best detections of each class, the second the next G, and so on.`),
      h("div", { class: "columns" },
        h("div", {}, h("h3", {}, runs.length > 1 ? `Detections by rank: ${runs[0].name}` : "Detections by rank"),
          legend(kinds.map((kind, k) => [`k-${k}`, kind])),
          stackedColumns({ title: "Share of each kind of detection, by rank", columns: first.byRank.map((values, r) => ({ name: `${r + 1}G`, values })), kinds, xLabel: "detections by score, in units of G" })),
        gains, missed("Instances that no detection was matched to, by length", "byLength"), missed("The same, by number of instances of the class in the video", "byCount")),
    ];
  });
}

// ---- training ----

function trainingSection(runs) {
  const withCurves = runs.filter((run) => Object.keys(run.curves).length);
  if (!withCurves.length) return null;
  const terms = [...new Set(withCurves.flatMap((run) => Object.values(run.curves).flatMap((stage) => Object.keys(stage))))];
  let term = terms[0];
  return live((again) => {
    const bands = [], lines = [];
    let end = 1;
    withCurves.forEach((run, i) => {
      let epoch = 0;
      for (const [stage, values] of Object.entries(run.curves)) {
        if (stage === "control") continue; // the control is no part of the schedule
        const length = Math.max(...Object.values(values).map((list) => list.length));
        lines.push({ name: runs.length > 1 ? run.name : stage, kind: kindOfRun(i), points: (values[term] || []).map((value, at) => [epoch + at + 1, value]) });
        if (i === 0) bands.push({ from: epoch + 0.5, to: epoch + length + 0.5, text: stage === "warmup" ? "warm-up" : stage });
        epoch += length;
      }
      end = Math.max(end, epoch);
    });
    const values = lines.flatMap((line) => line.points.map((point) => point[1]));
    const high = Math.max(...values, 1e-9);
    return [
      h("div", { class: "controls" }, picker("Loss term", terms.map((name) => [name, name]), term, (chosen) => { term = chosen; again(); })),
      runs.length > 1 && legend(withCurves.map((run, i) => [kindOfRun(i), run.name])),
      lineChart({
        title: `Training loss (${term}) over epochs`, series: lines, bands, height: 270,
        x: { label: "epoch", low: 0.5, high: end + 0.5, format: (value) => String(Math.round(value)) },
        y: { label: term, low: 0, high: 1.05 * high, format: (value, exact) => (exact ? value.toPrecision(4) : String(value)) },
      }),
      h("p", { class: "note" }, "Mean over the training videos in each epoch. Stages have different losses: a step between stages means nothing." + (runs.some(withVLP) ? " In B steps the VLP branch learns, in F steps the CBP branch." : "")),
    ];
  });
}

// ---- the run ----

function runsSection(runs) {
  const facts = runs.map((run) => ({ "data set": run.dataset, recipe: run.recipe, seed: run.seed, protocol: run.protocol, "ambiguous, here": run.ambiguous, ...run.versions }));
  const names = [...new Set(facts.flatMap((fact) => Object.keys(fact)))];
  const cells = (name) => {
    const values = facts.map((fact) => String(fact[name] ?? "none")), differ = new Set(values).size > 1;
    return values.map((value) => h("td", { class: differ ? "text best" : "text" }, value));
  };
  return table(runs.length > 1 ? "What the numbers depend on; differences are bold" : "What the numbers depend on",
    ["", ...runs.map((run) => h("th", { class: "text", scope: "col" }, runs.length > 1 ? run.name : "value"))], names.map((name) => [name, ...cells(name)]));
}
