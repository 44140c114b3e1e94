"""`groundup inspect`: one self-contained page on what a model does while it reads a text: attention, logits or neurons."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup import __version__
from groundup.base.errors import ConfigError
from groundup.base.files import write_text
from groundup.base.log import say
from groundup.base.records import Message
from groundup.infer.config import locate
from groundup.infer.engine import Engine
from groundup.model.transformer import Transformer
from groundup.report.config import InspectAttentionConfig, InspectConfig, InspectLogitsConfig, InspectNeuronsConfig
from groundup.report.inspect_trace import Neurons, Trace, trace
from groundup.tokenizer.encode import Tokenizer

__all__ = ["attention", "induction", "logits", "neurons"]

MOST_BYTES = 24_000_000  # of data in a page: more makes a browser slow
RANDOM_ROWS, RANDOM_TOKENS = 8, 50  # on which induction is measured


def attention(config: InspectAttentionConfig) -> None:
    """Writes the page of attention maps: `groundup inspect attention`."""
    engine, tokens = _open(config)
    layers = _chosen("layer", config.layer, engine.model.config.n_layers)
    heads = _chosen("head", config.head, engine.model.config.n_heads)
    maps, time = len(layers) * len(heads), len(tokens)
    _fits(maps * time * (time + 1) // 2, f"{maps} attention maps of {time} tokens", "a shorter text or --layer")
    found, test = _read(engine, tokens), induction(engine.model, engine.tokenizer, config.seed)
    rows = []
    for layer in layers:
        weights = found.attention[layer][0]  # (H, T, T)
        scores = {name: score.tolist() for name, score in _habits(weights).items()}
        for head in heads:
            score = test["scores"][layer][head] if test else None
            rows.append({"layer": layer, "head": head, "induction": score, "map": _packed(weights[head]),
                         **{name: round(values[head], 4) for name, values in scores.items()}})  # fmt: skip
    _write(config, engine, tokens, "attention", {"heads": rows, "induction": test and {**test, "scores": None}})


def logits(config: InspectLogitsConfig) -> None:
    """Writes the page of what the model expects, position by position and layer by layer: `groundup inspect logits`."""
    engine, tokens = _open(config)
    depth, time = engine.model.config.n_layers + 1, len(tokens)
    top_k = min(config.top_k, engine.tokenizer.vocab_size)
    _fits(
        16 * depth * time * top_k,
        f"the {top_k} likeliest tokens of {depth} x {time} places",
        "a shorter text or a lower --top-k",
    )
    lens = [_lens(engine, x[0], tokens, top_k) for x in _read(engine, tokens).residual]
    near = _neighbours(engine, sorted(set(tokens)), config.neighbours)
    shown = {i for layer in lens for row in layer["ids"] for i in row} | {
        i for pairs in near.values() for i, _ in pairs
    }
    words = {i: _word(engine.tokenizer, i) for i in sorted(shown)}
    _write(config, engine, tokens, "logits", {"lens": lens, "neighbours": near, "words": words})


def neurons(config: InspectNeuronsConfig) -> None:
    """Writes the page of the neurons that answer most strongly: `groundup inspect neurons`."""
    engine, tokens = _open(config)
    layers = _chosen("layer", config.layer, engine.model.config.n_layers)
    _fits(
        8 * len(layers) * len(tokens) * config.count,
        f"{config.count} neurons of {len(layers)} layers",
        "a lower --count or --layer",
    )
    found = _read(engine, tokens)
    shown = [
        _neurons(engine, layer, found.neurons[layer], len(tokens), config.count) | {"routes": _routes(found, layer)}
        for layer in layers
    ]
    ids = {i for layer in shown for row in layer["neurons"] for pairs in (row["for"], row["against"]) for i, _ in pairs}
    words = {i: _word(engine.tokenizer, i) for i in sorted(ids)}
    _write(config, engine, tokens, "neurons", {"layers": shown, "words": words})


# What is common to the three.


def _open(config: InspectConfig) -> tuple[Engine, list[int]]:
    """Returns the model and the tokens that it is to read. Raises: ConfigError if they don't fit it."""
    engine = Engine.load(locate(config.project, config.stage, config.name), config.device)
    if config.chat and not engine.chats:
        raise ConfigError("--chat: this model knows no chat format; leave it out, or take a fine-tuned --stage")
    if config.ids:
        tokens = list(config.ids)
        for i in tokens:
            if not 0 <= i < engine.model.config.vocab_size:
                raise ConfigError(f"ids: {i} is beyond the model's vocabulary of {engine.model.config.vocab_size}")
    else:
        tokens = engine.render([Message("user", config.text)]) if config.chat else engine.beginning(config.text)
    if len(tokens) > engine.context:
        raise ConfigError(f"the text has {len(tokens)} tokens, the model's context holds {engine.context}; shorten it")
    return engine, tokens


