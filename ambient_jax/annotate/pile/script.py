"""The script of the page about a pile: plots and tables that answer to the pointer."""

SCRIPT = """"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const tip = byId("tip");
let pinned = "";

function make(tag, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}
function element(tag, className, parent, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}
const short = (v, digits = 3) =>
  v === null ? "more" : String(Number(v.toPrecision(digits)));
const known = (set) => D.sets.find((s) => s.name === set);
const colourOf = (set) => (known(set) || { colour: "var(--soft)" }).colour;
/* Clean data are what all is measured against, and never fade. */
const marked = (set) => (known(set) ? { "data-set": set, class: "series" } : {});

/* One data set is lit in all plots and tables, the others fade. */
function light(set) {
  const lit = set || pinned;
  document.body.dataset.lit = lit;
  document.querySelectorAll("[data-set]").forEach((node) => {
    node.classList.toggle("faded", Boolean(lit) && node.dataset.set !== lit);
    node.classList.toggle("lit", Boolean(lit) && node.dataset.set === lit);
  });
}
function say(event, lines) {
  tip.replaceChildren();
  lines.forEach((line, i) => element(i ? "div" : "b", "", tip, line));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const above = event.clientY + 16 + box.height > innerHeight;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${above ? event.clientY - box.height - 12 : event.clientY + 16}px`;
}
function hush() { tip.hidden = true; light(""); }

function nice(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((f) => f * power >= raw);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) ticks.push(v);
  return ticks.map((v) => Math.round(v / step) * step);
}
function place(svg, event) {
  const point = new DOMPoint(event.clientX, event.clientY);
  return point.matrixTransform(svg.getScreenCTM().inverse());
}
/* Axes; returns the svg and the maps from values to places. */
function frame(id, xs, ys, spec) {
  const [width, height, left, right, top, bottom] = [560, 300, 54, 14, 26, 44];
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, byId(id));
  svg.setAttribute("aria-label", spec.title);
  let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (spec.zero) { y0 = Math.min(y0, 0); y1 = Math.max(y1, 0); }
  const [px, py] = [(x1 - x0) * 0.025 || 0.5, (y1 - y0) * 0.06 || 0.5];
  [x0, x1, y0, y1] = [x0 - px, x1 + px, y0 - py, y1 + py];
  const X = (v) => left + ((width - left - right) * (v - x0)) / (x1 - x0);
  const Y = (v) => height - bottom - ((height - top - bottom) * (v - y0)) / (y1 - y0);
  for (const v of nice(y0, y1, 5)) {
    const is0 = spec.zero && v === 0;
    const at = { x1: left, x2: width - right, y1: Y(v), y2: Y(v), class: is0 ? "axis" : "grid" };
    make("line", at, svg);
    const label = short(v) + (spec.percent ? "%" : "");
    make("text", { x: left - 7, y: Y(v) + 3.5, "text-anchor": "end" }, svg, label);
  }
  for (const [v, label] of spec.ticks || nice(x0, x1, 6).map((v) => [v, short(v)])) {
    if (v < x0 || v > x1) continue;
    const floor = height - bottom;
    make("line", { x1: X(v), x2: X(v), y1: floor, y2: floor + 4, class: "axis" }, svg);
    make("text", { x: X(v), y: floor + 16, "text-anchor": "middle" }, svg, label);
  }
  const middle = (left + width - right) / 2;
  const below = { x: middle, y: height - 6, "text-anchor": "middle", class: "name" };
  make("text", below, svg, spec.xlabel);
  make("text", { x: 6, y: 12, class: "name" }, svg, spec.ylabel || spec.value);
  return { svg, X, Y, bottom: height - bottom, top };
}
const amount = (spec, y, low, high) => {
  const unit = spec.percent ? "%" : "";
  const ends = low === undefined ? "" : ` (${short(low)}${unit} to ${short(high)}${unit})`;
  return `${spec.value} ${short(y)}${unit}${ends}`;
};

/* Curves with bands; the nearest answers to the pointer. */
function curves(id, spec) {
  const all = spec.series.flatMap((s) => [...s.y, ...s.low, ...s.high]);
  const extra = (spec.points || []).flatMap((p) => [p.y, p.low, p.high]);
  const { svg, X, Y, bottom, top } = frame(id, spec.x, [...all, ...extra], spec);
  for (const s of spec.series) {
    const group = make("g", marked(s.set), svg);
    const up = spec.x.map((x, i) => `${X(x)},${Y(s.high[i])}`);
    const down = spec.x.map((x, i) => `${X(x)},${Y(s.low[i])}`).reverse();
    const band = { points: [...up, ...down].join(" "), fill: colourOf(s.set), class: "band" };
    make("polygon", band, group);
    const path = spec.x.map((x, i) => `${X(x)},${Y(s.y[i])}`).join(" ");
    const dash = s.dash ? "5 4" : "none";
    make("polyline", { points: path, stroke: colourOf(s.set), "stroke-dasharray": dash }, group);
  }
  for (const p of spec.points || []) {
    const group = make("g", marked(p.set), svg);
    const at = { x1: X(p.x), x2: X(p.x), y1: Y(p.low), y2: Y(p.high), stroke: colourOf(p.set) };
    make("line", { ...at, "stroke-width": 1.5 }, group);
    make("circle", { cx: X(p.x), cy: Y(p.y), r: 4, fill: colourOf(p.set) }, group);
  }
  const cursor = make("line", { y1: top, y2: bottom, class: "cursor", visibility: "hidden" }, svg);
  const dot = make("circle", { r: 4.5, class: "dot", visibility: "hidden" }, svg);
  svg.addEventListener("pointermove", (event) => {
    const at = place(svg, event);
    let best = null;
    const near = spec.x.map((x) => Math.abs(X(x) - at.x));
    const i = near.indexOf(Math.min(...near));
    for (const s of spec.series) {
      const off = Math.abs(Y(s.y[i]) - at.y);
      if (!best || off < best.off) best = { off, s };
    }
    const { s } = best;
    for (const node of [cursor, dot]) node.setAttribute("visibility", "visible");
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, X(spec.x[i]));
    dot.setAttribute("cx", X(spec.x[i]));
    dot.setAttribute("cy", Y(s.y[i]));
    dot.setAttribute("fill", colourOf(s.set));
    light(known(s.set) ? s.set : "");
    say(event, [s.title || s.set, `${spec.at} ${short(spec.shown[i])}`,
      amount(spec, s.y[i], s.low[i], s.high[i])]);
  });
  svg.addEventListener("pointerleave", () => {
    for (const node of [cursor, dot]) node.setAttribute("visibility", "hidden");
    hush();
  });
  return { svg, X, Y };
}

/* A strip for each data set: at which levels it helps, harms, and where it should train. */
function strips(id) {
  const rows = D.sets, tall = 34, left = 150, right = 14, width = 1120;
  const box = { viewBox: `0 0 ${width} ${rows.length * tall + 44}`, role: "img" };
  const svg = make("svg", box, byId(id));
  svg.setAttribute("aria-label", "levels at which each data set helps");
  const x = D.gain.x, half = (x[1] - x[0]) / 2;
  const [x0, x1] = [x[0] - half, x[x.length - 1] + half];
  const cut = (v) => Math.min(Math.max(v, x0), x1);
  const X = (v) => left + ((width - left - right) * (cut(v) - x0)) / (x1 - x0);
  rows.forEach((set, row) => {
    const y = row * tall + 6;
    const group = make("g", { "data-set": set.name, class: "series" }, svg);
    const name = set.name.length > 22 ? `${set.name.slice(0, 21)}…` : set.name;
    make("text", { x: left - 10, y: y + 13, "text-anchor": "end", class: "name" }, group, name);
    x.forEach((v, i) => {
      const kind = set.high[i] < 0 ? "helps" : set.low[i] > 0 ? "harms" : "unsure";
      const at = { x: X(v - half), y, width: X(v + half) - X(v - half) - 1, height: 16, rx: 2 };
      const cell = make("rect", { ...at, class: kind }, group);
      cell.addEventListener("pointermove", (event) => {
        light(set.name);
        const verb = kind === "unsure" ? "no difference is certain" : kind;
        say(event, [set.name, `sigma ${short(D.gain.shown[i])}: ${verb}`,
          amount(D.gain, set.y[i], set.low[i], set.high[i])]);
      });
      cell.addEventListener("pointerleave", hush);
    });
    for (const [from, to] of set.trains) {
      const at = { x: X(from), y: y + 19, width: Math.max(2, X(to) - X(from)), height: 4, rx: 2 };
      make("rect", { ...at, style: `fill: ${set.colour}` }, group);
    }
  });
  const floor = rows.length * tall + 6;
  for (const [v, label] of D.gain.ticks) {
    make("text", { x: X(v), y: floor + 12, "text-anchor": "middle" }, svg, label);
  }
  const below = { x: (left + width) / 2, y: floor + 30, "text-anchor": "middle", class: "name" };
  make("text", below, svg, "noise level sigma");
}

/* Episodes: two plots and a table that know each other. */
const E = D.episodes.map((row, i) => {
  const e = Object.fromEntries(D.columns.map((name, k) => [name, row[k]]));
  e.number = i;
  return e;
});
const marks = new Map();
const overlays = [];
function pick(e) {
  document.querySelectorAll(".picked").forEach((node) => node.classList.remove("picked"));
  overlays.forEach((o) => o.replaceChildren());
  if (!e) return;
  for (const node of marks.get(e.number) || []) {
    node.classList.add("picked");
    node.parentNode.append(node);
  }
  const row = document.querySelector(`tr[data-episode="${e.number}"]`);
  if (row) row.classList.add("picked");
  overlays.forEach((o) => o.draw(e));
}
const about = (e) => [`${e.set}, episode ${e.episode}`, `${e.length} steps`,
  `P(clean) ${short(e.p)} (robust z ${short(e.zp)})`,
  `influence ${short(e.influence)} (robust z ${short(e.zi)})`,
  ...(e.suspect ? ["stands out: look at it"] : [])];
function scatter(id, spec) {
  const xs = E.map((e) => spec.x(e)), ys = E.map((e) => spec.y(e));
  const { svg, X, Y } = frame(id, xs, ys, spec);
  const layer = make("g", {}, svg);
  E.forEach((e, i) => {
    const kind = `episode${e.suspect ? " suspect" : ""}`;
    const at = { cx: X(xs[i]), cy: Y(ys[i]), r: e.suspect ? 4.5 : 3, fill: colourOf(e.set) };
    const node = make("circle", { ...at, class: kind, "data-set": e.set }, layer);
    marks.set(e.number, [...(marks.get(e.number) || []), node]);
  });
  svg.addEventListener("pointermove", (event) => {
    const at = place(svg, event);
    let best = null, least = 18 ** 2;
    E.forEach((e, i) => {
      const off = (X(xs[i]) - at.x) ** 2 + (Y(ys[i]) - at.y) ** 2;
      if (off < least) [best, least] = [e, off];
    });
    pick(best);
    if (!best) return hush();
    light(best.set);
    say(event, about(best));
  });
  svg.addEventListener("pointerleave", () => { pick(null); hush(); });
}

const HEAD = [["set", "data set"], ["episode", "episode"], ["length", "steps"], ["p", "P(clean)"],
  ["zp", "robust z"], ["influence", "influence"], ["zi", "robust z"], ["suspect", "stands out"]];
const view = { key: "worst", down: false, most: 100 };
E.forEach((e) => { e.worst = Math.min(e.zp, e.zi); });
function table() {
  const wanted = byId("filter-set").value, text = byId("filter-text").value.trim();
  const only = byId("filter-suspect").checked;
  const rows = E.filter((e) => (!wanted || e.set === wanted) && (!only || e.suspect)
    && (!text || String(e.episode) === text));
  const sign = view.down ? -1 : 1;
  rows.sort((a, b) => sign * (a[view.key] > b[view.key] ? 1 : a[view.key] < b[view.key] ? -1 : 0));
  const body = byId("rows");
  body.replaceChildren();
  for (const e of rows.slice(0, view.most)) {
    const row = element("tr", "", body);
    row.dataset.set = e.set;
    row.dataset.episode = e.number;
    for (const [key] of HEAD) {
      const word = key === "set" || key === "suspect";
      const value = key === "suspect" ? (e.suspect ? "yes" : "") : word ? e[key]
        : key === "episode" || key === "length" ? e[key] : short(e[key], 2 + !key.startsWith("z"));
      element("td", word ? "word" : "figure", row, value);
    }
    row.addEventListener("pointerenter", () => { pick(e); light(e.set); });
    row.addEventListener("pointerleave", () => { pick(null); light(""); });
  }
  byId("count").textContent = `${Math.min(rows.length, view.most)} of ${rows.length} episodes`;
  byId("more").hidden = rows.length <= view.most;
  document.querySelectorAll("#episodes th").forEach((th) => {
    const sorted = th.dataset.key === view.key ? (view.down ? "descending" : "ascending") : "none";
    th.setAttribute("aria-sort", sorted);
  });
  light("");
}
function tableHead() {
  const head = byId("head");
  for (const [key, label] of HEAD) {
    const th = element("th", key === "set" || key === "suspect" ? "word" : "figure", head);
    th.dataset.key = key;
    element("button", "", th, label).addEventListener("click", () => {
      view.down = view.key === key ? !view.down : key === "suspect" || key === "length";
      view.key = key;
      table();
    });
  }
  const choice = byId("filter-set");
  for (const name of ["", ...D.sets.map((s) => s.name)]) {
    element("option", "", choice, name || "all data sets").value = name;
  }
  for (const id of ["filter-set", "filter-text", "filter-suspect"]) {
    byId(id).addEventListener("input", table);
  }
  byId("more").addEventListener("click", () => { view.most += 200; table(); });
}

curves("plot-gain", D.gain);
strips("plot-strips");
if (D.worth) curves("plot-worth", D.worth);
const clean = curves("plot-clean", D.clean);
const influence = curves("plot-influence", D.influence);
for (const [plot, spec, key] of [[clean, D.clean, "curve"], [influence, D.influence, "moves"]]) {
  const layer = make("g", { class: "overlay" }, plot.svg);
  layer.draw = (e) => {
    const points = spec.x.map((x, i) => `${plot.X(x)},${plot.Y(e[key][i])}`).join(" ");
    make("polyline", { points }, layer);
  };
  overlays.push(layer);
}
scatter("plot-episodes", { title: "episodes by P(clean) and influence", zero: true,
  xlabel: "P(clean), mean over noise levels", ylabel: "influence",
  x: (e) => e.p, y: (e) => e.influence });
scatter("plot-length", { title: "P(clean) of episodes by length", ticks: D.lengths,
  xlabel: "steps of the episode", ylabel: "P(clean)",
  x: (e) => Math.log10(e.length), y: (e) => e.p });
tableHead();
table();
document.querySelectorAll(".chip, #sets tr[data-set]").forEach((node) => {
  const set = node.dataset.set;
  node.addEventListener("pointerenter", () => light(set));
  node.addEventListener("pointerleave", () => light(""));
  if (node.classList.contains("chip")) node.addEventListener("click", () => {
    pinned = pinned === set ? "" : set;
    document.querySelectorAll(".chip").forEach((c) =>
      c.setAttribute("aria-pressed", String(c.dataset.set === pinned)));
    light("");
  });
});
"""
