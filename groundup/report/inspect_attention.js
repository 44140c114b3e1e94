// Attention: a grid of all heads, and for the chosen one the text, its map and its habits.
const T = facts.tokens.length, heads = facts.heads;
for (const head of heads) head.bytes = Uint8Array.from(atob(head.map), (c) => c.charCodeAt(0));

/** The weight, 0 to 1, with which `query` looks at `key`. */
const weight = (head, query, key) => key > query ? 0 : head.bytes[query * (query + 1) / 2 + key] / 255;
const accent = () => getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();

/** Draws a map so small that it shows only its pattern: of the weights that fall on a pixel, the largest. */
function thumbnail(canvas, head) {
  const size = canvas.width = canvas.height = Math.min(T, 56), pen = canvas.getContext("2d"), most = new Float32Array(size * size);
  for (let q = 0; q < T; q++) for (let k = 0; k <= q; k++) {
    const at = Math.floor(q * size / T) * size + Math.floor(k * size / T);
    most[at] = Math.max(most[at], weight(head, q, k));
  }
  pen.fillStyle = accent();
  most.forEach((w, i) => { pen.globalAlpha = Math.sqrt(w); pen.fillRect(i % size, Math.floor(i / size), 1, 1); });
}

let chosen = heads.reduce((best, head) => (head.induction || 0) > (best.induction || 0) ? head : best, heads[0]);
let place = T - 1, pinned = false, backwards = true;

// The grid and the table on the left.
const layers = [...new Set(heads.map((h) => h.layer))], columns = [...new Set(heads.map((h) => h.head))];
const grid = make("div", {class: "heads", style: `grid-template-columns: auto repeat(${columns.length}, minmax(0, ${columns.length > 8 ? 2.6 : 3.6}rem))`});
grid.append(make("span"), ...columns.map((c) => make("span", {style: "text-align: center"}, String(c))));
for (const layer of layers) {
  grid.append(make("span", {}, `layer ${layer}`));
  for (const head of heads.filter((h) => h.layer === layer)) {
    head.canvas = make("canvas");
    head.button = make("button", {title: `layer ${head.layer}, head ${head.head}`, "aria-label": `layer ${head.layer}, head ${head.head}`, onclick: () => show(head)}, head.canvas);
    grid.append(head.button);
  }
}
const measures = ["induction", "previous", "first", "itself"], body = make("tbody");
function sort(name) {
  body.replaceChildren(...[...heads].sort((a, b) => b[name] - a[name]).map((head) => head.line));
  header.forEach((button, i) => button.setAttribute("aria-pressed", measures[i] === name));
}
const header = measures.map((name) => make("button", {onclick: () => sort(name), title: `sort by ${name}`}, name));
for (const head of heads) {
  head.line = make("tr", {class: "pick", onclick: () => show(head)}, make("td", {}, `${head.layer}.${head.head}`), ...measures.map((name) => {
    const cell = make("td", {}, make("span", {class: "tok"}, head[name] === null ? "–" : head[name].toFixed(2)));
    shade(cell.firstChild, head[name] || 0);
    return cell;
  }));
}
const test = facts.induction;
const about = test ? `Induction is measured on ${test.tokens} random tokens that are then repeated: the share of attention that goes to the token that came next the first time (a head that looks everywhere alike has ${test.chance.toFixed(3)}). On them the model's loss is ${test.first.toFixed(2)} nats a token in the first copy and ${test.second.toFixed(2)} in the second${test.second < 0.8 * test.first ? ": it copies." : "."}`
  : "The context is too short to measure induction.";
const habits = make("aside", {}, make("h2", {}, "What each head does"), make("div", {class: "scroll", style: "max-height: 34rem"}, make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "head"), ...header.map((b) => make("th", {}, b)))), body)),
  make("p", {class: "soft"}, make("small", {}, about)), make("p", {class: "soft"}, make("small", {}, "Previous, first, itself: the mean share that goes to the token before, to the first token and to the token itself, in this text.")));

// The chosen head on the right.
const title = make("h2"), readout = make("div", {class: "row", style: "min-height: 2.2rem"}), map = make("canvas", {class: "map", role: "img", "aria-label": "attention map"});
const spot = make("p", {class: "soft", style: "min-height: 1.5em"});
const [text, spans] = strip((i, clicked) => {
  if (clicked) pinned = !(pinned && place === i);
  if (clicked || !pinned) { place = text.place = i; paint(); }
}, "the text; choose a token");
const ways = [["what it looks at", true], ["what looks at it", false]].map(([label, value]) => make("button", {onclick: () => { backwards = value; paint(); }}, label));
view.append(make("p", {}, "Every token gathers what it needs from tokens before it. Point at a token to see where the chosen head looks from there; click to hold it."),
  make("div", {class: "panes"}, make("aside", {}, make("h2", {}, "Heads"), grid), make("section", {}, title, make("div", {class: "row"}, ...ways), text, readout, map, spot), habits));

