// The explorer, in any shell. ask(request, body, signal) yields [header, buffer] messages.
import { magnitudes, messages, painted, ranks, reduced, regions, thresholded, weight } from "./maps.js";

const TEMPLATE = `
<header><h1>Explorer</h1><span data-is="model"></span>
 <label class="field">Image <select data-is="images"></select></label>
 <label class="button">Open…<input type="file" accept="image/*" data-is="file" class="unseen"></label></header>
<p class="error" role="alert" data-is="error" hidden></p>
<button type="button" class="drop" data-is="drop">Drop an image here, paste one, or choose a file</button>
<main data-is="main" hidden>
 <section class="panes" data-is="panes" aria-label="Maps"></section>
 <section class="side">
  <h2>Prediction</h2><p class="hint">Choose a class to explain it, “vs” for one class against another.</p>
  <ul class="classes" data-is="classes"></ul>
  <label class="field">Another class <input list="labels" data-is="other" placeholder="name or number"></label>
  <datalist id="labels" data-is="labels"></datalist>
  <h2>Map</h2>
  <label class="slider"><span>Kept</span><input type="range" min="0" max="100" step=".5" data-is="sparsity"><output></output></label>
  <label class="check"><input type="checkbox" data-is="fix"> fix the weight eta, not the fraction of zeros</label>
  <label class="slider"><span>rho</span><input type="range" min="-2" max="1" step=".05" data-is="rho"><output></output></label>
  <label class="slider"><span>sigma</span><input type="range" min="0" max=".5" step=".01" data-is="sigma"><output></output></label>
  <div class="row"><label class="field">Quality <select data-is="quality"></select></label>
   <label class="field">Seed <input type="number" min="0" step="1" data-is="seed"></label></div>
  <h2>Try it yourself</h2>
  <div class="row" role="group" aria-label="Pointer"><button type="button" data-tool="look">Look</button>
   <button type="button" data-tool="blur">Blur brush</button><button type="button" data-tool="mean">Grey brush</button>
   <button type="button" data-is="clear">Undo</button></div>
  <p class="hint" data-is="effect" aria-live="polite">Paint over the image: the probabilities answer.</p>
  <div class="row"><button type="button" data-is="measure">Delete and insert by rank</button>
   <select data-is="curve" aria-label="Curve" hidden><option>deletion</option><option>insertion</option></select></div>
  <div data-is="scrub" hidden><svg viewBox="-2 -4 104 58" data-is="chart" role="img"></svg>
   <label class="slider"><span>Replaced</span><input type="range" min="0" step="1" data-is="step"><output></output></label></div>
  <h2>Keep it</h2>
  <div class="row"><button type="button" data-save="png">PNG</button><button type="button" data-save="svg">SVG</button>
   <button type="button" data-save="npz">npz</button>
   <label class="field">Copy as <select data-is="recipe"><option value="command">command</option><option value="toml">TOML</option><option value="python">Python</option></select></label>
   <button type="button" data-is="copy">Copy</button></div>
  <pre tabindex="0" data-is="text"></pre>
 </section></main>`;
const PANE = `<div class="row"><label class="field">Method <select data-is="method"></select></label>
 <label class="field">View <select data-is="view"><option>overlay</option><option>signed</option><option value="heat">magnitude</option><option>masked</option><option>photo</option></select></label>
 <button type="button" data-is="compare"></button></div>
 <figure tabindex="0" data-is="figure" aria-label="Map: move the crosshair with the arrow keys"><canvas data-is="photo"></canvas><canvas data-is="map"></canvas><canvas data-is="marks"></canvas></figure>
 <p class="readout" data-is="readout" aria-live="polite"></p>
 <div class="progress"><div><i data-is="bar"></i></div><button type="button" data-is="stop">Stop</button></div>
 <p class="status" data-is="status" aria-live="polite"></p>`;
const WAIT = 300;  // milliseconds after the last change before a map is solved again
const KEPT = 3;  // powers of ten that the slider of kept entries spans

