// Logits: how surprising each token was, what was expected at each place after each layer, and each token's neighbours.
const T = facts.tokens.length, lens = facts.lens, last = lens.length - 1, word = (id) => facts.words[id];
const bits = (i) => i === 0 || !lens[last].next[i - 1] ? null : -Math.log2(lens[last].next[i - 1]);
let place = Math.max(0, T - 1), layer = last, pinned = false;

const [text, spans] = strip((i, clicked) => {
  if (clicked) pinned = !(pinned && place === i);
  if (clicked || !pinned) choose(last, i, clicked);
}, "the text; choose a token");
spans.forEach((span, i) => {
  const surprise = bits(i);
  shade(span, surprise === null ? 0 : -surprise / 10);
  if (i) span.title += surprise === null ? ", surprise: beyond measure" : `, surprise ${surprise.toFixed(1)} bits`;
});
const measured = facts.tokens.map((_, i) => bits(i)).filter((b) => b !== null);
const mean = measured.length ? `${(measured.reduce((a, b) => a + b, 0) / measured.length).toFixed(2)} bits a token on average.` : "";

// The lens: a column for each place, a row for each layer, the last on top; broken into lines like the text itself.
const heads = facts.tokens.map((t) => make("th", {}, token(t.text)));
const truth = facts.tokens.map((_, i) => make("th", {}, i + 1 < T ? token(facts.tokens[i + 1].text) : ""));
const cells = lens.map((row, l) => facts.tokens.map((_, i) => {
  const first = row.ids[i][0], hit = i + 1 < T && first === facts.tokens[i + 1].id;
  const cell = make("td", {class: hit ? "hit" : null, title: `${word(first)}: ${percent(row.p[i][0])}`,
    onclick: () => { pinned = true; choose(l, i, false); }, onmouseenter: () => { if (!pinned) choose(l, i, false); }}, token(word(first)));
  cell.style.setProperty("--a", row.p[i][0]);
  return cell;
}));
const rows = [["it has read", heads], ...cells.map((row, l) => [l === 0 ? "embedding" : l === last ? `layer ${l - 1} (output)` : `layer ${l - 1}`, row]).reverse(), ["truly next", truth]];
const table = make("div", {class: "lens"});
/** Returns a table of the places from `start` up to `end`. */
const line = (start, end) => make("table", {}, make("tbody", {}, ...rows.map(([name, row]) => make("tr", {}, make("th", {}, name), ...row.slice(start, end)))));
let widths = [], broken = 0;
/** Breaks the lens into lines as wide as there is room for. */
function wrap() {
  if (!widths.length) { // of the columns, as a single line would have them
    table.replaceChildren(line(0, T));
    widths = [...table.querySelector("tr").children].map((cell) => cell.getBoundingClientRect().width);
  }
  const room = table.clientWidth;
  if (room === broken) return;
  broken = room;
  const tables = [];
  for (let start = 0, end = 0; start < T; start = end) {
    for (let used = widths[0]; end < T && (end === start || used + widths[end + 1] <= room); end++) used += widths[end + 1];
    tables.push(line(start, end));
  }
  table.replaceChildren(...tables);
}
window.addEventListener("resize", wrap);

const detail = make("aside", {class: "detail"});
/** Lists tokens with a bar each. */
function bars(pairs, most, form) {
  return make("table", {}, make("tbody", {}, ...pairs.map(([id, value, hit]) => make("tr", {}, make("td", {}, token(word(id), {class: "chip"}), hit ? make("small", {}, " truly next") : null),
    make("td", {}, form(value)), make("td", {style: "text-align: left; width: 7rem"}, make("span", {class: "bar", style: `width: ${Math.max(0, 6 * value / most).toFixed(2)}rem`}))))));
}
function choose(l, i, scroll) {
  cells[layer][place].classList.remove("at"); spans[place].classList.remove("at");
  layer = l; place = text.place = i;
  cells[l][i].classList.add("at"); spans[i].classList.add("at");
  if (scroll) cells[l][i].scrollIntoView({block: "nearest", inline: "nearest"});
  const row = lens[l], next = i + 1 < T ? facts.tokens[i + 1] : null;
  const pairs = row.ids[i].map((id, n) => [id, row.p[i][n], next && id === next.id]);
  const near = facts.neighbours[facts.tokens[i].id];
  detail.replaceChildren(
    make("h2", {}, "After ", token(facts.tokens[i].text, {class: "chip"}), make("small", {}, ` at ${i}, ${l === last ? "at the output" : l === 0 ? "of the embedding alone" : `after layer ${l - 1}`}`)),
    bars(pairs, Math.max(0.05, pairs[0][1]), percent),
    next ? make("p", {class: "soft"}, "Truly next: ", token(next.text, {class: "chip"}), ` ${percent(row.next[i])}, number ${row.rank[i].toLocaleString("en")} of the list.`) : make("p", {class: "soft"}, "The text ends here."),
    make("h3", {}, "Nearest to ", token(facts.tokens[i].text, {class: "chip"}), " in the embedding"), bars(near, 1, (c) => c.toFixed(2)),
    make("p", {class: "soft"}, make("small", {}, "The cosine of the angle between their vectors: 1 is the same direction.")));
}
view.append(
  make("p", {}, "Orange marks tokens that surprised it: full colour is ten bits, a token of which it expected one in a thousand. ", mean),
  text,
  make("div", {class: "panes wide"}, make("section", {}, make("h2", {}, "Logit lens"),
    make("p", {class: "soft"}, "What the output layer would say if the model ended after each layer. Colour is its probability, a line marks what truly came next. Click holds a place."), table), detail));
wrap();
choose(last, place, false);