def _chosen(key: str, wanted: int, count: int) -> list[int]:
    """Returns the numbers to show. Raises: ConfigError for a layer or head that the model hasn't."""
    if wanted >= count:
        raise ConfigError(f"{key}: the model has {count} of them, 0 to {count - 1}; there is no {wanted}")
    return list(range(count)) if wanted < 0 else [wanted]


def _fits(size: int, what: str, remedy: str) -> None:
    """Raises: ConfigError if a page would hold too much for a browser."""
    if size > MOST_BYTES:
        raise ConfigError(
            f"{what} would make a page of {size / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}; take {remedy}"
        )


def _read(engine: Engine, tokens: list[int]) -> Trace:
    return trace(engine.model, torch.tensor([tokens]))


def _word(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token's text; what can't be shown (control characters, parts of a character) in hexadecimal; #id if it has none."""
    if token >= tokenizer.vocab_size:
        return f"#{token}"
    data = tokenizer.token_bytes(token)
    try:
        return "".join(c if c.isprintable() or c in "\n\t\r" else f"\\x{ord(c):02x}" for c in data.decode())
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in data)


def _write(config: InspectConfig, engine: Engine, tokens: list[int], view: str, facts: dict[str, Any]) -> None:
    """Writes the page: the template, the view's script and the facts as JSON, nothing from elsewhere."""
    import jinja2

    folder, shape = Path(__file__).parent, engine.model.config
    facts |= {"view": view, "tokens": [{"id": i, "text": _word(engine.tokenizer, i)} for i in tokens], "heads_per_layer": shape.n_heads,
              "layer_count": shape.n_layers}  # fmt: skip
    context = {
        "view": view, "name": engine.name, "stage": engine.stage, "version": __version__, "family": shape.family, "params": shape.params(),
        "layers": shape.n_layers, "width": shape.d_model, "heads": shape.n_heads, "count": len(tokens),
        "script": (folder / f"inspect_{view}.js").read_text(encoding="utf-8"),
        "facts": json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }  # fmt: skip
    source = (folder / "inspect.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source).render(context)
    write_text(config.out, page)
    say(f"{view} of {engine.name} over {len(tokens)} tokens: {config.out} ({len(page.encode()) / 1e6:.1f} MB)")
    say(f"next: open {config.out.resolve().as_uri()} in a browser")


# Attention.


def _packed(weights: Tensor) -> str:
    """Returns a map (T, T) as base64: its lower triangle row by row, a byte a weight, 255 for 1."""
    rows, columns = torch.tril_indices(*weights.shape)
    return base64.b64encode((weights[rows, columns] * 255).round().to(torch.uint8).numpy().tobytes()).decode()


def _habits(weights: Tensor) -> dict[str, Tensor]:
    """Returns for each head of (H, T, T) the mean share of attention that goes to the token before, the first, and itself.

    Over all queries but the first, which has no choice.
    """
    later = weights[:, 1:]  # (H, T - 1, T)
    if not later.numel():
        return {name: torch.zeros(len(weights)) for name in ("previous", "first", "itself")}
    return {
        "previous": later.diagonal(0, 1, 2).mean(-1), "first": later[:, :, 0].mean(-1), "itself": later.diagonal(1, 1, 2).mean(-1),
    }  # fmt: skip


def induction(model: Transformer, tokenizer: Tokenizer, seed: int = 0) -> dict[str, Any] | None:
    """Returns each head's induction score, measured on random tokens that are then repeated; None if the context is too short.

    The score is the mean share of attention that, in the second copy, goes to the token that followed this one in the first.
    `chance` is the score of a head that looks everywhere alike. `first` and `second` are the model's loss in each copy, in nats:
    random tokens can't be foreseen, but their repetition can.
    Source: Olsson et al. 2022, In-context Learning and Induction Heads
    """
    specials = set(tokenizer.specials.values())
    ordinary = torch.tensor([i for i in range(tokenizer.vocab_size) if i not in specials])
    begin = [tokenizer.eot] if "<|endoftext|>" in tokenizer.specials else []
    n = min(RANDOM_TOKENS, (model.config.context - len(begin)) // 2, len(ordinary))
    if n < 3:
        return None
    dice = torch.Generator().manual_seed(seed)
    copies = torch.stack([ordinary[torch.randperm(len(ordinary), generator=dice)[:n]] for _ in range(RANDOM_ROWS)])
    tokens = torch.cat([torch.tensor([begin] * RANDOM_ROWS, dtype=torch.long), copies, copies], dim=1)  # (B, T)
    found, start = trace(model, tokens), len(begin) + n
    queries = torch.arange(start, start + n - 1)
    scores = [weights[:, :, queries, queries - n + 1].mean(dim=(0, 2)) for weights in found.attention]  # (H,) each
    surprise = -found.logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]  # (B, T - 1)
    return {
        "scores": [[round(x, 4) for x in layer.tolist()] for layer in scores], "tokens": n, "rows": RANDOM_ROWS,
        "chance": round(float((1 / (queries + 1.0)).mean()), 4),
        "first": round(float(surprise[:, start - n : start - 1].mean()), 3), "second": round(float(surprise[:, start:].mean()), 3),
    }  # fmt: skip


# Logits.


@torch.no_grad()
def _read_out(engine: Engine, x: Tensor) -> Tensor:
    """Returns the log-probabilities (T, V) that the output layer would give if x (T, C) were the last block's."""
    model = engine.model
    hidden = model.norm(x.to(next(model.parameters())))
    return model.logits(hidden)[:, : engine.tokenizer.vocab_size].float().log_softmax(-1).cpu()


def _lens(engine: Engine, x: Tensor, tokens: list[int], top_k: int) -> dict[str, list[Any]]:
    """Returns, for each position, the likeliest tokens with their probabilities, and the true next one's with its rank."""
    logarithms = _read_out(engine, x)  # (T, V)
    values, ids = logarithms.topk(top_k)
    true = torch.tensor(tokens[1:], dtype=torch.long)[:, None]
    known = true < logarithms.shape[1]  # an id without a text can be given by --ids
    chosen = (
        logarithms[:-1].gather(1, true.clamp(max=logarithms.shape[1] - 1)).masked_fill(~known, -math.inf)
    )  # (T - 1, 1)
    return {
        "ids": ids.tolist(), "p": [[round(p, 5) for p in row] for row in values.exp().tolist()],
        "next": [round(p, 5) for p in chosen.exp()[:, 0].tolist()], "rank": ((logarithms[:-1] > chosen).sum(1) + 1).tolist(),
    }  # fmt: skip


def _neighbours(engine: Engine, tokens: list[int], count: int) -> dict[int, list[tuple[int, float]]]:
    """Returns for each token those whose embeddings point most nearly the same way, with the cosines."""
    table = engine.model.embed.weight.detach().float().cpu()
    unit = torch.nn.functional.normalize(table, dim=-1)
    cosine = unit[tokens] @ unit[: engine.tokenizer.vocab_size].T
    values, ids = cosine.topk(min(count + 1, cosine.shape[1]))
    rows = zip(tokens, ids.tolist(), values.tolist(), strict=True)
    return {
        t: [(i, round(c, 3)) for i, c in zip(row, cosines, strict=True) if i != t][:count] for t, row, cosines in rows
    }


# Neurons.


@torch.no_grad()
def _neurons(engine: Engine, layer: int, found: list[Neurons], time: int, count: int) -> dict[str, Any]:
    """Returns the neurons of a layer, of all its experts if it has some, that write most into the residual stream.

    A neuron adds its activation times its column of the narrowing matrix; how long that is measures how much it has to say.
    What it says is read off by the output layer, as if nothing came in between. "written" is None where its expert wasn't asked.
    """
    written = [part.activations * part.matrix.norm(dim=0) for part in found]  # (N, F) each
    peaks = [x.abs().amax(dim=0).topk(min(count, x.shape[1])) for x in written]
    order = sorted(
        (-peak, i, j)
        for i, top in enumerate(peaks)
        for peak, j in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    )
    rows = []
    for _, i, j in order[:count]:
        shown: list[float | None] = [None] * time
        for token, x in zip(found[i].tokens.tolist(), written[i][:, j].tolist(), strict=True):
            shown[token] = round(x, 4)
        rows.append({"neuron": j, "expert": found[i].expert, "written": shown, **_said(engine, found[i].matrix[:, j])})
    return {"layer": layer, "size": sum(x.shape[1] for x in written), "neurons": rows}


def _said(engine: Engine, column: Tensor) -> dict[str, list[tuple[int, float]]]:
    """Returns the tokens that the output layer hears most for and most against in a vector (C,), with their logits."""
    model, words = engine.model, engine.tokenizer.vocab_size
    gain = model.get_parameter("norm.weight").detach().cpu() if model.config.pre_norm else 1.0
    told = model.logits((column * gain).to(next(model.parameters())))[:words].float().cpu()  # (V,)
    sides = {name: (told * sign).topk(min(8, words)) for name, sign in (("for", 1), ("against", -1))}
    return {
        name: [(i, round(v, 3)) for i, v in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
        for name, top in sides.items()
    }


def _routes(found: Trace, layer: int) -> list[list[tuple[int, float]]] | None:
    """Returns for each token the experts that it was sent to and their weights, the first one first; None without experts."""
    if layer not in found.routes:
        return None
    weights, chosen = found.routes[layer]
    return [
        [(e, round(w, 3)) for e, w in zip(experts, shares, strict=True)]
        for experts, shares in zip(chosen.tolist(), weights.tolist(), strict=True)
    ]