const finder = root => name => root.querySelector(`[data-is="${name}"]`);
const percent = v => v == null ? "?" : v > .9995 || v < .0005 ? `${(100 * v).toPrecision(2)} %` : `${+(100 * v).toPrecision(3)} %`;
const add = (parent, tag, text, given = {}) => {
  const made = Object.assign(document.createElement(tag), given);
  made.textContent = text;
  parent.append(made);
  return made;
};
const debounced = work => { let timer; return () => { clearTimeout(timer); timer = setTimeout(work, WAIT); }; };
const drawn = (canvas, pixels, width) => canvas.getContext("2d").putImageData(new ImageData(pixels, width), 0, 0);

/** Saves a blob, by the browser's own means. */
function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1e4);
}

/** A method's map of the image, with its crosshair. */
class Pane {
  constructor(explorer, method) {
    this.explorer = explorer;
    this.root = add(explorer.get("panes"), "article", "", { className: "pane" });
    this.root.innerHTML = PANE;
    this.get = finder(this.root);
    for (const [name, { summary }] of Object.entries(explorer.info.methods))
      add(this.get("method"), "option", name, { value: name, title: summary });
    this.get("method").value = method;
    this.get("method").onchange = () => { this.frame = null; explorer.fitted(); this.solve(); };
    this.get("view").onchange = () => this.draw();
    this.get("stop").onclick = () => this.stop();
    const figure = this.get("figure");
    figure.onpointermove = event => explorer.point(this, event);
    figure.onpointerdown = event => { figure.setPointerCapture(event.pointerId); explorer.point(this, event); };
    figure.onpointerup = () => explorer.painted();
    figure.onpointerleave = () => explorer.tool === "look" && explorer.look(null);
    figure.onkeydown = event => explorer.key(event);
  }

  get method() { return this.get("method").value; }

  stop() {
    this.abort?.abort();
    this.abort = null;
    this.get("stop").disabled = true;
    if (this.frame && !this.frame.done) this.status("stopped");
  }

  /** Solves again. behind: the old map stays until the new one is as good. */
  async solve(behind = false) {
    this.stop();
    const { explorer } = this, abort = this.abort = new AbortController(), old = this.frame;
    const state = this.state = { ...explorer.state, method: this.method };
    this.get("stop").disabled = false;
    this.root.setAttribute("aria-busy", "true");
    if (!old) this.status("computing the first map…");
    try {
      for await (const [header, buffer] of explorer.ask({ do: "explain", ...state }, null, abort.signal)) {
        if (abort !== this.abort) return;
        if (header.threshold) { this.recipes = header; explorer.recipe(); continue; }
        if (behind && old && !header.done && !(header.error <= old.error)) { this.status("solving again behind", header); continue; }
        this.show(header, buffer);
      }
      if (abort === this.abort) this.abort = null;
    } catch (error) {
      if (abort === this.abort) { this.status("failed"); explorer.fail(error); }
    }
    if (!this.abort) { this.get("stop").disabled = true; this.root.removeAttribute("aria-busy"); }
  }

  show(frame, buffer) {
    const size = this.explorer.shape.reduce((a, b) => a * b);
    frame.arrays.forEach((name, i) => { this[name] = new Float32Array(buffer, 4 * size * i, size); });
    if (!frame.arrays.includes("z")) this.z = null;
    this.rule = this.recipes.threshold;
    this.sorted = magnitudes(this.gradient, this.explorer.shape, this.rule);
    this.frame = frame;
    this.threshold();
    this.status("");
  }

  status(words, frame = this.frame) {
    const goal = this.explorer.info.qualities[this.explorer.state.quality];
    const known = frame && frame.error != null;
    const error = known ? `error about ${percent(frame.error)}${"rho" in this.has ? `, goal ${percent(goal)}` : ""}` : "";
    const count = frame ? `${frame.evaluations} evaluations, ${frame.seconds.toFixed(1)} s` : "";
    this.get("status").textContent = [words || frame?.status, frame?.done ? frame.remedy : error, count].filter(Boolean).join(" · ");
    this.get("status").classList.toggle("bad", !!frame?.failed);
    const done = frame?.done ? 1 : known ? Math.min(.98, Math.log(1 / Math.min(1, frame.error)) / Math.log(1 / goal)) : frame ? .1 : .02;
    this.get("bar").style.width = `${100 * done}%`;
    this.get("bar").className = frame?.done ? "done" : "";
  }

