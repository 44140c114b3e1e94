// Neurons: of each layer those that write most into the residual stream, where in the text they do, and what it speaks for.
const word = (id) => facts.words[id], tabs = facts.layers.map((l) => make("button", {role: "tab", onclick: () => show(l)}, `layer ${l.layer}`));
const cards = make("div");
view.append(
  make("p", {}, "A neuron reads the stream, and adds its own column to it, times its activation. Blue is where it adds that column, orange where it takes it away; full colour is the strongest place in this text."),
  make("p", {class: "soft"}, "Speaks for and against: the tokens that the output layer hears in the column (where it is taken away, the two change places). Neurons are ordered by how long the vector is that they write at their strongest."),
  make("div", {class: "row", role: "tablist"}, ...tabs), cards);

/** Lists tokens in a line. */
const chips = (pairs) => pairs.map(([id, value]) => make("span", {class: "chip", title: value.toFixed(3)}, token(word(id))));

/** The three places that drive a neuron most, each with the tokens before it. */
function drivers(written) {
  const order = written.map((w, i) => [Math.abs(w), i]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([w]) => w > 0);
  return order.map(([_, i]) => {
    const at = token(facts.tokens[i].text), before = facts.tokens.slice(Math.max(0, i - 4), i).map((t) => token(t.text));
    shade(at, Math.sign(written[i]));
    return make("span", {class: "chip"}, ...before, at, make("small", {}, ` ${written[i] > 0 ? "+" : "−"}${Math.abs(written[i]).toFixed(2)}`));
  });
}

function card(layer, neuron) {
  const most = Math.max(...neuron.written.map(Math.abs)) || 1, text = make("div", {class: "text"});
  text.append(...lines(facts.tokens.map((t, i) => {
    const span = token(t.text, {title: `${i}: ${neuron.written[i].toFixed(3)}`});
    shade(span, neuron.written[i] / most);
    return span;
  })));
  return make("article", {class: "card"}, make("h2", {}, `Neuron ${neuron.neuron} `, make("small", {}, `of ${layer.size.toLocaleString("en")}, writes up to ${most.toFixed(2)}`)), text,
    make("div", {class: "row"}, make("small", {}, "driven by"), ...drivers(neuron.written)),
    make("div", {class: "row"}, make("small", {}, "speaks for"), make("span", {}, ...chips(neuron.for))),
    make("div", {class: "row"}, make("small", {}, "against"), make("span", {}, ...chips(neuron.against))));
}
function show(layer) {
  tabs.forEach((tab, i) => tab.setAttribute("aria-selected", facts.layers[i] === layer));
  cards.replaceChildren(...layer.neurons.map((neuron) => card(layer, neuron)));
}
show(facts.layers[0]);
