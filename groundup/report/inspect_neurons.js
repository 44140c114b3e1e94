// Neurons: of each layer those that write most into the residual stream, where in the text they do, and what it speaks for.
const word = (id) => facts.words[id], tabs = facts.layers.map((l) => make("button", {role: "tab", onclick: () => show(l)}, `layer ${l.layer}`));
const router = make("div"), cards = make("div", {class: "cards"});
view.append(
  make("p", {}, "A neuron reads the stream, and adds its own column to it, times its activation. Blue is where it adds that column, orange where it takes it away; full colour is the strongest place in this text."),
  make("p", {class: "soft"}, "Speaks for and against: the tokens that the output layer hears in the column (where it is taken away, the two change places). Neurons are ordered by how long the vector is that they write at their strongest."),
  make("div", {class: "row", role: "tablist"}, ...tabs), router, cards);

/** Lists tokens in a line. */
const chips = (pairs) => pairs.map(([id, value]) => make("span", {class: "chip", title: value.toFixed(3)}, token(word(id))));
const signed = (value) => `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`;

/** The text, each token shaded by a share from -1 to 1, and faint where there is none. */
function shaded(shares, tell) {
  const spans = facts.tokens.map((t, i) => {
    const span = token(t.text, {title: `${i}: ${shares[i] === null ? "not sent to this expert" : tell(i)}`, class: shares[i] === null ? "away" : ""});
    shade(span, shares[i] || 0);
    return span;
  });
  return make("div", {class: "text"}, ...lines(spans));
}

/** The three places that drive a neuron most, each with the tokens before it. */
function drivers(written) {
  const order = written.map((w, i) => [Math.abs(w), i]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([w]) => w > 0);
  return order.map(([_, i]) => {
    const at = token(facts.tokens[i].text), before = facts.tokens.slice(Math.max(0, i - 4), i).map((t) => token(t.text));
    shade(at, Math.sign(written[i]));
    return make("span", {class: "chip"}, ...before, at, make("small", {}, ` ${signed(written[i])}`));
  });
}

function card(layer, neuron) {
  const most = Math.max(...neuron.written.map(Math.abs)) || 1, expert = neuron.expert === null ? "" : `of expert ${neuron.expert}, `;
  return make("article", {class: "card"},
    make("h2", {}, `Neuron ${neuron.neuron} `, make("small", {}, `${expert}writes up to ${most.toFixed(2)}`)),
    shaded(neuron.written.map((w) => w === null ? null : w / most), (i) => signed(neuron.written[i])),
    make("dl", {}, ...[["driven by", drivers(neuron.written)], ["speaks for", chips(neuron.for)], ["against", chips(neuron.against)]].flatMap(
      ([name, found]) => [make("dt", {}, name), make("dd", {}, ...found)])));
}

/** Of a mixture of experts: how busy each one is with this text, and what is sent to the chosen one. */
function routes(layer) {
  const experts = new Map();
  layer.routes.forEach((sent, i) => sent.forEach(([expert, weight]) => {
    if (!experts.has(expert)) experts.set(expert, new Map());
    experts.get(expert).set(i, weight);
  }));
  const busy = [...experts.keys()].sort((a, b) => experts.get(b).size - experts.get(a).size), text = make("div");
  const buttons = busy.map((expert) => make("button", {onclick: () => choose(expert)}, `expert ${expert} `, make("small", {}, percent(experts.get(expert).size / facts.tokens.length))));
  function choose(expert) {
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", busy[n] === expert));
    const weights = facts.tokens.map((_, i) => experts.get(expert).get(i) ?? null);
    text.replaceChildren(shaded(weights, (i) => `weight ${percent(weights[i])}`));
  }
  router.replaceChildren(make("h2", {}, "Who is sent where"),
    make("p", {class: "soft"}, `Each token goes to ${layer.routes[0].length} experts. The share of this text that each one reads, the busiest first; colour is the router's weight.`),
    make("div", {class: "row", role: "group", "aria-label": "experts"}, ...buttons), text);
  choose(busy[0]);
}

function show(layer) {
  tabs.forEach((tab, i) => tab.setAttribute("aria-selected", facts.layers[i] === layer));
  if (layer.routes) routes(layer); else router.replaceChildren();
  const whose = layer.routes ? `${layer.size.toLocaleString("en")} in the experts that this text asked` : `${layer.size.toLocaleString("en")} in this layer`;
  cards.replaceChildren(make("p", {class: "soft"}, `The ${layer.neurons.length} that write most, of ${whose}.`), ...layer.neurons.map((neuron) => card(layer, neuron)));
}
show(facts.layers[0]);
