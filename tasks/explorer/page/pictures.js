// Curves, heat maps and scatter, in the colours of the reader's scheme.
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star"];
const DASHES = ["solid", "dot", "dash", "longdash", "dashdot", "longdashdot", "4px,2px", "1px,3px"];
const OUTLINES = {
  circle: "M20 8m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", square: "M16.5 4.5h7v7h-7z", diamond: "M20 3l5 5-5 5-5-5z", "triangle-up": "M20 3.5l4.8 8h-9.6z",
  x: "M17 3.6l3 3 3-3 1.4 1.4-3 3 3 3-1.4 1.4-3-3-3 3-1.4-1.4 3-3-3-3z", "triangle-down": "M20 12.5l4.8-8h-9.6z",
  cross: "M18.6 3.5h2.8v3.1h3.1v2.8h-3.1v3.1h-2.8v-3.1h-3.1v-2.8h3.1z", star: "M20 3l1.5 3.3 3.6.4-2.7 2.4.8 3.6-3.2-1.8-3.2 1.8.8-3.6-2.7-2.4 3.6-.4z",
};
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const hidden = new Set();
let others = [];

export const colour = (token, opacity = 1) => {
  const found = getComputedStyle(document.documentElement).getPropertyValue(`--${token}`).trim();
  if (opacity === 1) return found;
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(found.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
};
export const series = (style, opacity) => colour(`series-${(style % 8) + 1}`, opacity);
const symbol = (style) => SYMBOLS[(style + Math.floor(style / 8)) % 8];
const dash = (style) => DASHES[(style + Math.floor(style / 8)) % 8];
export const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\{/g, "&#123;").replace(/\$/g, "&#36;");
export const brief = (value) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  return Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
};

export const axis = (title, more = {}) => ({
  title: { text: escaped(title), font: { size: 13 }, standoff: 8 }, gridcolor: colour("grid"), linecolor: colour("axis"), tickcolor: colour("axis"),
  zeroline: false, showline: true, ticks: "outside", ticklen: 4, automargin: true, ...more,
});
export const layout = (more = {}) => ({
  font: { family: FONT, size: 12.5, color: colour("ink") }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  margin: { l: 60, r: 14, t: 12, b: 48 }, showlegend: false, hovermode: "closest", autosize: true,
  modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("axis"), activecolor: colour("ink") },
  hoverlabel: { bgcolor: colour("card"), bordercolor: colour("axis"), font: { color: colour("ink"), family: FONT }, align: "left" }, ...more,
});
export const ramp = () => [1, 2, 3, 4, 5].map((i) => [(i - 1) / 4, colour(`ramp-${i}`)]);
export const config = { responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

const log = (wanted, suggested) => (wanted === "1" ? true : wanted === "0" ? false : Boolean(suggested));
// Ticks of a logarithmic axis: decades, and what stands between them where there is room.
const logTicks = (low, high) => {
  const decades = Math.log10(high / low);
  const factors = decades < 1 ? [1, 2, 3, 5, 7] : decades < 2.2 ? [1, 2, 5] : decades < 4 ? [1, 3] : [1];
  const every = Math.max(1, Math.ceil(decades / 8));
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    if (power % every === 0) for (const factor of factors) if (factor * 10 ** power >= low * 0.8 && factor * 10 ** power <= high * 1.25) values.push(factor * 10 ** power);
  }
  return { tickmode: "array", tickvals: values, ticktext: values.map(tickText) };
};
const tickText = (value) => {
  if (value >= 0.999e-3 && value < 1e4) return String(Number(value.toPrecision(6)));
  const [factor, power] = value.toExponential(0).split("e");
  return `${factor === "1" ? "" : `${factor}×`}10<sup>${power.replace("+", "").replace("-", "−")}</sup>`;
};
// A label that would run into the one before it is left out; its line stays.
let wide = 800;  // pixels of the picture that is drawn
const apart = (values, at) => {
  const room = (28 / Math.max(100, wide - 74)) * (at(values.at(-1)) - at(values[0]));
  let last = -Infinity;
  return values.map((value) => { if (at(value) - last < room) return ""; last = at(value); return String(value); });
};
const many = (values, isLog) => [...new Set(values.filter((value) => value !== null && (!isLog || value > 0)))].sort((a, b) => a - b);
// Ticks at the values that there are, where these are few.
const numbers = (name, isLog, values) => {
  const there = many(values, isLog);
  if (there.length === 1) return axis(name, { tickvals: there, ticktext: there.map(brief) });
  const whole = there.length > 1 && there.length <= 12 && there.every(Number.isInteger);
  const type = isLog && there.length ? "log" : "linear";
  if (whole) return axis(name, { type, tickangle: 0, tickmode: "array", tickvals: there, ticktext: apart(there, isLog ? Math.log10 : Number) });
  return axis(name, type === "log" ? { type, tickangle: 0, ...logTicks(there[0], there.at(-1)) } : {});
};
const along = (name, kind, isLog, values) => (kind === "text" ? axis(name, { type: "category" }) : numbers(name, isLog, values));
export const upwards = (name, isLog, values) => {
  const there = many(values, isLog);
  return axis(name, isLog && there.length ? { type: "log", ...logTicks(there[0], there.at(-1)) } : {});
};

