// Tables that can be sorted, and lists that can be searched. Without this script the page shows everything.
"use strict";
const value = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column)));
      body.append(...(falls ? rows.reverse() : rows));
    });
  });
}

for (const controls of document.querySelectorAll(".controls")) {
  const target = document.getElementById(controls.dataset.for);
  const list = target.tBodies ? target.tBodies[0] : target;
  const items = [...list.children];
  const texts = new Map(items.map((item) => [item, item.textContent.toLowerCase().replace(/\s+/g, " ")]));
  const search = controls.querySelector("[data-search]");
  const state = controls.querySelector("[data-state]");
  const order = controls.querySelector("[data-order]");
  const columns = [...controls.querySelectorAll("[data-column]")];
  const count = controls.querySelector("[data-count]");
  const more = document.querySelector(`[data-more=${target.id}]`);
  let most = more ? Number(more.dataset.first) : Infinity; // a long list begins with these; print has them all
  const apply = () => {
    const wanted = search.value.trim().toLowerCase();
    let shown = 0;
    for (const item of items) {
      const fits =
        texts.get(item).includes(wanted) &&
        (!state || !state.value || item.dataset.states.split(" ").includes(state.value)) &&
        columns.every((select) => !select.value || item.dataset[select.dataset.column] === select.value);
      item.hidden = !fits;
      shown += fits;
      item.classList.toggle("later", fits && shown > most);
    }
    if (more) {
      more.hidden = shown <= most;
      more.textContent = `Show all ${shown}`;
    }
    count.textContent = `${shown} of ${items.length} ${count.dataset.count}`;
  };
  const arrange = () => {
    const [, falls, key] = order.value.match(/^(-?)(.*)$/);
    const sign = falls ? -1 : 1;
    items.sort((a, b) => sign * (Number(a.dataset[key]) - Number(b.dataset[key])) || a.dataset.index - b.dataset.index);
    list.append(...items);
    apply();
  };
  if (more)
    more.addEventListener("click", () => {
      const next = items.find((item) => item.classList.contains("later"));
      most = Infinity;
      apply();
      next.tabIndex = -1;
      next.focus();
    });
  search.addEventListener("input", apply);
  [state, ...columns].forEach((select) => select && select.addEventListener("change", apply));
  if (order) order.addEventListener("change", arrange);
  controls.hidden = false;
  apply();
}
