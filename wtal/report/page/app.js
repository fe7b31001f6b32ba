// Builds the page from the payload.

(() => {
  const data = JSON.parse(document.getElementById("payload").textContent), { runs } = data;
  const main = document.getElementById("main"), links = document.getElementById("sections");

  const stored = { get: () => { try { return localStorage.getItem("wtal-theme"); } catch { return null; } }, set: (value) => { try { localStorage.setItem("wtal-theme", value); } catch { /* not kept */ } } };
  const button = document.getElementById("theme"), root = document.documentElement;
  const paint = (theme) => {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${theme === "dark" ? "light" : "dark"} colours`);
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  paint(stored.get() || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => { if (!stored.get()) paint(dark.matches ? "dark" : "light"); });

  const first = runs[0], count = first.rows[0]?.videos;
  main.append(h("h1", {}, runs.map((run) => run.name).join("  ·  ")),
    h("p", { class: "facts" }, runs.length === 1 ? `${first.dataset}, recipe ${first.recipe}, seed ${first.seed}${count ? `, ${count} test videos` : ""}` : `${runs.length} runs beside each other; differences are to the first`));
  if (new Set(runs.map((run) => `${run.dataset} ${run.rows[0]?.videos} ${run.protocol} ${run.rows[0]?.ambiguous}`)).size > 1) main.append(h("p", { class: "trouble" }, "These runs were not measured on the same videos by the same protocol: their numbers do not compare."));
  for (const run of runs) if (run.trouble) main.append(h("p", { class: "trouble" }, `${run.name}: ${run.trouble}`));

  const add = (id, title, content) => {
    const parts = [content].flat().filter(Boolean);
    if (!parts.length) return;
    links.append(h("a", { href: `#${id}` }, title));
    main.append(h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), parts));
  };
  if (runs.some((run) => run.rows.length)) add("results", "Results", resultsSection(runs));
  let explorer = null;
  if (data.explorer) {
    explorer = new Explorer(data.explorer, first);
    add("timeline", "Timeline", explorer.element);
  }
  add("errors", "Errors", errorsSection(runs, data.kinds));
  add("precision", "Precision and recall", precisionSection(runs));
  add("classes", "Classes", classesSection(runs));
  add("training", "Training", trainingSection(runs));
  add("run", runs.length > 1 ? "Runs" : "Run", runsSection(runs));
  document.getElementById("footer").textContent = `Made by wtal ${data.wtal}. Everything is in this file; it fetches nothing.${data.explorer ? " Scores are kept to 16 bits here, so a detection's score may differ from the run's in its last digits." : ""}`;

  button.addEventListener("click", () => {
    const theme = root.dataset.theme === "dark" ? "light" : "dark";
    stored.set(theme);
    paint(theme);
    explorer?.timeline.draw();
  });
  dark.addEventListener("change", () => explorer?.timeline.draw());

  /** The content of the page as values, for scripts and tests. */
  window.wtalReport = {
    payload: data,
    settings: () => ({ ...explorer.settings.values, source: explorer.settings.source }),
    detections: () => data.explorer.videos.map((video, v) => explorer.detect(v).map((one) => [one.label, one.start, one.end, one.score, one.from, one.to])),
    measured: () => explorer.measured,
    evaluate: (all) => Localize.evaluate(data.explorer.videos, all, data.explorer.tiou, first.protocol),
    exp: Localize.exp,
  };
})();
