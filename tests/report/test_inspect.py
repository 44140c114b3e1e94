"""What `groundup inspect` shows is what the model did, the page needs nothing from outside, and a mistake is one line."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from groundup.base.runs import open_run, record, write_checkpoint
from groundup.cli import main
from groundup.model import plain
from groundup.model.config import ModelConfig, WindowConfig
from groundup.model.transformer import Transformer
from groundup.model.weights import save_model
from groundup.optim import adamw
from groundup.report import inspect
from groundup.report.inspect_trace import Trace, attention_weights, trace
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save

SHAPE = {"vocab_size": 60, "context": 16, "d_model": 32, "n_layers": 2, "n_heads": 4}


def facts_of(page: Path) -> dict[str, Any]:
    """Returns the facts that the page holds, after a look that it is closed in itself."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", text), "nothing is loaded from elsewhere"
    return json.loads(re.search(r'id="facts">(.*?)</script>', text)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("inspect") / "my-llm", context=64)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "numbers"])
def test_attention_weights_are_those_of_the_fused_kernel(mask: str, groups: int) -> None:
    torch.manual_seed(0)
    q, (k, v) = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 4 // groups, 7, 8)
    allowed = plain.causal_mask(7)
    numbers = torch.zeros(7, 7).masked_fill(~allowed, torch.finfo(torch.float32).min)
    given = {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": allowed},
        "numbers": {"attn_mask": numbers},
    }[mask]
    weights = attention_weights(q, k, v, enable_gqa=groups > 1, **given)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=groups > 1, **given)
    torch.testing.assert_close(weights @ v.repeat_interleave(groups, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "transformer2017"])
def test_a_trace_is_what_the_model_did(family: str) -> None:
    model = Transformer(ModelConfig(family=family, **SHAPE), seed=0, implementation="manual").eval()  # type: ignore[arg-type]
    tokens = torch.randint(60, (3, 12), generator=torch.Generator().manual_seed(1))
    written: list[torch.Tensor] = []
    hook = model.blocks[1].mlp.register_forward_hook(lambda _, __, made: written.append(made))  # type: ignore[union-attr]
    found = trace(model, tokens)
    hook.remove()
    torch.testing.assert_close(found.logits, model(tokens).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.logits(model.norm(found.residual[-1])).detach(), found.logits)
    (neurons,) = found.neurons[1]
    assert (len(neurons.tokens), neurons.expert) == (36, None)
    torch.testing.assert_close(model.blocks[1].mlp.down(neurons.activations.view(3, 12, -1)), written[0])  # type: ignore[union-attr,operator]
    assert [len(found.attention), len(found.residual), len(found.neurons)] == [2, 3, 2]
    for weights in found.attention:
        assert weights.shape == (3, 4, 12, 12)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 12))
        assert not weights.triu(1).any()
    assert model.implementation == "manual"
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()), "no hook stays behind"


def test_a_trace_of_windows_and_experts() -> None:
    tokens = torch.randint(60, (1, 12), generator=torch.Generator().manual_seed(1))
    windowed = trace(Transformer(ModelConfig(**SHAPE, window=WindowConfig(4, "WF")), seed=0).eval(), tokens)
    near = plain.causal_mask(12) & ~plain.causal_mask(12).tril(-4)
    assert ((windowed.attention[0] > 0) == near).all(), "the first layer sees four tokens"
    assert ((windowed.attention[1] > 0) == plain.causal_mask(12)).all()


def test_a_trace_of_experts_adds_up_to_what_their_layer_wrote() -> None:
    model = Transformer(ModelConfig(family="qwen3_moe", **SHAPE), seed=0).eval()  # type: ignore[arg-type]
    tokens, written = torch.randint(60, (2, 12), generator=torch.Generator().manual_seed(1)), []
    hook = model.blocks[1].mlp.register_forward_hook(lambda _, __, made: written.append(made))
    found = trace(model, tokens)
    hook.remove()
    total = torch.zeros(24, 32)
    for part in found.neurons[1]:
        total.index_add_(0, part.tokens, part.activations @ part.matrix.T)
    torch.testing.assert_close(total.view(2, 12, 32), written[0])
    assert sorted({part.expert for part in found.neurons[1]}) == sorted(set(found.routes[1][1].flatten().tolist()))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()), "no hook stays behind"


