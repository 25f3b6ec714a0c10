// What is behind a row or a point, and ticked rows beside each other: opened below the picture.
import { axis, brief, colour, layout, ramp, series, small, upwards } from "./pictures.js";
import { asked, copyText, make, plainTable } from "./tables.js";

export const close = (place) => { place.hidden = true; place.replaceChildren(); };

const heading = (id, text, closed) => {
  const button = make("button", { type: "button", textContent: "Close" });
  button.addEventListener("click", closed);
  return make("div", { className: "heading" }, make("h2", { id, textContent: text }), button);
};
const facts = (entries) => make("dl", { className: "facts" }, ...entries.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: brief(value) })]));
const context = (state) => new URLSearchParams([...state].filter(([name]) => ["study", "at", "metric", "where"].includes(name)));

// A row's points, the first of them opened; or one point that the address names. What stands there
// already is left as it is; `quiet`: asked anew by the page, which keeps the point and the reader's place.
let standing = "";
export const open = async (place, what, state, get, refuse, closed) => {
  try {
    const inside = make("div");
    const stands = (found) => { const before = standing; standing = JSON.stringify([String(context(state)), found]); return !place.hidden && before === standing; };
    if (what.row === undefined) {
      if (stands(what.point)) return;
      place.replaceChildren(heading("details-title", "One point", closed), inside);
      await openPoint(inside, what.point, state, get);
      place.hidden = false;
      return;
    }
    const parameters = context(state);
    parameters.append("row", what.row);
    const found = await get("row", parameters);
    if (stands([what.row, found.ids, found.columns, found.rows]) && what.quiet) return;
    const title = `${found.total} ${found.total === 1 ? "point" : "points"} behind this`;
    const choose = async (id, button) => {
      for (const other of place.querySelectorAll(".open[aria-pressed]")) other.setAttribute("aria-pressed", String(other === button));
      for (const row of place.querySelectorAll("tr.ticked")) row.classList.remove("ticked");
      button?.closest("tr").classList.add("ticked");
      what.choose(id);
      try { await openPoint(inside, id, state, get); } catch (error) { refuse(error); }
    };
    const before = (row, i) => {
      if (i < 0) return make("th", { scope: "col", className: "text" }, "point");
      const button = make("button", { type: "button", className: "open", textContent: found.ids[i].slice(0, 7) });
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-label", `open point ${found.ids[i]}`);
      button.addEventListener("click", () => choose(found.ids[i], button));
      return make("td", { className: "text" }, button);
    };
    const list = plainTable("Points, table", found.columns, found.rows, before);
    list.classList.add("short");
    const shared = Object.entries(found.shared).filter(([, value]) => value !== "").map(([name, value]) => `${name} ${value}`).join(", ");
    place.replaceChildren(heading("details-title", title, closed), make("p", { className: "small", textContent: shared }), list, inside);
    place.hidden = false;
    const kept = what.quiet ? Math.max(0, found.ids.indexOf(state.get("point"))) : 0;
    if (found.ids.length) await choose(found.ids[kept], place.querySelectorAll(".open")[kept]);
    if (what.quiet) return;
    place.focus({ preventScroll: true });
    place.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  } catch (error) { refuse(error); }
};

