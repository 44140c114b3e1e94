"""The lessons of model/plain.py against the fast model and against PyTorch's own: same weights, same logits, same gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model import plain, plain_experts
from groundup.model.attention import Sight, attention, causal_mask
from groundup.model.config import ModelConfig, MoEConfig, RopeConfig
from groundup.model.layers import Experts, FeedForward, RMSNorm
from groundup.model.rope import rotary_tables, rotate, sinusoids
from groundup.model.transformer import Transformer

TOLERANCE = 1e-5  # of the largest number compared; in float64 what is left comes from the float32 tables of positions


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Returns the largest difference, as a share of the largest number."""
    assert ours.shape == theirs.shape
    return float(((ours - theirs).abs().max() / theirs.abs().max()).detach())


def same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert apart(ours, theirs) <= tolerance


def stir(module: nn.Module) -> None:
    """Moves every parameter off its start, so that a norm's weight of 1 or a bias of 0 hides nothing."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def joined(parts: list[nn.Linear]) -> dict[str, Tensor]:
    """Returns several linear layers as one: what the fast model keeps."""
    made = {"weight": torch.cat([part.weight for part in parts])}
    return made | ({"bias": torch.cat([part.bias for part in parts])} if parts[0].bias is not None else {})


def fast_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns a plain model's weights under the names of the fast one; autograd still leads back to the plain ones."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name in ("embed", "positions", "norm"):
        if hasattr(model, name):
            parts[name] = dict(getattr(model, name).named_parameters())
    for i, block in enumerate(model.blocks):
        at, layer = f"blocks.{i}.", block.attention
        parts[at + "attn_norm"], parts[at + "mlp_norm"] = (
            dict(block.norm1.named_parameters()),
            dict(block.norm2.named_parameters()),
        )
        parts[at + "attn.qkv"] = joined([layer.query, layer.key, layer.value])
        parts[at + "attn.out"] = joined([layer.out])
        if hasattr(layer, "query_norm"):
            parts[at + "attn.q_norm"], parts[at + "attn.k_norm"] = (
                {"weight": layer.query_norm.weight},
                {"weight": layer.key_norm.weight},
            )
        modern = hasattr(block, "ff")
        parts[at + "mlp.up"] = joined([block.ff.gate, block.ff.up]) if modern else joined([block.ff1])
        parts[at + "mlp.down"] = joined([block.ff.down if modern else block.ff2])
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


MODELS = {
    "qwen3": (
        lambda: plain.ModernTransformer(plain.ModernConfig(vocab_size=60, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48)),
        ModelConfig(vocab_size=60, context=16, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=48),
    ),
    "gpt2": (
        lambda: plain.GPT(plain.GPTConfig(vocab_size=60, block_size=16, n_layer=2, n_head=4, n_embd=32)),
        ModelConfig("gpt2", vocab_size=60, context=16, d_model=32, n_layers=2, n_heads=4),
    ),
    "transformer2017": (
        lambda: plain.Transformer2017(60, embed_dim=32, num_heads=4, ff_dim=48, layers=2),
        ModelConfig("transformer2017", vocab_size=60, context=16, d_model=32, n_layers=2, n_heads=4, d_ff=48),
    ),
}  # fmt: skip


@pytest.mark.parametrize("implementation", ["manual", "sdpa"])
@pytest.mark.parametrize("family", MODELS)
def test_language_models_have_equal_logits_and_gradients(
    family: str, implementation: str, differ: Callable[[str, str, float, float], None]
) -> None:
    torch.manual_seed(1)
    make, config = MODELS[family]
    slow = make().double().eval()
    stir(slow)
    fast = Transformer(config, implementation=implementation).double().eval()
    fast.load_state_dict({name: tensor.detach() for name, tensor in fast_state(slow).items()})
    tokens, targets = torch.randint(60, (3, 16)), torch.randint(60, (3, 16))
    logits = {}
    for model in (slow, fast):
        logits[model] = model(tokens)
        F.cross_entropy(logits[model].flatten(0, 1), targets.flatten()).backward()
    pair = f"{family} ({implementation}), plain.py"
    differ(pair, "logits in float64", apart(logits[fast], logits[slow]), TOLERANCE)
    for parameter in slow.parameters():  # the weights become their gradients, so that the same names carry them over
        parameter.data = parameter.grad
    gradients = fast_state(slow)
    found = max(apart(parameter.grad, gradients[name]) for name, parameter in fast.named_parameters())
    differ(pair, "gradients in float64", found, TOLERANCE)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("implementation", ["auto", "manual", "sdpa"])
@pytest.mark.parametrize("mask", ["none", "causal", "window", "numbers"])
def test_scaled_dot_product_attention(mask: str, implementation: str, groups: int) -> None:
    torch.manual_seed(2)
    q = torch.randn(2, 4, 7, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, 4 // groups, 7, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    window = plain.causal_mask(7) & ~plain.causal_mask(7).tril(-3)
    allowed = {"none": None, "causal": plain.causal_mask(7), "window": window, "numbers": window}[mask]
    given = torch.zeros(7, 7, dtype=torch.float64).masked_fill(~window, -torch.inf) if mask == "numbers" else window
    ours = attention(q, k, v, None if mask in ("none", "causal") else given, mask == "causal", implementation)
    theirs = plain.scaled_dot_product_attention(q, *(x.repeat_interleave(groups, 1) for x in (k, v)), allowed)
    same(ours, theirs, 1e-12)
    weights = torch.randn_like(ours)
    mine, correct = (torch.autograd.grad(y, (q, k, v), weights, retain_graph=True) for y in (ours, theirs))
    for a, b in zip(mine, correct, strict=True):
        same(a, b, 1e-12)
    if mask == "causal":
        assert torch.equal(causal_mask(7, 7), plain.causal_mask(7))
        same(
            F.scaled_dot_product_attention(q, *(x.repeat_interleave(groups, 1) for x in (k, v)), is_causal=True),
            theirs,
            1e-12,
        )


def test_attention_understands_masks_of_zeros_and_ones() -> None:
    q = torch.randn(3, 5, 8)
    as_bool, as_int = (
        plain.scaled_dot_product_attention(q, q, q, m) for m in (plain.causal_mask(5), plain.causal_mask(5).int())
    )
    assert torch.equal(as_bool, as_int)


def test_multi_head_attention_equals_pytorchs() -> None:
    torch.manual_seed(3)
    slow, theirs = plain.MultiHeadAttention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([slow.query.weight, slow.key.weight, slow.value.weight]).detach()
    theirs.in_proj_bias.data = torch.cat([slow.query.bias, slow.key.bias, slow.value.bias]).detach()
    theirs.out_proj.load_state_dict(slow.out.state_dict())
    x, mask = torch.randn(2, 6, 32), plain.causal_mask(6)
    same(slow(x), theirs(x, x, x, need_weights=False)[0])
    same(slow(x, mask), theirs(x, x, x, attn_mask=~mask, need_weights=False)[0])
    with pytest.raises(ValueError, match="equal heads"):
        plain.MultiHeadAttention(32, 5)


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_block_equals_pytorchs_encoder_layer(causal: bool) -> None:
    torch.manual_seed(4)
    slow, theirs = (
        plain.TransformerBlock(32, 4, 64).double(),
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).double(),
    )
    stir(slow)
    layer = slow.attention
    theirs.load_state_dict({
        "self_attn.in_proj_weight": torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]),
        "self_attn.in_proj_bias": torch.cat([layer.query.bias, layer.key.bias, layer.value.bias]),
        **{f"self_attn.out_proj.{name}": tensor for name, tensor in layer.out.state_dict().items()},
        **{f"{their}.{name}": tensor for our, their in (("ff1", "linear1"), ("ff2", "linear2"), ("norm1", "norm1"), ("norm2", "norm2"))
           for name, tensor in getattr(slow, our).state_dict().items()},
    })  # fmt: skip
    assert slow.dropout.p == theirs.dropout.p == 0.1  # the default of 2017
    for module in (slow.dropout, theirs.dropout, theirs.dropout1, theirs.dropout2):
        module.p = 0.0  # stays in training mode: evaluation would take PyTorch's fused path, without gradients
    theirs.self_attn.dropout = 0.0
    x = torch.randn(2, 6, 32, dtype=torch.float64, requires_grad=True)
    mask = plain.causal_mask(6)
    ours, expected = slow(x, mask if causal else None), theirs(x, src_mask=~mask if causal else None)
    same(ours, expected, 1e-12)
    weights = torch.randn_like(ours)
    same(*(torch.autograd.grad(y, x, weights)[0] for y in (ours, expected)), 1e-12)


def test_blocks_are_the_fast_models() -> None:
    """Block and ModernBlock alone, with the inputs that they have inside a model."""
    for family, name in (("gpt2", plain.Block), ("qwen3", plain.ModernBlock)):
        torch.manual_seed(5)
        make, config = MODELS[family]
        slow, fast = make().eval(), Transformer(config).eval()
        stir(slow)
        assert isinstance(slow.blocks[1], name)
        fast.load_state_dict({n: t.detach() for n, t in fast_state(slow).items()})
        x = torch.randn(2, 16, 32)
        rotary = (fast.cos[:, None], fast.sin[:, None]) if family == "qwen3" else None
        same(fast.blocks[1](x, rotary, Sight(None, True, "sdpa", 16)), slow.blocks[1](x))
    attended = slow.blocks[0].attention
    assert isinstance(attended, plain.GroupedQueryAttention)
    same(fast.blocks[0].attn(x, rotary, Sight(None, True, "sdpa", 16)), attended(x))


def test_rms_norm_and_its_gradient() -> None:
    torch.manual_seed(6)
    slow, fast = plain.RMSNorm(24).double(), RMSNorm(24, 1e-6).double()
    stir(slow)
    fast.load_state_dict(slow.state_dict())
    x = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    ours, theirs = (torch.autograd.grad(norm(x), (x, norm.weight), weights) for norm in (fast, slow))
    same(fast(x), slow(x), 1e-12)
    with torch.no_grad():  # without gradients another kernel does it
        same(fast(x), slow(x), 1e-12)
    for a, b in zip(ours, theirs, strict=True):
        same(a, b, 1e-12)


def test_swiglu() -> None:
    torch.manual_seed(7)
    slow, fast = plain.SwiGLU(16, 64), FeedForward(ModelConfig(d_model=16, d_ff=64))
    fast.load_state_dict({"up.weight": torch.cat([slow.gate.weight, slow.up.weight]), "down.weight": slow.down.weight})
    x = torch.randn(2, 3, 16)
    same(fast(x), slow(x))


@pytest.mark.parametrize("active", [1, 3])
def test_experts_and_their_balance(active: int) -> None:
    torch.manual_seed(8)
    slow = plain_experts.Experts(16, 24, 6, active).double()
    stir(slow)
    fast = Experts(ModelConfig("qwen3_moe", d_model=16, d_ff=24, moe=MoEConfig(6, active))).double()
    state = {"router.weight": slow.router.weight}
    for i, expert in enumerate(slow.experts):
        assert isinstance(expert, plain_experts.Expert)
        state[f"experts.{i}.up.weight"] = torch.cat([expert.gate.weight, expert.up.weight])
        state[f"experts.{i}.down.weight"] = expert.down.weight
    fast.load_state_dict(state)
    x = torch.randn(20, 16, dtype=torch.float64, requires_grad=True)
    theirs, probabilities = slow(x)
    ours = fast(x.view(4, 5, 16)).view(20, 16)
    same(ours, theirs, 1e-12)
    expected = plain_experts.balance_loss(probabilities, active)
    assert fast.balance is not None
    same(fast.balance, expected, 1e-12)
    weights = torch.randn_like(x)
    mine, correct = ((y * weights).sum() + b for y, b in ((ours, fast.balance), (theirs, expected)))
    for a, b in zip(
        torch.autograd.grad(mine, (x, fast.router.weight)),
        torch.autograd.grad(correct, (x, slow.router.weight)),
        strict=True,
    ):
        same(a, b, 1e-12)


def test_rotate_and_sinusoidal_positions() -> None:
    x = torch.randn(2, 3, 50, 8)
    same(rotate(x, *rotary_tables(50, 8, RopeConfig(10000.0))), plain.rotate(x, 10000.0))
    same(sinusoids(50, 12), plain.sinusoidal_positions(50, 12))
    # What the turning is for: a score depends on the distance alone.
    q, k = torch.randn(2, 1, 8)
    turned_q, turned_k = (plain.rotate(v.expand(50, 8).double(), 10000.0) for v in (q, k))
    same(turned_q[7] @ turned_k[3], turned_q[44] @ turned_k[40])


def waved(module: nn.Module) -> nn.Module:
    """Fills each parameter with a sine wave of its own: weights that any framework can make again."""
    for number, parameter in enumerate(module.parameters()):
        wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 0.7 + number)
        parameter.data = 0.3 * wave.view(parameter.shape)
    return module.double().eval()


GOLDEN = {  # four numbers of the last token's output, of other people's blocks with these weights
    # torch.nn.TransformerEncoderLayer(16, 4, 32), torch 2.13
    "TransformerBlock": [0.553358097591, 0.348545571468, -0.26221189952, -0.360647198812],
    # transformers' GPT2Block, 5.23
    "Block": [2.540208738047, 1.195167175246, -1.120723838402, -2.353832001229],
}


def test_the_classic_signatures_keep_their_numbers() -> None:
    x = torch.cos(torch.arange(2 * 5 * 16, dtype=torch.float64) * 0.3).view(2, 5, 16)
    made = {
        "TransformerBlock": plain.TransformerBlock(embed_dim=16, num_heads=4, ff_dim=32, dropout=0.1),
        "Block": plain.Block(plain.GPTConfig(n_embd=16, n_head=4)),
    }
    for name, block in made.items():
        found = waved(block)(x)
        assert found.shape == (2, 5, 16)
        assert found[1, 4, :4].tolist() == pytest.approx(GOLDEN[name], rel=1e-9), name
