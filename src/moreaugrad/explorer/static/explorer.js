// The explorer, in any shell. ask(request, body, signal) yields messages, [header, buffer].
import { magnitudes, overlap, painted, ranks, reduced, regions, thresholded, weight } from "./maps.js";

// Milliseconds after the last change before a map is solved again; decades that the slider of sparsity
// spans; likeliest classes that are shown.
const WAIT = 300, DECADES = 3, CLASSES = 8;

const finder = root => name => root.querySelector(`[data-is="${name}"]`);
const percent = v => v == null ? "?" : v > .9995 && v < 1 ? "> 99.9 %" : v > 0 && v < 1e-4 ? "< 0.01 %" : `${+(100 * v).toPrecision(3)} %`;
const clamp = (v, most) => Math.max(0, Math.min(most, v));
const sized = (canvas, width, height) => canvas.width === width && canvas.height === height ? canvas : Object.assign(canvas, { width, height });
const decoded = png => createImageBitmap(new Blob([png], { type: "image/png" }));
const canvas = (width, height) => sized(document.createElement("canvas"), width, height);
const add = (parent, tag, text, given = {}) => {
  const made = parent.appendChild(document.createElement(tag));
  made.textContent = text;
  return Object.assign(made, given);
};

/** What the server has drawn. Its styles are set by the script: the page's policy allows no others. */
const put = (root, html) => {
  root.innerHTML = html.replace(/ (?=style=")/g, " data-");
  root.querySelectorAll("[data-style]").forEach(part => { part.style.cssText = part.dataset.style; });
};

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1e4);
}

/** A method's map of the image, with its crosshair. */
class Pane {
  constructor(explorer, method) {
    this.explorer = explorer;
    this.root = explorer.get("panes").appendChild(explorer.get("pane").content.firstElementChild.cloneNode(true));
    this.get = finder(this.root);
    for (const [name, { summary }] of Object.entries(explorer.info.methods))
      add(this.get("method"), "option", name, { value: name, title: summary });
    this.get("method").value = method;
    this.get("method").onchange = () => { this.frame = null; explorer.fit(); this.solve(); };
    this.get("view").onchange = () => this.draw();
    this.get("stop").onclick = () => this.stop();
    const figure = this.get("figure"), move = event => explorer.point(figure, event);
    Object.assign(figure, {
      onpointermove: move, onpointerdown: move, onpointerup: () => explorer.painted().catch(error => explorer.fail(error)), onkeydown: event => explorer.key(event),
      onpointerleave: () => explorer.tool === "look" && explorer.look(null),
    });
  }

  get method() { return this.get("method").value; }

  has(setting) { return this.explorer.info.methods[this.method].settings.includes(setting); }

  stop(next = null) {
    this.abort?.abort();
    this.abort = next;
    this.get("stop").disabled = !next;
    this.root.setAttribute("aria-busy", !!next);
    if (!next && this.frame && !this.frame.done) this.status("stopped");
  }

  /** Solves again. behind: the old map stays until the new one is as good. */
  async solve(behind = false) {
    const { explorer, frame: old } = this, abort = new AbortController();
    this.stop(abort);
    this.state = { ...explorer.state, ...this.attacked && { image: this.attacked.image }, method: this.method };
    this.status(old ? "solving again…" : "computing the first map…", null);
    try {
      for await (const [header, buffer] of explorer.ask({ do: "explain", ...this.state }, null, abort.signal)) {
        if (abort !== this.abort) return;
        if (header.threshold) this.recipes = header;
        else if (!behind || !old || header.done || header.error <= old.error) this.show(header, buffer);
        else this.status("solving again in the background", header);
        explorer.recipe();
      }
    } catch (error) {
      if (abort === this.abort) { this.status("failed"); explorer.fail(error); }
    }
    if (abort === this.abort) this.stop();
  }

  show(frame, buffer) {
    if (this.explorer.drawn) {
      Object.assign(this, { frame, drawn: new TextDecoder().decode(buffer), eta: frame.eta }).draw();
      return this.status();
    }
    const size = this.explorer.shape.reduce((a, b) => a * b);
    this.z = null;
    frame.arrays.forEach((name, i) => { this[name] = new Float32Array(buffer, 4 * size * i, size); });
    const rule = this.recipes.threshold, sorted = magnitudes(this.gradient, this.explorer.shape, rule);
    Object.assign(this, { frame, rule, sorted });
    this.threshold();
    this.status();
  }