  get has() { return Object.fromEntries(this.explorer.info.methods[this.method].settings.map(name => [name, 1])); }

  /** The map of the averaged gradient at the slider's fraction of zeros. */
  threshold() {
    if (!this.frame) return;
    const { shape, state } = this.explorer;
    this.eta = this.rule.kind === "keep" && state.sparsity <= 0 ? 0 : weight(this.sorted, state.sparsity);
    this.map = thresholded(this.gradient, shape, this.rule, this.eta);
    this.values = reduced(this.map, shape, true);
    this.ranks = null;
    this.draw();
  }

  draw() {
    const [, height, width] = this.explorer.shape, view = this.get("view").value;
    this.get("figure").dataset.view = view;
    for (const name of ["photo", "map", "marks"])
      if (this.get(name).width !== width || this.get(name).height !== height) Object.assign(this.get(name), { width, height });
    this.get("photo").getContext("2d").drawImage(this.explorer.photo, 0, 0);
    if (this.map) drawn(this.get("map"), painted(this.map, this.explorer.shape, view, this.explorer.info.palettes), width);
    else this.get("map").getContext("2d").clearRect(0, 0, width, height);
    this.mark();
  }

  /** The crosshair, and the pixels that are replaced. */
  mark() {
    const { cross, replaced, shape: [, height, width] } = this.explorer;
    const context = this.get("marks").getContext("2d");
    context.clearRect(0, 0, width, height);
    if (replaced) context.putImageData(replaced, 0, 0);
    this.get("readout").textContent = "";
    if (!cross) return;
    context.fillStyle = "#0bf";
    context.fillRect(cross[0], 0, 1, height);
    context.fillRect(0, cross[1], width, 1);
    if (this.map) this.get("readout").textContent = this.read(cross[1] * width + cross[0]);
  }

  read(at) {
    this.ranks ??= ranks(reduced(this.map, this.explorer.shape, false));
    const value = this.values[at], size = this.values.length, z = this.z && this.certainty(at);
    const sign = value > 0 ? "raises the score" : value < 0 ? "lowers the score" : "zero in this map";
    const sure = z == null || Number.isNaN(z) ? "" : ` · ${z > 3 ? "certain" : z > 1.96 ? "fairly certain" : "uncertain"} (z ${z.toFixed(1)})`;
    return `${at % size % this.explorer.shape[2]}, ${Math.floor(at / this.explorer.shape[2])}: ${value.toPrecision(3)} · ${sign} · rank ${this.ranks[at] + 1} of ${size}${sure}`;
  }

  /** z of the place's largest entry. */
  certainty(at) {
    const size = this.values.length, channels = [...Array(this.explorer.shape[0]).keys()].map(c => c * size + at);
    return this.z[channels.reduce((a, b) => Math.abs(this.gradient[b]) > Math.abs(this.gradient[a]) ? b : a)];
  }

  composed(scale) {
    const [, height, width] = this.explorer.shape;
    const canvas = Object.assign(document.createElement("canvas"), { width: width * scale, height: height * scale });
    const context = canvas.getContext("2d");
    for (const name of ["photo", "map"]) {
      context.imageSmoothingEnabled = name === "photo";
      context.filter = name === "photo" && this.get("view").value === "overlay" ? "grayscale(1) brightness(.8)" : "none";
      context.drawImage(this.get(name), 0, 0, canvas.width, canvas.height);
    }
    return canvas;
  }
}

