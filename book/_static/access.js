// Mends what the theme and its extensions leave for those who hear a page or use it without a mouse, as axe-core found it.
(function () {
  "use strict";

  const each = (selector, mend) => document.querySelectorAll(selector).forEach(mend);

  function mend() {
    // A label that hides the text in front of everybody's eyes: speech control goes by that text.
    each("summary[aria-label], .search-button-field[aria-label]", (element) => element.removeAttribute("aria-label"));
    // The list of references: roles that neither HTML nor ARIA 1.2 knows there.
    each(".citation-list[role], .citation[role]", (element) => element.removeAttribute("role"));
    // An empty head of a column is no head.
    each("thead th", (head) => {
      if (head.textContent.trim() || head.querySelector("img, svg, button")) return;
      const cell = document.createElement("td");
      cell.className = head.className;
      head.replaceWith(cell);
    });
    // Parameters of a signature: set as a list of definitions without anything defined.
    each("dt.sig dl", (list) => {
      const box = document.createElement("div");
      for (const line of [...list.children]) {
        const row = document.createElement("div");
        row.style.marginInlineStart = "2rem";
        row.append(...line.childNodes);
        box.append(row);
      }
      list.replaceWith(box);
    });
    // The side bar, with the book's title in it, is no part of any landmark.
    each(".bd-sidebar-primary:not([role])", (bar) => {
      bar.setAttribute("role", "complementary");
      bar.setAttribute("aria-label", "Book");
    });
  }

  // The icons become pictures with titles of their own after this script; the button has a name already.
  function silenceIcons() {
    for (const icon of document.querySelectorAll(".theme-switch-button .theme-switch")) {
      icon.setAttribute("aria-hidden", "true");
      icon.removeAttribute("aria-labelledby");
      for (const title of icon.querySelectorAll("title")) title.remove();
    }
  }

  function watchIcons() {
    silenceIcons();
    each(".theme-switch-button", (button) => new MutationObserver(silenceIcons).observe(button, { childList: true, subtree: true }));
  }

  function start() {
    mend();
    watchIcons();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
