"""A model to look at: its layers with what each holds and costs, and its block as a drawing. Needs no torch."""

from html import escape
from typing import NamedTuple

from groundup.model.config import ModelConfig

__all__ = ["Layer", "draw", "layers"]


class Layer(NamedTuple):
    """A kind of layer: the shape of one, and what all of them come to."""

    name: str
    shape: tuple[int, ...]  # of the weight; empty for what has none
    number: int  # how many there are in the model
    params: int
    flops: float  # for a token of training, forward and backward


def layers(config: ModelConfig, context: int | None = None) -> list[Layer]:
    """Returns the model's layers from the tokens to the logits; their sums are `params()` and `flops_per_token(context)`."""
    context, width, inside = context or config.context, config.d_model, config.ff_size
    depth, experts, bias = config.n_layers, config.experts, config.bias
    queries, keys = config.n_heads * config.head_size, config.kv_heads * config.head_size
    rows: list[Layer] = []

    def add(name: str, shape: tuple[int, ...], number: int, used: float = 0.0, biased: bool = False) -> None:
        """Appends `number` layers, of which a token is multiplied by `used`."""
        size = shape[0] * (shape[1] if len(shape) > 1 else 1)
        rows.append(Layer(name, shape, number, number * (size + biased * shape[0]), 6.0 * used * size))

    norms_biased = bias and config.norm == "layer"
    add("embed", (config.vocab_size, width), 1)
    if config.positions == "learned":
        add("positions", (config.context, width), 1)
    add("attn_norm", (width,), depth, biased=norms_biased)
    add("attn.qkv", (queries + 2 * keys, width), depth, depth, bias)
    if config.qk_norm:
        add("attn.q_norm, k_norm", (config.head_size,), 2 * depth)
    seen = sum(min(context, config.window_of(layer) or context) for layer in range(depth))
    rows.append(Layer("attn scores and sums", (), depth, 0, 12.0 * queries * seen))
    add("attn.out", (width, queries), depth, depth, bias)
    add("mlp_norm", (width,), depth, biased=norms_biased)
    if experts > 1:
        add("mlp.router", (experts, width), depth, depth)
    prefix, active = "mlp.experts." if experts > 1 else "mlp.", depth * config.active_experts
    columns = 2 if config.activation == "swiglu" else 1
    add(prefix + "up", (columns * inside, width), depth * experts, active, bias)
    add(prefix + "down", (width, inside), depth * experts, active, bias)
    if config.pre_norm:
        add("norm", (width,), 1, biased=norms_biased)
    if config.tie_embeddings:
        rows.append(Layer("head (the embedding)", (config.vocab_size, width), 1, 0, 6.0 * config.vocab_size * width))
    else:
        add("head", (config.vocab_size, width), 1, 1)
    return rows


STREAM, LEFT, RIGHT, WIDTH = 60, 106, 496, 516  # x of the residual stream, of the boxes' sides, and the drawing's width
COLOURS = {"norm": "#fdf3d8", "attention": "#dcebfa", "mlp": "#dff3e4", "table": "#f1e6f7"}


class _Drawing:
    """Shapes from the bottom upwards, as the data flow; `y` is how high it has come."""

    def __init__(self) -> None:
        self.shapes: list[str] = []
        self.y = 0

    def up(self, distance: int, x: int = STREAM) -> None:
        """Draws a line upwards."""
        self.line(x, self.y, x, self.y + distance)
        self.y += distance

    def line(self, *ends: float, arrow: bool = False) -> None:
        """Draws a line through points x, y, x, y, ..."""
        points = " ".join(f"{x},{-y}" for x, y in zip(ends[::2], ends[1::2], strict=True))
        marker = ' marker-end="url(#tip)"' if arrow else ""
        self.shapes.append(f'<polyline points="{points}" fill="none" stroke="#555" stroke-width="1.5"{marker}/>')

    def text(
        self, x: float, y: float, words: str, size: int = 13, anchor: str = "middle", weight: str = "normal"
    ) -> None:
        """Writes words whose middle is at height y."""
        style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
        self.shapes.append(f'<text x="{x}" y="{-y + size * 0.36:.1f}" {style} fill="#222">{escape(words)}</text>')

    def box(self, kind: str, title: str, detail: str, left: int = LEFT, right: int = RIGHT) -> None:
        """Draws a box of height 44 with a title and a line of detail; goes up to its top."""
        frame = f'x="{left}" y="{-self.y - 44}" width="{right - left}" height="44" rx="6"'
        self.shapes.append(f'<rect {frame} fill="{COLOURS[kind]}" stroke="#555" stroke-width="1.2"/>')
        self.text((left + right) / 2, self.y + 29, title, weight="bold")
        self.text((left + right) / 2, self.y + 12, detail, size=11)
        self.y += 44

    def plus(self) -> None:
        """Draws the sum of the stream and what comes from the right."""
        self.shapes.append(
            f'<circle cx="{STREAM}" cy="{-self.y}" r="9" fill="white" stroke="#555" stroke-width="1.5"/>'
        )
        self.text(STREAM, self.y, "+", size=15)

    def svg(self) -> str:
        """Returns the drawing."""
        tip = ('<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
               '<path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>')  # fmt: skip
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-self.y - 14} {WIDTH} {self.y + 28}" width="{WIDTH}" '
        )
        font = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif"'
        ground = f'<rect x="0" y="{-self.y - 14}" width="{WIDTH}" height="{self.y + 28}" fill="white"/>'
        return "\n".join([head + f'height="{self.y + 28}" {font}>', tip, ground, *self.shapes, "</svg>"]) + "\n"