def test_induction_is_one_for_a_perfect_head_and_chance_for_one_that_looks_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = Tokenizer([], DEFAULT_SPECIALS, "bytes")
    model = Transformer(
        ModelConfig(**SHAPE | {"vocab_size": tokenizer.vocab_size, "context": 41, "n_layers": 1}), seed=0
    )
    seen = []

    def perfect(_: Transformer, tokens: torch.Tensor) -> Trace:
        seen.append(tokens)
        batch, time = tokens.shape
        maps = torch.zeros(batch, 2, time, time)
        for query in range(time):
            maps[:, 0, query, : query + 1] = 1 / (query + 1)
            if query > 20:
                maps[:, 1, query, query - 19] = 1
        logits = torch.zeros(batch, time, tokenizer.vocab_size)
        logits[:, 21:-1].scatter_(-1, tokens[:, 22:, None], 100.0)  # in the second copy it knows
        return Trace([maps], logits=logits)

    monkeypatch.setattr(inspect, "trace", perfect)
    test = inspect.induction(model, tokenizer)
    assert test is not None
    assert test["tokens"] == 20
    everywhere, exact = test["scores"][0]
    assert exact == 1
    assert everywhere == pytest.approx(test["chance"], abs=1e-3)
    assert test["second"] == 0
    assert test["first"] == pytest.approx(torch.tensor(float(tokenizer.vocab_size)).log().item(), abs=1e-2)
    assert (seen[0][:, 0] == tokenizer.eot).all()
    assert (seen[0][:, 1:21] == seen[0][:, 21:]).all()
    assert inspect.induction(Transformer(ModelConfig(**SHAPE | {"context": 5}), seed=0), tokenizer) is None


