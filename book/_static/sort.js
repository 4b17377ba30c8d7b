// Sortable tables: every <table class="sortable"> gets a button in each column head.
// No library and no request: the book must work without a network.
(function () {
  "use strict";

  // What a cell sorts by: the unrounded number where the cell carries one, else its text.
  function key(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    const number = text.replace(/[,\u00a0\u202f]/g, "").replace(/\u2212/g, "-").match(/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?/i);
    return number ? Number(number[0]) : text;
  }

  const isGap = (row, column) =>
    row.cells[column].dataset.value === undefined && ["", "–", "-", "not reached"].includes(row.cells[column].textContent.trim());

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  }

  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const gaps = rows.filter((row) => isGap(row, column)); // missing values stay last either way
    const rest = rows.filter((row) => !isGap(row, column));
    rest.sort((a, b) => direction * compare(key(a, column), key(b, column)));
    body.append(...rest, ...gaps);
  }

  function enhance(table) {
    if (!table.tHead || !table.tBodies.length) return;
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button"); // a button: keyboard and screen readers come with it
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(table, column, up ? 1 : -1);
      });
    });
  }

  function start() {
    document.querySelectorAll("table.sortable").forEach(enhance);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