class Explorer {
  constructor(root, ask) {
    Object.assign(this, { root, tool: "look", panes: [], cross: null, replaced: null, state: {} });
    this.ask = (request, body, signal) => ask(request, body, signal);
    root.classList.add("explorer");
    root.innerHTML = TEMPLATE;
    this.get = finder(root);
  }

  async one(request, body) {
    for await (const message of this.ask(request, body, this.closed)) return message;
    throw new Error("no answer");
  }

  fail(error) {
    this.get("error").textContent = error?.message ?? String(error ?? "");
    this.get("error").hidden = !error;
  }

  async start() {
    [this.info] = await this.one({ do: "info" });
    this.get("model").textContent = this.info.model;
    for (const { id, name } of this.info.images) add(this.get("images"), "option", name, { value: id });
    this.info.labels.forEach(label => add(this.get("labels"), "option", label, { value: label }));
    Object.entries(this.info.qualities).forEach(([name, goal]) => add(this.get("quality"), "option", `${name} (${percent(goal)})`, { value: name }));
    this.state = { image: "", target: null, against: null, sparsity: .9, eta: null, rho: 1, sigma: .15, seed: 0, quality: "standard", ...this.info.state };
    const { method = "sparse-moreaugrad", ...state } = this.state;
    this.state = state;
    this.panes = [new Pane(this, method)];
    this.listen();
    this.fitted();
    if (this.info.images.length) await this.open({ image: this.info.images[0].id });
  }

  listen() {
    const on = (name, event, work) => this.get(name).addEventListener(event, work);
    on("images", "change", () => this.open({ image: this.get("images").value }));
    on("file", "change", event => this.read(event.target.files[0]));
    on("drop", "click", () => this.get("file").click());
    this.root.addEventListener("dragover", event => event.preventDefault());
    this.root.addEventListener("drop", event => { event.preventDefault(); this.read(event.dataTransfer.files[0]); });
    this.root.ownerDocument.addEventListener("paste", event => this.root.isConnected && this.read(event.clipboardData.files[0]));
    const again = debounced(() => this.solve()), behind = debounced(() => this.solve(true));
    const { state } = this, solved = { rho: v => +(10 ** v).toPrecision(2), sigma: Number };
    this.get("sparsity").value = -100 / KEPT * Math.log10(1 - state.sparsity);
    this.get("rho").value = Math.log10(state.rho);
    for (const name of ["sigma", "quality", "seed"]) this.get(name).value = state[name];
    on("sparsity", "input", event => {
      state.sparsity = +(1 - 10 ** (-KEPT * event.target.value / 100)).toPrecision(4);
      this.panes.forEach(pane => pane.threshold());
      this.fix();
      if (this.panes.some(pane => pane.rule?.kind !== "keep")) behind();
    });
    on("fix", "change", () => { this.fix(); behind(); });
    for (const [name, value] of Object.entries(solved))
      on(name, "input", event => { state[name] = value(event.target.value); this.labels(); again(); });
    on("quality", "change", event => { state.quality = event.target.value; again(); });
    on("seed", "change", event => { state.seed = Math.max(0, Math.trunc(event.target.value) || 0); again(); });
    on("other", "change", event => this.other(event.target));
    this.root.querySelectorAll("[data-tool]").forEach(button => { button.onclick = () => this.use(button.dataset.tool); });
    on("clear", "click", () => this.clear());
    on("measure", "click", () => this.measure().catch(error => this.fail(error)));
    on("step", "input", () => this.scrub());
    on("curve", "change", () => this.scrub());
    this.root.querySelectorAll("[data-save]").forEach(button => { button.onclick = () => this.save(button.dataset.save).catch(error => this.fail(error)); });
    on("recipe", "change", () => this.recipe());
    on("copy", "click", async () => {
      getSelection().selectAllChildren(this.get("text"));
      await navigator.clipboard?.writeText(this.get("text").textContent).catch(() => null);
    });
    this.use("look");
  }

  read(file) {
    if (file) this.open({ name: file.name }, file);
  }

