"""What others trained comes in with equal logits and equal ids, is trained further, and goes out again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.align import sft
from groundup.align.config import SFTConfig
from groundup.base.files import write_json, write_jsonl
from groundup.base.runs import latest_checkpoint, open_run, record
from groundup.cli import main as groundup
from groundup.evals import harness
from groundup.evals.config import EvalConfig
from groundup.evals.generate import chat_prompt
from groundup.export.adopt import main
from groundup.export.config import HuggingFaceConfig, ImportConfig
from groundup.export.huggingface import main as export
from groundup.infer.engine import Engine
from groundup.model.weights import load_model
from groundup.tokenizer.encode import EOT, Tokenizer
from groundup.tokenizer.io import load, save
from groundup.train.config import LoopConfig

TEXT = (
    "The apple is in the box. Anna takes the apple and puts it into the bag. Where is the apple? 12 + 30 = 42.\n" * 20
)
Make = Callable[..., Any]
SAID = ["The apple, 12 + 30!", "  naïve café\n\n日本 <|endoftext|>", "Where's it? I'll see.", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, their_folder: Make) -> tuple[Path, Path]:
    """A folder with its weights in one file, and one with them in several."""
    one, several = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("several")
    their_folder(one)
    their_folder(several, max_shard_size="100KB")
    return one, several


def imported(project: Path) -> tuple[Any, Any]:
    """Returns the model and the tokenizer that an import left in a project."""
    checkpoint = latest_checkpoint(open_run(project, "pretrain").path)
    assert checkpoint is not None
    return load_model(checkpoint), load(checkpoint)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen3", "qwen3_moe"])
def test_a_folder_of_hugging_face_comes_in_with_equal_logits_and_ids(
    family: str, their_folder: Make, their_tokenizer: Make, differ: Make, tmp_path: Path
) -> None:
    how = {"max_shard_size": "100KB"} if family == "llama" else {}
    theirs = their_folder(tmp_path / "hf", family, **how)
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == (family == "llama")
    main(ImportConfig(tmp_path / "hf", tmp_path / "mine", chat=family == "gpt2"))
    model, tokenizer = imported(tmp_path / "mine")
    tokens = torch.randint(300, (3, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, others = model(tokens), theirs(tokens).logits
    assert others.std() > 0.3
    rows = 300 if family == "gpt2" else 304  # the padding took up the words of our chat form
    differ(f"{family}, imported from transformers", "logits", float((ours - others)[..., :rows].abs().max()), 1e-4)
    their = their_tokenizer()
    for text in SAID:
        assert tokenizer.encode(text, "all") == their(text)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert ("<|user|>" in tokenizer.specials) == (family == "gpt2")
    assert load(tmp_path / "mine/02-tokenizer/main").fingerprint == tokenizer.fingerprint


def write_tasks(project: Path) -> None:
    """Writes conversations to learn, and problems to be judged by."""
    rows = [(f"{a} + {b} =", str(a + b)) for a in range(6) for b in range(6)]
    chats = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in rows]
    write_jsonl(project / "tasks" / "sft.jsonl", chats)
    problems = [{"id": f"p{i}", "skill": "sum", "question": q, "answer": a} for i, (q, a) in enumerate(rows[:4])]
    write_jsonl(project / "tasks" / "problems-test.jsonl", problems)


@pytest.mark.parametrize("chat", [False, True])
def test_it_is_taught_to_chat_judged_and_goes_out_again(chat: bool, their_folder: Make, tmp_path: Path) -> None:
    """With our chat form, which it had no words for, or with its own (Qwen's)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    project = tmp_path / "mine"
    their_folder(tmp_path / "hf", "qwen3", chat)
    main(ImportConfig(tmp_path / "hf", project))
    assert Engine.load(project).chats == chat  # one that others taught to chat does so at once
    write_tasks(project)
    sft.main(SFTConfig(project, replay=0, batch=8, precision="fp32", train=LoopConfig(steps=40, lr=1e-2, log_every=1)))
    losses = [row["loss"] for row in open_run(project, "sft").metrics() if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    harness.main(EvalConfig(project, stage="sft", samples=2))
    export(HuggingFaceConfig(project))
    folder = project / "12-export/main/huggingface"
    model = load_model(HuggingFaceConfig(project).find())
    theirs, their = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    tokens = torch.randint(300, (2, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert (model(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
    asked = their.apply_chat_template(
        [{"role": "user", "content": "1 + 1 ="}], add_generation_prompt=True, return_dict=True
    )
    ours = chat_prompt("1 + 1 =", load(HuggingFaceConfig(project).find()))
    assert asked["input_ids"] == ours
    assert theirs.generation_config.eos_token_id == their.convert_tokens_to_ids("<|im_end|>" if chat else "<|end|>")
    assert f"Trained further with groundup from {tmp_path / 'hf'}" in (folder / "README.md").read_text()


def damage(folder: Path, how: str) -> None:
    """Does to a folder what happens to folders."""
    config, weights, index = (
        folder / "config.json",
        folder / "model.safetensors",
        folder / "model.safetensors.index.json",
    )
    shards = sorted(folder.glob("model-*.safetensors"))
    values = json.loads(config.read_text())
    match how:
        case "unknown architecture":
            write_json(config, values | {"architectures": ["MambaForCausalLM"], "model_type": "mamba"})
        case "no config":
            config.unlink()
        case "not JSON":
            config.write_text("{")
        case "missing tensor" | "extra tensor" | "integers" | "another shape":
            tensors = load_file(weights)
            norm = tensors.pop("model.norm.weight")
            changed = {"missing tensor": {}, "extra tensor": {"model.norm.weight": norm, "model.head.bias": norm.clone()},
                "integers": {"model.norm.weight": norm.long()}, "another shape": {"model.norm.weight": norm[:7].clone()}}  # fmt: skip
            save_file(tensors | changed[how], weights, {"format": "pt"})
        case "lying header":
            raw = weights.read_bytes()
            weights.write_bytes((2**40).to_bytes(8, "little") + raw[8:])
        case "cut off":
            weights.write_bytes(weights.read_bytes()[:5000])
        case "pickle":
            weights.rename(folder / "pytorch_model.bin")
        case "adapter":
            config.rename(folder / "adapter_config.json")
        case "missing shard":
            shards[-1].unlink()
        case "shard elsewhere":
            named = json.loads(index.read_text())
            write_json(index, named | {"weight_map": dict.fromkeys(named["weight_map"], "../model.safetensors")})
        case "not an index":
            index.write_text("[]")
        case "tensor in no shard":
            named = json.loads(index.read_text())
            named["weight_map"]["model.norm.weight"] = shards[0].name
            write_json(index, named)
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "larger tokenizer":
            save(Tokenizer([], [EOT, *(f"<{i}>" for i in range(53))], "bytes"), folder / "more.json")
            (folder / "more.json").rename(folder / "tokenizer.json")
        case "unigram":
            (folder / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}')


@pytest.mark.parametrize(("how", "message"), [
    ("unknown architecture", "architecture 'MambaForCausalLM' is unknown"), ("no config", "config.json: missing"),
    ("not JSON", "config.json, line 1: not JSON"), ("missing tensor", "missing: model.norm.weight"),
    ("extra tensor", "unknown: model.head.bias"), ("integers", "model.norm.weight has dtype torch.int64"),
    ("another shape", "model.norm.weight has shape (7,), the config expects (48,)"),
    ("lying header", "not a whole safetensors file"), ("cut off", "not a whole safetensors file"),
    ("pickle", "pytorch_model.bin: a pickle, which can run anything"), ("adapter", "an adapter (LoRA), not a model"),
    ("missing shard", ".safetensors: missing; model.safetensors.index.json names it"),
    ("shard elsewhere", "'../model.safetensors' isn't the name of a safetensors file beside it"),
    ("not an index", "no 'weight_map' in it"), ("tensor in no shard", "tensor model.norm.weight isn't in it"),
    ("no tokenizer", "no such tokenizer"), ("larger tokenizer", "the tokenizer has 310 tokens, the model 304"),
    ("unigram", "Unigram"),
])  # fmt: skip
def test_bad_folders_are_named_in_one_line_and_leave_nothing(
    how: str, message: str, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        folders[1] if how in ("missing shard", "shard elsewhere", "not an index", "tensor in no shard") else folders[0]
    )
    shutil.copytree(source, tmp_path / "hf")
    damage(tmp_path / "hf", how)
    assert groundup(["import", str(tmp_path / "hf"), str(tmp_path / "mine")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("groundup: ")
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "mine").exists()


def test_the_command(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", str(folders[1]), str(tmp_path / "mine")]
    assert groundup([*words, "--dry-run"]) == 0
    assert not (tmp_path / "mine").exists()
    assert groundup(words) == 0
    assert "vocabulary of 304" in capsys.readouterr().out
    assert groundup(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert groundup([*words, "--name", "plain", "--no-chat"]) == 0
    assert load(tmp_path / "mine/02-tokenizer/plain").vocab_size == 300
    shutil.rmtree(tmp_path / "mine/05-pretrain/main")
    with record(open_run(tmp_path / "mine", "pretrain"), "", {}):
        pass
    for wrong, message in (
        (words, "made by the project itself"), (["import"], "name a Hugging Face folder"),
        (["import", "nowhere"], "no such file or folder"), (["import", "x.gguf"], "no such file"),
        (["import", __file__], "a Hugging Face folder or nanoGPT's ckpt.pt was expected"),
        ([*words, "--tokenizer", "a", "--text", "b"], "give one of them"),
        ([*words, "--name", "t", "--text", "b"], "only a character model"),
    ):  # fmt: skip
        capsys.readouterr()
        assert groundup(wrong) == 2, wrong
        assert message in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "mine/05-pretrain").iterdir()) == ["main", "plain"]