  status(words, frame = this.frame) {
    const goal = this.explorer.info.qualities[this.explorer.state.quality], known = frame?.error != null, bar = this.get("bar");
    const error = known && `error about ${percent(frame.error)}${this.has("rho") ? `, goal ${percent(goal)}` : ""}`;
    const cost = frame && `${frame.evaluations} evaluations in ${frame.seconds.toFixed(1)} s`;
    this.get("status").textContent = [words || frame?.status, frame?.done ? frame.remedy : error, cost].filter(Boolean).join(" · ");
    this.get("status").classList.toggle("bad", !!frame?.failed);
    const part = known ? Math.log(Math.min(1, frame.error)) / Math.log(goal) : frame ? .1 : .02;
    bar.style.width = `${100 * (frame?.done ? 1 : Math.min(.98, part))}%`;
    bar.className = frame?.done ? "done" : "";
  }

  /** The map of the averaged gradient at the slider's fraction of zeros. */
  threshold() {
    if (!this.sorted || !this.frame) return;
    this.eta = weight(this.sorted, this.explorer.state.sparsity);
    Object.assign(this, { map: thresholded(this.gradient, this.explorer.shape, this.rule, this.eta), ranks: null });
    this.draw();
    this.explorer.compared();
  }

  draw() {
    if (this.explorer.drawn) return put(this.get("drawn"), this.frame ? this.drawn : this.explorer.photo);
    const { shape, info: { palettes } } = this.explorer, photo = this.attacked?.photo ?? this.explorer.photo, view = this.frame ? this.get("view").value : "photo";
    const [below, above] = ["photo", "map", "marks"].map(name => sized(this.get(name), shape[2], shape[1]).getContext("2d"));
    this.get("figure").dataset.view = view;
    below.drawImage(photo, 0, 0);
    if (!this.frame) above.clearRect(0, 0, shape[2], shape[1]);
    else above.putImageData(new ImageData(painted(this.map, shape, view, palettes), shape[2]), 0, 0);
    this.mark();
  }

  /** The crosshair, and the pixels that are replaced. */
  mark() {
    if (this.explorer.drawn) return;
    const { cross, replaced, shape: [, height, width] } = this.explorer;
    const context = Object.assign(this.get("marks").getContext("2d"), { fillStyle: "#0bf" });
    context.clearRect(0, 0, width, height);
    if (replaced) context.putImageData(replaced, 0, 0);
    if (cross) [[cross[0], 0, 1, height], [0, cross[1], width, 1]].forEach(box => context.fillRect(...box));
    this.get("readout").textContent = cross && this.frame ? this.read(...cross) : "";
  }

  ranked() { return this.ranks ??= [true, false].map(signed => reduced(this.map, this.explorer.shape, signed)).map((of, i) => i ? ranks(of) : of); }

  read(x, y) {
    const { shape: [channels, height, width] } = this.explorer, at = y * width + x, size = height * width;
    const [values, order] = this.ranked(), value = values[at], places = [...Array(channels).keys()].map(c => c * size + at);
    const z = this.z?.[places.reduce((a, b) => Math.abs(this.gradient[b]) > Math.abs(this.gradient[a]) ? b : a)];
    const sure = z >= 0 ? ` · ${z > 3 ? "certain" : z > 1.96 ? "likely" : "uncertain"} (z = ${z.toFixed(1)})` : "";
    const words = value ? `${value.toPrecision(3)} ${value > 0 ? "raises" : "lowers"} the score · rank ${order[at] + 1} of ${size}` : "zero in this map";
    return `(${x}, ${y}) ${words}${sure}`;
  }

  composed(scale) {
    const { width, height } = this.get("photo"), made = canvas(scale * width, scale * height), context = made.getContext("2d");
    for (const name of ["photo", "map"]) {
      context.imageSmoothingEnabled = name === "photo";
      context.filter = name === "photo" ? getComputedStyle(this.get(name)).filter : "none";
      context.drawImage(this.get(name), 0, 0, made.width, made.height);
    }
    return made;
  }
}

