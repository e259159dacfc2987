// A row's key in a column: a number if the cell has one, its text otherwise; cells without a number sort last.
function key(row, column) {
  const cell = row.cells[column];
  if (!("key" in cell.dataset)) return cell.textContent.trim().toLowerCase();
  return cell.dataset.key === "" ? null : Number(cell.dataset.key);
}

function sortBy(button) {
  const heading = button.closest("th");
  const table = heading.closest("table");
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [key(row, heading.cellIndex), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
    return ascending ? order : -order;
  });
  body.append(...rows.map(([, row]) => row));
  show(table);
}

// Shows the rows that contain every word of the filter; of many rows only the first, until all are asked for. A word
// that is a name in the table matches that name only ("bn", not "gbn"); any other matches what begins with it. A setting
// such as norm=gbn is also a name.
const LIMIT = 200;
const names = new WeakMap();

// A setting's number in its shortest form: "l1=1e-05" is "l1=0.00001".
function plain(word) {
  const [key, value] = word.toLowerCase().split("=");
  return value && !Number.isNaN(Number(value)) ? `${key}=${Number(value)}` : word.toLowerCase();
}

function namesIn(row) {
  if (!names.has(row)) {
    const walker = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
    const parts = []; // a word ends where its cell or line does
    while (walker.nextNode()) parts.push(walker.currentNode.data);
    const words = parts.join(" ").toLowerCase().split(/[\s·,()]+/);
    const settings = (row.dataset.words ?? "").split(" ").map(plain);
    names.set(row, new Set([...words, ...words.flatMap((word) => word.split(/[/=]/)), ...settings]));
  }
  return names.get(row);
}

function show(table) {
  const bar = document.querySelector(`.filter[data-table="${table.id}"]`);
  if (bar === null) return;
  const words = bar.querySelector("input").value.toLowerCase().split(/[\s·,()]+/).filter(Boolean).map(plain);
  const limit = "all" in table.dataset ? Infinity : LIMIT;
  const rows = table.tBodies[0].rows;
  const known = new Set(words.filter((word) => [...rows].some((row) => namesIn(row).has(word))));
  let found = 0;
  for (const row of rows) {
    const holds = words.every((word) => (known.has(word) ? namesIn(row).has(word) : [...namesIn(row)].some((name) => name.startsWith(word))));
    found += holds;
    row.hidden = !holds || found > limit;
  }
  bar.querySelector("[role=status]").textContent = `${Math.min(found, limit)} of ${rows.length} shown`;
  bar.querySelector(".all").hidden = found <= limit;
}

for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => sortBy(button));
for (const bar of document.querySelectorAll(".filter")) {
  const table = document.getElementById(bar.dataset.table);
  bar.hidden = false;
  const input = bar.querySelector("input");
  input.value = kept.get(table.id) ?? "";
  input.addEventListener("input", () => {
    show(table);
    keep(table.id, input.value);
  });
  bar.querySelector(".all").addEventListener("click", () => {
    table.dataset.all = "";
    show(table);
    input.focus(); // the button is gone
  });
  const columns = bar.querySelector(".columns"); // only the main ones, until all are asked for
  if (columns !== null) {
    table.classList.add("few");
    columns.addEventListener("click", () => columns.setAttribute("aria-pressed", !table.classList.toggle("few")));
  }
  show(table);
}

// Folded parts are printed too.
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    part.dataset.folded = "";
  }
});
window.addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-folded]")) {
    part.open = false;
    delete part.dataset.folded;
  }
});
