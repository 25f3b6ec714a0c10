// Tables of numbers, and what can be copied.
import { brief } from "./pictures.js";

const make = (tag, properties = {}, ...children) => { const found = Object.assign(document.createElement(tag), properties); found.append(...children); return found; };
export { make };

const isText = (rows, at) => rows.some((row) => typeof row[at] === "string");

// Columns and rows with a heading; `more` gives the cells that stand before a row.
export const plainTable = (label, columns, rows, before = null, classes = null) => {
  const texts = columns.map((_, at) => isText(rows, at));
  const head = make("tr", {}, ...(before ? [before(null, -1)].flat() : []), ...columns.map((name, at) => make("th", { scope: "col", textContent: name, className: texts[at] ? "text" : "" })));
  const body = rows.map((row, i) => {
    const cells = row.map((value, at) => make("td", { textContent: brief(value), className: `${texts[at] ? "text" : ""} ${classes ? classes(row, at) : ""}`.trim(), title: typeof value === "number" ? String(value) : "" }));
    return make("tr", {}, ...(before ? [before(row, i)].flat() : []), ...cells);
  });
  const found = make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  found.setAttribute("role", "region");
  found.setAttribute("aria-label", label);
  return found;
};

export const table = (place, shown, state, tick, open) => {
  const ticked = new Set(state.getAll("tick"));
  if (!shown.rows.length) { place.replaceChildren(make("p", { className: "small", textContent: "No point matches." })); return; }
  const before = (row, i) => {
    if (i < 0) return [make("th", { scope: "col", className: "text" }, "tick"), make("th", { scope: "col", className: "text" }, "points")];
    const condition = shown.conditions[i];
    const box = make("input", { type: "checkbox", checked: ticked.has(condition) });
    const what = row.slice(0, Math.max(1, shown.labels.length)).map(brief).join(", ");
    box.setAttribute("aria-label", `tick ${what}`);
    box.addEventListener("change", () => { box.closest("tr").classList.toggle("ticked", box.checked); tick(condition, box.checked); });
    const look = make("button", { type: "button", className: "open", textContent: "open" });
    look.setAttribute("aria-label", `open ${what}`);
    look.addEventListener("click", () => open(condition));
    return [make("td", { className: "text" }, box), make("td", { className: "text" }, look)];
  };
  const found = plainTable("Numbers, table", shown.columns, shown.rows, before);
  for (const box of found.querySelectorAll("input:checked")) box.closest("tr").classList.add("ticked");
  const more = shown.total > shown.rows.length ? `the first ${shown.rows.length} of ${shown.total.toLocaleString("en")} rows; the command below prints all of them` : `${shown.total} ${shown.total === 1 ? "row" : "rows"}`;
  place.replaceChildren(found, make("p", { className: "small", textContent: more }));
};

export const copyText = async (text) => navigator.clipboard.writeText(text);

export const asked = (place, list, copied) => {
  place.replaceChildren(...list.map((one) => {
    const found = make("div", { className: "copy" }, make("p", { className: "small", textContent: one.what }));
    for (const [kind, word] of [["command", "a command"], ["python", "Python"]]) {
      if (!one[kind]) continue;
      const text = make("pre", { tabIndex: 0, className: kind });
      if (kind === "command") text.append(...one[kind].split(" ").flatMap((part) => [make("span", { textContent: part }), " "]).slice(0, -1));
      else text.textContent = one[kind];
      const button = make("button", { type: "button", textContent: `As ${word}` });
      button.addEventListener("click", () => copied(one[kind]));
      text.setAttribute("aria-label", `${one.what}, as ${word}`);
      text.setAttribute("role", "region");
      found.append(text, button);
    }
    return found;
  }));
};
