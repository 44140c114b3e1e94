"""A GGUF file holds the model's tensors as llama.cpp lays them out; llama.cpp itself writes the same greedy text."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFValueType

from groundup.base.errors import CheckpointError, ConfigError, TokenizerError
from groundup.base.records import Message
from groundup.base.runs import open_run, record, write_checkpoint
from groundup.cli import main as groundup
from groundup.export.config import GGUFConfig
from groundup.export.gguf import export, main, plain_template
from groundup.model.config import ModelConfig, MoEConfig, RopeConfig, WindowConfig
from groundup.model.huggingface import to_huggingface
from groundup.model.transformer import Transformer
from groundup.model.weights import save_model
from groundup.tokenizer.chat import DEFAULT_SPECIALS, TEMPLATE, render
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.tokenizer.train import train

TEXT = "The apple is in the box. Anna takes the apple and puts it into the bag. Where is the apple? 12 + 30 = 42. " * 20
SIZES: dict[str, Any] = {"context": 64, "d_model": 64, "n_layers": 2, "n_heads": 4}
YARN = RopeConfig(scaling="yarn", factor=4.0, original_context=16)
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"n_kv_heads": 2, "head_dim": 24},
    "qwen3-yarn": {"rope": YARN, "tie_embeddings": False},
    "llama": {"n_kv_heads": 1, "rope": RopeConfig(5000.0), "tie_embeddings": False},
    "llama-linear": {"rope": RopeConfig(scaling="linear", factor=2.0)},
    "llama-llama3": {"rope": RopeConfig(500.0, "llama3", 4.0, original_context=32)},
    "gpt2": {},
    "qwen3_moe": {"n_kv_heads": 2, "moe": MoEConfig(experts=4, active=2), "d_ff": 32},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([TEXT], 290)


def finished(
    project: Path, tokenizer: Tokenizer, family: str = "qwen3", stage: str = "pretrain", **shape: Any
) -> Transformer:
    """Puts a finished run of a stage into a project; the model's vocabulary is a little larger than the tokenizer's."""
    config = ModelConfig(family, vocab_size=tokenizer.vocab_size + 3, **SIZES | shape)  # type: ignore[arg-type]
    model = Transformer(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    run = open_run(project, stage)
    with record(run, "", {}), write_checkpoint(run.path, 3) as folder:
        save_model(model, folder)
        save(tokenizer, folder / "tokenizer.json")
    return model


def opened(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """Returns the metadata, the tensors (dequantised) and their kinds, by gguf's own reader."""
    from gguf.quants import dequantize

    reader = GGUFReader(file)
    tensors = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return ({f.name: f.contents() for f in reader.fields.values()}, tensors,
            {t.name: t.tensor_type.name for t in reader.tensors})  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_file_holds_the_model(shape: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    family = shape.partition("-")[0]
    arch = family.replace("_", "")
    model = finished(tmp_path, tokenizer, family, **SHAPES[shape])
    main(GGUFConfig(tmp_path, dtype="f32", out=tmp_path / "m.gguf"))
    about, found, _ = opened(tmp_path / "m.gguf")
    config, theirs = model.config, to_huggingface(model)[0]
    assert about["general.architecture"] == arch
    assert about[f"{arch}.context_length"] == 64
    assert about[f"{arch}.block_count"] == 2
    assert sum(t.size for name, t in found.items() if name != "rope_freqs.weight") == config.params()
    if family == "gpt2":
        assert np.array_equal(found["blk.1.attn_qkv.weight"], theirs["transformer.h.1.attn.c_attn.weight"].numpy().T)
        assert np.array_equal(found["blk.1.attn_qkv.bias"], theirs["transformer.h.1.attn.c_attn.bias"].numpy())
        assert np.array_equal(found["position_embd.weight"], theirs["transformer.wpe.weight"].numpy())
        return
    assert about[f"{arch}.attention.head_count_kv"] == config.kv_heads
    assert about[f"{arch}.rope.freq_base"] == config.rope.theta
    assert ("output.weight" in found) == (not config.tie_embeddings)
    if family == "qwen3_moe":
        assert (about["qwen3moe.expert_count"], about["qwen3moe.expert_used_count"]) == (4, 2)
        expert = theirs["model.layers.1.mlp.experts.3.down_proj.weight"].numpy()
        assert np.array_equal(found["blk.1.ffn_down_exps.weight"][3], expert)
    else:
        assert np.array_equal(found["blk.1.ffn_down.weight"], theirs["model.layers.1.mlp.down_proj.weight"].numpy())
    ours, half = theirs["model.layers.1.self_attn.k_proj.weight"].numpy(), config.head_size // 2
    for row in range(half):  # llama.cpp turns neighbours in a Llama, halves in a Qwen3
        first, second = (2 * row, 2 * row + 1) if family == "llama" else (row, half + row)
        assert np.array_equal(found["blk.1.attn_k.weight"][[first, second]], ours[[row, half + row]])
    if config.rope.scaling == "llama3":
        assert found["rope_freqs.weight"].min() == 1
        assert found["rope_freqs.weight"].max() == 4
    elif config.rope.scaling != "none":
        assert about[f"{arch}.rope.scaling.type"] == config.rope.scaling


def test_the_file_holds_the_vocabulary(tokenizer: Tokenizer, tmp_path: Path) -> None:
    finished(tmp_path, tokenizer)
    finished(tmp_path, tokenizer, stage="sft")
    size = tokenizer.vocab_size
    for stage, end, begins in (("pretrain", tokenizer.eot, True), ("sft", tokenizer.special("<|end|>"), False)):
        main(GGUFConfig(tmp_path, stage=stage, out=tmp_path / "m.gguf"))  # type: ignore[arg-type]
        about, _, _ = opened(tmp_path / "m.gguf")
        assert len(about["tokenizer.ggml.tokens"]) == size + 3
        assert about["tokenizer.ggml.tokens"][size - 5 :] == [
            *tokenizer.specials,
            *(f"[PAD{i}]" for i in range(size, size + 3)),
        ]
        assert about["tokenizer.ggml.token_type"][size - 6 :] == [1] + [3] * 5 + [5] * 3
        assert len(about["tokenizer.ggml.merges"]) == len(tokenizer.merges)
        assert about["tokenizer.ggml.pre"] == "qwen2"
        assert about["tokenizer.ggml.bos_token_id"] == tokenizer.eot
        assert about["tokenizer.ggml.eos_token_id"] == end
        assert about["tokenizer.ggml.add_bos_token"] == begins
        assert ("tokenizer.chat_template" in about) == (stage == "sft")
    bare = Tokenizer([], DEFAULT_SPECIALS, "bytes")
    finished(tmp_path / "bare", bare)
    main(GGUFConfig(tmp_path / "bare", out=tmp_path / "b.gguf"))
    reader = GGUFReader(tmp_path / "b.gguf")
    assert reader.fields["tokenizer.ggml.merges"].types[0] is GGUFValueType.ARRAY
    assert reader.fields["tokenizer.ggml.merges"].contents() == ["ÿ ÿ"]  # an empty list isn't loaded


def test_the_chat_template_needs_no_tag_of_transformers(tokenizer: Tokenizer) -> None:
    import jinja2

    assert "generation" in TEMPLATE
    template = plain_template(tokenizer)
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "?"},
    ]
    said = jinja2.Environment().from_string(template).render(messages=messages, add_generation_prompt=True)
    ours = render([Message(**m) for m in messages], tokenizer, generation_prompt=True).tokens
    assert tokenizer.encode(said, "all") == ours