class Explorer {
  constructor(root, ask) {
    Object.assign(this, { root, ask, get: finder(root), tool: "look", panes: [], cross: null, replaced: null });
  }

  async one(request, body) {
    for await (const message of this.ask(request, body)) return message;
  }

  fail(error) {
    this.get("error").textContent = error?.message ?? "";
    this.get("error").hidden = !error;
  }

  label(index) { return this.info.labels[index] ?? `class ${index}`; }

  async start() {
    [this.info] = await this.one({ do: "info" });
    const { images, kind, labels, qualities, state } = this.info;
    Object.assign(this, { drawn: kind !== "images" }).root.dataset.kind = kind;
    this.get("model").textContent = this.info.model;
    images.forEach(({ id, name }) => add(this.get("images"), "option", name, { value: id }));
    labels.forEach(value => add(this.get("labels"), "option", value, { value }));
    for (const [value, goal] of Object.entries(qualities)) add(this.get("quality"), "option", `${value} (${percent(goal)})`, { value });
    Object.assign(this, { state }).panes = [new Pane(this, state.method)];
    this.listen();
    this.fit();
    this.get("drop").hidden = this.drawn || images.length > 0;
    if (images.length) await this.open({ image: images[0].id, target: state.target });
  }

  listen() {
    const { state, root } = this, each = (which, work) => root.querySelectorAll(which).forEach(work);
    const on = (name, event, work) => this.get(name).addEventListener(event, async given => {
      try { await work(given.target); } catch (error) { this.fail(error); }
    });
    const later = behind => { clearTimeout(this.timer); this.timer = setTimeout(() => this.solve(behind), WAIT); };
    const clicked = { drop: () => this.get("file").click(), clear: () => this.clear(), measure: () => this.measure() };
    for (const [name, work] of Object.entries(clicked)) on(name, "click", work);
    on("images", "change", ({ value }) => this.open({ image: value }));
    on("file", "change", ({ files }) => this.upload(files));
    on("typed", "change", ({ value }) => value.trim() && this.open({ name: value }, value));
    root.ondragover = event => event.preventDefault();
    root.ondrop = event => { event.preventDefault(); this.upload(event.dataTransfer.files); };
    root.ownerDocument.addEventListener("paste", event => root.isConnected && this.upload(event.clipboardData.files));
    const begin = { ...state, sparsity: -100 / DECADES * Math.log10(1 - state.sparsity), rho: Math.log10(state.rho) };
    this.get("fix").checked = state.eta != null;
    for (const name of ["sparsity", "rho", "sigma", "quality", "seed"]) this.get(name).value = begin[name];
    on("sparsity", "input", ({ value }) => {
      state.sparsity = +(1 - 10 ** (-DECADES * value / 100)).toPrecision(4);
      this.panes.forEach(pane => pane.threshold());
      this.fix();
      if (this.panes.some(pane => pane.rule?.kind !== "keep")) later(!this.drawn);
    });
    on("fix", "change", () => { this.fix(); later(true); });
    for (const [name, read] of [["rho", v => +(10 ** v).toPrecision(2)], ["sigma", Number], ["quality", String], ["seed", v => clamp(Math.trunc(v) || 0, 2 ** 31)]])
      on(name, "input", ({ value }) => { state[name] = read(value); this.labels(); later(false); });
    on("budget", "change", ({ value }) => this.attack(+value).catch(error => this.fail(error)).finally(() => this.compared()));
    on("other", "change", input => this.other(input));
    each("[data-tool]", button => { button.onclick = () => this.use(button.dataset.tool); });
    for (const name of ["step", "curve"]) on(name, "input", () => this.scrub());
    each("[data-save]", button => { button.onclick = () => this.save(button.dataset.save).catch(error => this.fail(error)); });
    on("recipe", "change", () => this.recipe());
    on("copy", "click", () => {
      getSelection().selectAllChildren(this.get("text"));
      return navigator.clipboard?.writeText(this.get("text").textContent);
    });
    this.use("look");
  }

