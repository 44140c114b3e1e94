"""Fresh weights are drawn as `init_weights` says, layer by layer."""

import math

import pytest
import torch

from groundup.base.errors import ConfigError
from groundup.model.config import ModelConfig, VariantConfig
from groundup.model.transformer import Transformer

WIDE = {"vocab_size": 400, "context": 64, "d_model": 128, "n_layers": 3, "n_heads": 4, "tie_embeddings": False}
FAMILIES = ["qwen3", "qwen3_moe", "llama", "gpt2", "transformer2017"]


def config(family: str, **given: object) -> ModelConfig:
    return ModelConfig(family=family, **{**WIDE, **given})  # type: ignore[arg-type]


def expected_std(name: str, inputs: int, shape: ModelConfig) -> float:
    if name == "embed.weight" and shape.positions == "sinusoidal":
        return shape.d_model**-0.5
    hidden = 0.02
    if base := shape.variant.mup_base:
        hidden = 0.5 / math.sqrt(inputs) if name.startswith("blocks.") else base**-0.5
    residual = name.endswith(("attn.out.weight", "down.weight"))  # what writes to the residual stream
    return hidden / math.sqrt(2 * shape.n_layers) if residual else hidden


@pytest.mark.parametrize(
    ("family", "base"), [(f, b) for f in FAMILIES for b in (0, 32) if not b or f != "transformer2017"]
)
def test_every_matrix_has_its_deviation_and_every_vector_its_constant(family: str, base: int) -> None:
    shape = config(family, variant=VariantConfig(mup_base=base))
    model, seen = Transformer(shape, seed=0), set()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            gain = 1 / shape.width_multiple if name == "norm.weight" else 1.0
            assert (parameter == (0.0 if name.endswith("bias") else gain)).all(), name
            continue
        sampling = 4 / math.sqrt(2 * parameter.numel())  # four deviations of a sample's deviation
        expected = expected_std(name, parameter.shape[1], shape)
        assert parameter.std().item() == pytest.approx(expected, rel=sampling), name
        assert parameter.mean().item() == pytest.approx(0, abs=5 * expected / math.sqrt(parameter.numel()))
        seen.add(name.split(".", 2)[-1] if name.startswith("blocks.") else name)
    assert {"attn.qkv.weight", "attn.out.weight", "embed.weight", "head.weight"} <= seen


def test_a_fresh_models_residual_stream_does_not_grow_with_depth_and_it_expects_all_tokens_alike() -> None:
    tokens = torch.randint(400, (4, 32), generator=torch.Generator().manual_seed(0))
    ends = []
    for depth in (2, 8, 32):
        model, stream = Transformer(config("llama", n_layers=depth), seed=0), []
        model.blocks[-1].register_forward_hook(lambda _, __, x, stream=stream: stream.append(x))
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        assert loss.item() == pytest.approx(math.log(400), rel=0.02)
        ends.append(stream[0].std().item())
    assert max(ends) < 1.3 * min(ends)


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (Transformer(config("qwen3"), seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


def test_with_mup_the_residual_stream_begins_alike_at_every_width() -> None:
    tokens, ends = torch.randint(400, (4, 32), generator=torch.Generator().manual_seed(0)), []
    for width in (64, 128, 256):
        shape = config("qwen3", d_model=width, n_heads=width // 32, variant=VariantConfig(mup_base=64))
        model, stream = Transformer(shape, seed=0), []
        model.blocks[-1].register_forward_hook(lambda _, __, x, stream=stream: stream.append(x))
        model(tokens)
        ends.append(stream[0].std().item())
    assert max(ends) < 1.05 * min(ends)


@pytest.mark.parametrize(
    ("family", "base", "message"),
    [("qwen3", -1, "0 (off) or a width"), ("transformer2017", 64, "no norm before its output")],
)
def test_an_impossible_base_is_refused(family: str, base: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(family, variant=VariantConfig(mup_base=base)).validate()
    assert "model.variant.mup_base" in str(caught.value)
    assert message in str(caught.value)