  async open(asked, body) {
    try {
      this.panes.forEach(pane => { pane.stop(); pane.frame = pane.map = null; });
      const [found, png] = await this.one({ do: "open", ...asked }, body);
      this.photo = await createImageBitmap(new Blob([png], { type: "image/png" }));
      Object.assign(this.state, { image: found.image, target: null, against: null });
      Object.assign(this, { shape: found.shape, classes: found.classes, name: found.name });
      const known = [...this.get("images").options].some(one => one.value === found.image);
      if (!known) add(this.get("images"), "option", found.name, { value: found.image });
      this.get("images").value = found.image;
      this.get("drop").hidden = true;
      this.get("main").hidden = false;
      this.fail(null);
      this.clear();
      this.bars();
      this.panes.forEach(pane => pane.draw());
      this.solve();
    } catch (error) { this.fail(error); }
  }

  solve(behind = false) {
    if (!this.shape) return;
    this.get("scrub").hidden = this.get("curve").hidden = true;
    this.panes.forEach(pane => pane.solve(behind));
  }

  /** A weight that is fixed is the one of the slider. */
  fix() {
    const [{ eta }] = this.panes;
    this.state.eta = this.get("fix").checked && eta ? +eta.toPrecision(4) : null;
    this.labels();
  }

  labels() {
    const label = (name, text) => { this.get(name).parentElement.querySelector("output").textContent = text; };
    label("sparsity", `${percent(1 - this.state.sparsity)}${this.state.eta == null ? "" : ` (eta ${this.state.eta})`}`);
    label("rho", this.state.rho);
    label("sigma", this.state.sigma || "0 (none)");
  }

  /** Which settings the methods have, and the button that adds or removes a pane. */
  fitted() {
    for (const [name, of] of [["rho", "rho"], ["sigma", "sigma"], ["fix", "eta"], ["quality", "tolerance"], ["seed", "seed"]])
      this.get(name).disabled = !this.panes.some(pane => of in pane.has);
    this.get("panes").classList.toggle("two", this.panes.length > 1);
    this.panes.forEach((pane, i) => {
      const button = pane.get("compare");
      button.textContent = i ? "Close" : "Compare";
      button.hidden = !i && this.panes.length > 1;
      button.onclick = () => {
        if (i) { pane.stop(); pane.root.remove(); this.panes.pop(); }
        else { this.panes.push(new Pane(this, pane.method === "smoothgrad" ? "sparse-moreaugrad" : "smoothgrad")); this.panes[1].draw(); this.panes[1].solve(); }
        this.fitted();
      };
    });
    this.labels();
  }

  bars() {
    const list = this.get("classes"), focused = [...list.querySelectorAll("button")].indexOf(list.getRootNode().activeElement);
    list.replaceChildren();
    const target = this.state.target ?? this.classes[0]?.class;
    this.classes.forEach((one, i) => {
      const row = add(list, "li", ""), bar = add(row, "button", "", { className: "class", type: "button" });
      bar.setAttribute("aria-pressed", one.class === target);
      add(bar, "span", one.label);
      add(bar, "b", this.edited ? `${percent(one.probability)} → ${percent(this.edited[i])}` : percent(one.probability));
      const share = this.edited ? this.edited[i] : one.probability;
      add(bar, "i", "").style.width = `${100 * (share ?? 0)}%`;
      if (this.edited) Object.assign(add(bar, "i", "", { className: "before" }).style, { width: `${100 * one.probability}%` });
      bar.onclick = event => event.shiftKey ? this.explain(target, one.class) : this.explain(one.class, null);
      const rival = add(row, "button", "vs", { className: "vs", type: "button", disabled: one.class === target });
      rival.setAttribute("aria-pressed", one.class === this.state.against);
      rival.setAttribute("aria-label", `Explain the target against ${one.label}`);
      rival.onclick = () => this.explain(target, one.class === this.state.against ? null : one.class);
    });
    list.querySelectorAll("button")[focused]?.focus();
  }

