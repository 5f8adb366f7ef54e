"use strict";
// Headers become buttons that sort their table: first the highest, then the lowest, then as it was. Without this script
// the tables are whole.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const original = Array.from(body.rows);
  if (original.length < 2) continue;
  const headers = Array.from(table.tHead.rows[0].cells);
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = header.getAttribute("aria-sort");
      const order = before === null ? "descending" : before === "descending" ? "ascending" : null;
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      if (order !== null) header.setAttribute("aria-sort", order);
      body.append(...(order === null ? original : sorted(original, column, order)));
    });
  });
}

function sorted(rows, column, order) {
  const sign = order === "descending" ? -1 : 1;
  return rows.slice().sort((one, other) => {
    const [a, b] = [one.cells[column], other.cells[column]];
    const [left, right] = [a.dataset.v, b.dataset.v];
    // Empty cells stay at the end in both directions.
    const [noLeft, noRight] = [a.classList.contains("none"), b.classList.contains("none")];
    if (noLeft || noRight) return noLeft - noRight;
    if (left !== undefined && right !== undefined) return sign * (Number(left) - Number(right));
    return -sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  });
}

// A link to something folded opens it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node !== null; node = node.parentElement) {
    if (node.tagName === "DETAILS") node.open = true;
  }
  if (target !== null) target.scrollIntoView();
}
if (location.hash) unfold();
addEventListener("hashchange", unfold);