def test_a_model_that_learns_to_repeat_grows_induction_heads_in_its_second_layer() -> None:
    tokenizer = Tokenizer([], ("<|endoftext|>",), "bytes")
    config = ModelConfig(vocab_size=tokenizer.vocab_size, context=41, d_model=64, n_layers=2, n_heads=4, d_ff=64)
    model, dice = Transformer(config, seed=0), torch.Generator().manual_seed(0)
    optimizer = adamw.build(model, 3e-3)
    for _ in range(100):
        copy = torch.stack([torch.randperm(256, generator=dice)[:20] for _ in range(32)])
        tokens = torch.cat([torch.full((32, 1), tokenizer.eot), copy, copy], dim=1)
        loss = F.cross_entropy(model(tokens[:, :-1])[:, 20:].flatten(0, 1), tokens[:, 21:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = inspect.induction(model, tokenizer)
    assert test is not None
    assert max(test["scores"][1]) > 0.3
    assert max(test["scores"][0]) < 3 * test["chance"], "the first layer can't yet know what came before a token"
    assert test["second"] < test["first"] / 3


def test_the_page_of_attention(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", "attention", str(project), "a </script><b> é", "--out", str(page)]) == 0
    assert "next: open file:///" in capsys.readouterr().out
    facts = facts_of(page)
    texts = [token["text"] for token in facts["tokens"]]
    assert texts[0] == "<|endoftext|>"
    assert "".join(texts[1:]) == "a </script><b> \\xc3\\xa9", "half characters are shown as bytes"
    assert [(head["layer"], head["head"]) for head in facts["heads"]] == [(0, 0), (0, 1)]
    packed = list(base64.b64decode(facts["heads"][0]["map"]))
    time = len(texts)
    rows = [packed[q * (q + 1) // 2 : (q + 1) * (q + 2) // 2] for q in range(time)]
    assert len(packed) == time * (time + 1) // 2
    assert all(abs(sum(row) - 255) <= 1 + len(row) / 2 for row in rows), "each query's weights sum to one"
    assert main(["inspect", "attention", str(project), "abc", "--layer", "0", "--head", "1", "--out", str(page)]) == 0
    assert [head["head"] for head in facts_of(page)["heads"]] == [1]


def test_the_page_of_logits(project: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", "logits", str(project), "abc\x07z", "--top-k", "9", "--out", str(page)]) == 0
    facts = facts_of(page)
    assert [token["text"] for token in facts["tokens"]] == ["<|endoftext|>", "a", "b", "c", "\\x07", "z"]
    output = facts["lens"][-1]
    assert len(facts["lens"]) == 2
    for row, p in zip(output["ids"], output["p"], strict=True):  # the project's model writes any of nine letters alike
        assert {facts["words"][str(i)] for i in row} == set("abcdefgh ")
        assert all(x == pytest.approx(1 / 9, abs=1e-3) for x in p)
    assert output["next"][:3] == pytest.approx([1 / 9] * 3, abs=1e-3)
    assert output["next"][3:] == pytest.approx([0, 0], abs=1e-5)
    assert output["rank"][4] > 9
    assert all(len(near) == 8 for near in facts["neighbours"].values())
    assert all(
        str(token["id"]) not in map(str, (i for i, _ in facts["neighbours"][str(token["id"])]))
        for token in facts["tokens"]
    )


def test_the_page_of_neurons(project: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", "neurons", str(project), "abc", "--count", "5", "--chat", "--out", str(page)]) == 0
    (layer,) = facts_of(page)["layers"]
    peaks = [max(map(abs, neuron["written"])) for neuron in layer["neurons"]]
    assert len(peaks) == 5
    assert peaks == sorted(peaks, reverse=True)
    assert all(len(neuron["written"]) == len(facts_of(page)["tokens"]) for neuron in layer["neurons"])


def test_the_neurons_of_experts(tmp_path: Path) -> None:
    tokenizer, page = Tokenizer([], DEFAULT_SPECIALS, "bytes"), tmp_path / "page.html"
    model = Transformer(ModelConfig("qwen3_moe", vocab_size=tokenizer.vocab_size, context=16, d_model=32, n_layers=1))
    project, run = tmp_path / "moe", open_run(tmp_path / "moe", "pretrain")
    with record(run, "", {}), write_checkpoint(run.path, 1) as folder:
        save_model(model, folder)
        save(tokenizer, folder / "tokenizer.json")
    assert main(["inspect", "neurons", str(project), "abc abd", "--count", "9", "--out", str(page)]) == 0
    (layer,) = facts_of(page)["layers"]
    assert len(layer["neurons"]) == 9
    assert [len(sent) for sent in layer["routes"]] == [2] * 8, "each token goes to two experts"
    for neuron in layer["neurons"]:
        asked = [any(expert == neuron["expert"] for expert, _ in sent) for sent in layer["routes"]]
        assert asked == [w is not None for w in neuron["written"]]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["attention"], "text: it is empty"),
        (["attention", "", "--out", "."], "text: it is empty"),
        (["attention", "abc", "--layer", "1"], "layer: the model has 1 of them, 0 to 0; there is no 1"),
        (["attention", "abc", "--head", "2"], "head: the model has 2 of them, 0 to 1; there is no 2"),
        (["attention", "abc", "--head", "-2"], "head: expected at least -1"),
        (["logits", "x" * 64], "the text has 65 tokens, the model's context holds 64; shorten it"),
        (["logits", "--ids", "5", "9999"], "ids: 9999 is beyond the model's vocabulary"),
        (["logits", "abc", "--ids", "5"], "leave --text and --chat out"),
        (["logits", "abc", "--top-k", "0"], "top_k: expected at least 1"),
        (["neurons", "abc", "--layer", "7"], "there is no 7"),
        (["neurons", "abc", "--out", "."], "is a folder"),
        (["neurons", "abc", "--stage", "dpo"], "no such run"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str],
    message: str,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", argv[0], str(project), *argv[1:]]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_too_large_for_a_browser_is_refused_with_a_remedy(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inspect, "MOST_BYTES", 20)
    for view, remedy in (("attention", "--layer"), ("logits", "--top-k"), ("neurons", "--count")):
        assert main(["inspect", view, str(project), "abcdef"]) == 2
        assert remedy in capfd.readouterr().err


def test_a_base_model_has_no_chat_format(
    make_project: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = make_project(tmp_path / "base", stage="pretrain")
    assert main(["inspect", "logits", str(base), "abc", "--chat"]) == 2
    assert "knows no chat format" in capfd.readouterr().err
