"use strict";
// Tables: a click, Enter or Space on a column's name sorts by it, again the other way round. Numbers go by value.
const number = (text) => {
  const found = text.replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1").match(/^[\s[(<>≈~]*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)/i);
  return found ? Number(found[1]) : null;
};
const empty = (text) => ["", "–", "-", "nan", "NaN", "None"].includes(text);

function sort(table, column, head, heads) {
  const down = head.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, (row.cells[column]?.textContent ?? "").trim()]));
  const filled = [...texts.values()].filter((text) => !empty(text));
  const numeric = filled.length > 0 && filled.every((text) => number(text) !== null);
  const order = (a, b) => {
    const [x, y] = [texts.get(a), texts.get(b)];
    if (empty(x) || empty(y)) return empty(x) - empty(y); // what is missing stays last
    const difference = numeric ? number(x) - number(y) : x.localeCompare(y, "en", { numeric: true });
    return down ? -difference : difference;
  };
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows.sort(order));
}

for (const table of document.querySelectorAll(".table table")) {
  if (!table.tHead || !table.tBodies.length || table.tBodies[0].rows.length < 3) continue; // two rows need no order
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, head, heads));
    head.append(button);
  });
}

// Pre-rendered views: a picture holds all strengths of an operation, another one what each changes.
function slide(slider) {
  const { heights, operations } = JSON.parse(slider.dataset.slider);
  const find = (what) => slider.querySelector(what);
  const select = find("select"), range = find("input"), output = find("output"), button = find("button");
  const panes = [find(".view"), find(".difference")];
  const outline = (bins, top) => `M0 64${bins.map((bin, i) => `V${(64 - 62 * bin / top).toFixed(2)}H${i + 1}`).join("")}V64`;

  const move = () => {
    const operation = operations[select.selectedIndex], at = Number(range.value), last = operation.captions.length - 1;
    output.textContent = operation.captions[at];
    range.setAttribute("aria-valuetext", operation.captions[at]);
    for (const pane of panes) pane.style.backgroundPosition = `${100 * at / last}% 0`;
    panes[0].setAttribute("aria-label", `view: ${select.value}, ${operation.captions[at]}`);
    const top = Math.max(...heights, ...operation.heights.flat());
    find(".before").setAttribute("d", outline(heights, top));
    find(".after").setAttribute("d", outline(operation.heights[at], top));
  };
  const choose = () => {
    const operation = operations[select.selectedIndex], last = operation.captions.length - 1;
    range.max = last;
    range.value = Math.round(0.8 * last); // where an operation shows, short of its end
    find(".remark").textContent = operation.note;
    panes.forEach((pane, which) => {
      pane.style.backgroundImage = `url("${operation.strips[which]}")`;
      pane.style.backgroundSize = `${100 * (last + 1)}% 100%`;
    });
    move();
  };
  select.addEventListener("input", choose);
  range.addEventListener("input", move);
  button.addEventListener("click", () => {
    const open = slider.classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "Hide the sheet" : "Show all of them at once";
  });
  choose();
  find(".live").hidden = false;
  slider.classList.add("ready");
}
document.querySelectorAll(".slider").forEach(slide);

const cells = [...document.querySelectorAll("details.code")];
const unfold = document.querySelector(".unfold");
if (unfold && cells.length) {
  const button = unfold.querySelector("button");
  unfold.hidden = false;
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    cells.forEach((cell) => { cell.open = open; });
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Hide all code" : "Show all code";
  });
}
// Below the width at which the contents stand beside the text they start folded.
if (window.matchMedia("(max-width: 62rem)").matches) document.querySelector(".contents")?.removeAttribute("open");
