"use strict";
// Draws each picture when it comes into sight, in the colours of the reader's scheme; the legend makes curves stand out.
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

  const isDark = () => (root.dataset.scheme || (dark.matches ? "dark" : "light")) === "dark";
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

  // What stands out: names that were pressed, and the one that is pointed at.
  const pressed = new Set();
  let pointed = null;
  const chosen = () => (pointed === null ? pressed : new Set([...pressed, pointed]));
  const stands = (meta, keys) =>
    !keys.size || meta.families.some((key) => keys.has(String(key))) || (meta.exact && keys.has("exact"));
  const light = (place, keys) => {
    (place._fullData || []).forEach((trace, i) => {
      const meta = place.data[i] && place.data[i].meta;
      const drawing = meta && meta.families && place.querySelector(`.trace${trace.uid}`);
      if (drawing) drawing.style.opacity = stands(meta, keys) ? "" : "0.12";
    });
  };
  const lightAll = () => {
    const keys = chosen();
    for (const place of drawn) light(place, keys);
    for (const figure of document.querySelectorAll("figure[data-families]")) {
      const meta = { families: figure.dataset.families.split(" "), exact: figure.dataset.exact === "true" };
      figure.classList.toggle("dim", !stands(meta, keys));
    }
  };

  // What all pictures have in common: no title and no legend, the page has them as text.
  const common = {
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: "@ink" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 12, t: 10, b: 44 },
    showlegend: false,
    hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "@axis", activecolor: "@ink" },
    hoverlabel: { bgcolor: "@card", bordercolor: "@axis", font: { color: "@ink" }, align: "left" },
    autosize: true,
  };
  const axis = {
    gridcolor: "@grid", linecolor: "@axis", zeroline: false, showline: true,
    ticks: "outside", ticklen: 4, tickcolor: "@axis", automargin: true,
  };
  const title = { font: { size: 12 }, standoff: 6 };
  const complete = (layout) => {
    const found = { ...common, ...layout };
    for (const [key, own] of Object.entries(layout)) {
      if (/^[xy]axis/.test(key)) found[key] = { ...axis, ...own, title: { ...title, ...own.title } };
    }
    return found;
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

  // plotly.js lies in the page compressed (tasks/report/page/library.py).
  const unpack = async () => {
    if (!window.DecompressionStream) throw new Error("this browser is too old to unpack them");
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = new Uint8Array(packed.length);  // `Uint8Array.from` would call a function for each
    for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
    const script = document.createElement("script");
    script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(script);
  };
  // Without it the first picture's place says why; the others stay empty.
  const unpacked = () => unpack().catch((error) => {
    const words = document.createElement("p");
    words.textContent = `The pictures cannot be drawn: ${error.message}.`;
    plots[0].replaceChildren(words);
    throw error;
  });
  let library = null;

  // Pictures that move: how far on the way each is, from 0 to 1.
  const shares = new Map();
  const show = async (place) => {
    const frames = place._transitionData._frames;
    const { name } = frames[Math.round((shares.get(place) || 0) * (frames.length - 1))];
    const unmoved = { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: false } };
    await Plotly.animate(place, [name], unmoved).catch((error) => { if (error) throw error; });  // none: another frame came first
    place.closest("figure").querySelector(".frame").textContent = name;
  };

  const finish = async (place, frames, plotted) => {
    await plotted;
    if (!frames) return;
    await Plotly.addFrames(place, frames);
    await show(place);  // drawn anew in other colours, it stays where it was
  };
  // What is SVG stands when this returns; the promise is of the rest.
  const begin = (place) => {
    const read = JSON.parse(specs.get(place));
    read.layout = complete(read.layout);
    const spec = paint(read, "", getComputedStyle(root));
    // Two fingers scroll the page on a phone; a swipe over a picture must not be caught by it.
    if (coarse && !spec.layout.scene) spec.layout.dragmode = false;
    const plotted = Plotly.react(place, spec.data, spec.layout, config(spec));
    const after = () => {
      light(place, chosen());
      // The picture's words are its label and caption; its buttons stay within reach.
      for (const drawing of place.querySelectorAll(".main-svg")) drawing.setAttribute("aria-hidden", "true");
    };
    if (!drawn.has(place)) place.on("plotly_afterplot", after);
    drawn.add(place);
    after();
    return finish(place, spec.frames, plotted);
  };
  const draw = async (place) => {
    await (library ??= unpacked());
    await begin(place);
    root.dataset.drawn = drawn.size;
  };
  const atOnce = (place) => { try { begin(place).catch((error) => note(error)); } catch (error) { note(error); } };
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

  // One control moves all pictures of its pane, each to its own frame at the same part of the way.
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const SECONDS = 4;  // for a way of few frames; of many, 0.08 each
  for (const control of document.querySelectorAll(".motion")) {
    const [button, slider] = control.children;
    const places = [...control.nextElementSibling.querySelectorAll(".frame")].map((name) => name.parentElement.querySelector(".plot"));
    const last = Number(slider.max);
    let playing = false;
    let following = false;
    let shown = 0;
    // Frames that came while others were drawn are passed over: a slow machine shows fewer, not later ones.
    const follow = async () => {
      if (following) return;
      following = true;
      while (shown !== slider.value) {
        const to = slider.value;
        for (const place of places) shares.set(place, last ? to / last : 0);
        for (const place of places) await (drawn.has(place) ? show(place) : draw(place));
        shown = to;
        slider.setAttribute("aria-valuetext", control.nextElementSibling.querySelector(".frame").textContent);
      }
      following = false;
    };
    const go = (to) => {
      slider.value = to;
      follow().catch((error) => { following = false; note(error); });
    };
    const name = () => {
      button.textContent = still.matches ? "Next" : playing ? "Pause" : "Play";
      button.dataset.state = playing ? "playing" : "paused";
    };
    const play = (on) => { playing = on; name(); };
    button.addEventListener("click", () => {
      const at = Number(slider.value);
      if (still.matches) return go(at < last ? at + 1 : 0);  // by a step for each press: nothing moves by itself
      play(!playing);
      if (!playing) return;
      const milliseconds = Math.max(1e3 * SECONDS, 80 * last);
      let began = null;
      const tick = (now) => {
        if (!playing) return;
        began ??= now - (at < last ? at / last : 0) * milliseconds;
        const part = Math.min(1, (now - began) / milliseconds);
        go(Math.round(part * last));
        if (part < 1) requestAnimationFrame(tick);
        else play(false);
      };
      requestAnimationFrame(tick);
    });
    slider.addEventListener("input", () => { play(false); go(slider.value); });
    still.addEventListener("change", () => play(false));
    name();
    control.hidden = false;
  }

  for (const button of document.querySelectorAll(".legend button")) {
    const key = button.dataset.key;
    const point = (to) => { pointed = to; lightAll(); };
    button.addEventListener("click", () => {
      if (!pressed.delete(key)) pressed.add(key);
      button.setAttribute("aria-pressed", String(pressed.has(key)));
      point(null);
    });
    button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") point(key); });
    button.addEventListener("pointerleave", () => point(null));
  }
  // On a narrow screen contents and curves unfold from one bar.
  const bar = [...document.querySelectorAll(".rail-bar button")];
  const unfold = (which) => {
    for (const button of bar) {
      const open = button === which && button.getAttribute("aria-expanded") !== "true";
      button.setAttribute("aria-expanded", String(open));
      document.getElementById(button.getAttribute("aria-controls")).classList.toggle("open", open);
    }
  };
  for (const button of bar) button.addEventListener("click", () => unfold(button));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    unfold(null);
    pressed.clear();
    pointed = null;
    for (const button of document.querySelectorAll(".legend button")) button.setAttribute("aria-pressed", "false");
    lightAll();
  });
  // Contents: a fold that is jumped to opens, and the section in sight is marked.
  const links = [...document.querySelectorAll("#contents a")];
  const unfoldTarget = (hash) => {
    const target = hash.length > 1 && document.getElementById(hash.slice(1));
    const folds = target ? target.querySelectorAll(":scope > details") : [];
    if (folds.length === 1) folds[0].open = true;
  };
  for (const link of links) link.addEventListener("click", () => { unfold(null); unfoldTarget(link.hash); });
  const inSight = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links) {
        if (link.hash === `#${entry.target.id}`) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const link of links) inSight.observe(document.getElementById(link.hash.slice(1)));

  for (const select of document.querySelectorAll("select[data-panes]")) {
    select.addEventListener("change", () => {
      document.querySelectorAll(`[data-of="${select.dataset.panes}"]`).forEach((pane, i) => { pane.hidden = i !== Number(select.value); });
    });
  }

  const kept = (value) => {
    try {
      return value === undefined ? localStorage.getItem("diffatlas-scheme") : localStorage.setItem("diffatlas-scheme", value);
    } catch { return null; }  // a page from a file may have no storage
  };
  const scheme = document.getElementById("scheme");
  const name = () => { scheme.textContent = isDark() ? "Light colours" : "Dark colours"; };
  const turn = (to) => { root.dataset.scheme = to; name(); return drawMany(drawn); };
  scheme.hidden = false;
  scheme.addEventListener("click", () => { const to = isDark() ? "light" : "dark"; kept(to); turn(to); });
  if (["light", "dark"].includes(kept())) root.dataset.scheme = kept();
  name();
  dark.addEventListener("change", () => { name(); drawMany(drawn); });
  const everything = async () => {
    root.dataset.all = "drawing";
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    for (const pane of document.querySelectorAll(".pane")) pane.hidden = false;
    await drawMany(plots);
    root.dataset.all = "drawn";
  };
  if (location.hash === "#all") everything();
  let before;
  let unfolded = [];
  addEventListener("beforeprint", () => {
    before = root.dataset.scheme;
    root.dataset.scheme = "light";
    root.dataset.print = "yes";
    unfolded = [...document.querySelectorAll("details:not([open])")];
    for (const fold of unfolded) fold.open = true;
    const shown = plots.filter((place) => place.offsetParent !== null);
    if (!window.Plotly) drawMany(shown);
    else for (const place of shown) atOnce(place);  // paper waits for no promise
  });
  addEventListener("afterprint", () => {
    delete root.dataset.print;
    if (before) root.dataset.scheme = before;
    else delete root.dataset.scheme;
    for (const fold of unfolded) fold.open = false;
    drawMany(drawn);
  });
  root.dataset.plots = plots.length;
  root.dataset.drawn = 0;
})();
