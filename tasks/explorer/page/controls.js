// The form: what can be chosen, what is chosen, and what a change of it asks.
const byId = (id) => document.getElementById(id);

const option = (value, text = value, chosen = false) => new Option(text, value, chosen, chosen);
const options = (select, values, chosen) => {
  select.replaceChildren(...values.map((value) => (Array.isArray(value) ? option(value[0], value[1], value[0] === chosen) : option(value, value, value === chosen))));
  if (chosen && select.value !== chosen) select.prepend(option(chosen, chosen, true));
};

const group = (label, values, chosen) => {
  const found = document.createElement("optgroup");
  found.label = label;
  found.append(...values.map((value) => option(value, value, value === chosen)));
  return found;
};

// What is chosen stays, where it can still be chosen.
const refill = (select, values) => {
  const chosen = select.value;
  options(select, values);
  if ([...select.options].some((one) => one.value === chosen)) select.value = chosen;
};

export const fill = (choices, state) => {
  const columns = choices.columns.map((column) => column.name);
  options(byId("study"), [["", "all studies"], ...choices.studies], state.get("study") || "");
  const listed = [...byId("at").options].map((one) => [one.value, one.text]);
  options(byId("at"), listed.length ? listed : [["", "the newest"]], state.get("at") || "");
  const metric = byId("metric");
  metric.replaceChildren(group("Metrics", choices.metrics.map((one) => one.name)), group("Beside them", choices.beside));
  options(byId("y"), columns);
  refill(byId("column"), columns);
  options(byId("stat"), choices.statistics);
  options(byId("band"), [["sem", "standard error"], ["ci95", "95 % interval"], ["std", "standard deviation"], ["none", "none"]]);
  for (const id of ["logx", "logy"]) options(byId(id), [["", "automatic"], ["1", "logarithmic"], ["0", "linear"]]);
  byId("by").replaceChildren(...choices.columns.map((column) => {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", name: "by", value: column.name });
    const count = Object.assign(document.createElement("small"), { textContent: column.count });
    count.title = `${column.count} values`;
    label.append(box, column.name, count);
    label.dataset.count = column.count;
    return label;
  }));
  values(choices);
};

// Snapshots are listed when somebody looks for one: a long history takes a while.
export const fillSnapshots = (snapshots, state) => {
  const named = snapshots.map((one) => [one.snapshot, `${one.time.slice(0, 16).replace("T", " ")} ${one.message}${one.tags.length ? ` (${one.tags.join(", ")})` : ""}`]);
  options(byId("at"), [["", "the newest"], ...named], state.get("at") || "");
  options(byId("before"), [["", "the one before"], ...named], state.get("before") || "");
};

const values = (choices) => {
  const column = choices.columns.find((one) => one.name === byId("column").value);
  refill(byId("value"), column.values.map((value, i) => [column.conditions[i], value === "" ? "(nothing)" : String(value)]));
};

// A filter that is typed but not applied stays until the address says another one.
let applied = null;
export const showFilter = (state) => {
  const where = state.get("where") || "";
  if (where !== applied) byId("where").value = applied = where;
  pending();
};
export const pending = () => { byId("unapplied").hidden = byId("where").value.trim() === applied.trim(); };

// The form says what the address says.
export const show = (state, choices, shown) => {
  const view = shown.view;
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(view);
  for (const radio of document.querySelectorAll("input[name=view]")) radio.checked = radio.value === view;
  const columns = choices.columns.map((column) => column.name);
  const x = byId("x");
  if (view === "scatter") x.replaceChildren(...choices.numbers.map((name) => option(name)));
  else x.replaceChildren(...columns.map((name) => option(name)));
  x.value = state.get("x") || "steps";
  byId("metric").value = shown.metric;
  if (shown.before) byId("before").value = state.get("before") || "";
  if (shown.y) byId("y").value = shown.y.name;
  byId("stat").value = state.get("stat") || "mean";
  byId("band").disabled = byId("stat").value !== "mean";
  byId("band").value = byId("band").disabled ? "none" : state.get("band") || "sem";
  byId("each").checked = state.get("each") === "1";
  byId("each-text").textContent = view === "scatter" ? "Every point" : "Every seed";
  byId("only").checked = state.get("all") !== "1";
  byId("logx").value = state.get("logx") || "";
  byId("logy").value = state.get("logy") || "";
  const by = state.has("by") ? state.get("by").split(/,(?![^(]*\))/) : choices.configuration;
  for (const box of document.querySelectorAll("input[name=by]")) {
    box.checked = by.includes(box.value);
    const constant = Number(box.parentElement.dataset.count) < 2;
    box.parentElement.hidden = constant && byId("only").checked;
  }
  byId("by-legend").textContent = view === "scatter" ? "Colour by" : "Group by";
};

// What a control that was changed asks; nothing if it asks nothing by itself.
export const taken = (control, choices, state) => {
  const { name, value, checked } = control;
  if (control.id === "column") { values(choices); return null; }
  if (control.id === "value" || name === "where") return null;
  if (name === "view") {
    const x = state.get("x");
    const fits = value === "scatter" ? choices.numbers.includes(x || "nfe") : choices.columns.some((one) => one.name === (x || "steps"));
    const first = value === "scatter" ? (x ? x : "nfe") : x;
    return { view: value === "curves" ? null : value, x: fits ? first : value === "scatter" ? "nfe" : null };
  }
  if (name === "by") {
    const boxes = [...document.querySelectorAll("input[name=by]")].filter((box) => box.checked && (!box.parentElement.hidden || choices.configuration.includes(box.value)));
    return { by: boxes.map((box) => box.value).join(","), base: null };
  }
  if (name === "each") return { each: checked ? "1" : null };
  if (name === "only") return { all: checked ? null : "1" };
  const usual = { x: "steps", stat: "mean", band: "sem" };
  if (name === "study") return { study: value || null, tick: [], point: null, base: null };
  return { [name]: value === usual[name] ? null : value };
};