const band = (one, isLog) => {
  const xs = [], top = [], bottom = [];
  one.x.forEach((x, i) => {
    const y = one.y[i], wide = one.band[i];
    if (y === null || wide === null) return;
    xs.push(x); top.push(y + wide); bottom.push(isLog ? Math.max(y - wide, y * 1e-2) : y - wide);
  });
  return { type: "scatter", mode: "lines", x: [...xs, ...xs.reverse()], y: [...top, ...bottom.reverse()], fill: "toself", fillcolor: series(one.style, 0.16), line: { width: 0 }, hoverinfo: "skip", meta: one.line };
};

const curves = (shown, state) => {
  const numbers = shown.x.kind === "number";
  const logX = numbers && log(state.get("logx"), shown.x.log), logY = log(state.get("logy"), shown.y.log);
  const each = state.get("each") === "1";
  const traces = [];
  for (const one of shown.series) {
    const banded = one.band && one.band.some((value) => value !== null && value > 0);
    if (banded && numbers) traces.push(band(one, logY));
    traces.push({
      type: "scatter", mode: "lines+markers", x: one.x, y: one.y, name: one.label, meta: one.line, customdata: one.conditions,
      line: { color: series(one.style), width: each ? 1.2 : 2, dash: dash(one.style) }, marker: { color: series(one.style), symbol: symbol(one.style), size: each ? 5 : 8 },
      error_y: banded && !numbers ? { type: "data", array: one.band, color: series(one.style), thickness: 1.2, width: 4 } : undefined, connectgaps: false,
      text: one.y.map((y, i) => `${escaped(one.label)}<br>${escaped(shown.x.name)} ${escaped(brief(one.x[i]))}<br>${escaped(shown.y.name)} ${brief(y)}${one.band && one.band[i] !== null ? ` ± ${brief(one.band[i])}` : ""}<br>${one.count[i]} ${one.count[i] === 1 ? "value" : "values"}`),
      hovertemplate: "%{text}<extra></extra>",
    });
  }
  if (shown.ratio) traces.push(line(shown.series.flatMap((one) => one.x), 1));
  const xs = shown.series.flatMap((one) => one.x), ys = shown.series.flatMap((one) => one.y);
  return [traces, layout({ xaxis: along(shown.x.name, shown.x.kind, logX, xs), yaxis: upwards(shown.y.name, logY, ys) })];
};
const line = (xs, y) => ({ type: "scatter", mode: "lines", x: [...new Set(xs)].sort((a, b) => a - b), y: [...new Set(xs)].map(() => y), line: { color: colour("ink"), width: 1, dash: "dot" }, hoverinfo: "skip" });

// A number of a cell: short, so that it stays within.
const short = (value) => {
  if (Number.isInteger(value) && Math.abs(value) < 1e4) return String(value);
  if (Math.abs(value) >= 0.999e-3 && Math.abs(value) < 1e4) return String(Number(value.toPrecision(3)));
  const [factor, power] = value.toExponential(1).split("e");
  return `${factor}×10<sup>${power.replace("+", "").replace("-", "−")}</sup>`;
};

