// The table that sorts, and the chart of parallel coordinates beside it. Names come from folders: they are only ever
// set as text.

const { axes, models } = JSON.parse(document.getElementById("data").textContent);
const body = document.querySelector("#table tbody");
// Row i is that of model i, wherever it stands.
const rows = [...body.rows];
const status = document.getElementById("status");

// Sorting ------------------------------------------------------------------------------------------------------------

const headers = [...document.querySelectorAll("#table thead th")];

headers.forEach((header, column) =>
  header.querySelector("button").addEventListener("click", () => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const numeric = header.classList.contains("number");
    const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    const value = (row) => row.cells[column].dataset.value;
    body.append(
      ...[...body.rows].sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        // What is missing is last, either way.
        if (left === "" || right === "") return (left === "") - (right === "");
        return ascending ? compare(left, right) : compare(right, left);
      }),
    );
  }),
);

// The chart ----------------------------------------------------------------------------------------------------------

const [width, left, right, top, bottom] = [1000, 75, 925, 60, 360];
const x = (place) => left + ((right - left) * place) / (axes.length - 1);
const y = (height) => bottom - (bottom - top) * height;
const lowest = Math.min(0, ...models.flatMap((model) => model.heights));
const brushes = axes.map(() => null);

function draw(parent, name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

function curve(heights) {
  const half = (x(1) - x(0)) / 2;
  const parts = heights.slice(1).map((height, i) => {
    const middle = x(i) + half;
    return `C${middle},${y(heights[i])} ${middle},${y(height)} ${x(i + 1)},${y(height)}`;
  });
  return `M${x(0)},${y(heights[0])}${parts.join("")}`;
}

function colour(element, model) {
  element.style.setProperty("--on-white", model.colours[0]);
  element.style.setProperty("--on-black", model.colours[1]);
}

const svg = draw(document.getElementById("chart"), "svg", { viewBox: `0 0 ${width} ${y(lowest) + 20}` });
svg.style.setProperty("--opacity", Math.max(0.35, Math.min(0.9, (8 / models.length) ** 0.4)));
const lines = models.map(() => null);
// Good models are drawn last, and so seen; the best by validation F1 is on top.
const rank = (model) => (model.best ? 2 : model.score ?? -1);
for (const i of [...models.keys()].sort((a, b) => rank(models[a]) - rank(models[b]))) {
  const line = draw(svg, "g", { class: models[i].best ? "model best" : "model" });
  draw(line, "path", { class: "line", d: curve(models[i].heights) });
  const hit = draw(line, "path", { class: "hit", d: curve(models[i].heights) });
  draw(hit, "title", {}, models[i].name);
  colour(line, models[i]);
  hit.addEventListener("pointerenter", () => highlight(i));
  hit.addEventListener("pointerleave", () => highlight(null));
  lines[i] = line;
}
const casing = draw(svg, "path", { class: "casing" });
const front = draw(svg, "path", { class: "front" });

axes.forEach((axis, i) => {
  // Outside the first and the last axis there are no lines; elsewhere labels stand above those that come to the axis.
  const last = i === axes.length - 1;
  const beside = { x: x(i) + (last ? 9 : -9), "text-anchor": last ? "start" : "end" };
  const raised = i === 0 || last ? -5 : 5;
  const write = (height, text, kind) => draw(svg, "text", { ...beside, y: y(height) - raised, class: kind }, text);
  draw(svg, "text", { x: x(i), y: top - 32, class: "title" }, axis.title);
  draw(svg, "line", { x1: x(i), x2: x(i), y1: top, y2: bottom, class: "rule" });
  for (const [height, label] of axis.ticks) {
    draw(svg, "line", { x1: x(i) - 4, x2: x(i) + 4, y1: y(height), y2: y(height), class: "rule" });
    write(height, label, "label");
  }
  if (models.some((model) => model.heights[i] < 0)) {
    draw(svg, "line", { x1: x(i), x2: x(i), y1: bottom, y2: y(lowest), class: "rule absent" });
    write(lowest, "missing", "label missing");
  }
  const brush = draw(svg, "rect", { class: "brush", x: x(i) - 10, width: 20, visibility: "hidden" });
  const handle = draw(svg, "rect", { class: "handle", x: x(i) - 14, width: 28, y: top - 10, height: y(lowest) - top + 20 });
  listen(handle, brush, i);
});

// Brushing and highlighting ------------------------------------------------------------------------------------------

function listen(handle, brush, i) {
  let start = null;
  const place = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).y;
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    start = place(event);
    choose(i, brush, null);
  });
  handle.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const [low, high] = [start, place(event)].sort((a, b) => a - b);
    // Less is a click, which chooses all of this axis again.
    choose(i, brush, high - low < 4 ? null : [low, high]);
  });
  for (const end of ["pointerup", "pointercancel"]) handle.addEventListener(end, () => (start = null));
  svg.addEventListener("dblclick", () => choose(i, brush, null));
  document.addEventListener("keydown", (event) => event.key === "Escape" && choose(i, brush, null));
}

function choose(i, brush, range) {
  brushes[i] = range;
  brush.setAttribute("visibility", range ? "visible" : "hidden");
  if (range) {
    brush.setAttribute("y", range[0]);
    brush.setAttribute("height", range[1] - range[0]);
  }
  models.forEach((model, k) => {
    const chosen = brushes.every((of, j) => !of || (of[0] <= y(model.heights[j]) && y(model.heights[j]) <= of[1]));
    lines[k].classList.toggle("faded", !chosen);
    rows[k].classList.toggle("faded", !chosen);
  });
  tell();
}

function highlight(i) {
  rows.forEach((row, k) => row.classList.toggle("highlighted", k === i));
  for (const path of [casing, front]) path.setAttribute("d", i === null ? "" : curve(models[i].heights));
  if (i !== null) colour(front, models[i]);
  tell(i);
}

function tell(i = null) {
  const chosen = rows.filter((row) => !row.classList.contains("faded")).length;
  status.textContent = i === null ? `${chosen} of ${models.length} models chosen` : models[i].name;
}

rows.forEach((row, i) => {
  for (const event of ["pointerenter", "focus"]) row.addEventListener(event, () => highlight(i));
  for (const event of ["pointerleave", "blur"]) row.addEventListener(event, () => highlight(null));
});
tell();
