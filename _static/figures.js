// On a narrow screen a figure keeps the size at which its smallest words can be read; what does not
// fit is scrolled to, within the figure. Without this script figures are as wide as the screen.
(function () {
  "use strict";

  // helpers/plots.py draws 140 pixels to the inch, and no word smaller than 8 points.
  const SMALLEST = (8 / 72) * 140;
  const LEGIBLE = 9; // pixels of the screen

  const narrow = window.matchMedia("(max-width: 600px)");

  function fit(image) {
    const frame = image.parentElement;
    const least = Math.ceil((image.naturalWidth * LEGIBLE) / SMALLEST);
    image.style.minWidth = narrow.matches ? `max(100%, ${least}px)` : "";
    const beyond = frame.scrollWidth > frame.clientWidth;
    // What can be scrolled can be reached by keyboard, and says what it is.
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "Figure, to be scrolled"]])
      beyond ? frame.setAttribute(name, value) : frame.removeAttribute(name);
  }

  function prepare(image) {
    const frame = document.createElement("div");
    frame.className = "figure-frame";
    image.replaceWith(frame);
    frame.append(image);
    const refit = () => fit(image);
    image.complete ? refit() : image.addEventListener("load", refit);
    narrow.addEventListener("change", refit);
  }

  document.addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll("div.cell_output figure img").forEach(prepare));
})();
