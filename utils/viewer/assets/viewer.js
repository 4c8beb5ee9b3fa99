"use strict";
// Unfolds what the pages hold packed, draws the curves, colours tokens, sorts, filters, and listens to keys.
// Text from model and data reaches the page escaped by the templates, or here as textContent, never as markup.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const COLORINGS = ["version", "log-ratio", "entropy", "none"];
let coloring = COLORINGS[0];

// --- curves ---
const data = document.getElementById("figures");
function draw(place, figure) {
  const { Plotting, HoverTool } = window.Bokeh, GRAY = "#7b8088";  // readable on white and on black
  const plot = Plotting.figure({
    height: 250, sizing_mode: "stretch_width", tools: "xbox_zoom,reset", toolbar_location: "right",
    y_axis_type: figure.log ? "log" : "linear", background_fill_color: null, border_fill_color: null,
    outline_line_color: null,
  });
  plot.toolbar.active_drag = null;  // a finger that scrolls the page must not zoom
  plot.toolbar.logo = null;
  const drawn = figure.lines.map((line) => {
    const style = { color: line.color, alpha: line.alpha }, named = figure.lines.length <= 12 ? { legend_label: line.name } : {};
    if (line.markers) plot.scatter(line.x, line.y, { ...style, size: 6, ...named });
    return plot.line(line.x, line.y, { ...style, ...named, line_width: line.width, line_dash: line.dash, name: line.name });
  });
  plot.add_tools(new HoverTool({ renderers: drawn, tooltips: [["", "$name"], ["step", "@x"], ["value", "@y{0.[0000]}"]] }));
  for (const axis of [...plot.xaxis, ...plot.yaxis]) {
    axis.axis_line_color = axis.major_tick_line_color = axis.major_label_text_color = GRAY;
    axis.minor_tick_line_color = null;
  }
  for (const grid of [...plot.xgrid, ...plot.ygrid]) { grid.grid_line_color = GRAY; grid.grid_line_alpha = 0.25; }
  if (plot.legend) Object.assign(plot.legend, {
    label_text_color: GRAY, label_text_font_size: "11px", background_fill_alpha: 0, border_line_color: null,
    location: "top_left", click_policy: "hide", glyph_height: 12, spacing: 0, padding: 2, margin: 2,
  });
  Plotting.show(plot, place);
}
if (data && window.Bokeh) {
  const figures = JSON.parse(data.textContent);
  for (const place of all(".plot")) draw(place, figures[place.dataset.figure]);
}

// --- light and dark ---
function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  try { if (name) localStorage.setItem("theme", name); } catch (error) { /* files may have no storage */ }
}
try { setTheme(localStorage.getItem("theme")); } catch (error) { /* likewise */ }
function switchTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
}