@pytest.mark.parametrize(("dtype", "kind", "error"), [("f16", "F16", 1e-3), ("q8_0", "Q8_0", 1e-2)])
def test_smaller_numbers(dtype: str, kind: str, error: float, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = finished(tmp_path, tokenizer)
    result = export(GGUFConfig(tmp_path).find(), tmp_path / "m.gguf", dtype)
    _, found, kinds = opened(tmp_path / "m.gguf")
    matrix = model.state_dict()["blocks.0.mlp.down.weight"].numpy()
    assert kinds["blk.0.ffn_down.weight"] == kind
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.0.attn_q_norm.weight"] == "F32"
    assert 0 < np.abs(found["blk.0.ffn_down.weight"] - matrix).max() <= error * np.abs(matrix).max()
    assert result["bytes"] == (tmp_path / "m.gguf").stat().st_size < 4 * model.config.params()


def test_rows_that_are_no_multiple_of_32_stay_f16(tokenizer: Tokenizer, tmp_path: Path) -> None:
    finished(tmp_path, tokenizer, d_model=48, d_ff=96, head_dim=16)
    export(GGUFConfig(tmp_path).find(), tmp_path / "m.gguf", "q8_0")
    kinds = opened(tmp_path / "m.gguf")[2]
    assert kinds["blk.0.ffn_up.weight"] == "F16"
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"


def test_the_command(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "my-llm", tokenizer)
    monkeypatch.chdir(tmp_path)
    assert groundup(["export", "gguf", "--dtype", "q8_0", "--dry-run"]) == 0
    assert "my-llm-q8_0.gguf" in capsys.readouterr().out
    assert not (tmp_path / "my-llm" / "12-export").exists()
    for dtype in ("q8_0", "f16"):  # one doesn't replace the other
        assert groundup(["export", "gguf", "--dtype", dtype]) == 0
    assert "report my-llm" in capsys.readouterr().out
    files = sorted(p.name for p in (tmp_path / "my-llm" / "12-export").rglob("*.gguf"))
    assert files == ["my-llm-f16.gguf", "my-llm-q8_0.gguf"]
    for words, message in (
        (["my-llm", "--dtype", "q4_0"], "--dtype"), (["nothing"], "no finished model"),
        (["my-llm", "--out", "m.bin"], "not the name of a .gguf file"),
    ):  # fmt: skip
        assert groundup(["export", "gguf", *words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert message in said


def test_bad_input_leaves_nothing_behind(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path / "old", tokenizer, "transformer2017")
    finished(tmp_path / "rope", tokenizer, rope=RopeConfig(500.0, "llama3", 4.0, original_context=16))
    finished(tmp_path / "words", Tokenizer([], DEFAULT_SPECIALS, "whitespace"))
    finished(tmp_path / "window", tokenizer, window=WindowConfig(size=8))
    (tmp_path / "folder.gguf").mkdir()
    for project, kind, message in (
        ("old", CheckpointError, "no class in transformers"), ("rope", CheckpointError, "llama3 in Llama models alone"),
        ("words", TokenizerError, "can't cut text by 'whitespace'"), ("window", CheckpointError, "no sliding windows"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            main(GGUFConfig(tmp_path / project, out=tmp_path / "m.gguf"))
    with pytest.raises(ConfigError, match="is a folder"):
        main(GGUFConfig(tmp_path / "old", out=tmp_path / "folder.gguf"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"pip install 'groundup\[gguf\]'"):
        main(GGUFConfig(tmp_path / "rope"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.gguf", "old", "rope", "window", "words"]
    assert not (tmp_path / "rope" / "12-export").exists()
