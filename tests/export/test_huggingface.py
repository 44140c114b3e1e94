"""An exported folder is loaded by transformers itself: equal logits, equal greedy text, equal tokens."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.files import write_json
from groundup.base.records import Document, Message, write_documents
from groundup.base.runs import open_run, record, write_checkpoint
from groundup.export.card import model_card
from groundup.export.config import HuggingFaceConfig, stage_of
from groundup.export.huggingface import export, main
from groundup.export.trained import load_trained
from groundup.model.config import ModelConfig, RopeConfig
from groundup.model.huggingface import to_huggingface
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model, save_model
from groundup.tokenizer.chat import render
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load, save
from groundup.tokenizer.train import train
from tests.export.following import greedy

TEXT = "The apple is in the box. Anna takes the apple and puts it into the bag. Where is the apple? 12 + 30 = 42. " * 20
FILES = [
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"n_kv_heads": 2, "head_dim": 24, "rope": RopeConfig(5000.0)},
    "qwen3-untied": {"tie_embeddings": False},
    "llama": {"n_kv_heads": 1, "rope": RopeConfig(5000.0)},
    "llama-untied": {"tie_embeddings": False},
    "gpt2": {},
    "gpt2-untied": {"tie_embeddings": False, "d_ff": 96},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([TEXT], 290)


def finished(
    project: Path,
    stage: str,
    tokenizer: Tokenizer,
    family: str = "qwen3",
    name: str = "main",
    inputs: dict[str, Path] | None = None,
    results: dict[str, Any] | None = None,
    **shape: Any,
) -> Transformer:
    """Puts a finished run of a stage into a project, with weights large enough that greedy text isn't one token repeated."""
    sizes = {"vocab_size": tokenizer.vocab_size, "context": 64, "d_model": 48, "n_layers": 2, "n_heads": 4}
    model = Transformer(ModelConfig(family, **sizes | shape), seed=1).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    run = open_run(project, stage, name)
    with record(run, "", inputs or {}) as found, write_checkpoint(run.path, 3) as folder:
        save_model(model, folder)
        save(tokenizer, folder / "tokenizer.json")
        found |= results or {}
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_loads_it_with_equal_logits_and_equal_text(
    shape: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = finished(tmp_path, "pretrain", tokenizer, shape.partition("-")[0], **SHAPES[shape])
    main(HuggingFaceConfig(tmp_path))
    folder = tmp_path / "12-export" / "main" / "huggingface"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == json.loads((folder / "config.json").read_text())["architectures"][0]
    assert theirs.num_parameters() == model.config.params()
    tokens = torch.randint(tokenizer.vocab_size, (3, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, others = model(tokens), theirs(tokens).logits
    assert ours.std() > 0.3
    assert (ours - others).abs().max() <= 1e-4
    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = [tokenizer.eot, *tokenizer.encode("Anna takes")]
    assert their_tokenizer(their_tokenizer.bos_token + "Anna takes")["input_ids"] == prompt
    given = {"attention_mask": torch.ones(1, len(prompt), dtype=torch.long), "min_new_tokens": 40, "max_new_tokens": 40}
    answer = theirs.generate(torch.tensor([prompt]), **given, eos_token_id=None)[0]
    expected = greedy(model, prompt, 40)
    assert answer.tolist() == expected
    assert len(set(expected)) > 3  # not one token over and over
    assert their_tokenizer.decode(answer) == tokenizer.decode(expected)


def test_no_row_of_the_embedding_is_left_without_its_gradient(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """In transformers a config's padding token learns nothing, and says nothing of it; every document of ours begins with it."""
    from transformers import AutoModelForCausalLM

    model = finished(tmp_path, "pretrain", tokenizer, tie_embeddings=False)
    main(HuggingFaceConfig(tmp_path))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "12-export" / "main" / "huggingface")
    tokens = torch.tensor([[tokenizer.eot, 5, 6, 7]])
    for logits in (model(tokens), theirs(tokens).logits):
        logits.square().mean().backward()
    ours, others = model.embed.weight.grad, theirs.get_input_embeddings().weight.grad
    assert ours is not None
    assert ours[tokenizer.eot].abs().max() > 1e-4
    torch.testing.assert_close(others, ours, atol=1e-6, rtol=1e-4)
    assert theirs.generation_config.pad_token_id == tokenizer.eot, "for rows of generate that have ended"


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_gradients_equal_those_of_transformers(family: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = finished(tmp_path, "pretrain", tokenizer, family).train()
    state, values = to_huggingface(model)
    # At every place the token id is inside the vocabulary; GPT-2's own defaults for these two are not.
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values, bos_token_id=0, eos_token_id=0)).train()
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    theirs.tie_weights()
    tokens = torch.randint(tokenizer.vocab_size, (3, 30), generator=torch.Generator().manual_seed(3))
    for logits in (model(tokens), theirs(tokens).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    ours = to_huggingface(model)[0]
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None
        assert (ours[name] - parameter.grad).abs().max() <= 1e-4 * parameter.grad.abs().max(), name


def test_a_chat_model_brings_its_template_and_ends_its_turn(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    finished(tmp_path, "pretrain", tokenizer)
    finished(tmp_path, "sft", tokenizer)
    main(HuggingFaceConfig(tmp_path))
    folder = tmp_path / "12-export" / "main" / "huggingface"
    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [("user", "Where is the apple?"), ("assistant", "in the bag"), ("user", "12 + 30")]
    ours = render([Message(*turn) for turn in turns], tokenizer, generation_prompt=True).tokens
    messages = [{"role": role, "content": content} for role, content in turns]
    theirs = their_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert theirs["input_ids"] == ours
    values = json.loads((folder / "generation_config.json").read_text())
    assert values["eos_token_id"] == tokenizer.special("<|end|>")
    assert values["bos_token_id"] == tokenizer.eot


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_the_model_cards_code_runs(
    stage: str,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished(tmp_path, stage, tokenizer)
    for name in ("base", "sft"):
        stages = {"base": "05-pretrain", "sft": "06-sft"}
        scores = {"bits_per_byte": {"value": 1.2345, "low": 1.2, "high": 1.3}, "per_problem": []}
        write_json(
            tmp_path / f"11-eval/main/{name}.json",
            scores | {"checkpoint": f"../../{stages[name]}/main/checkpoints/step_000003"},
        )
    folder = tmp_path / "out"
    main(HuggingFaceConfig(tmp_path, out=folder))
    card = (folder / "README.md").read_text()
    assert "| bits_per_byte | 1.234 | 1.200 to 1.300 |" in card or "| bits_per_byte | 1.235 | 1.200 to 1.300 |" in card
    assert f"stage: {stage}" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(code, {})
    assert "<|endoftext|>" not in capsys.readouterr().out


def test_the_model_card_tells_the_models_own_history(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = [Document("1", "a", "book", {"licence": "CC0"}), Document("2", "b", "book"), Document("3", "c", "web")]
    data, shards = open_run(tmp_path, "data"), open_run(tmp_path, "shards")
    with record(data, "", {}):
        write_documents(data.path / "documents.parquet", documents)
        sizes = {"book": {"documents": 2, "bytes": 4567}, "web": {"documents": 1, "bytes": 1}}
        write_json(data.path / "stats.json", {"sources": sizes})
    with record(shards, "", {"train": data.path / "documents.parquet"}):
        write_json(shards.path / "train" / "index.json", {})
    done = {"device": "cpu", "threads": 2, "precision": "bf16", "steps": 100, "tokens": 204800, "train_s": 61.0}
    finished(tmp_path, "pretrain", tokenizer, inputs={"train": shards.path / "train" / "index.json"}, results=done)
    base = HuggingFaceConfig(tmp_path, stage="pretrain").find()
    finished(tmp_path, "sft", tokenizer, inputs={"start": base}, results=done | {"steps": 7})
    write_json(tmp_path / "11-eval/main/sft.json", {"checkpoint": "../../06-sft/main/checkpoints/step_000002",
                                                    "bits_per_byte": {"value": 1.0}})  # fmt: skip
    card = model_card(load_trained(HuggingFaceConfig(tmp_path).find()), tmp_path)
    assert "Trained from scratch with groundup." in card
    assert "| pretrain | 2 threads of a CPU, bf16 |" in card
    assert "| 100 | 204,800 | 1 min 01 s |" in card
    assert "| sft | 2 threads of a CPU, bf16 |" in card
    assert "| book | CC0 (1), none named (1) | 2 | 4,567 |" in card
    assert "| web | none named (1) | 1 | 1 |" in card
    assert "Evaluation" not in card  # what was measured was another checkpoint
    shutil.rmtree(tmp_path / "01-data")
    assert "Training data" not in model_card(load_trained(base), tmp_path)


def test_it_takes_the_furthest_stage_or_the_one_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for stage in ("pretrain", "sft", "dpo"):
        finished(tmp_path, stage, tokenizer)
    finished(tmp_path, "sft", tokenizer, name="wide")
    assert stage_of(HuggingFaceConfig(tmp_path).find()) == "dpo"
    assert stage_of(HuggingFaceConfig(tmp_path, stage="pretrain").find()) == "pretrain"
    assert HuggingFaceConfig(tmp_path, name="wide").find() == tmp_path / "06-sft/wide/checkpoints/step_000003"
    assert stage_of(HuggingFaceConfig(tmp_path / "x", checkpoint=tmp_path / "05-pretrain").find()) == "pretrain"
    assert stage_of(tmp_path) == ""
    with pytest.raises(CheckpointError, match="no finished model in 10-grpo/main"):
        HuggingFaceConfig(tmp_path, stage="grpo").find()
    with pytest.raises(CheckpointError, match=r"no finished model in .* or 05-pretrain/main"):
        HuggingFaceConfig(tmp_path / "nothing").find()


def test_the_command(tokenizer: Tokenizer, tmp_path: Path, cli: Callable[..., CompletedProcess[str]]) -> None:
    finished(tmp_path / "my-llm", "pretrain", tokenizer)
    assert "would" in cli("export", "huggingface", "--dry-run", cwd=tmp_path).stdout
    assert not (tmp_path / "my-llm" / "12-export").exists()
    first = cli("export", "huggingface", cwd=tmp_path).stdout
    assert "Qwen3ForCausalLM" in first
    assert "report my-llm" in first
    assert "nothing to do" in cli("export", "huggingface", cwd=tmp_path).stdout
    assert sorted(p.name for p in (tmp_path / "my-llm/12-export/main/huggingface").iterdir()) == FILES
    info = open_run(tmp_path / "my-llm", "export").info
    assert info["status"] == "done"
    assert info["results"]["stage"] == "pretrain"


def test_bad_input_leaves_nothing_behind(
    tokenizer: Tokenizer, tmp_path: Path, cli: Callable[..., CompletedProcess[str]]
) -> None:
    project = tmp_path / "my-llm"
    finished(project, "pretrain", tokenizer, family="transformer2017")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds other files"):
        main(HuggingFaceConfig(project, out=mine))
    with pytest.raises(ConfigError, match="is a file"):
        main(HuggingFaceConfig(project, out=mine / "letter.txt"))
    with pytest.raises(ConfigError, match="give one of them"):
        main(HuggingFaceConfig(project, stage="sft", checkpoint=project))
    for words, message in (
        (["my-llm", "--out", "new"], "no class in transformers"), (["nothing"], "no finished model"),
        (["my-llm", "--checkpoint", "nowhere"], "no such folder"), (["my-llm", "--stage", "best"], "--stage"),
    ):  # fmt: skip
        done = cli("export", "huggingface", *words, cwd=tmp_path, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "my-llm"]
    assert (mine / "letter.txt").read_text() == "precious"
    with pytest.raises(
        CheckpointError, match="no class"
    ):  # as a run of the project it fails, with nothing but its record
        main(HuggingFaceConfig(project))
    assert not (project / "12-export/main/huggingface").exists()
    assert open_run(project, "export").info["status"] == "failed"


def test_a_tokenizer_that_is_not_the_models(tokenizer: Tokenizer, tmp_path: Path) -> None:
    finished(tmp_path, "pretrain", tokenizer)
    checkpoint = HuggingFaceConfig(tmp_path).find()
    save(train([TEXT], 300), checkpoint / "tokenizer.json")
    assert load(checkpoint).vocab_size > load_model(checkpoint).config.vocab_size
    with pytest.raises(CheckpointError, match="300 tokens, the model 290"):
        export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
