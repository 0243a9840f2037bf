"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const show = (scope, view) => {
    for (const input of scope.querySelectorAll(".pick")) {
      if (input.value === view) input.checked = true;
    }
  };

  const bar = document.querySelector(".viewbar");
  if (bar) {
    bar.hidden = false;
    bar.addEventListener("change", (event) => show(document, event.target.value));
  }

  const names = ["h", "min", "s", "ms"], seconds = [3600, 60, 1, 0.001];
  // What a cell says as a number: "1 564", "9.5 %", "2 of 3" (2), "3 min 30 s" (210).
  const amount = (cell) => {
    const text = (cell.firstChild ? cell.firstChild.textContent : "").replace(/−/g, "-").replace(/\s(?=\d{3}(\D|$))/g, "")
      .replace(/\s*×\s*10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)/g, (_, raised) => "e" + [...raised].map((c) => "-0123456789"["⁻⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(c)]).join(""));
    const found = [...text.matchAll(/(-?\d[\d.]*(?:e[-+]?\d+)?)\s*(h|min|ms|s)?(?![a-z])/g)];
    if (!found.length) return NaN;
    if (!found[0][2]) return Number(found[0][1]);
    return found.reduce((sum, [, number, unit]) => sum + number * seconds[names.indexOf(unit)], 0);
  };
  for (const table of document.querySelectorAll(".summary table")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    if (rows.length < 2 || body.querySelector(".network")) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      if (!button.textContent) button.setAttribute("aria-label", "order as made");
      head.append(button);
      button.addEventListener("click", () => {
        const down = column > 0 && head.ariaSort !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (column > 0) head.ariaSort = down ? "descending" : "ascending";
        const key = new Map(rows.map((row, at) => [row, column > 0 ? amount(row.cells[column]) : at]));
        // What has no number comes last, either way; equal ones stay in their order.
        const order = (a, b) => isNaN(key.get(a)) - isNaN(key.get(b)) ||
          (down ? key.get(b) - key.get(a) : key.get(a) - key.get(b)) || 0;
        body.append(...[...rows].sort(order));
      });
    });
  }

  for (const range of document.querySelectorAll(".slice input")) {
    range.hidden = false;
    range.addEventListener("input", () => {
      const place = range.valueAsNumber;
      range.closest(".input").style.setProperty("--slice", `${100 * place / range.max}%`);
      range.parentElement.querySelector("output").textContent = place * range.dataset.step;
    });
  }

  const box = document.createElement("dialog");
  box.className = "lightbox";
  box.setAttribute("aria-label", "Enlarged image");
  document.body.append(box);
  let shown = [], at = 0;
  const enlarge = (place) => {
    at = (place + shown.length) % shown.length;
    const image = shown[at].cloneNode(), words = document.createElement("p");
    image.removeAttribute("tabindex");
    box.style.setProperty("--slice", getComputedStyle(shown[at]).getPropertyValue("--slice"));
    words.textContent = image.alt;
    box.replaceChildren(image, words);
  };
  const open = (image) => {
    const input = image.closest(".input");
    shown = [...input.querySelectorAll("aside img, .views img")].filter((one) => one.checkVisibility());
    enlarge(shown.indexOf(image));
    box.showModal();
  };
  for (const image of document.querySelectorAll(".input aside img, .input .views img")) {
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    image.addEventListener("click", () => open(image));
    image.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      open(image);
    });
  }
  box.addEventListener("click", () => box.close());
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) enlarge(at + step);
  });

  // Colours of all heat maps of an input up to the largest of their ends, instead of each its own.
  const common = document.querySelector("#common-scale");
  const recoloured = (image, high) => {
    const colours = common.getAttribute(`data-${image.dataset.palette}`).split(" ");
    const canvas = document.createElement("canvas"), places = new Map(colours.map((c, i) => [c, i]));
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const paint = canvas.getContext("2d");
    paint.drawImage(image, 0, 0);
    const pixels = paint.getImageData(0, 0, canvas.width, canvas.height), data = pixels.data;
    const bytes = colours.map((c) => [1, 3, 5].map((from) => parseInt(c.slice(from, from + 2), 16)));
    for (let i = 0; i < data.length; i += 4) {
      const hex = "#" + [0, 1, 2].map((k) => data[i + k].toString(16).padStart(2, "0")).join("");
      const level = places.get(hex) * Number(image.dataset.high) / high;
      if (!(level >= 0)) continue; // no colour of the scale
      [data[i], data[i + 1], data[i + 2]] = bytes[Math.min(bytes.length - 1, Math.round(level))];
    }
    paint.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  };
  if (common && bar) {
    common.closest("label").hidden = false;
    const own = new Map();
    common.addEventListener("change", () => {
      for (const input of document.querySelectorAll(".input")) {
        const images = [...input.querySelectorAll("img[data-high]")];
        const high = Math.max(...images.map((image) => Number(image.dataset.high)));
        for (const image of images) {
          const end = image.closest("div").querySelector(".high");
          if (!own.has(image)) own.set(image, [image.src, end.textContent]);
          [image.src, end.textContent] = common.checked
            ? [recoloured(image, high), high.toPrecision(3)] : own.get(image);
        }
      }
    });
  }

  for (const sweep of document.querySelectorAll(".sweep")) {
    const slider = sweep.querySelector(".slider");
    const range = slider.querySelector("input");
    const ticks = slider.querySelectorAll(".ticks span");
    const frames = sweep.querySelectorAll(".frame");
    const move = () => {
      frames.forEach((frame, at) => frame.classList.toggle("current", at === range.valueAsNumber));
      ticks.forEach((tick, at) => tick.classList.toggle("current", at === range.valueAsNumber));
      range.setAttribute("aria-valuetext", frames[range.valueAsNumber].dataset.setting);
    };
    // A view chosen at one value is kept at the next.
    sweep.addEventListener("change", (event) => {
      if (event.target.classList.contains("pick")) show(sweep, event.target.value);
    });
    range.addEventListener("input", move);
    slider.hidden = false;
    move();
  }
})();