// --- groups ---
async function unfold(body) {
  const inside = body.querySelector(".inside"), holder = inside.querySelector(".packed");
  if (holder) {
    const bytes = Uint8Array.from(atob(holder.textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const template = document.createElement("template");
    template.innerHTML = await new Response(stream).text();  // escaped when it was written
    if (!holder.isConnected) return;
    holder.replaceWith(template.content);
    for (const place of all("[data-tokens]", inside)) {
      place.addEventListener("toggle", () => showTokens(place), { once: true });
    }
  }
}
async function toggle(body, open) {
  const inside = body.querySelector(".inside");
  const wanted = open === undefined ? inside.hidden : open;
  if (wanted) await unfold(body);
  inside.hidden = !wanted;
  body.classList.toggle("open", wanted);
}
for (const row of all("tbody .row")) row.addEventListener("click", (event) => {
  if (!event.target.closest("a")) toggle(row.parentElement);
});
function shown() { return all("table.groups tbody").filter((body) => !body.hidden); }
function move(by) {
  const bodies = shown(), at = bodies.indexOf(document.activeElement.closest("tbody"));
  const next = bodies[Math.max(0, Math.min(bodies.length - 1, at + by))];
  if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
}

// --- tokens ---
function showTokens(place) {
  const data = JSON.parse(place.dataset.tokens), box = document.createElement("div");
  box.className = "token-text";
  const versions = [...new Set(data.version)];
  data.text.forEach((text, i) => {
    const token = document.createElement("i");
    token.textContent = text;
    const ratio = data.proximal && data.behavior ? data.proximal[i] - data.behavior[i] : null;
    const entropy = data.entropy ? data.entropy[i] : null;
    token.style.setProperty("--v", String(versions.indexOf(data.version[i]) % 6));
    token.style.setProperty("--b", String(Math.min(data.behind - data.version[i], 8) * 11));
    token.style.setProperty("--r", String(Math.min(Math.abs(ratio || 0) * 100, 90)));
    if (ratio < 0) token.classList.add("less");
    token.style.setProperty("--e", String(Math.min((entropy || 0) * 40, 90)));
    const say = (name, value) => value === null || value === undefined ? "" : `${name} ${value}\n`;
    token.title = `token ${data.id[i]}\nversion ${data.version[i]}, ${data.behind - data.version[i]} behind\n`
      + say("behavior", data.behavior && data.behavior[i]) + say("proximal", data.proximal && data.proximal[i])
      + say("log-ratio", ratio === null ? null : ratio.toFixed(4)) + say("entropy", entropy);
    box.append(token);
  });
  if (data.left_out) box.append(` [... ${data.left_out} tokens more in rollouts/ ...]`);
  const bar = document.createElement("p"), told = document.createElement("small");
  bar.className = "bar";
  for (const name of COLORINGS) {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = name; button.dataset.coloring = name;
    button.addEventListener("click", () => setColoring(name));
    bar.append(button);
  }
  told.textContent = " the number of a token: point at it, or tap it";
  bar.append(told);
  box.addEventListener("click", (event) => { if (event.target.title) told.textContent = event.target.title.replaceAll("\n", "; "); });
  place.append(bar, box);
  setColoring(coloring);
}
function setColoring(name) {
  coloring = name;
  document.body.dataset.coloring = name;
  for (const button of all("[data-coloring]")) button.setAttribute("aria-pressed", String(button.dataset.coloring === name));
}

// --- sort and filter ---
function sort(key) {
  const head = document.querySelector(`th[data-sort="${key}"]`);
  if (!head) return;
  const table = head.closest("table"), up = head.getAttribute("aria-sort") === "descending";
  for (const other of all("th[data-sort]", table)) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const bodies = all("tbody", table).sort((a, b) => (up ? 1 : -1) * (Number(a.dataset[key]) - Number(b.dataset[key])));
  table.append(...bodies);
}
for (const head of all("th[data-sort]")) {
  head.tabIndex = 0;
  head.addEventListener("click", () => sort(head.dataset.sort));
}
const filter = document.querySelector("[data-filter]");
if (filter) filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase();
  for (const body of all("table.groups tbody")) {
    body.hidden = !body.querySelector(".row").textContent.toLowerCase().includes(wanted);
  }
});

// --- keys ---
const help = document.getElementById("help");
function follow(selector) { const link = document.querySelector(selector); if (link) location.href = link.href; }
const ACTIONS = { dark: switchTheme, help: () => help.showModal() };
for (const button of all("[data-do]")) button.addEventListener("click", () => ACTIONS[button.dataset.do]());
const KEYS = {
  ArrowLeft: () => follow("a[rel=prev]"), ArrowRight: () => follow("a[rel=next]"),
  j: () => move(1), k: () => move(-1),
  Enter: () => { const body = document.activeElement.closest("tbody"); if (body) toggle(body); },
  e: () => { const open = !document.querySelector("tbody.open"); shown().forEach((body) => toggle(body, open)); },
  r: () => sort("reward"), v: () => sort("variance"), l: () => sort("length"), s: () => sort("status"),
  c: () => setColoring(COLORINGS[(COLORINGS.indexOf(coloring) + 1) % COLORINGS.length]),
  "/": () => filter && filter.focus(), h: () => { location.href = document.body.dataset.root + "index.html"; },
  d: switchTheme, "?": () => help.showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea, select")) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.key === "Enter" && event.target.matches("summary, a, button")) return;
  if (event.key === "Enter" && event.target.matches("th[data-sort]")) { sort(event.target.dataset.sort); return; }
  const action = KEYS[event.key];
  if (action) { event.preventDefault(); action(); }
});
setColoring(coloring);
const named = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
if (named && named.matches("tbody")) { toggle(named, true).then(() => named.scrollIntoView()); named.focus(); }