/** Shades the text by the chosen token's weights, as the map does by their roots, and lists the largest. */
function paint() {
  const weights = spans.map((_, i) => backwards ? weight(chosen, place, i) : weight(chosen, i, place));
  spans.forEach((span, i) => { shade(span, Math.sqrt(weights[i])); span.classList.toggle("at", i === place); });
  ways.forEach((button, i) => button.setAttribute("aria-pressed", backwards === (i === 0)));
  const top = weights.map((w, i) => [w, i]).sort((a, b) => b[0] - a[0]).slice(0, 5).filter(([w]) => w > 0.01);
  readout.replaceChildren(token(facts.tokens[place].text, {class: "chip"}), backwards ? "looks at" : "is looked at by",
    ...top.map(([w, i]) => make("span", {}, token(facts.tokens[i].text, {class: "chip"}), make("small", {}, ` ${percent(w)}`))));
  draw();
}

let cell = 1, margin = 0;
/** Draws the map: a row for each query, a column for each key, labels where there is room for them. */
function draw() {
  const room = Math.max(240, Math.min(760, map.parentElement.clientWidth)), scale = window.devicePixelRatio || 1;
  cell = Math.max(room / (T + 7) >= 12 ? 12 : 1, Math.min(26, room / T)); margin = cell >= 12 ? 92 : 0;
  if (margin) cell = Math.max(12, Math.min(26, (room - margin) / T));
  const side = Math.ceil(margin + cell * T), pen = map.getContext("2d"), style = getComputedStyle(document.documentElement);
  map.width = map.height = side * scale; map.style.width = side + "px"; map.style.aspectRatio = "1";
  pen.scale(scale, scale);
  pen.fillStyle = style.getPropertyValue("--wash");
  for (let q = 0; q < T; q++) pen.fillRect(margin, margin + q * cell, (q + 1) * cell, cell + 0.5);
  pen.fillStyle = accent();
  for (let q = 0; q < T; q++) for (let k = 0; k <= q; k++) {
    const w = weight(chosen, q, k);
    if (w) { pen.globalAlpha = Math.sqrt(w); pen.fillRect(margin + k * cell, margin + q * cell, Math.max(1, cell - (cell > 6 ? 1 : 0)), Math.max(1, cell - (cell > 6 ? 1 : 0))); }
  }
  pen.globalAlpha = 1; pen.strokeStyle = style.getPropertyValue("--ink"); pen.lineWidth = 1;
  if (backwards) pen.strokeRect(margin + 0.5, margin + place * cell + 0.5, (place + 1) * cell - 1, cell - 1);
  else pen.strokeRect(margin + place * cell + 0.5, margin + place * cell + 0.5, cell - 1, (T - place) * cell - 1);
  if (!margin) return;
  pen.fillStyle = style.getPropertyValue("--soft"); pen.font = `${Math.min(12, cell)}px ui-monospace, monospace`; pen.textBaseline = "middle";
  for (let i = 0; i < T; i++) {
    const label = spans[i].textContent.slice(0, 12);
    pen.textAlign = "right"; pen.fillText(label, margin - 5, margin + (i + 0.5) * cell);
    pen.save(); pen.translate(margin + (i + 0.5) * cell, margin - 5); pen.rotate(-Math.PI / 2); pen.textAlign = "left"; pen.fillText(label, 0, 0); pen.restore();
  }
}

/** Tells of the place under the pointer; a click holds its query. */
function locate(event, clicked) {
  const box = map.getBoundingClientRect(), ratio = (margin + cell * T) / box.width;
  const k = Math.floor(((event.clientX - box.left) * ratio - margin) / cell), q = Math.floor(((event.clientY - box.top) * ratio - margin) / cell);
  if (q < 0 || k < 0 || q >= T || k > q) { spot.textContent = "Darker is more (the root of the weight, so that small ones show)."; return; }
  spot.replaceChildren("from ", token(facts.tokens[q].text, {class: "chip"}), ` (${q}) to `, token(facts.tokens[k].text, {class: "chip"}), ` (${k}): ${percent(weight(chosen, q, k))}`);
  if (clicked) { place = text.place = backwards ? q : k; pinned = true; paint(); }
}
map.onmousemove = (event) => locate(event, false);
map.onclick = (event) => locate(event, true);

function show(head) {
  for (const other of heads) {
    other.button.setAttribute("aria-pressed", other === head);
    other.line.classList.toggle("at", other === head);
  }
  chosen = head;
  title.textContent = `Layer ${head.layer}, head ${head.head}`;
  paint();
}
document.addEventListener("keydown", (event) => {
  if (!event.target.closest(".heads")) return;
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns.length, ArrowDown: columns.length}[event.key], next = heads[heads.indexOf(chosen) + step];
  if (next) { event.preventDefault(); show(next); next.button.focus(); }
});
function redraw() { heads.forEach((head) => thumbnail(head.canvas, head)); draw(); }
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
text.place = place;
sort("induction"); show(chosen); redraw();
spot.textContent = "Darker is more (the root of the weight, so that small ones show).";