const heat = (shown) => {
  const isLog = shown.z.log;
  const z = shown.cells.map((row) => row.map((cell) => (cell && cell.value !== null ? (isLog ? Math.log10(cell.value) : cell.value) : null)));
  const flat = z.flat().filter((value) => value !== null);
  const [low, high] = [Math.min(...flat), Math.max(...flat)];
  const texts = shown.cells.map((row) => row.map((cell) => (cell && cell.value !== null ? short(cell.value) : "")));
  const longest = Math.max(...texts.flat().map((text) => text.replace(/<.*?>/g, "").length));
  const few = (wide - 200) / shown.x.values.length > 7 * longest + 4 && shown.y.values.length <= 26;
  const names = (values) => values.map((value) => (value === "" ? "(nothing)" : String(value)));
  const { tickvals, ticktext } = isLog ? logTicks(10 ** low, 10 ** high) : {};
  const ticks = isLog ? { tickmode: "array", tickvals: tickvals.map(Math.log10), ticktext } : {};
  const annotations = few ? shown.cells.flatMap((row, j) => row.flatMap((cell, i) => (cell && cell.value !== null ? [{ x: i, y: j, text: texts[j][i], showarrow: false, font: { size: 12, color: onRamp((z[j][i] - low) / (high - low || 1)) } }] : []))) : [];
  return [[{
    type: "heatmap", z, colorscale: ramp(), xgap: 1, ygap: 1, hoverongaps: false, customdata: shown.cells.map((row) => row.map((cell) => cell && cell.condition)),
    text: shown.cells.map((row, j) => row.map((cell, i) => (cell ? `${escaped(shown.y.name)} ${escaped(names(shown.y.values)[j])}<br>${escaped(shown.x.name)} ${escaped(names(shown.x.values)[i])}<br>${escaped(shown.z.name)} ${brief(cell.value)}<br>${cell.count} ${cell.count === 1 ? "value" : "values"}` : ""))),
    hovertemplate: "%{text}<extra></extra>", colorbar: { thickness: 12, outlinewidth: 0, xpad: 8, ...ticks },
  }], layout({
    annotations, margin: { l: 60, r: 14, t: 12, b: 48 },
    xaxis: axis(shown.x.name, { tickvals: shown.x.values.map((_, i) => i), ticktext: names(shown.x.values).map(escaped), showgrid: false }),
    yaxis: axis(shown.y.name, { tickvals: shown.y.values.map((_, i) => i), ticktext: names(shown.y.values).map(escaped), showgrid: false, autorange: "reversed" }),
  })];
};
// Ink that can be read on a colour of the ramp.
const onRamp = (share) => {
  const at = Math.min(3, Math.max(0, Math.floor(share * 4))), part = share * 4 - at;
  const [r, g, b] = [1, 3, 5].map((i) => [at + 1, at + 2].map((k) => parseInt(colour(`ramp-${k}`).slice(i, i + 2), 16))).map(([from, to]) => from + part * (to - from));
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#10151b" : "#ffffff";
};

const scatter = (shown, state) => {
  const logX = log(state.get("logx"), shown.x.log), logY = log(state.get("logy"), shown.y.log);
  const traces = shown.series.map((one) => ({
    type: "scatter", mode: "markers", x: one.x, y: one.y, meta: one.line, customdata: one.conditions,
    marker: { color: series(one.style, 0.85), symbol: symbol(one.style), size: 8 },
    error_y: one.band && one.x.length < 400 ? { type: "data", array: one.band, color: series(one.style, 0.5), thickness: 1, width: 0 } : undefined,
    text: one.text.map((text, i) => `${escaped(text)}<br>${escaped(shown.x.name)} ${brief(one.x[i])}<br>${escaped(shown.y.name)} ${brief(one.y[i])}`), hovertemplate: "%{text}<extra></extra>",
  }));
  for (const front of shown.fronts) {
    const order = front.x.map((_, i) => i).sort((a, b) => front.x[a] - front.x[b]);
    traces.push({
      type: "scatter", mode: "lines+markers", x: order.map((i) => front.x[i]), y: order.map((i) => front.y[i]), hoverinfo: "skip",
      line: { color: colour("ink"), width: 1.4, dash: "dot", shape: "hv" }, marker: { symbol: "circle-open", size: 13, color: colour("ink"), line: { width: 1.4 } },
    });
  }
  const xs = shown.series.flatMap((one) => one.x), ys = shown.series.flatMap((one) => one.y);
  return [traces, layout({ xaxis: numbers(shown.x.name, logX, xs), yaxis: upwards(shown.y.name, logY, ys) })];
};

const VERDICTS = { better: ["good", "circle"], worse: ["bad", "square"], "within noise": ["series-6", "diamond"], unchanged: ["muted", "cross"], "not testable": ["series-5", "x"] };
const moved = (shown, state) => {
  const { label, before, after, verdict, conditions } = shown.groups;
  const values = [...before, ...after].filter((value) => value !== null);
  const isLog = log(state.get("logx"), values.length && values.every((value) => value > 0) && Math.max(...values) / Math.min(...values) >= 8);
  const ends = [Math.min(...values), Math.max(...values)];
  const traces = Object.entries(VERDICTS).map(([name, [token, mark]]) => {
    const at = verdict.flatMap((one, i) => (one === name && before[i] !== null && after[i] !== null ? [i] : []));
    return {
      type: "scatter", mode: "markers", name, meta: name, x: at.map((i) => before[i]), y: at.map((i) => after[i]), customdata: at.map((i) => conditions[i]),
      marker: { color: colour(token), symbol: mark, size: 9 }, text: at.map((i) => `${escaped(label[i])}<br>${brief(before[i])} → ${brief(after[i])}<br>${name}`), hovertemplate: "%{text}<extra></extra>",
    };
  });
  traces.unshift({ type: "scatter", mode: "lines", x: ends, y: ends, line: { color: colour("axis"), width: 1, dash: "dot" }, hoverinfo: "skip" });
  const side = (one) => `${shown.metric} in ${one.snapshot.slice(0, 6)}, ${one.time.slice(0, 16).replace("T", " ")}`;
  return [traces, layout({ xaxis: upwards(side(shown.before), isLog, values), yaxis: upwards(side(shown.after), isLog, values) })];
};

