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
