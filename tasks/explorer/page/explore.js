// The page: what is asked stands in its address; every change asks again, and what comes back is drawn.
import { fill, fillSnapshots, pending, taken, show, showFilter } from "./controls.js";
import { draw, legend, redraw } from "./pictures.js";
import { table, asked, copyText } from "./tables.js";
import { close, compare, open } from "./details.js";

const byId = (id) => document.getElementById(id);
const root = document.documentElement;
const problems = [];
const note = (text) => { problems.push(String(text)); root.dataset.problems = problems.join(" | "); };
addEventListener("error", (event) => note(event.message));
addEventListener("unhandledrejection", (event) => note(event.reason));
document.addEventListener("securitypolicyviolation", (event) => note(`${event.violatedDirective} ${event.blockedURI}`));

let state = new URLSearchParams(location.search);
let choices = null;
let shown = null;
let asking = null;
let first = true; // a link with ticked rows is a comparison
let row = null; // the condition whose points are listed

export class Refused extends Error {}

// What the server says, or the sentence by which it refuses.
const get = async (what, parameters, signal) => {
  let answer;
  try {
    answer = await fetch(`/api/${what}?${parameters}`, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server has ended: start diffatlas explore again, and load this page anew.");
  }
  let found;
  try {
    found = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(`The server failed to answer this (status ${answer.status}): what went wrong stands where diffatlas explore runs.`);
  }
  if (found.error) throw new Refused(found.error.message);
  return found;
};

const refuse = (error) => {
  if (error.name === "AbortError") return;
  if (!(error instanceof Refused)) { note(error); throw error; }
  byId("refusal").textContent = error.message;
  byId("refusal").hidden = false;
};

const place = () => `${location.pathname}${state.size ? `?${state}` : ""}`;

// Lists are made anew with each answer: whoever stands on a button of one stays on it.
const nameOf = (one) => one.getAttribute("aria-label") ?? one.textContent;
const alike = (list, name) => [...byId(list).querySelectorAll("button, input")].filter((one) => nameOf(one) === name);
const standing = (one) => {
  const list = one?.closest("#legend, #table, #asked")?.id;
  return list && { list, name: nameOf(one), at: alike(list, nameOf(one)).indexOf(one) };
};
const stand = (place) => { if (place) alike(place.list, place.name)[place.at]?.focus({ preventScroll: true }); };
let opener = null; // where the reader stood when a row was opened

const render = () => {
  const place = standing(document.activeElement);
  show(state, choices, shown);
  byId("refusal").hidden = true;
  draw(byId("plot"), shown, state, (condition) => openRow(condition));
  legend(byId("legend"), byId("plot"), shown, state, (condition) => change({ base: condition }));
  byId("notes").replaceChildren(...(shown.notes || []).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  table(byId("table"), shown.table, state, tick, openRow);
  ticks();
  asked(byId("asked"), shown.asked, copied);
  stand(place);
  root.dataset.shown = shown.view;
};

const ask = async () => {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  showFilter(state);
  byId("plot").classList.add("waiting");
  delete root.dataset.shown;
  try {
    const parameters = new URLSearchParams(state);
    parameters.delete("point");
    shown = await get("view", parameters, signal);
    render();
    await again();
  } catch (error) {
    if (!shown) byId("title").textContent = "Nothing to show";
    if (!shown && choices) show(state, choices, { view: state.get("view") || "curves", metric: state.get("metric") || choices.metrics[0]?.name });
    refuse(error);
  } finally { if (!signal.aborted) byId("plot").classList.remove("waiting"); }
};

// What stood open beside the picture, when the address says so.
const again = async () => {
  const point = state.get("point");
  if (row !== null) await list(row, true);
  else if (point) await open(byId("details"), { point }, state, get, refuse, closed);
  else close(byId("details"));
  if (state.getAll("tick").length > 1 && (first || !byId("comparison").hidden)) await compare(byId("comparison"), state, get, refuse, !first);
  if (!state.getAll("tick").length) close(byId("comparison"));
  first = false;
};

const change = (changes, { push = true, anew = true } = {}) => {
  if (changes.point === null) row = null;
  for (const [name, value] of Object.entries(changes)) {
    state.delete(name);
    for (const one of [value].flat()) if (one !== null && one !== undefined && (one !== "" || name === "by")) state.append(name, one);
  }
  history[push ? "pushState" : "replaceState"](null, "", place());
  return anew ? ask() : undefined;
};

const offer = async (named = ["study", "at"]) => {
  const parameters = new URLSearchParams([...state].filter(([name]) => named.includes(name)));
  choices = await get("choices", parameters);
  byId("store").textContent = choices.store;
  byId("snapshot").textContent = `${choices.snapshot} of ${choices.time.slice(0, 16).replace("T", " ")} UTC`;
  byId("size").textContent = `${choices.size.toLocaleString("en")} points`;
  fill(choices, state);
};

// A study or a snapshot that there is not is told, and what there is can be chosen.
const offerAnyway = async () => {
  try { await offer(); } catch (error) {
    byId("title").textContent = "Nothing to show";
    refuse(error);
    await offer([]);
  }
};

// A run that goes on shows its numbers as it commits them.
let polling = false;
const poll = async () => {
  if (polling || document.hidden) return;
  polling = true;
  try {
    const now = await get("now", "");
    byId("now").textContent = !now.running ? "" : now.shards === undefined ? `a run writes to this store: ${now.missing} points to compute`
      : `a run of ${now.study}: ${now.shards_done} of ${now.shards} shards, ${now.points_done} of ${now.points} points${now.points_failed ? `, ${now.points_failed} failed` : ""}${now.seconds_left === null ? "" : `; about ${Math.max(1, Math.round(now.seconds_left / 60))} min left`}`;
    if (!state.get("at") && now.snapshot !== choices?.snapshot) { await offerAnyway(); await ask(); await snapshots(); }
  } catch (error) { refuse(error); }
  finally { polling = false; }
};
const snapshots = async () => fillSnapshots((await get("history", "")).snapshots, state);

const list = (condition, quiet) => open(byId("details"), { row: condition, quiet, choose: (id) => change({ point: id }, { push: false, anew: false }) }, state, get, refuse, closed);
const openRow = (condition) => { row = condition; opener = standing(document.activeElement); return list(condition, false); };
const closed = () => { close(byId("details")); if (opener) stand(opener); else byId("picture").focus(); change({ point: null }, { push: false, anew: false }); };

const tick = (condition, wanted) => {
  const now = state.getAll("tick").filter((one) => one !== condition);
  change({ tick: wanted ? [...now, condition] : now }, { push: false, anew: false });
  ticks();
};
const ticks = () => {
  const count = state.getAll("tick").length;
  byId("compare").disabled = count < 2;
  byId("untick").disabled = count < 1;
  byId("ticked").textContent = count ? `${count} ticked${count < 2 ? ": tick another one" : ""}` : "tick rows to compare them";
  if (!count) close(byId("comparison"));
};

const copied = (text) => copyText(text).then(
  () => { byId("copied").textContent = "copied"; },
  () => { byId("copied").textContent = "the browser does not let this page copy: select the text instead"; },
);

byId("controls").addEventListener("change", async (event) => {
  const changes = taken(event.target, choices, state);
  if (!changes) return;
  if ("study" in changes || "at" in changes) {
    change(changes, { anew: false });
    try { await offerAnyway(); } catch (error) { refuse(error); return; }
    return ask();
  }
  return change(changes);
});
byId("controls").addEventListener("submit", (event) => { event.preventDefault(); change({ where: byId("where").value.trim() }); });
byId("where").addEventListener("input", pending);
byId("where").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); byId("controls").requestSubmit(); }
});
byId("clear").addEventListener("click", () => { byId("where").value = ""; change({ where: null }); });
const add = (negated) => {
  const text = byId("value").value;
  if (!text) return;
  const now = (state.get("where") || "").trim();
  const one = negated ? `not ${text}` : text;
  change({ where: now ? `${/\bor\b/.test(now) ? `(${now})` : now} and ${one}` : one });
};
byId("is").addEventListener("click", () => add(false));
byId("is-not").addEventListener("click", () => add(true));
byId("all-but-seed").addEventListener("click", () => change({ by: null }));
byId("compare").addEventListener("click", () => compare(byId("comparison"), state, get, refuse));
byId("untick").addEventListener("click", () => {
  change({ tick: [] }, { push: false, anew: false });
  for (const box of document.querySelectorAll("#table input:checked")) { box.checked = false; box.closest("tr").classList.remove("ticked"); }
  ticks();
});
byId("copy-link").addEventListener("click", () => copied(location.href));
addEventListener("popstate", async () => {
  state = new URLSearchParams(location.search);
  row = null;
  try { await offerAnyway(); } catch (error) { refuse(error); return; }
  await ask();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (shown) render(); redraw(); });

const begin = async () => {
  if (matchMedia("(max-width: 900px)").matches) byId("fold").open = false;
  const fresh = !state.size;
  try {
    await offerAnyway();
    if (fresh) for (const [name, value] of Object.entries(choices.first)) for (const one of [value].flat()) state.append(name, one);
    if (fresh && state.has("study")) await offerAnyway();
    history.replaceState(null, "", place());
    await ask();
    await snapshots();
  } catch (error) { refuse(error); }
  await poll();
  setInterval(poll, 3000);
};
begin();
