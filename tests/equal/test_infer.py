"""The fast sampler against the plain one: the same distributions, the same picks, the same texts."""

import random

import pytest
import torch

from groundup.infer import pick as fast
from groundup.infer import plain
from groundup.infer.config import SamplingParams
from groundup.infer.sample import generate
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer

SETTINGS = [  # temperature, top_k, top_p
    (1.0, 0, 1.0), (0.0, 0, 1.0), (0.3, 0, 1.0), (2.0, 5, 1.0), (1.0, 1, 1.0), (1.0, 0, 0.5), (0.7, 20, 0.9),
    (1.0, 0, 1e-9), (1.0, 99, 1.0), (1e-4, 0, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("temperature", "k", "p"), SETTINGS)
def test_probabilities(temperature: float, k: int, p: float) -> None:
    logits = 3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    ours = fast.probabilities(logits, SamplingParams(temperature, k, p))
    expected = torch.tensor([plain.probabilities(row, temperature, k, p) for row in logits.tolist()])
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)
    assert torch.equal(ours > 0, expected > 0)


@pytest.mark.parametrize(("temperature", "k", "p"), SETTINGS)
def test_pick(temperature: float, k: int, p: float) -> None:
    generator = torch.Generator().manual_seed(2)
    logits, uniform = 3 * torch.randn(200, 50, generator=generator), torch.rand(200, generator=generator)
    ours = fast.pick(logits, SamplingParams(temperature, k, p), uniform).tolist()
    rows = zip(logits.tolist(), uniform.tolist(), strict=True)
    assert ours == [plain.pick(plain.probabilities(row, temperature, k, p), u) for row, u in rows]


def test_ties() -> None:
    row = [1.0, 2.0, 2.0, 2.0, 0.0]
    for k, p in ((2, 1.0), (0, 0.5), (0, 0.31)):
        ours = fast.probabilities(torch.tensor([row]), SamplingParams(1.0, k, p))[0]
        torch.testing.assert_close(ours, torch.tensor(plain.probabilities(row, 1.0, k, p)))
    assert plain.greedy(row) == int(fast.pick(torch.tensor([row]), SamplingParams(0.0), torch.zeros(1))) == 1
    assert plain.top_k(row, 2) == [float("-inf"), 2.0, 2.0, 2.0, float("-inf")]
    assert sum(plain.top_p(plain.softmax(row), 0.5)) == pytest.approx(1)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_an_impossible_token_is_never_picked(uniform: float) -> None:
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, 100:900] = torch.linspace(0, 1e-3, 800)
    token = int(fast.pick(logits, SamplingParams(), torch.tensor([uniform])))
    assert 100 <= token < 900
    assert (
        abs(token - plain.pick(plain.probabilities(logits[0].tolist()), uniform)) <= 1
    )  # rounding may move a boundary


def test_a_cache_changes_the_cost_and_not_the_text() -> None:
    model = plain.TinyModel(vocab_size=40, width=16, seed=3)
    dice = random.Random(0)
    uniforms = [dice.random() for _ in range(30)]
    cached = plain.CachedModel(model)
    again = plain.generate(model, [1, 2, 3], uniforms)
    assert plain.generate(cached, [1, 2, 3], uniforms) == again
    assert len(again) == 30
    assert len(cached.cache) == 32  # the last token was never read
    assert isinstance(cached.cache, plain.Cache)


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "transformer2017"])
@pytest.mark.parametrize(("temperature", "k", "p"), [(1.0, 0, 1.0), (0.0, 0, 1.0), (0.8, 10, 0.9)])
def test_generate(family: str, temperature: float, k: int, p: float) -> None:
    """Batches, padding, the KV cache, copies and dropped rows against a model that reads the whole text again."""
    config = ModelConfig(family=family, vocab_size=61, context=48, d_model=32, n_layers=2, n_heads=4,
                         n_kv_heads=2 if family in ("qwen3", "llama") else 0)  # fmt: skip
    model = Transformer(config, seed=4).eval()
    dice = random.Random(5)
    prompts = [[dice.randrange(61) for _ in range(dice.randint(1, 20))] for _ in range(9)]
    params = SamplingParams(temperature, k, p, max_tokens=25, seed=6, stop_ids=(7, 8, 9))
    ours = generate(model, prompts, params, n=3)

    def next_logits(tokens: list[int]) -> list[float]:
        with torch.inference_mode():
            return model(torch.tensor([tokens]))[0, -1].tolist()

    uniforms = fast.noise(params.seed, len(ours), params.max_tokens).tolist()
    for sample, answer in enumerate(ours):
        prompt = prompts[sample // 3]
        assert answer == plain.generate(next_logits, prompt, uniforms[sample], temperature, k, p, params.stop_ids)
    assert any(answer[-1] in params.stop_ids for answer in ours) or temperature == 0
