// Controls for the localisation settings. `values` has the fields of wtal.settings.config.LocalizeConfig. A control changes a
// value only when the user moves it, so the run's own thresholds stay exact until then.

class Sliders {
  constructor(explorer, changed) {
    this.defaults = explorer.config;
    this.floor = explorer.floor;
    this.changed = changed;
    this.controls = [];
    const run = this.defaults;
    this.own = explorer.sources.includes(run.branch) ? run.branch : explorer.sources[0];
    this.source = this.own;
    this.values = structuredClone(run);
    const two = (value) => value.toFixed(2);
    this.element = h("fieldset", { class: "settings" }, h("legend", {}, "Localization, again in this page"),
      this.select("Scores of", "source", explorer.sources.map((key) => [key, SOURCES[key]]), () => this.source, (value) => { this.source = value; }),
      this.slider("Class threshold", "theta_cls", this.floor, 0.95, 0.01, two),
      this.slider("Lowest frame threshold", "lowest", 0.01, 0.99, 0.01, two, () => Math.min(...this.values.theta_loc), () => this.spread()),
      this.slider("Highest frame threshold", "highest", 0.01, 0.99, 0.01, two, () => Math.max(...this.values.theta_loc), () => this.spread()),
      this.slider("Number of thresholds", "number", 1, 20, 1, String, () => this.values.theta_loc.length, () => this.spread()),
      this.select("Proposal score", "score", [["max", "maximum inside"], ["mean", "mean inside"], ["oic", "outer-inner contrast"]]),
      this.select("Suppression", "nms", [["gaussian", "Gaussian soft-NMS"], ["linear", "linear soft-NMS"], ["hard", "hard NMS"]]),
      this.slider("Sigma (Gaussian)", "sigma", 0.02, 2, 0.02, two),
      this.slider("tIoU (linear, hard)", "iou_threshold", 0.05, 1, 0.05, two),
      this.slider("Lowest score", "min_score", 0, 0.3, 0.001, (value) => value.toFixed(3)),
      this.slider("Most a class and video", "max_detections", 1, 200, 1, String),
      h("div", {}, h("button", { type: "button", click: () => this.reset() }, "As the run")));
    this.show();
  }

  /** The thresholds from the three sliders, evenly spaced from the lowest to the highest. */
  spread() {
    const of = (name) => Number(this.controls.find((control) => control.name === name).input.value);
    const [low, high] = [of("lowest"), of("highest")].sort((a, b) => a - b), number = of("number");
    this.values.theta_loc = Array.from({ length: number }, (nothing, i) => Number((low + (number > 1 ? ((high - low) * i) / (number - 1) : 0)).toFixed(6)));
  }

  slider(label, name, min, max, step, format, read = () => this.values[name], write = (value) => { this.values[name] = value; }) {
    const output = h("output");
    const input = h("input", { type: "range", name, min, max, step, input: () => {
      write(Number(input.value));
      output.textContent = format(Number(input.value));
      this.changed();
    } });
    this.controls.push({ name, input, show: () => { input.value = read(); output.textContent = format(read()); } });
    return h("label", {}, label, output, input);
  }

  select(label, name, options, read = () => this.values[name], write = (value) => { this.values[name] = value; }) {
    const input = h("select", { name, change: () => { write(input.value); this.changed(); } }, options.map(([value, text]) => h("option", { value }, text)));
    this.controls.push({ name, input, show: () => { input.value = read(); } });
    return h("label", {}, label, input);
  }

  reset() {
    this.values = structuredClone(this.defaults);
    this.source = this.own;
    this.show();
    this.changed();
  }
  show() { for (const control of this.controls) control.show(); }
}