  explain(target, against) {
    if (target === against) return;
    Object.assign(this.state, { target, against });
    this.panes.forEach(pane => { pane.frame = null; });
    this.bars();
    this.solve();
  }

  async other(input) {
    const text = input.value.trim(), found = this.info.labels.indexOf(text);
    const index = found >= 0 ? found : /^\d+$/.test(text) ? +text : -1;
    if (!text) return;
    if (index < 0) return this.fail(new Error(`there is no class ${text}`));
    this.fail(null);
    input.value = "";
    if (!this.classes.some(one => one.class === index)) {
      const [{ probabilities }] = await this.one({ do: "edit", image: this.state.image, how: "blur", classes: [index] }, new Uint8Array(this.shape[1] * this.shape[2]));
      this.classes.push({ class: index, label: this.info.labels[index] ?? `class ${index}`, probability: probabilities[0] });
    }
    this.explain(index, null);
  }

  use(tool) {
    this.tool = tool;
    this.root.querySelectorAll("[data-tool]").forEach(button => button.setAttribute("aria-pressed", button.dataset.tool === tool));
    if (this.mask) this.clear();
  }

  clear() {
    Object.assign(this, { mask: null, replaced: null, edited: null });
    this.get("effect").textContent = "Paint over the image: the probabilities answer.";
    if (this.classes) this.bars();
    this.panes.forEach(pane => pane.get("marks").width && pane.mark());
  }

  point(pane, event) {
    const box = pane.get("figure").getBoundingClientRect(), [, height, width] = this.shape;
    const at = (value, start, length, count) => Math.max(0, Math.min(count - 1, Math.floor((value - start) / length * count)));
    this.look([at(event.clientX, box.left, box.width, width), at(event.clientY, box.top, box.height, height)]);
    if (event.buttons && this.tool !== "look") this.brush();
  }

  look(cross) {
    this.cross = cross;
    this.panes.forEach(pane => pane.mark());
  }

  key(event) {
    const step = event.shiftKey ? 10 : 1, [, height, width] = this.shape;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    const [x, y] = this.cross ?? [width >> 1, height >> 1];
    if (moves) this.look([Math.max(0, Math.min(width - 1, x + moves[0])), Math.max(0, Math.min(height - 1, y + moves[1]))]);
    else if (event.key === " " && this.tool !== "look") { this.cross ??= [x, y]; this.brush(); this.painted(); }
    else if (event.key === "Escape") this.look(null);
    else return;
    event.preventDefault();
  }

  brush() {
    const [, height, width] = this.shape, [x, y] = this.cross, radius = Math.max(2, width / 14);
    this.mask ??= new Uint8Array(height * width);
    for (let row = Math.max(0, Math.ceil(y - radius)); row <= Math.min(height - 1, y + radius); row++)
      for (let column = Math.max(0, Math.ceil(x - radius)); column <= Math.min(width - 1, x + radius); column++)
        if ((row - y) ** 2 + (column - x) ** 2 <= radius ** 2) this.mask[row * width + column] = 1;
    this.replace(this.tool, i => this.mask[i]);
  }

  /** Shows the pixels where `which` says so as they are replaced. */
  replace(how, which) {
    const [, height, width] = this.shape, small = 12;
    const make = (w, h) => Object.assign(document.createElement("canvas"), { width: w, height: h });
    const tiny = make(Math.ceil(width / small), Math.ceil(height / small)), large = make(width, height);
    tiny.getContext("2d").drawImage(this.photo, 0, 0, tiny.width, tiny.height);
    const context = large.getContext("2d");
    if (how === "blur") context.drawImage(tiny, 0, 0, width, height);
    else { context.fillStyle = "#7c746a"; context.fillRect(0, 0, width, height); }
    this.replaced = context.getImageData(0, 0, width, height);
    for (let i = 0; i < height * width; i++) this.replaced.data[4 * i + 3] = which(i) ? 255 : 0;
    this.panes.forEach(pane => pane.mark());
  }

