(() => {
  const section = document.querySelector(".fronts");
  if (!section) return;
  const { axes, points } = JSON.parse(section.dataset.candidates);
  const plane = section.querySelector(".plane"), reading = section.querySelector(".reading");
  const methods = [...new Set(points.map((point) => point.method))];
  // More methods than colours: the rest are hollow.
  const marks = new Map(methods.map((name, at) => [name, `hue-${at % 8}${at % 16 < 8 ? "" : " hollow"}`]));
  const chosen = { x: "gini", y: "robustness" };
  const PAD = { left: 58, right: 18, top: 14, bottom: 46 };

  const make = (name, attributes, parent, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const shown = (axis, value) =>
    axis.percent ? `${Math.round(100 * value)} %` : `${Number(value.toPrecision(2))}`;

  // A scale from values to places, and round values for its ticks.
  const scale = (axis, values, from, to) => {
    const of = axis.log ? (value) => Math.log10(Math.max(value, 0.5)) : (value) => value;
    let [low, high] = [Math.min(...values.map(of)), Math.max(...values.map(of))];
    const room = (high - low || 1) * 0.06;
    [low, high] = [low - room, high + room];
    const ticks = [];
    if (axis.log) {
      for (let power = -1; power < 7; power++) {
        for (const digit of [1, 3]) ticks.push(digit * 10 ** power);
      }
    } else {
      const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
      const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
      for (let at = Math.ceil(low / step); at * step <= high; at++) ticks.push(at * step);
    }
    const place = (value) => from + ((of(value) - low) / (high - low)) * (to - from);
    return { place, ticks: ticks.filter((tick) => of(tick) >= low && of(tick) <= high) };
  };

  const front = (known, x, y) => {
    const better = (axis, a, b) => (axis.better === "low" ? a.values[axis.key] < b.values[axis.key]
      : a.values[axis.key] > b.values[axis.key]);
    return known.filter((point) => !known.some((other) =>
      !better(x, point, other) && !better(y, point, other) &&
      (better(x, other, point) || better(y, other, point))));
  };

  const read = (point) => {
    reading.textContent = `${point.label}: ` +
      axes.map((axis) => `${axis.label} ${point.texts[axis.key]}`).join(", ") +
      (point.chosen.length ? `. Recommended: ${point.chosen.join(", ")}.` : "");
  };

  let drawn = 0; // the width
  const draw = () => {
    const [x, y] = ["x", "y"].map((side) => axes.find((axis) => axis.key === chosen[side]));
    const known = points.filter((point) => point.values[x.key] !== null && point.values[y.key] !== null);
    const missing = points.length - known.length;
    const focused = [...plane.querySelectorAll(".candidate")].indexOf(document.activeElement);
    drawn = plane.clientWidth;
    plane.replaceChildren();
    reading.textContent = missing
      ? `${missing} candidate${missing > 1 ? "s" : ""} without a value ${missing > 1 ? "are" : "is"} not shown. `
      : "";
    reading.textContent += "Point at a candidate, or move to it by the tab key, for its numbers.";
    if (!known.length) return;
    const width = Math.max(280, drawn), height = Math.min(440, 0.5 * width + 160);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group",
      "aria-label": `${y.label} against ${x.label}` }, plane);
    const ends = (axis) => known.flatMap((point) =>
      [point.values[axis.key], ...point.spans[axis.key].filter((end) => end !== null)]);
    const across = scale(x, ends(x), PAD.left, width - PAD.right);
    const up = scale(y, ends(y), height - PAD.bottom, PAD.top);
    for (const tick of across.ticks) {
      const at = across.place(tick);
      make("line", { class: "grid", x1: at, x2: at, y1: PAD.top, y2: height - PAD.bottom }, svg);
      make("text", { x: at, y: height - PAD.bottom + 18, "text-anchor": "middle" }, svg, shown(x, tick));
    }
    for (const tick of up.ticks) {
      const at = up.place(tick);
      make("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: at, y2: at }, svg);
      make("text", { x: PAD.left - 8, y: at + 4, "text-anchor": "end" }, svg, shown(y, tick));
    }
    const title = (axis) => `${axis.label} (${axis.better === "low" ? "less" : "more"} is better)`;
    make("text", { class: "title", x: width - PAD.right, y: height - 6, "text-anchor": "end" }, svg, title(x));
    make("text", { class: "title", transform: `translate(13 ${PAD.top}) rotate(-90)`, "text-anchor": "end" }, svg, title(y));
    const best = front(known, x, y).sort((a, b) => a.values[x.key] - b.values[x.key]);
    const line = best.map((one) => `${across.place(one.values[x.key])},${up.place(one.values[y.key])}`);
    make("polyline", { class: "front", points: line.join(" ") }, svg);
    for (const point of known) {
      const [px, py] = [across.place(point.values[x.key]), up.place(point.values[y.key])];
      const group = make("g", { class: `candidate ${marks.get(point.method)}`, tabindex: 0, role: "img",
        "aria-label": `${point.label}: ${x.label} ${point.texts[x.key]}, ${y.label} ${point.texts[y.key]}` }, svg);
      const [[x1, x2], [y1, y2]] = [point.spans[x.key], point.spans[y.key]];
      if (x1 !== null) make("line", { class: "span", x1: across.place(x1), x2: across.place(x2), y1: py, y2: py }, group);
      if (y1 !== null) make("line", { class: "span", x1: px, x2: px, y1: up.place(y1), y2: up.place(y2) }, group);
      const r = 5.5;
      if (point.chosen.length) {
        make("path", { class: "mark", d: `M${px} ${py - 9}L${px + 9} ${py}L${px} ${py + 9}L${px - 9} ${py}Z` }, group);
      } else {
        make("circle", { class: "mark", cx: px, cy: py, r }, group);
      }
      make("title", {}, group, point.label);
      for (const event of ["pointerenter", "focus", "click"]) group.addEventListener(event, () => read(point));
    }
    plane.querySelectorAll(".candidate")[focused]?.focus({ preventScroll: true });
  };

  for (const select of section.querySelectorAll("select")) {
    for (const axis of axes) select.add(new Option(axis.label, axis.key));
    select.value = chosen[select.dataset.axis];
    select.addEventListener("change", () => {
      chosen[select.dataset.axis] = select.value;
      draw();
    });
  }
  for (const name of methods) {
    const item = document.createElement("li");
    item.className = marks.get(name);
    item.textContent = name;
    section.querySelector(".methods").append(item);
  }
  section.hidden = false;
  draw();
  new ResizeObserver(() => {
    if (plane.clientWidth !== drawn) draw();
  }).observe(plane);
})();
