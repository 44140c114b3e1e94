"""Windows and experts in generation: the engine and the sampler write what the whole text, read anew for each token, would."""

from typing import Any

import pytest
import torch

from groundup.infer.config import SamplingParams
from groundup.infer.engine import Engine
from groundup.infer.sample import generate
from groundup.model.config import ModelConfig, MoEConfig, RopeConfig, WindowConfig
from groundup.model.transformer import Transformer
from groundup.tokenizer.encode import Tokenizer

SIZES: dict[str, Any] = {"vocab_size": 257, "context": 48, "d_model": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2}
MODELS = {
    "windows": ModelConfig(**SIZES, window=WindowConfig(5, "WWF")),
    "windows everywhere": ModelConfig("llama", **SIZES, window=WindowConfig(3, "W")),
    "windows, a long text": ModelConfig(**SIZES | {"context": 240}, window=WindowConfig(5, "WWF")),
    "experts": ModelConfig("qwen3_moe", **SIZES, d_ff=32, moe=MoEConfig(6, 2)),
    "both, YaRN": ModelConfig(
        "qwen3_moe", **SIZES, d_ff=32, window=WindowConfig(4), rope=RopeConfig(100.0, "yarn", 2.0)
    ),
}
GREEDY = SamplingParams(temperature=0.0, max_tokens=20)


def stirred(config: ModelConfig) -> Transformer:
    model = Transformer(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += (0.05 if "embed" in name else 0.25) * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def anew(model: Transformer, prompt: list[int], count: int) -> list[int]:
    """Returns the likeliest continuation, without a cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", MODELS)
def test_sampler_and_engine_write_the_same(name: str) -> None:
    model = stirred(MODELS[name])
    texts = (b"a window on the world", b"it", b"many experts")  # padded to one length in the sampler
    prompts = [list(text) * (model.config.context // 48) for text in texts]
    expected = [anew(model, prompt, 20) for prompt in prompts]
    assert max(len(set(tokens)) for tokens in expected) > 3
    assert generate(model, prompts, GREEDY) == expected
    assert generate(model, prompts, GREEDY, n=2) == [tokens for tokens in expected for _ in range(2)]
    engine = Engine(model, Tokenizer([], ("<|endoftext|>",), "bytes"))
    assert list(engine.stream(prompts[0], GREEDY)) == expected[0]
    longer = [*prompts[0], *expected[0][:7]]  # the engine reads on from what it has kept,
    assert list(engine.stream(longer, GREEDY)) == anew(model, longer, 20)
    shorter = [*prompts[0][:9], 120]  # and goes back
    assert list(engine.stream(shorter, GREEDY)) == anew(model, shorter, 20)