  upload([file]) { return file && !this.drawn && this.open({ name: file.name }, file).catch(error => this.fail(error)); }

  async open({ target = null, ...asked }, body) {
    this.panes.forEach(pane => { pane.stop(); pane.frame = pane.attacked = null; });
    const [found, png] = await this.one({ do: "open", ...asked }, body), list = this.get("images");
    this.photo = this.drawn ? new TextDecoder().decode(png) : await decoded(png);
    Object.assign(this.info.labels, found.names);
    Object.assign(this, found).state.image = found.image;
    this.classes = Object.keys(found.probabilities).map(Number).sort((a, b) => found.probabilities[b] - found.probabilities[a]);
    this.shown = this.classes.slice(0, CLASSES);
    if (![...list.options].some(one => one.value === found.image)) add(list, "option", found.name, { value: found.image });
    list.value = found.image;
    this.get("drop").hidden = !(this.get("main").hidden = false);
    this.fail(null);
    this.clear();
    this.panes.forEach(pane => pane.draw());
    this.explain(target, null);
  }

  solve(behind = false) {
    this.get("scrub").hidden = this.get("curve").hidden = true;
    if (this.shape) this.panes.forEach(pane => pane.solve(behind));
  }

  /** A fixed weight is the one of the slider. */
  fix() {
    const [{ eta }] = this.panes;
    this.state.eta = this.get("fix").checked && eta ? +eta.toPrecision(4) : null;
    this.labels();
  }

  labels() {
    const texts = { sparsity: percent(this.state.sparsity), rho: this.state.rho, sigma: this.state.sigma || "0 (none)" };
    for (const [name, text] of Object.entries(texts)) this.get(name).parentElement.querySelector("output").textContent = text;
    this.get("eta").textContent = this.state.eta ?? "";
  }

  /** Which settings the methods have, and the button that adds or removes a pane. */
  fit() {
    for (const [name, of] of Object.entries({ rho: "rho", sigma: "sigma", fix: "eta", quality: "tolerance", seed: "seed", ...this.drawn && { sparsity: "sparsity" } }))
      this.get(name).disabled = !this.panes.some(pane => pane.has(of));
    this.get("panes").classList.toggle("two", this.panes.length > 1);
    this.panes.forEach((pane, i) => Object.assign(pane.get("compare"), {
      textContent: i ? "Close" : "Compare", hidden: !i && this.panes.length > 1, onclick: () => this.compare(),
    }));
    this.labels();
  }

  /** Opens a second pane, or closes it. */
  compare(method) {
    const [first, second] = this.panes, made = second ? this.panes.pop() : new Pane(this, method ?? (first.method === "smoothgrad" ? "sparse-moreaugrad" : "smoothgrad"));
    made.stop();
    if (second) made.root.remove();
    else { this.panes.push(made); made.draw(); made.solve(); }
    this.fit();
  }

  /** The second pane: the map of the image when each pixel has changed by at most `budget` of 255. */
  async attack(budget) {
    if (!this.panes[1]) this.compare(this.panes[0].method);
    const { state: { image }, panes: [first, second] } = this, target = this.state.target ?? this.classes[0], asked = this.asked = {};
    this.get("budget").nextElementSibling.textContent = budget;
    this.get("attacked").textContent = "searching…";
    const [found, png] = await this.one({ do: "attack", image, target, budget }), photo = await decoded(png);
    if (asked !== this.asked || second !== this.panes[1]) return;
    const words = `${this.label(target)} ${percent(this.probabilities[target])} → ${percent(found.probabilities[target])}.`;
    Object.assign(second, { attacked: { photo, words, image: found.image }, frame: null }).get("method").value = first.method;
    second.draw();
    second.solve();
  }

  compared() {
    const [first, second] = this.panes, words = second?.attacked?.words ?? "Changes the image a little: the class stays, and the gradient moves.";
    const same = second?.attacked && first.frame && second.frame && overlap(first.ranked()[1], second.ranked()[1]);
    this.get("attacked").textContent = words + (same == null ? "" : ` Of the largest tenth of the pixels ${percent(same)} are the same.`);
  }