const kinds = { curves, heat, scatter, moved };
const titles = {
  curves: (shown) => `${shown.y.name} along ${shown.x.name}`,
  heat: (shown) => `${shown.z.name} by ${shown.y.name} and ${shown.x.name}`,
  scatter: (shown) => `${shown.y.name} against ${shown.x.name}; ringed: the front that nothing beats`,
  moved: (shown) => `What moved in ${shown.metric}: ${shown.summary}`,
};

export const draw = (place, shown, state, chosen) => {
  const empty = !(shown.series || shown.cells || shown.groups.label).length;
  document.getElementById("title").textContent = empty && shown.view !== "moved" ? "No point matches" : titles[shown.view](shown);
  const shared = Object.entries(shown.shared).filter(([, value]) => value !== "");
  document.getElementById("shared").textContent = shared.length ? `all of ${shared.map(([name, value]) => `${name} ${value}`).join(", ")}` : "";
  place.hidden = empty;
  if (empty) return;
  wide = place.clientWidth;
  const [traces, how] = kinds[shown.view](shown, state);
  for (const trace of traces) trace.visible = !hidden.has(trace.meta);
  const coarse = matchMedia("(pointer: coarse)").matches;
  Plotly.react(place, traces, { ...how, ...(coarse ? { dragmode: false } : {}) }, config);
  place.removeAllListeners("plotly_click");
  place.on("plotly_click", (event) => { const found = event.points.find((point) => typeof point.customdata === "string"); if (found) chosen(found.customdata); });
};

const swatch = (style, marksOnly, ink = series(style), mark = symbol(style)) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ width: 40, height: 16, viewBox: "0 0 40 16", "aria-hidden": "true" })) svg.setAttribute(name, value);
  const drawn = document.createElementNS(svg.namespaceURI, "path");
  drawn.setAttribute("d", OUTLINES[mark]);
  drawn.setAttribute("fill", ink);
  if (!marksOnly) {
    const path = document.createElementNS(svg.namespaceURI, "path");
    const dashes = { solid: "", dot: "2 3", dash: "6 4", longdash: "9 4", dashdot: "6 3 2 3", longdashdot: "9 3 2 3", "4px,2px": "4 2", "1px,3px": "1 3" };
    for (const [name, value] of Object.entries({ d: "M2 8h36", stroke: series(style), "stroke-width": 2, "stroke-dasharray": dashes[dash(style)], fill: "none" })) path.setAttribute(name, value);
    svg.append(path);
  }
  svg.append(drawn);
  return svg;
};

export const legend = (place, plot, shown, state, pin) => {
  const lines = new Map((shown.series || []).map((one) => [one.line, one]));
  place.replaceChildren(...[...lines.values()].map((one) => {
    const item = document.createElement("li");
    const name = Object.assign(document.createElement("button"), { type: "button", className: "name" });
    name.setAttribute("aria-pressed", String(!hidden.has(one.line)));
    name.append(swatch(one.style, shown.view === "scatter"), one.line);
    name.addEventListener("click", () => {
      if (!hidden.delete(one.line)) hidden.add(one.line);
      name.setAttribute("aria-pressed", String(!hidden.has(one.line)));
      Plotly.restyle(plot, { visible: plot.data.map((trace) => !hidden.has(trace.meta)) });
    });
    item.append(name);
    if (shown.view === "curves" && one.condition) {
      const pinned = state.get("base") === one.condition;
      const button = Object.assign(document.createElement("button"), { type: "button", className: "pin", textContent: "baseline" });
      button.setAttribute("aria-pressed", String(pinned));
      button.setAttribute("aria-label", `${one.line} as the baseline`);
      button.addEventListener("click", () => pin(pinned ? null : one.condition));
      item.append(button);
    }
    return item;
  }));
  if (shown.view === "moved") place.replaceChildren(...Object.entries(VERDICTS).filter(([name]) => shown.counts[name]).map(([name, [token, mark]]) => {
    const item = document.createElement("li");
    item.append(swatch(0, true, colour(token), mark), `${name}: ${shown.counts[name].toLocaleString("en")}`);
    return item;
  }));
};

// Smaller pictures, drawn again when the scheme changes.
export const small = (place, make, buttons) => {
  const drawIt = () => { const [traces, how] = make(); Plotly.react(place, traces, how, buttons || config); };
  others = others.filter(([there]) => there.isConnected);
  others.push([place, drawIt]);
  drawIt();
};
export const redraw = () => { for (const [place, drawIt] of others) if (place.isConnected) drawIt(); };
