// What is wider than a screen. On a narrow one a figure keeps the size at which its smallest words
// can be read, and is scrolled within its frame; and whatever is scrolled, figures, tables and code,
// fades out where it goes on. Without this script figures are as wide as the screen.
(function () {
  "use strict";

  // helpers/plots.py draws 140 pixels to the inch, and no word smaller than 8 points.
  const SMALLEST = (8 / 72) * 140;
  const LEGIBLE = 9; // pixels of the screen

  const narrow = window.matchMedia("(max-width: 600px)");

  function frame(image) {
    const frame = document.createElement("div");
    frame.className = "figure-frame";
    image.replaceWith(frame);
    frame.append(image);
    return frame;
  }

  function enlarge(image) {
    const least = Math.ceil((image.naturalWidth * LEGIBLE) / SMALLEST);
    image.style.width = narrow.matches ? `max(100%, ${least}px)` : "";
  }

  function watch(box) {
    const look = () => {
      const beyond = box.scrollWidth - box.clientWidth;
      box.classList.toggle("goes-on", box.scrollLeft < beyond - 1);
      if (!box.matches(".figure-frame")) return; // tables are reached by keyboard as they are
      for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "Figure, to be scrolled"]])
        beyond > 0 ? box.setAttribute(name, value) : box.removeAttribute(name);
    };
    box.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(box);
    return look;
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const image of document.querySelectorAll("div.cell_output figure img")) {
      const look = watch(frame(image));
      const refit = () => (enlarge(image), look());
      image.complete ? refit() : image.addEventListener("load", refit);
      narrow.addEventListener("change", refit);
    }
    const others = ".pst-scrollable-table-container, div.output.text_html, article pre";
    document.querySelectorAll(others).forEach(box => watch(box)());
  });
})();