def draw(config: ModelConfig) -> str:
    """Returns the model as an SVG: its block, with the residual stream on the left, between the embedding and the logits."""
    drawing, width = _Drawing(), config.d_model
    place = {"rope": "positions: rotary, in attention", "learned": f"+ {config.context} learned positions",
             "sinusoidal": "+ sines and cosines of the position"}[config.positions]  # fmt: skip
    drawing.text(STREAM, 4, "tokens")
    drawing.y = 14
    drawing.up(14)
    drawing.box("table", "embedding", f"{config.vocab_size} x {width}, {place}", 20)
    drawing.up(12)
    bottom = drawing.y
    drawing.up(12)
    _branch(drawing, config, *_attention(config))
    _branch(drawing, config, *_feed_forward(config))
    drawing.up(6 if config.pre_norm else 22)
    frame = f'x="8" y="{-drawing.y}" width="{WIDTH - 16}" height="{drawing.y - bottom}" rx="10"'
    drawing.shapes.insert(0, f'<rect {frame} fill="#fafafa" stroke="#bbb" stroke-dasharray="5 4"/>')
    drawing.text(WIDTH - 20, drawing.y - 14, f"x {config.n_layers}", size=15, anchor="end", weight="bold")
    drawing.up(14)
    if config.pre_norm:
        drawing.box("norm", *_norm(config), 20)
        drawing.up(12)
    tied = ", the embedding again" if config.tie_embeddings else ""
    cap = f", within ±{config.variant.logit_softcap:g}" if config.variant.logit_softcap else ""
    drawing.box("table", "output layer", f"{width} x {config.vocab_size}{tied}{cap}", 20)
    drawing.line(STREAM, drawing.y, STREAM, drawing.y + 16, arrow=True)
    drawing.text(STREAM, drawing.y + 26, "logits")
    drawing.y += 32
    return drawing.svg()


def _branch(drawing: _Drawing, config: ModelConfig, kind: str, title: str, detail: str) -> None:
    """Draws one half of a block: from the stream through a layer and back to it; the norm stands before or after."""
    middle, start = (LEFT + RIGHT) // 2, drawing.y
    drawing.line(STREAM, start, middle, start, middle, start + 12, arrow=True)
    drawing.y += 12
    if config.pre_norm:
        drawing.box("norm", *_norm(config))
        drawing.up(10, middle)
    drawing.box(kind, title, detail)
    end = drawing.y + 18
    drawing.line(middle, drawing.y, middle, end, STREAM + 10, end, arrow=True)
    drawing.line(STREAM, start, STREAM, end)
    drawing.y = end
    drawing.plus()
    drawing.y += 9
    drawing.up(9)
    if not config.pre_norm:
        drawing.box("norm", *_norm(config), 20)
        drawing.up(10)


def _norm(config: ModelConfig) -> tuple[str, str]:
    """Returns a norm's title and detail."""
    name = "RMSNorm" if config.norm == "rms" else "LayerNorm"
    return (
        name,
        f"gain {config.d_model}{' and bias' if config.norm == 'layer' and config.bias else ''}, eps {config.norm_eps:g}",
    )


def _attention(config: ModelConfig) -> tuple[str, str, str]:
    """Returns the attention box's kind, title and detail."""
    shared = "" if config.kv_heads == config.n_heads else f", {config.kv_heads} of keys and values"
    windows = [config.window_of(layer) for layer in range(config.n_layers)]
    facts = [f"{config.n_heads} heads of {config.head_size}{shared}"]
    facts += ["QK-norm"] if config.qk_norm else []
    facts += [f"RoPE {config.rope.theta:g}"] if config.positions == "rope" else []
    title = "causal attention"
    if any(windows):
        title += f", {sum(map(bool, windows))} of {len(windows)} layers see {max(windows)} tokens"
    return "attention", title, ", ".join(facts)


def _feed_forward(config: ModelConfig) -> tuple[str, str, str]:
    """Returns the feed-forward box's kind, title and detail."""
    name = {"swiglu": "SwiGLU", "gelu": "GELU", "gelu_exact": "GELU", "relu": "ReLU", "relu2": "ReLU²"}[
        config.activation
    ]
    sizes = f"{name}: {config.d_model} to {config.ff_size} to {config.d_model}"
    if config.experts > 1:
        return (
            "mlp",
            f"{config.experts} experts, {config.active_experts} for each token",
            f"router {config.d_model} to {config.experts}; {sizes}",
        )
    return "mlp", "feed-forward", sizes
