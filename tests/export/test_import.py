"""What others trained comes in with equal logits and equal ids, is trained further, and goes out again."""

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.align import sft
from groundup.align.config import SFTConfig
from groundup.base.files import write_jsonl
from groundup.base.runs import latest_checkpoint, open_run
from groundup.evals import harness
from groundup.evals.config import EvalConfig
from groundup.evals.generate import chat_prompt
from groundup.export.adopt import main
from groundup.export.config import HuggingFaceConfig, ImportConfig
from groundup.export.huggingface import main as export
from groundup.infer.engine import Engine
from groundup.model.weights import load_model
from groundup.tokenizer.io import load
from groundup.train.config import LoopConfig

TEXT = (
    "The apple is in the box. Anna takes the apple and puts it into the bag. Where is the apple? 12 + 30 = 42.\n" * 20
)
SAID = ["The apple, 12 + 30!", "  naïve café\n\n日本 <|endoftext|>", "Where's it? I'll see.", ""]
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "resid_pdrop": 0.0},
    "llama": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 64},
    "qwen3": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 24,
              "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True},
}  # fmt: skip
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def their_tokenizer(chat: bool = False) -> Any:
    """A byte-level BPE that `tokenizers` trained, as transformers wraps it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", *(["<|im_start|>", "<|im_end|>"] if chat else [])]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([TEXT], trainer)
    end = "<|im_end|>" if chat else "<|endoftext|>"
    given = {"bos_token": "<|endoftext|>", "eos_token": end, "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=CHATML if chat else None, **given)


def their_folder(folder: Path, family: str = "qwen3", chat: bool = False, **how: Any) -> Any:
    """Returns a model of transformers with random weights, after writing it with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = their_tokenizer(chat)
    config = AutoConfig.for_model(
        family, vocab_size=304, bos_token_id=0, eos_token_id=0, pad_token_id=0, **SIZES[family]
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape)
    model.save_pretrained(folder, **how)
    tokenizer.save_pretrained(folder)
    return model


def imported(project: Path) -> tuple[Any, Any]:
    """Returns the model and the tokenizer that an import left in a project."""
    checkpoint = latest_checkpoint(open_run(project, "pretrain").path)
    assert checkpoint is not None
    return load_model(checkpoint), load(checkpoint)


@pytest.mark.parametrize("family", SIZES)
def test_a_folder_of_hugging_face_comes_in_with_equal_logits_and_ids(family: str, tmp_path: Path) -> None:
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
    assert (ours - others)[..., :rows].abs().max() <= 1e-4
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
def test_it_is_taught_to_chat_judged_and_goes_out_again(chat: bool, tmp_path: Path) -> None:
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