  bars() {
    const list = this.get("classes"), { edited, state, probabilities } = this, target = state.target ?? this.classes[0];
    const focused = [...list.querySelectorAll("button")].indexOf(list.getRootNode().activeElement);
    list.replaceChildren();
    for (const index of this.shown) {
      const row = add(list, "li", ""), bar = add(row, "button", "", { className: "class", type: "button" });
      const rival = add(row, "button", "vs", { type: "button", disabled: index === target });
      const before = probabilities[index], now = edited ? edited[index] : before;
      add(bar, "span", this.label(index));
      add(bar, "b", (edited ? `${percent(before)} → ` : "") + percent(now));
      add(bar, "i", "").style.width = `${100 * now}%`;
      if (edited) add(bar, "i", "", { className: "before" }).style.width = `${100 * before}%`;
      bar.setAttribute("aria-pressed", index === target);
      bar.onclick = event => event.shiftKey ? this.explain(target, index) : this.explain(index, null);
      rival.setAttribute("aria-pressed", index === state.against);
      rival.setAttribute("aria-label", `Explain it against ${this.label(index)}`);
      rival.onclick = () => this.explain(target, index === state.against ? null : index);
    }
    list.querySelectorAll("button")[focused]?.focus();
  }

  explain(target, against) {
    if (against != null && target === against) return;
    Object.assign(this.state, { target, against });
    this.panes.forEach(pane => { pane.frame = pane.attacked = null; });
    this.get("budget").value = 0;
    this.bars();
    this.compared();
    this.solve();
  }

  other(input) {
    const text = input.value.trim(), named = this.info.labels.indexOf(text), index = named < 0 && /^\d+$/.test(text) ? +text : named;
    if (!text) return;
    if (this.info.kind === "texts" && !(index in this.probabilities)) return this.explain(index < 0 ? input.value : index, null);
    if (!(index in this.probabilities)) throw new Error(`there is no class ${text}`);
    input.value = "";
    this.fail(null);
    this.shown = [...new Set([...this.shown, index])];
    this.explain(index, null);
  }

  use(tool) {
    this.root.dataset.tool = this.tool = tool;
    this.root.querySelectorAll("[data-tool]").forEach(button => button.setAttribute("aria-pressed", button.dataset.tool === tool));
    if (this.shape) this.clear();
  }

  clear() {
    Object.assign(this, { mask: null, replaced: null, edited: null });
    this.get("effect").textContent = "Blur or erase a part with the pointer: the probabilities answer.";
    this.bars();
    this.panes.forEach(pane => pane.mark());
  }

  point(figure, event) {
    const box = figure.getBoundingClientRect(), [, height, width] = this.shape;
    if (event.type === "pointerdown") figure.setPointerCapture(event.pointerId);
    this.look([clamp(Math.floor((event.clientX - box.left) / box.width * width), width - 1),
               clamp(Math.floor((event.clientY - box.top) / box.height * height), height - 1)]);
    if (event.buttons && this.tool !== "look") this.brush();
  }

  look(cross) { Object.assign(this, { cross }).panes.forEach(pane => pane.mark()); }

  key(event) {
    const step = event.shiftKey ? 10 : 1, [, height, width] = this.shape, [x, y] = this.cross ?? [width >> 1, height >> 1];
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (move) this.look([clamp(x + move[0], width - 1), clamp(y + move[1], height - 1)]);
    else if (event.key === " " && this.tool !== "look") { this.look([x, y]); this.brush(); this.painted().catch(error => this.fail(error)); }
    else if (event.key === "Escape") this.look(null);
    else return;
    event.preventDefault();
  }

  brush() {
    const [, height, width] = this.shape, [x, y] = this.cross, radius = Math.max(2, width / 14);
    this.mask ??= new Uint8Array(height * width);
    this.mask.forEach((_, i) => { if (Math.hypot(i % width - x, Math.floor(i / width) - y) <= radius) this.mask[i] = 1; });
    this.replace(this.tool, i => this.mask[i]);
  }

