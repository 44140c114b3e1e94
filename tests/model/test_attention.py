"""Attention: every implementation with every mask, window and cache against the lesson; the choice among them."""

import itertools

import pytest
import torch
from torch import Tensor

from groundup.base.errors import ConfigError
from groundup.model import attention as attention_module
from groundup.model import plain
from groundup.model.attention import (
    Implementation,
    Sight,
    additive,
    attend,
    attention,
    block_mask,
    causal_mask,
    choose,
    document_mask,
    near_mask,
    reach,
)  # fmt: skip
from groundup.model.config import ModelConfig, WindowConfig
from groundup.model.transformer import Transformer

IMPLEMENTATIONS: list[Implementation] = ["auto", "manual", "sdpa"]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)


def allowed_by_hand(positions: list[list[int]], new: int, padding: list[int], window: int) -> Tensor:
    """Returns (B, 1, T, S) bool, cell by cell: may query t of row b (the newest `new` tokens) look at key s?"""
    total = len(positions[0])
    found = torch.zeros(len(positions), 1, new, total, dtype=torch.bool)
    for b, row in enumerate(positions):
        documents = list(itertools.accumulate(int(p == 0) for p in row))
        for t, s in itertools.product(range(total - new, total), range(total)):
            sees = s <= t and documents[s] == documents[t] and s >= padding[b]
            found[b, 0, t - total + new, s] = sees and (not window or t - s < window)
    return found


