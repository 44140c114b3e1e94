"""The Transformer: start values, causality, documents, padding, the cache, precision, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.base.errors import ConfigError, GroundupError
from groundup.model.attention import document_mask
from groundup.model.cache import KVCache
from groundup.model.config import FAMILIES, ModelConfig, MoEConfig, RopeConfig, VariantConfig, WindowConfig
from groundup.model.transformer import Transformer

SIZES: dict[str, Any] = {"vocab_size": 50, "context": 24, "d_model": 32, "n_layers": 2, "n_heads": 4}
# What every test of behaviour runs on: the families, and the departures that go through other lines of code.
SHAPES: dict[str, dict[str, Any]] = {family: {"family": family} for family in FAMILIES} | {
    "gqa": {"n_kv_heads": 2},
    "window": {"n_kv_heads": 2, "window": WindowConfig(3, "WF")},
    "gpt2-window": {"family": "gpt2", "window": WindowConfig(3, "FW")},
    "2017-learned": {"family": "transformer2017", "variant": VariantConfig(positions="learned")},
    "relu2": {"variant": VariantConfig(activation="relu2", bias="yes", logit_softcap=4.0), "tie_embeddings": False},
    "gpt2-qk-norm": {"family": "gpt2", "variant": VariantConfig(activation="gelu_exact", bias="no", qk_norm="yes")},
    "yarn": {"rope": RopeConfig(100.0, "yarn", 2.0, 12)},
}


def model(shape: str = "qwen3", **values: Any) -> Transformer:
    """Returns a small model with weights large enough for every part to matter."""
    made = Transformer(ModelConfig(**SIZES | SHAPES[shape] | values), seed=1).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    return made


def draw(*shape: int) -> Tensor:
    return torch.randint(SIZES["vocab_size"], shape, generator=torch.Generator().manual_seed(3))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def test_start_values() -> None:
    made = Transformer(ModelConfig(vocab_size=512, d_model=256, n_layers=8), seed=0)
    weights = dict(made.named_parameters())
    assert weights["embed.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert weights["blocks.3.attn.qkv.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    for name in ("blocks.3.attn.out.weight", "blocks.3.mlp.down.weight"):
        assert weights[name].std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.02)
    assert weights["blocks.3.attn_norm.weight"].eq(1).all()
    old = dict(Transformer(ModelConfig("transformer2017", vocab_size=512, d_model=256), seed=0).named_parameters())
    assert old["embed.weight"].std().item() == pytest.approx(1 / 16, rel=0.02)
    assert old["blocks.0.mlp.up.bias"].eq(0).all()


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, three = (Transformer(ModelConfig(**SIZES), seed=s).embed.weight for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_token_sees_the_future(shape: str) -> None:
    made, tokens = model(shape), draw(2, 12)
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    a, b = made(tokens), made(changed)
    assert a.dtype == torch.float32
    assert a.shape == (2, 12, 50)
    assert close(a[:, :7], b[:, :7], 1e-6)
    assert not close(a[:, 7:], b[:, 7:], 1e-3)


@pytest.mark.parametrize("implementation", ["manual", "sdpa"])
@pytest.mark.parametrize("shape", SHAPES)
def test_documents_in_one_row_do_not_see_each_other(shape: str, implementation: str) -> None:
    made = model(shape)
    made.implementation = implementation  # type: ignore[assignment]
    first, second = draw(1, 5), draw(1, 9)[:, 2:]
    positions = torch.tensor([[*range(5), *range(7)]])
    packed = made(torch.cat([first, second], 1), positions)
    assert close(packed, torch.cat([made(first), made(second)], 1))
    assert torch.equal(document_mask(positions)[0, 0, 6], torch.tensor([False] * 5 + [True, True] + [False] * 5))


@pytest.mark.parametrize("shape", SHAPES)
def test_two_answers_beside_one_another_are_two_rows(shape: str) -> None:
    """A prompt of 6 with answers of 5 and 4 behind it, each at the positions after the prompt and blind to the other."""
    made, prompt, first, second = model(shape), draw(1, 6), draw(1, 12)[:, 7:], draw(1, 16)[:, 12:]
    positions = torch.tensor([[*range(6), *range(6, 11), *range(6, 10)]])
    answer = torch.tensor([[0] * 6 + [1] * 5 + [2] * 4])
    visible = (answer[:, None, :] == 0) | (answer[:, None, :] == answer[:, :, None])
    together = made(torch.cat([prompt, first, second], 1), positions, mask=visible[:, None])
    assert close(together[:, :11], made(torch.cat([prompt, first], 1)))
    assert close(together[:, 11:], made(torch.cat([prompt, second], 1))[:, 6:])


@pytest.mark.parametrize("implementation", ["auto", "manual", "sdpa"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cache_changes_nothing(shape: str, implementation: str) -> None:
    made = model(shape)
    made.implementation = implementation  # type: ignore[assignment]
    tokens, cache = draw(3, 14), KVCache(made.config, batch=3, capacity=14)
    pieces = [made(tokens[:, a:b], cache=cache) for a, b in ((0, 6), (6, 7), (7, 11), (11, 12), (12, 13), (13, 14))]
    assert cache.length == 14
    assert close(torch.cat(pieces, 1), made(tokens))


@pytest.mark.parametrize("implementation", ["auto", "manual", "sdpa"])
@pytest.mark.parametrize("shape", SHAPES)
def test_left_padding_changes_nothing(shape: str, implementation: str) -> None:
    made = model(shape)
    made.implementation = implementation  # type: ignore[assignment]
    rows = [draw(1, 10)[0], draw(1, 4)[0]]
    lengths, longest, new = torch.tensor([10, 4]), 10, 3
    padded = torch.zeros(2, longest, dtype=torch.long)
    for row, tokens in enumerate(rows):
        padded[row, longest - len(tokens) :] = tokens
    pads = longest - lengths
    slots = torch.arange(longest + new)
    real = (slots >= pads[:, None])[:, None, None]  # (B, 1, 1, S): padding is never attended
    positions = (slots - pads[:, None]).clamp(min=0)
    cache = KVCache(made.config, 2, longest + new)
    out = [made(padded, positions[:, :longest], cache, real[..., :longest])[:, -1]]
    continued = [rows[0].tolist(), rows[1].tolist()]
    for step in range(new):
        chosen = out[-1].argmax(-1)
        for row in range(2):
            continued[row].append(int(chosen[row]))
        at = longest + step
        out.append(made(chosen[:, None], positions[:, at : at + 1], cache, real[..., : at + 1])[:, -1])
    for row in range(2):
        expected = made(torch.tensor([continued[row]]))[0, lengths[row] - 1 :]
        assert close(torch.stack(out, 1)[row], expected)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "transformer2017"])
def test_a_window_keeps_its_window_only(family: str) -> None:
    """Long past the window and through many moves: pieces of every size, rewound and gone on from; equal to reading it all at once."""
    shape = ModelConfig(family, **SIZES | {"context": 400}, window=WindowConfig(5, "WF"))  # type: ignore[arg-type]
    made, tokens = Transformer(shape, seed=1).eval(), draw(2, 400)
    cache, whole, at = KVCache(shape, 2, 400), made(tokens), 0
    assert [block.shape[4] for block in cache.blocks] == [69, 400]
    assert [block.shape[1] for block in cache.blocks] == [1, 1], "of the two layers"
    for size in (3, 1, 1, 90, 1, 1, 69, 2, *[1] * 80, 100):
        assert close(made(tokens[:, at : at + size], cache=cache), whole[:, at : at + size])
        at += size
    assert cache.rewind(at - 30) == at - 30, "the room behind the window holds it yet"
    assert close(made(tokens[:, at - 30 : at - 20], cache=cache), whole[:, at - 30 : at - 20])
    assert cache.rewind(20) == cache.length == 0, "what a window has dropped must be read anew"
    assert close(made(tokens, cache=cache), whole)


def test_hidden_and_logits_are_forward() -> None:
    made, tokens = model(tie_embeddings=False), draw(2, 8)
    assert torch.equal(made.logits(made.hidden(tokens)), made(tokens))
    assert close(made.logits(made.hidden(tokens)[:, -1]), made(tokens)[:, -1])


def test_dropout_drops_in_training_only() -> None:
    for shape in SHAPES:
        made, tokens = model(shape, dropout=0.5), draw(2, 8)
        assert torch.equal(made(tokens), made(tokens))
        made.train()
        torch.manual_seed(1)
        first = made(tokens)
        assert not torch.equal(first, made(tokens))
        torch.manual_seed(1)
        assert torch.equal(first, made(tokens))


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_under_autocast_is_near_fp32(shape: str) -> None:
    # All experts at work: otherwise rounding may send a token elsewhere, and it is another model for that token.
    made, tokens = model(shape, **{"moe": MoEConfig(4, 4)} if shape == "qwen3_moe" else {}), draw(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = made(tokens)
        made.train()(tokens).square().mean().backward()
    assert logits.dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in made.parameters())
    assert close(logits, made.eval()(tokens), 0.05)


def test_a_bf16_copy_answers_too() -> None:
    made, tokens = model(), draw(2, 8)
    half = model().to(torch.bfloat16)
    with torch.inference_mode():
        cache = KVCache(half.config, 2, 8, dtype=torch.bfloat16)
        assert close(
            torch.cat([half(tokens[:, :5], cache=cache), half(tokens[:, 5:], cache=cache)], 1), made(tokens), 0.05
        )


def test_what_it_refuses() -> None:
    made = model()
    for wrong in (50, -1):
        tokens = draw(1, 4)
        tokens[0, 2] = wrong
        with pytest.raises(GroundupError, match=f"token {wrong} is beyond the model's vocabulary of 50"):
            made(tokens)
    with pytest.raises(ConfigError, match="25 tokens exceed the model's context of 24"):
        made(draw(1, 25))
    cache = KVCache(made.config, 1, 24)
    made(draw(1, 20), cache=cache)
    with pytest.raises(ConfigError, match="25 tokens exceed"):
        made(draw(1, 5), cache=cache)
    with pytest.raises(ConfigError, match="position 30 exceeds the model's context of 24"):
        made(draw(1, 2), torch.tensor([[0, 30]]))
    with pytest.raises(GroundupError, match="room for 3 tokens, 4 were given"):
        made(draw(1, 4), cache=KVCache(made.config, 1, 3))


@pytest.mark.slow
def test_it_compiles_in_one_piece() -> None:
    made, tokens = model(), draw(2, 8)
    explained = torch._dynamo.explain(made)(tokens)
    assert explained.graph_break_count == 0


def test_it_learns() -> None:
    """Fifty steps on one batch: every family can learn it by heart."""
    for name in (*FAMILIES, "relu2"):
        made, tokens = Transformer(ModelConfig(**SIZES | SHAPES[name]), seed=0), draw(4, 13)
        optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
        for _ in range(50):
            loss = torch.nn.functional.cross_entropy(made(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.5, name
