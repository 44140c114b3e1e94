"""llama.cpp itself, as `make llama-cpp` built it or in the Python that $GROUNDUP_LLAMA_CPP names: equal tokens, logits and greedy text."""

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.base.records import Message
from groundup.base.runs import open_run, record, write_checkpoint
from groundup.export.adopt import main as take_over
from groundup.export.config import GGUFConfig, ImportConfig
from groundup.export.gguf import export, main
from groundup.model.config import ModelConfig, MoEConfig, RopeConfig, VariantConfig
from groundup.model.transformer import Transformer
from groundup.model.weights import load_model, save_model
from groundup.shards.write import write_texts
from groundup.tokenizer.chat import DEFAULT_SPECIALS, render
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import load, save
from groundup.tokenizer.train import train
from groundup.train.config import LoopConfig, PretrainConfig
from groundup.train.pretrain import main as pretrain
from tests.export.following import greedy

pytestmark = pytest.mark.slow
BUILT = Path(__file__).parents[2] / ".venv-llama-cpp" / "bin" / "python"  # by `make llama-cpp`
PYTHON = Path(os.environ.get("GROUNDUP_LLAMA_CPP") or BUILT)
TEXT = (
    "The apple is in the box. Anna takes the apple and puts it into the bag. Where's the apple? 12 + 30 = 42.\n\n" * 20
)
SAID = [
    "Where is the apple?",
    "naïve café 日本語 🙂\n\n  x",
    "don't, DON'T; 1234567   end  ",
    "<|user|>hi",
    "\t\ta\r\nb",
    "",
]
SIZES: dict[str, Any] = {"context": 64, "d_model": 64, "n_layers": 2, "n_heads": 4}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"n_kv_heads": 2, "head_dim": 32},
    "qwen3-linear": {"rope": RopeConfig(scaling="linear", factor=2.0), "tie_embeddings": False},
    "qwen3-yarn": {"rope": RopeConfig(scaling="yarn", factor=4.0, original_context=16)},
    "llama": {"n_kv_heads": 1, "rope": RopeConfig(5000.0)},
    "llama-llama3": {"rope": RopeConfig(500.0, "llama3", 4.0, original_context=32), "tie_embeddings": False},
    "gpt2": {},
    "gpt2-exact": {"variant": VariantConfig(activation="gelu_exact", bias="no"), "tie_embeddings": False},
    "qwen3_moe": {"n_kv_heads": 2, "moe": MoEConfig(experts=4, active=2), "d_ff": 64},
}


def ask(
    file: Path, prompts: list[list[int]], texts: list[str], tokens: int = 0
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Returns llama.cpp's tokens of the texts and greedy answers to the prompts, and its logits at every place of these."""
    if not PYTHON.is_file():
        pytest.skip(
            "no llama.cpp: `make llama-cpp` builds it beside .venv (about 10 minutes), or GROUNDUP_LLAMA_CPP names a Python that has it"
        )
    question = {
        "model": str(file),
        "prompts": prompts,
        "texts": texts,
        "tokens": tokens,
        "logits": str(file.with_suffix(".npz")),
    }
    program = Path(__file__).parent / "run_llama_cpp.py"
    done = subprocess.run([PYTHON, program], input=json.dumps(question), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), list(np.load(file.with_suffix(".npz")).values())


def finished(project: Path, model: Transformer, tokenizer: Tokenizer, stage: str = "pretrain") -> None:
    run = open_run(project, stage)
    with record(run, "", {}), write_checkpoint(run.path, 3) as folder:
        save_model(model, folder)
        save(tokenizer, folder / "tokenizer.json")


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_logits_and_greedy_text(shape: str, differ: Callable[..., None], tmp_path: Path) -> None:
    tokenizer = train([TEXT], 290)
    config = ModelConfig(shape.partition("-")[0], vocab_size=293, **SIZES | SHAPES[shape])  # type: ignore[arg-type]
    model, generator = Transformer(config, seed=1).eval(), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    finished(tmp_path, model, tokenizer)
    main(GGUFConfig(tmp_path, dtype="f32", out=tmp_path / "m.gguf"))
    prompts = [[tokenizer.eot, *tokenizer.encode(text)][:24] for text in ("Anna takes", TEXT)]
    answer, logits = ask(tmp_path / "m.gguf", prompts, SAID, tokens=30)
    assert answer["ids"] == [tokenizer.encode(text) for text in SAID]
    for prompt, found, said in zip(prompts, logits, answer["answers"], strict=True):
        with torch.no_grad():
            ours = model(torch.tensor([prompt]))[0].numpy()
        assert ours.std() > 0.3
        most = 5e-3 if config.family == "gpt2" else 1e-4  # its GELU is a table of halves
        differ(f"{shape} as GGUF, llama.cpp", "logits", float(np.abs(ours - found).max()), most)
        assert said == greedy(model, prompt, 30)
        assert len(set(said)) > 3


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "qwen2", "bytes"])
def test_equal_tokens(pattern: str, tmp_path: Path) -> None:
    words = train([TEXT, *SAID] * 3, 256 if pattern == "bytes" else 320, specials=DEFAULT_SPECIALS, pattern=pattern) \
        if pattern != "bytes" else Tokenizer([], DEFAULT_SPECIALS, "bytes")  # fmt: skip
    finished(tmp_path, Transformer(ModelConfig(vocab_size=words.vocab_size, **SIZES), seed=1), words)
    main(GGUFConfig(tmp_path, out=tmp_path / "m.gguf"))
    answer, _ = ask(tmp_path / "m.gguf", [], SAID)
    assert answer["ids"] == [words.encode(text) for text in SAID]