def check(
    implementation: Implementation,
    mask: str,
    window: int,
    new: int,
    groups: int,
    device: str = "cpu",
    learn: bool = True,
) -> None:
    """Compares values and (`learn`) gradients in float64 (fp32 on a GPU): 11 keys, `new` queries at their end."""
    torch.manual_seed(1)
    total, dtype = 11, torch.float64 if device == "cpu" else torch.float32
    width = 8 if device == "cpu" else 16
    q = torch.randn(2, 4, new, width, dtype=dtype, device=device, requires_grad=learn)
    k, v = (torch.randn(2, 4 // groups, total, width, dtype=dtype, device=device, requires_grad=learn) for _ in "kv")
    positions, padding = [list(range(total))] * 2, [0, 0]
    given: Tensor | None = None
    if mask == "documents":
        positions = [[*range(4), *range(7)], [*range(9), *range(2)]]
        given = document_mask(torch.tensor(positions, device=device))[:, :, -new:]
    elif mask == "padding":
        padding = [3, 0]
        given = (torch.arange(total) >= torch.tensor(padding)[:, None])[:, None, None].to(device)
    if mask == "numbers":
        given = torch.zeros(new, total, dtype=dtype, device=device)
    allowed = allowed_by_hand(positions, new, padding, window).to(device)
    seen = allowed.any(-1, keepdim=True)  # a query in the padding sees nothing: any finite number will do
    ours = attention(q, k, v, given, True, implementation, window=window) * seen
    wide = [x.repeat_interleave(groups, 1) for x in (k, v)]
    theirs = torch.where(seen, plain.scaled_dot_product_attention(q, *wide, allowed | ~seen), 0.0)
    tolerance = 1e-12 if device == "cpu" else 2e-3  # a GPU's fp32 products may be rounded to tf32
    close(ours, theirs, tolerance)
    if not learn:
        return
    weights = torch.randn_like(ours)
    for a, b in zip(
        *(torch.autograd.grad(y, (q, k, v), weights, retain_graph=True) for y in (ours, theirs)), strict=True
    ):
        close(a, b, tolerance)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("new", [11, 4, 1])
@pytest.mark.parametrize("window", [0, 1, 3, 20])
@pytest.mark.parametrize("mask", ["none", "documents", "padding", "numbers"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_combination(implementation: Implementation, mask: str, window: int, new: int, groups: int) -> None:
    """`new` queries against 11 keys: all of them, the next piece of a text whose beginning is cached, the next token."""
    check(implementation, mask, window, new, groups)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("new", [11, 4])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("mask", ["none", "documents", "padding"])
@CUDA
def test_every_combination_with_flex(mask: str, window: int, new: int, groups: int) -> None:
    check("flex", mask, window, new, groups, "cuda")


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("new", [11, 4])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("mask", ["none", "documents", "padding"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_as_torch_defines_it(
    mask: str, window: int, new: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the GPU's kernel: the same call with the same blocks, in torch's uncompiled form (on a CPU, forwards only)."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention_module, "FLEX_DEVICES", ("cpu",))
    monkeypatch.setattr(attention_module, "_compiled_flex", lambda: flex_attention)
    check("flex", mask, window, new, groups, learn=False)


@pytest.mark.parametrize("window", [0, 3])
@CUDA
def test_a_model_with_flex_has_the_same_logits_and_gradients(window: int) -> None:
    shape = ModelConfig(vocab_size=50, context=24, d_model=64, n_layers=2, n_heads=4, window=WindowConfig(window, "WF"))
    positions = torch.tensor([[*range(5), *range(19)]], device="cuda")
    tokens, found = torch.randint(50, (1, 24), device="cuda"), []
    for implementation in ("manual", "flex"):
        model = Transformer(shape, seed=1, implementation=implementation).cuda()  # type: ignore[arg-type]
        logits = model(tokens, positions)
        logits.logsumexp(-1).sum().backward()
        found.append([logits, *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        close(a, b, 2e-3)


@pytest.mark.parametrize("mask", ["none", "documents", "padding"])
@pytest.mark.parametrize("window", [0, 3])
def test_the_blocks_of_flex_are_the_mask(mask: str, window: int) -> None:
    """The blocks can be made without a GPU; a mask of one cell a block shows what the kernel would be told."""
    new, total, padding = 4, 11, [3, 0]
    positions = [[*range(4), *range(7)], [*range(9), *range(2)]]
    given = {
        "none": None,
        "documents": document_mask(torch.tensor(positions))[:, :, -new:],
        "padding": (torch.arange(total) >= torch.tensor(padding)[:, None])[:, None, None],
    }[mask]
    blocks = block_mask(given, new, total, torch.device("cpu"), window=window)
    rows = positions if mask == "documents" else [list(range(total))] * 2
    expected = allowed_by_hand(rows, new, padding if mask == "padding" else [0, 0], window)
    cells = itertools.product(range(2), range(new), range(total))
    for b, t, s in cells:
        told = blocks.mask_mod(*(torch.tensor(i) for i in (b, 0, t, s)))
        assert bool(told) == bool(expected[b, 0, t, s]), (b, t, s)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("mask", ["none", "documents"])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("new", [11, 4])
def test_the_blocks_of_flex_give_the_lessons_values(new: int, window: int, mask: str) -> None:
    """PyTorch can work the blocks off on a CPU too, uncompiled, slowly and without gradients."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.manual_seed(1)
    q, k, v = torch.randn(2, 4, new, 16), torch.randn(2, 2, 11, 16), torch.randn(2, 2, 11, 16)
    positions = [[*range(4), *range(7)], [*range(9), *range(2)]] if mask == "documents" else [list(range(11))] * 2
    given = document_mask(torch.tensor(positions))[:, :, -new:] if mask == "documents" else None
    blocks = block_mask(given, new, 11, q.device, window=window)
    allowed = allowed_by_hand(positions, new, [0, 0], window)
    wide = [x.repeat_interleave(2, 1) for x in (k, v)]
    ours = flex_attention(q, k, v, block_mask=blocks, enable_gqa=True)
    assert isinstance(ours, Tensor)
    close(ours, plain.scaled_dot_product_attention(q, *wide, allowed), 1e-6)


def test_flex_needs_a_gpu_and_no_dropout() -> None:
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ConfigError, match="flex knows no dropout"):
        attend(q, q, q, Sight(None, False, "flex", 2), dropout=0.1)
    with pytest.raises(ConfigError, match="flex needs a CUDA device, not cpu; take auto, manual or sdpa"):
        attention(q, q, q, implementation="flex")
    with pytest.raises(ConfigError, match="'flash' is not one of auto, manual, sdpa, flex"):
        attention(q, q, q, implementation="flash")  # type: ignore[arg-type]


def test_masks() -> None:
    assert torch.equal(causal_mask(5, 5), plain.causal_mask(5))
    assert causal_mask(2, 5, window=2).int().tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert (reach(1, 100, 8), reach(4, 100, 8), reach(4, 6, 8), reach(4, 100, 0)) == (8, 11, 6, 100)
    beside = torch.tensor([[0, 1, 2, 2, 3]])  # two answers to one prompt: the last stands 1 behind each of the twos
    assert near_mask(beside, 2)[0, 0, 4].tolist() == [False, False, True, True, True]


def test_a_query_that_may_see_nothing_stays_a_number() -> None:
    q, blind = torch.randn(1, 2, 3, 8), torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    for implementation in IMPLEMENTATIONS:
        assert attention(q, q, q, blind, implementation=implementation).isfinite().all()
    assert additive(blind, torch.bfloat16).isfinite().all()


def test_the_choice_of_attention() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose(gpu, torch.bfloat16, 8, 128, 128, 64) == "sdpa"
    assert choose(cpu, torch.float32, 32, 128, 128, 32) == "sdpa"
    assert choose(cpu, torch.float32, 1000, 1, 100, 32) == "manual"
    assert choose(cpu, torch.float32, 1, 1, 100, 32) == "sdpa"
    assert choose(cpu, torch.bfloat16, 16, 256, 256, 32) == "manual"
    assert choose(cpu, torch.bfloat16, 16, 512, 512, 32) == "sdpa"
    assert choose(cpu, torch.bfloat16, 16, 512, 512, 64) == "manual"
