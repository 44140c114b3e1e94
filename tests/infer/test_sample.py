import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.base.errors import ConfigError
from groundup.cli import main
from groundup.infer import sample
from groundup.infer.config import SamplingParams
from groundup.infer.sample import generate
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(ModelConfig(vocab_size=50, context=40, d_model=32, n_layers=2, dropout=0.5), seed=1)


PROMPTS = [[1, 2, 3], [4] * 30, [5], [6, 7], [8] * 29, [9] * 30, [1, 2, 3]]


def test_batching_changes_nothing(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(max_tokens=20, seed=2, stop_ids=(0, 1, 2, 3))
    whole = generate(model, PROMPTS, params, n=4)
    assert len(whole) == 28
    monkeypatch.setattr(sample, "ROWS", 4)
    assert generate(model, PROMPTS, params, n=4) == whole
    monkeypatch.setattr(sample, "SHRINK", 0.0)
    assert generate(model, PROMPTS, params, n=4) == whole


def test_lengths(model: Transformer) -> None:
    params = SamplingParams(max_tokens=20, seed=2, stop_ids=(0, 1, 2, 3))
    for number, answer in enumerate(generate(model, PROMPTS, params, n=4)):
        room = min(20, 40 - len(PROMPTS[number // 4]))
        assert 1 <= len(answer) <= room
        assert not set(answer[:-1]) & set(params.stop_ids)
        assert answer[-1] in params.stop_ids or len(answer) == room


def test_the_seed_decides(model: Transformer) -> None:
    texts = [generate(model, PROMPTS, SamplingParams(max_tokens=8, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][6]  # equal prompts get draws of their own


def test_greedy_takes_the_likeliest(model: Transformer) -> None:
    answer = generate(model, [[1, 2]], SamplingParams(temperature=0, max_tokens=3))[0]
    model.eval()
    with torch.inference_mode():
        logits = model(torch.tensor([[1, 2, *answer]]))[0]
    assert answer == logits[1:-1].argmax(-1).tolist()


def test_the_model_is_left_as_it_was(model: Transformer) -> None:
    model.train()
    generate(model, [[1]], SamplingParams(max_tokens=2))
    assert model.training
    assert not model.eval().training
    assert generate(model, [], SamplingParams()) == []


def test_what_is_refused(model: Transformer) -> None:
    for prompts, params, word in [
        ([[1], []], SamplingParams(), "prompt 1: 0 tokens"),
        ([[1] * 40], SamplingParams(), "prompt 0: 40 tokens; the model reads 1 to 39"),
        ([[1]], SamplingParams(temperature=-1), "temperature"),
        ([[1]], SamplingParams(temperature=float("nan")), "temperature"),
        ([[1]], SamplingParams(top_k=-1), "top_k"),
        ([[1]], SamplingParams(top_p=1.1), "top_p"),
        ([[1]], SamplingParams(max_tokens=0), "max_tokens"),
        ([[1]], SamplingParams(seed=-1), "seed"),
    ]:
        with pytest.raises(ConfigError, match=word):
            generate(model, prompts, params)


def test_the_draws_follow_the_distribution(model: Transformer) -> None:
    model.eval()
    with torch.inference_mode():
        expected = model(torch.tensor([[3]]))[0, -1].softmax(-1)
    drawn = torch.tensor(generate(model, [[3]], SamplingParams(max_tokens=1), n=20_000))[:, 0]
    share = torch.bincount(drawn, minlength=50) / 20_000
    assert (share - expected).abs().max() < 5 * (0.02 / 20_000) ** 0.5


def test_generate_verb(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(project), "--prompt", "abc", "--max-tokens", "12", "--seed", "3"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("abc")
    assert len(text) == 3 + 12 + 1
    assert main([*words, "--samples", "2"]) == 0
    two = capsys.readouterr().out
    assert two.startswith("--- 1 of 2\n" + text + "--- 2 of 2\nabc")


def test_generate_reads_standard_input(project: Path) -> None:
    words = [sys.executable, "-m", "groundup", "generate", str(project), "--prompt", "-", "--max-tokens", "5"]
    done = subprocess.run(words, input=b"from \xff outside", capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith("from \ufffd outside")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["absent"], "no such folder"),
        (["PROJECT", "--stage", "grpo"], "no such run; there are: sft"),
        (["PROJECT", "--prompt", "x" * 300], "the prompt has 301 tokens"),
        (["PROJECT", "--temperature", "-1"], "temperature"),
        (["PROJECT", "--samples", "0"], "samples"),
        (["PROJECT", "--device", "abacus"], "device: expected auto"),
        (["EMPTY"], "no finished checkpoint in it"),
    ],
)
def test_refused_in_one_line(
    words: list[str], expected: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"PROJECT": str(project), "EMPTY": str(tmp_path)}
    assert main(["generate", *(named.get(word, word) for word in words)]) == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert expected in heard.err
    assert len(heard.err.splitlines()) == 1


def test_dry_run_and_a_damaged_checkpoint(
    make_project: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "p")
    folder = project / "06-sft" / "main" / "checkpoints" / "step_000001"
    for verb in ("generate", "chat"):
        assert main([verb, str(project), "--dry-run"]) == 0
        assert f"read the checkpoint {folder}" in capsys.readouterr().out
    (folder / "model.safetensors").write_bytes(b"half")
    assert main(["generate", str(folder)]) == 2
    assert "corrupt" in capsys.readouterr().err
    assert main(["chat", str(tmp_path), "--dry-run"]) == 0
    assert "fail: " in capsys.readouterr().out