  async painted() {
    if (!this.mask || this.tool === "look") return;
    try {
      const classes = this.classes.map(one => one.class), { mask } = this;
      const [{ probabilities, top: [top] }] = await this.one({ do: "edit", image: this.state.image, how: this.tool, classes }, mask);
      if (mask !== this.mask) return;
      this.edited = probabilities;
      this.get("effect").textContent = `Now ${top.label}: ${percent(top.probability)}.`;
      this.bars();
    } catch (error) { this.fail(error); }
  }

  async measure() {
    const [pane] = this.panes;
    if (!pane.map) return;
    this.clear();
    this.get("measure").disabled = true;
    try {
      [this.found] = await this.one({ do: "curves", image: this.state.image, target: pane.frame.target }, pane.map);
    } finally { this.get("measure").disabled = false; }
    this.order = regions(reduced(pane.map, this.shape, false), this.shape, this.found.size);
    Object.assign(this.get("step"), { max: this.found.deletion.length - 1, value: 3 });
    this.get("scrub").hidden = this.get("curve").hidden = false;
    this.scrub();
  }

  scrub() {
    const name = this.get("curve").value, curve = this.found[name], step = +this.get("step").value, last = curve.length - 1;
    const chart = this.get("chart"), deleted = name === "deletion", of = `http://www.w3.org/2000/svg`;
    chart.replaceChildren();
    const draw = (tag, given) => {
      const made = document.createElementNS(of, tag);
      Object.entries(given).forEach(([key, value]) => made.setAttribute(key, value));
      chart.append(made);
    };
    draw("path", { d: `M0 50 ${curve.map((v, i) => `L${100 * i / last} ${50 - 50 * v}`).join(" ")} L100 50Z`, class: "area" });
    draw("circle", { cx: 100 * step / last, cy: 50 - 50 * curve[step], r: 2.2 });
    chart.setAttribute("aria-label", `${name} curve`);
    const words = `${percent(step / last)} ${deleted ? "deleted" : "inserted"}: probability ${percent(curve[step])}`;
    this.get("step").parentElement.querySelector("output").textContent = percent(step / last);
    this.get("effect").textContent = `${words}; area ${this.found[`${name} area`].toFixed(3)} (${deleted ? "low" : "high"} for a faithful map).`;
    const count = step / last * this.order.length;
    this.replace(deleted ? "mean" : "blur", i => (this.order[i] < count) === deleted);
  }

  recipe() {
    this.get("text").textContent = this.panes[0].recipes?.[this.get("recipe").value] ?? "";
  }

  async save(kind) {
    const [pane] = this.panes, { shape } = this, name = (this.name || "map").replace(/\.\w+$|[^\w. -]/g, "") || "map";
    if (!pane.map) return;
    const canvas = pane.composed(3);
    if (kind === "png") canvas.toBlob(blob => save(blob, `${name}.png`));
    else if (kind === "svg") {
      const escaped = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt()};`), { width, height } = canvas;
      const text = `${this.name}: ${pane.method}, ${this.label(pane.frame.target)}, ${pane.get("status").textContent}`;
      save(new Blob([`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height + 30}" font-family="sans-serif" font-size="13"><image width="${width}" height="${height}" href="${canvas.toDataURL()}"/><text x="4" y="${height + 20}">${escaped(text)}</text></svg>`], { type: "image/svg+xml" }), `${name}.svg`);
    } else {
      const arrays = ["map", "gradient", "z"].filter(one => pane[one]), size = shape.reduce((a, b) => a * b);
      const body = new Float32Array(arrays.length * size);
      arrays.forEach((one, i) => body.set(pane[one].map(v => Number.isFinite(v) ? v : 0), i * size));
      const [, file] = await this.one({ do: "arrays", arrays, state: pane.state }, body);
      save(new Blob([file]), `${name}.npz`);
    }
  }

  label(index) { return this.info.labels[index] ?? `class ${index}`; }
}

export function mount(root, ask) {
  const explorer = new Explorer(root, ask);
  explorer.start().catch(error => explorer.fail(error));
  return explorer;
}
export { messages };