const openPoint = async (place, id, state, get) => {
  const parameters = context(state);
  parameters.append("id", id);
  const point = await get("point", parameters);
  const plots = make("div", { className: "small-plots" });
  const fold = (text, ...children) => make("details", { className: "fold" }, make("summary", { textContent: text }), ...children);
  const json = (value) => make("pre", { className: "tall", tabIndex: 0, textContent: JSON.stringify(value, null, 2) });
  const columns = ["value", "floor", "limit", "network", "discretisation", "prior"].filter((name) => point.metrics.some((one) => one[name] !== null && one[name] !== undefined));
  const numbers = plainTable("Metrics of the point, table", ["metric", ...columns], point.metrics.map((one) => [one.name, ...columns.map((name) => one[name] ?? null)]));
  const copies = make("div");
  asked(copies, point.asked, copyText);
  place.replaceChildren(
    make("h3", { textContent: `Point ${point.id}` }),
    ...(point.labels.error ? [make("p", { className: "refusal", textContent: point.labels.error })] : []),
    plots, make("h3", { textContent: "Metrics" }), numbers,
    fold("Labels", facts([...Object.entries(point.labels), ...Object.entries(point.seconds)])),
    fold("Spec of the point", json(point.spec)), ...(point.cell ? [fold("Spec of its cell", json(point.cell))] : []),
    fold("Provenance", facts(Object.entries(point.provenance))), fold("As a command and as Python", copies),
  );
  place.dataset.point = point.id;
  for (const [title, text, painted] of pictures(point)) {
    const plot = make("div", { className: "plot" });
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", `${title}: ${text}`);
    plots.append(make("figure", {}, make("h3", { textContent: title }), plot, make("figcaption", { className: "small", textContent: text })));
    small(plot, painted, { responsive: true, displaylogo: false, displayModeBar: false });
  }
  if (!point.samples) plots.append(make("p", { className: "small", textContent: "The samples of this point were not kept (keep: {samples: true} in the study)." }));
};

const pictures = (point) => {
  const found = [];
  const { samples, trajectory } = point;
  if (samples) found.push(["Samples", samples.images ? `${samples.images.length} of ${samples.count} samples, ${samples.side} × ${samples.side} each` : `${samples.shown} of ${samples.count} samples, ${samples.dim === 1 ? "their histogram" : samples.dim > 3 ? `the first two of ${samples.dim} coordinates` : "a dot each"}`, () => ofSamples(samples)]);
  if (trajectory) found.push(["Trajectory", trajectory.images ? `${trajectory.images.length} samples from noise to data` : `${trajectory.paths.length} of ${trajectory.count} samples from noise to data, ${trajectory.dim === 1 ? "level by level" : "in the first two coordinates"}`, () => ofTrajectory(trajectory)]);
  if (point.losses) found.push(["Training loss", "the mean loss along the steps of training", () => line(point.losses, "step", "loss", "linear")]);
  if (point.score_errors) found.push(["Error of the score", "by noise-to-signal ratio", () => line(point.score_errors, "sigma / alpha", "error", "log")]);
  return found;
};

const line = (curve, x, y, type) => [[{ type: "scatter", mode: "lines", x: curve.x, y: curve.y, line: { color: series(0), width: 1.8 } }], layout({ xaxis: type === "log" ? upwards(x, true, curve.x) : axis(x), yaxis: curve.y.every((v) => v > 0) ? upwards(y, true, curve.y) : axis(y) })];

const ofSamples = (samples) => {
  if (samples.images) return images([samples.images.slice(0, 6), samples.images.slice(6, 12), samples.images.slice(12, 18), samples.images.slice(18, 24)].filter((row) => row.length), samples.side);
  const [x, y, z] = samples.columns;
  if (!y) return [[{ type: "histogram", x, nbinsx: 50, marker: { color: series(0, 0.75), line: { width: 0 } } }], layout({ xaxis: axis("x"), yaxis: axis("samples"), bargap: 0.03 })];
  const marker = { color: series(0, 0.55), size: samples.dim === 3 ? 2 : 4 };
  if (samples.dim === 3) return [[{ type: "scatter3d", mode: "markers", x, y, z, marker, hoverinfo: "skip" }], layout({ margin: { l: 0, r: 0, t: 0, b: 0 }, scene: { aspectmode: "data", ...Object.fromEntries(["x", "y", "z"].map((k) => [`${k}axis`, { title: { text: k }, gridcolor: colour("grid"), color: colour("ink"), showbackground: false }])) } })];
  return [[{ type: "scatter", mode: "markers", x, y, marker, hoverinfo: "skip" }], layout({ xaxis: axis("x"), yaxis: axis("y", { scaleanchor: "x" }) })];
};

