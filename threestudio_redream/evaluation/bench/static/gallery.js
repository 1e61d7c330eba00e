// One slider turns every run: the cells show one sheet of views, shifted by background-position.
(function () {
  "use strict";
  const slider = document.getElementById("turn");
  const shown = document.querySelector("output[for=turn]");
  const count = Number(slider.max) + 1;
  slider.addEventListener("input", () => {
    const step = Number(slider.value);
    const angle = Math.round(360 * step / count) + "°";
    shown.textContent = angle;
    slider.setAttribute("aria-valuetext", angle);
    for (const cell of document.querySelectorAll(".sides span")) {
      const at = (Number(cell.dataset.at) + step) % count;
      cell.style.backgroundPositionX = 100 * at / (count - 1) + "%";
    }
  });
})();