def test_smaller_numbers_say_nearly_the_same(differ: Callable[..., None], tmp_path: Path) -> None:
    """Judged on a trained model, by how far its predictions move (KL), not by whether the likeliest stays the likeliest."""
    dice, names = random.Random(0), ["Anna", "Ben", "Mia", "Tom"]
    texts = [" ".join(f"{dice.choice(names)} has {a} and {b}, which makes {a + b}." for a, b in
                      ((dice.randrange(9), dice.randrange(9)) for _ in range(20))) for _ in range(200)]  # fmt: skip
    tokenizer = train(texts, 280)
    with record(open_run(tmp_path, "tokenizer"), "", {}):
        save(tokenizer, open_run(tmp_path, "tokenizer").path / "tokenizer.json")
    with record(
        open_run(tmp_path, "shards"), "", {"tokenizer": open_run(tmp_path, "tokenizer").path / "tokenizer.json"}
    ):
        for split, part in (("train", texts[:-10]), ("heldout", texts[-10:])):
            write_texts(part, tokenizer, open_run(tmp_path, "shards").path / split)
    loop = LoopConfig(steps=200, batch_tokens=1024, lr=3e-3)
    pretrain(PretrainConfig(tmp_path, precision="fp32", model=ModelConfig(**SIZES), train=loop))
    checkpoint = GGUFConfig(tmp_path).find()
    model, prompt = load_model(checkpoint), [tokenizer.eot, *tokenizer.encode(texts[-1])][:64]
    with torch.no_grad():
        ours = model(torch.tensor([prompt]))[0].log_softmax(-1).numpy()
    loss = -ours[np.arange(63), prompt[1:]].mean()
    assert loss < 1.5
    for dtype, most in (("f32", 1e-5), ("f16", 1e-5), ("q8_0", 1e-4)):
        export(checkpoint, tmp_path / f"{dtype}.gguf", dtype)
        _, (found,) = ask(tmp_path / f"{dtype}.gguf", [prompt], [])
        theirs = torch.from_numpy(found).log_softmax(-1).numpy()
        divergence = float((np.exp(ours) * (ours - theirs)).sum(-1).mean())
        differ(f"a trained model as {dtype} GGUF, llama.cpp", "KL divergence in nats a token", divergence, most)


def test_the_chat_template_is_its_own(tmp_path: Path) -> None:
    tokenizer = train([TEXT], 290)
    finished(tmp_path, Transformer(ModelConfig(vocab_size=290, **SIZES), seed=1), tokenizer, "sft")
    main(GGUFConfig(tmp_path, out=tmp_path / "m.gguf"))
    chat = [("user", "Where is the apple?"), ("assistant", "in the bag"), ("user", "12 + 30")]
    ours = render([Message(*turn) for turn in chat], load(GGUFConfig(tmp_path).find()), generation_prompt=True).tokens
    answer, _ = ask(tmp_path / "m.gguf", [], [])
    program = (
        "import json, sys; from llama_cpp.llama_chat_format import Jinja2ChatFormatter as F; template, chat = json.load(sys.stdin); "
        "print(json.dumps(F(template, '<|end|>', '<|endoftext|>')(messages=chat).prompt))"
    )
    asked = [answer["metadata"]["tokenizer.chat_template"], [{"role": role, "content": said} for role, said in chat]]
    done = subprocess.run([PYTHON, "-c", program], input=json.dumps(asked), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert tokenizer.encode(json.loads(done.stdout), "all") == ours
    assert answer["metadata"]["tokenizer.ggml.add_bos_token"] == "false"


def test_a_model_that_came_in_goes_out_with_its_own_ids_and_chat_form(
    their_folder: Callable[..., Any], tmp_path: Path
) -> None:
    theirs = their_folder(tmp_path / "hf", "llama", chat=True)
    take_over(ImportConfig(tmp_path / "hf", tmp_path / "mine"))
    main(GGUFConfig(tmp_path / "mine", dtype="f32", out=tmp_path / "m.gguf"))
    tokenizer = load(GGUFConfig(tmp_path / "mine").find())
    prompt = tokenizer.encode(SAID[0])
    answer, (logits,) = ask(tmp_path / "m.gguf", [prompt], SAID)
    assert answer["ids"] == [tokenizer.encode(text) for text in SAID]
    with torch.no_grad():
        assert np.abs(theirs(torch.tensor([prompt])).logits[0].numpy() - logits).max() <= 1e-4
    assert answer["metadata"]["tokenizer.ggml.eos_token_id"] == str(tokenizer.special("<|im_end|>"))
    assert "<|im_start|>" in answer["metadata"]["tokenizer.chat_template"]