const ofTrajectory = (path) => {
  if (path.images) return images(path.images, path.side);
  const common = { type: "scatter", mode: "lines", line: { width: 1, color: series(0, 0.5) }, hoverinfo: "skip" };
  if (path.dim === 1) {
    const levels = path.noise.map((_, i) => i);
    const step = Math.max(1, Math.ceil(levels.length / 6));
    const at = levels.filter((i) => i % step === 0 || i === levels.length - 1);
    return [path.paths.map(([y]) => ({ ...common, x: levels, y })), layout({ xaxis: axis("sigma / alpha of the level", { tickvals: at, ticktext: at.map((i) => (path.noise[i] === null ? "∞" : brief(Number(path.noise[i].toPrecision(2))))) }), yaxis: axis("x") })];
  }
  const ends = { type: "scatter", mode: "markers", x: path.paths.map(([x]) => x.at(-1)), y: path.paths.map(([, y]) => y.at(-1)), marker: { color: series(1), size: 4 }, hoverinfo: "skip" };
  return [[...path.paths.map(([x, y]) => ({ ...common, x, y })), ends], layout({ xaxis: axis("x"), yaxis: axis("y", { scaleanchor: "x" }) })];
};

// Rows of square images as one heat map, with gaps between them.
const images = (rows, side) => {
  const all = rows.flat(2).filter((value) => value !== null).sort((a, b) => a - b);
  const width = Math.max(...rows.map((row) => row.length)) * (side + 1) - 1;
  const z = rows.flatMap((row, r) => [
    ...Array.from({ length: side }, (_, y) => Array.from({ length: width }, (_, x) => (x % (side + 1) < side && row[Math.floor(x / (side + 1))] ? row[Math.floor(x / (side + 1))][y * side + (x % (side + 1))] : null))),
    ...(r < rows.length - 1 ? [Array(width).fill(null)] : []),
  ]);
  const bare = { visible: false, constrain: "domain" };
  return [[{ type: "heatmap", z, colorscale: ramp(), showscale: false, hoverinfo: "skip", zmin: all[Math.floor(0.02 * all.length)], zmax: all[Math.floor(0.98 * (all.length - 1))] }], layout({ margin: { l: 4, r: 4, t: 4, b: 4 }, xaxis: bare, yaxis: { ...bare, autorange: "reversed", scaleanchor: "x" } })];
};

const VERDICTS = { better: "better", worse: "worse" };

export const compare = async (place, state, get, refuse, quiet = false) => {
  try {
    const parameters = context(state);
    for (const one of state.getAll("tick")) parameters.append("tick", one);
    const found = await get("compare", parameters);
    const names = found.rows.map((_, i) => `row ${i + 1}`);
    const parts = found.rows.map((row) => row.condition.split(" and "));
    const telling = (condition) => condition.split(" and ").filter((part) => !parts.every((all) => all.includes(part))).join(" and ") || condition;
    const list = make("ol", { className: "notes" }, ...found.rows.map((row) => make("li", {}, make("code", { textContent: telling(row.condition), title: row.condition }))));
    const rows = found.rows.map((row, i) => {
      const test = found.tests[i - 1];
      return [names[i], row.mean, row.seeds, row.points, ...(test ? [test.change, test.factor, test.verdict, test.p_corrected, test.paired ? "paired" : "Welch"] : [null, null, "the first", null, ""])];
    });
    const numbers = plainTable("Comparison, table", ["", found.metric, "seeds", "points", "change", "factor", "beside the first", "p, corrected", "test"], rows, null, (row, at) => (at === 6 ? VERDICTS[row[6]] || "" : ""));
    const settings = found.settings.length
      ? plainTable("Settings that differ, table", ["setting", ...names], found.settings.map((one) => [one.name, ...one.values]))
      : make("p", { className: "small", textContent: "Their specs do not differ." });
    settings.classList.add("wrapped");
    place.replaceChildren(
      heading("comparison-title", `${found.rows.length} rows beside each other`, () => { close(place); document.getElementById("compare").focus(); }), list,
      make("h3", { textContent: "Can they be told apart?" }), numbers,
      make("p", { className: "small", textContent: "Tested seed by seed against the first row; all tests are one family, corrected by Holm's rule at 5 %." }),
      ...(found.notes.length ? [make("ul", { className: "notes" }, ...found.notes.map((text) => make("li", { textContent: text })))] : []),
      make("h3", { textContent: "Settings that differ" }), settings,
    );
    place.hidden = false;
    if (quiet) return;
    place.focus({ preventScroll: true });
    place.scrollIntoView({ block: "nearest" });
  } catch (error) { refuse(error); }
};
