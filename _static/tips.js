// What a link leads to, shown beside it: a term's meaning, an equation, a figure, a reference.
// sphinx-tippy collects that as the book is built; the theme's own tooltips show it here, so nothing
// is fetched, and a page that is opened from a file has them, too. Without this script, links only.
(function () {
  "use strict";

  window.tippy = (link, { content, onShow }) => {
    if (!window.bootstrap) return;
    const box = document.createElement("div");
    box.innerHTML = content;
    box.querySelectorAll("a.headerlink, .headerlink, script").forEach(part => part.remove());
    // Out of their place they would be a second one of a name, links in a link, items of no list.
    for (const part of box.querySelectorAll("[id]")) part.removeAttribute("id");
    for (const part of box.querySelectorAll("[role]")) part.removeAttribute("role");
    for (const part of box.querySelectorAll("a")) part.replaceWith(...part.childNodes);
    for (const part of box.querySelectorAll("dt, dd")) {
      const plain = document.createElement("div");
      plain.className = part.localName;
      plain.append(...part.childNodes);
      part.replaceWith(plain);
    }
    const formula = box.querySelector(":scope > div.math:only-child")?.textContent.trim();
    const tip = new bootstrap.Tooltip(link, {
      title: () => box.cloneNode(true),
      html: true,
      sanitize: false, // it comes from the book
      customClass: "link-tip",
      placement: "auto",
      delay: { show: 250, hide: 50 },
      trigger: "hover focus",
    });
    link.addEventListener("inserted.bs.tooltip", () => {
      if (formula) tip.tip.setAttribute("aria-label", formula); // what is drawn has no words
      if (window.MathJax?.typesetPromise) onShow?.({ popper: tip.tip });
    });
    link.addEventListener("shown.bs.tooltip", () => tip.update());
    link.addEventListener("keydown", event => event.key === "Escape" && tip.hide());
  };
})();
