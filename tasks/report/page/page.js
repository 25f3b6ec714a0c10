"use strict";
// Draws each picture when it comes into sight, in the colours of the reader's scheme; the legend shows and hides.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const problems = [];
  const note = (text) => { problems.push(String(text)); root.dataset.problems = problems.join(" | "); };
  addEventListener("error", (event) => note(event.message));
  addEventListener("unhandledrejection", (event) => note(event.reason));
  document.addEventListener("securitypolicyviolation", (event) => note(`${event.violatedDirective} ${event.blockedURI}`));

  const plots = [...document.querySelectorAll(".plot")];
  const specs = new Map(plots.map((place) => [place, place.querySelector("script").textContent]));
  const drawn = new Set();
  const hidden = new Set();

  const isDark = () => dark.matches && root.dataset.scheme !== "light";
  const ramps = {
    light: {
      density: ["#f2f6fb", "#9ecae1", "#4292c6", "#08519c", "#08203f"],
      distance: ["#0b6f86", "#3a9fb0", "#d9a441", "#cf5a2b", "#8c1d1d"],
    },
    dark: {
      density: ["#182433", "#14507f", "#1f86b8", "#7cc6b8", "#fbf3a6"],
      distance: ["#4fc3d9", "#8fdcd6", "#f2d27a", "#ff9a5a", "#ff6b6b"],
    },
  };
  const ramp = (name) => ramps[isDark() ? "dark" : "light"][name].map((c, i, all) => [i / (all.length - 1), c]);

  // "@series-1/0.2" -> the page's --series-1 at opacity 0.2; only where plotly expects a colour.
  const colour = (token, style) => {
    const match = /^@([a-z0-9-]+)(?:\/([\d.]+))?$/.exec(token);
    const found = match && style.getPropertyValue(`--${match[1]}`).trim();
    if (!found) return token;
    if (!match[2]) return found;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(found.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${match[2]})`;
  };
  const paint = (value, key, style) => {
    if (typeof value === "string") {
      if (key === "colorscale") return ramp(value.slice(1));
      return /color$/.test(key) ? colour(value, style) : value;
    }
    if (Array.isArray(value)) {
      return key === "colorscale" ? value.map(([at, token]) => [at, colour(token, style)]) : value.map((v) => paint(v, "", style));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, k, style)]));
    }
    return value;
  };

  const shows = (families) => !families || !families.length || families.some((key) => !hidden.has(String(key)));
  const visible = (trace) => {
    const meta = trace.meta;
    return !meta || (shows(meta.families) && !(meta.exact && hidden.has("exact")));
  };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const buttons = {
    flat: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    solid: [["toImage", "orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d"]],
  };
  const config = (spec) => ({
    responsive: true,
    displaylogo: false,
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: spec.layout.scene ? buttons.solid : buttons.flat,
  });

  const draw = async (place) => {
    const spec = paint(JSON.parse(specs.get(place)), "", getComputedStyle(root));
    for (const trace of spec.data) trace.visible = visible(trace);
    // Two fingers scroll the page on a phone; a swipe over a picture must not be caught by it.
    if (coarse && !spec.layout.scene) spec.layout.dragmode = false;
    await Plotly.react(place, spec.data, spec.layout, config(spec));
    if (spec.frames) await Plotly.addFrames(place, spec.frames);
    drawn.add(place);
    root.dataset.drawn = drawn.size;
  };
  const drawMany = async (places) => { for (const place of places) await draw(place).catch((error) => note(error)); };

  for (const place of plots) place.replaceChildren();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !drawn.has(entry.target)) {
        watcher.unobserve(entry.target);
        draw(entry.target).catch((error) => note(error));
      }
    }
  }, { rootMargin: "500px" });
  for (const place of plots) watcher.observe(place);

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const key = button.dataset.key;
      if (!hidden.delete(key)) hidden.add(key);
      for (const twin of document.querySelectorAll(".legend button")) {
        if (twin.dataset.key === key) twin.setAttribute("aria-pressed", String(!hidden.has(key)));
      }
      for (const figure of document.querySelectorAll("figure[data-families]")) {
        figure.hidden = !shows(figure.dataset.families.split(" "));
      }
      for (const place of drawn) {
        if (place.data.some((trace) => trace.meta)) Plotly.restyle(place, { visible: place.data.map(visible) });
      }
    });
  }
  for (const select of document.querySelectorAll("select[data-panes]")) {
    select.addEventListener("change", () => {
      document.querySelectorAll(`[data-of="${select.dataset.panes}"]`).forEach((pane, i) => { pane.hidden = i !== Number(select.value); });
    });
  }

  dark.addEventListener("change", () => drawMany(drawn));
  const everything = async () => {
    root.dataset.all = "drawing";
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    for (const pane of document.querySelectorAll(".pane")) pane.hidden = false;
    await drawMany(plots);
    root.dataset.all = "drawn";
  };
  if (location.hash === "#all") everything();
  addEventListener("beforeprint", () => {
    root.dataset.scheme = "light";
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    drawMany(plots.filter((place) => place.offsetParent !== null));
  });
  addEventListener("afterprint", () => { delete root.dataset.scheme; drawMany(drawn); });
  root.dataset.plots = plots.length;
  root.dataset.drawn = 0;
})();