  /** Shows the pixels where `which` says so about as they are replaced. */
  replace(how, which) {
    const [, height, width] = this.shape, tiny = canvas(Math.ceil(width / 12), Math.ceil(height / 12));
    const context = canvas(width, height).getContext("2d");
    tiny.getContext("2d").drawImage(this.photo, 0, 0, tiny.width, tiny.height);
    context.fillStyle = "#7c746a";
    if (how === "blur") context.drawImage(tiny, 0, 0, width, height);
    else context.fillRect(0, 0, width, height);
    this.replaced = context.getImageData(0, 0, width, height);
    for (let i = 0; i < height * width; i++) this.replaced.data[4 * i + 3] = which(i) ? 255 : 0;
    this.panes.forEach(pane => pane.mark());
  }

  async painted() {
    const { mask, tool: how, state: { image } } = this;
    if (!mask || how === "look") return;
    const [{ probabilities }] = await this.one({ do: "edit", image, how }, mask), most = Math.max(...probabilities);
    if (mask !== this.mask) return;
    this.edited = probabilities;
    this.get("effect").textContent = `Now ${this.label(probabilities.indexOf(most))}, ${percent(most)}.`;
    this.bars();
  }

  async measure() {
    const [{ frame, map }] = this.panes, { image } = this.state, button = this.get("measure");
    if (!frame) return;
    button.disabled = true;
    try { [this.found] = await this.one({ do: "curves", image, target: frame.target }, map); } finally { button.disabled = false; }
    this.clear();
    this.order = regions(reduced(map, this.shape, false), this.shape, this.found.size);
    Object.assign(this.get("step"), { max: this.found.deletion.length - 1, value: 3 });
    this.get("scrub").hidden = this.get("curve").hidden = false;
    this.scrub();
  }

  scrub() {
    const name = this.get("curve").value, curve = this.found[name], deleted = name === "deletion";
    const step = +this.get("step").value, last = curve.length - 1, part = step / last;
    this.get("line").setAttribute("d", `M0 50 ${curve.map((v, i) => `L${100 * i / last} ${50 - 50 * v}`).join(" ")} L100 50Z`);
    this.get("dot").setAttribute("transform", `translate(${100 * part} ${50 - 50 * curve[step]})`);
    this.get("step").nextElementSibling.textContent = percent(part);
    this.get("effect").textContent = `${percent(part)} of the pixels ${deleted ? "erased" : "inserted"}, largest first: probability ${percent(curve[step])}. ` +
      `Area ${this.found[`${name} area`]?.toFixed(3)}, ${deleted ? "low" : "high"} for a faithful map.`;
    this.replace(deleted ? "mean" : "blur", i => (this.order[i] < part * this.order.length) === deleted);
  }

  recipe() { this.get("text").textContent = this.panes[0].recipes?.[this.get("recipe").value] ?? ""; }

  async save(kind) {
    const [pane] = this.panes, name = this.name.replace(/\.\w+$|[^\w. -]/g, "").slice(0, 60) || "map";
    if (!pane.frame) return;
    if (kind === "html") return save(new Blob([`<!doctype html><meta charset="utf-8">${pane.drawn}`]), `${name}.html`);
    const image = pane.composed(3), { width, height } = image;
    if (kind === "png") image.toBlob(blob => save(blob, `${name}.png`));
    else if (kind === "svg") {
      const text = `${this.name}: ${pane.method}, ${this.label(pane.frame.target)}, ${pane.get("status").textContent}`.replace(/[&<>"]/g, c => `&#${c.charCodeAt()};`);
      save(new Blob([`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height + 30}" font-family="sans-serif" font-size="13">
<image width="${width}" height="${height}" href="${image.toDataURL()}"/><text x="4" y="${height + 20}">${text}</text></svg>`], { type: "image/svg+xml" }), `${name}.svg`);
    } else {
      const arrays = ["map", "gradient", "z"].filter(one => pane[one]), body = new Float32Array(arrays.length * pane.map.length);
      arrays.forEach((one, i) => body.set(pane[one], i * pane.map.length));
      save(new Blob([(await this.one({ do: "arrays", arrays, state: pane.state }, body))[1]]), `${name}.npz`);
    }
  }
}

export function mount(root, ask) {
  const explorer = new Explorer(root, ask);
  explorer.start().catch(error => explorer.fail(error));
  return explorer;
}
