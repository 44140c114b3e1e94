"""Our models against transformers' own classes, through folders on disk: logits, gradients, greedy text.

`make parity` prints how far apart they are.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.base.files import read_json, write_json
from groundup.infer.config import SamplingParams
from groundup.infer.sample import generate
from groundup.model.attention import Sight
from groundup.model.config import ModelConfig, MoEConfig, RopeConfig, VariantConfig, WindowConfig
from groundup.model.huggingface import from_huggingface, to_huggingface
from groundup.model.layers import Block
from groundup.model.transformer import Transformer
from groundup.model.weights import load_tensors, save_tensors

LOGITS = 1e-4  # largest difference, fp32
GRADIENTS = 1e-4  # largest difference relative to the largest number of the tensor
SIZES: dict[str, Any] = {"vocab_size": 96, "context": 64, "d_model": 48, "n_layers": 3, "n_heads": 4}
GQA: dict[str, Any] = {**SIZES, "n_kv_heads": 2}
CASES = {
    "GPT-2": ModelConfig("gpt2", **SIZES),
    "GPT-2, untied, ReLU²": ModelConfig("gpt2", **SIZES, tie_embeddings=False, variant=VariantConfig(activation="relu2")),
    "Llama": ModelConfig("llama", **SIZES, variant=VariantConfig(norm_eps=1e-5)),
    "Llama, GQA, untied": ModelConfig("llama", **GQA, tie_embeddings=False, rope=RopeConfig(500000.0)),
    "Llama, linear": ModelConfig("llama", **GQA, rope=RopeConfig(1000.0, "linear", 4.0)),
    "Llama, llama3": ModelConfig("llama", **GQA, head_dim=16, rope=RopeConfig(1000.0, "llama3", 4.0, 32)),
    "Llama, MQA, YaRN": ModelConfig("llama", **SIZES, n_kv_heads=1, head_dim=32, rope=RopeConfig(1000.0, "yarn", 4.0)),
    "Mistral (Llama, windows)": ModelConfig("llama", **GQA, window=WindowConfig(7, "W"), tie_embeddings=False),
    "Qwen3": ModelConfig("qwen3", **GQA, head_dim=24),
    "Qwen3, YaRN": ModelConfig("qwen3", **GQA, head_dim=32, rope=RopeConfig(1e6, "yarn", 2.0, 16, attention_factor=1.2)),
    "Qwen3, windows": ModelConfig("qwen3", **GQA, window=WindowConfig(7, "WWF")),
    "Qwen3-MoE": ModelConfig("qwen3_moe", **GQA, d_ff=32, moe=MoEConfig(8, 2)),
    "Qwen3-MoE, raw weights": ModelConfig("qwen3_moe", **GQA, d_ff=32, moe=MoEConfig(6, 3, normalise=False)),
    "Qwen3-MoE, windows": ModelConfig("qwen3_moe", **GQA, d_ff=32, moe=MoEConfig(8, 2), window=WindowConfig(7, "W")),
}  # fmt: skip
Differ = Callable[[str, str, float, float], None]


def stirred(config: ModelConfig) -> Transformer:
    """Returns a model whose weights are large enough that every part matters and greedy text isn't one token repeated."""
    model = Transformer(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += (0.05 if "embed" in name else 0.2) * torch.randn(parameter.shape, generator=generator)
    return model


def write(model: Transformer, folder: Path) -> None:
    """Writes the model as a folder of Hugging Face's."""
    tensors, values = to_huggingface(model)
    save_tensors(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", values | {"bos_token_id": 0, "eos_token_id": 0})


def load_theirs(folder: Path) -> Any:
    """Returns transformers' model of the folder; it must not miss a tensor, nor find one too many."""
    from transformers import AutoModelForCausalLM

    theirs, notes = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(notes[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), notes
    return theirs.eval()


def read(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Returns a folder of Hugging Face's as a config and state of ours."""
    return from_huggingface(read_json(folder / "config.json"), load_tensors(folder / "model.safetensors"))


def loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@pytest.mark.parametrize("name", CASES)
def test_equal_logits_gradients_and_text(name: str, differ: Differ, tmp_path: Path) -> None:
    model = stirred(CASES[name])
    write(model, tmp_path)
    theirs = load_theirs(tmp_path)
    assert theirs.num_parameters() == model.config.params()
    tokens = torch.randint(96, (3, 40), generator=torch.Generator().manual_seed(3))

    ours, others = model(tokens), theirs(tokens).logits
    assert ours.std() > 0.3
    differ(f"{name}, transformers", "logits", (ours - others).abs().max().item(), LOGITS)

    loss(ours, tokens).backward()
    loss(others, tokens).backward()
    (tmp_path / "gradients").mkdir()
    with torch.no_grad():  # weights become their gradients, so that transformers itself writes them under its names
        for parameter in [*model.parameters(), *theirs.parameters()]:
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(tmp_path / "gradients")
    expected = read(tmp_path / "gradients")[1]
    bent = max(float((model.state_dict()[n] - g).abs().max() / g.abs().max()) for n, g in expected.items())
    differ(f"{name}, transformers", "gradients", bent, GRADIENTS)

    model, prompt = stirred(CASES[name]), tokens[0, :10].tolist()
    theirs = load_theirs(tmp_path)
    with torch.no_grad():
        attended = torch.ones(1, 10, dtype=torch.long)
        answer = theirs.generate(
            tokens[:1, :10],
            attention_mask=attended,
            max_new_tokens=40,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    written = generate(model, [prompt], SamplingParams(temperature=0.0, max_tokens=40))[0]
    assert len(set(written)) > 3
    assert written == answer[0, 10:].tolist()


@pytest.mark.parametrize("name", CASES)
def test_transformers_own_folder_is_read(name: str, differ: Differ, tmp_path: Path) -> None:
    """What transformers writes of a model with random weights of its own, in its newest form, we read with equal logits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    write(stirred(CASES[name]), tmp_path)
    torch.manual_seed(4)
    plan = AutoConfig.from_pretrained(tmp_path)
    plan.initializer_range = 0.2
    theirs = AutoModelForCausalLM.from_config(plan, attn_implementation="eager").eval()
    theirs.save_pretrained(tmp_path / "theirs")
    config, state = read(tmp_path / "theirs")
    model = Transformer(config, seed=0).eval()
    model.load_state_dict(state)
    tokens = torch.randint(96, (2, 40), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours, others = model(tokens), theirs(tokens).logits
    assert others.std() > 0.3
    differ(f"{name}, read from transformers", "logits", (ours - others).abs().max().item(), LOGITS)


def test_the_block_of_2017_is_pytorchs_own(differ: Differ) -> None:
    """The fast block against torch.nn.TransformerEncoderLayer: values, and the gradients of input and weights."""
    torch.manual_seed(6)
    block = Block(ModelConfig("transformer2017", d_model=48, n_heads=4, d_ff=96), 0)
    theirs = torch.nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True)
    names = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.out.", "linear1.": "mlp.up.",
             "linear2.": "mlp.down.", "norm1.": "attn_norm.", "norm2.": "mlp_norm."}  # fmt: skip
    for their, our in names.items():
        for part in ("weight", "bias"):
            torch.nn.init.normal_(block.get_parameter(our + part), 1.0 if "norm" in our else 0.0, 0.2)
            theirs.get_parameter(their + part).data.copy_(block.get_parameter(our + part))
    x, found = torch.randn(3, 20, 48, requires_grad=True), []
    future = torch.ones(20, 20, dtype=torch.bool).triu(1)
    for out in (block(x, None, Sight(None, True, "sdpa", 20)), theirs(x, src_mask=future)):
        x.grad = None
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(7))).sum().backward()
        found.append((out.detach(), x.grad))
    (ours, mine), (expected, other) = found
    assert mine is not None
    assert other is not None
    bent = [float((mine - other).abs().max() / other.abs().max())]
    for their, our in names.items():
        for part in ("weight", "bias"):
            a, b = block.get_parameter(our + part).grad, theirs.get_parameter(their + part).grad
            bent.append(float((a - b).abs().max() / b.abs().max()))
    differ("2017's block, PyTorch", "values", (ours - expected).abs().max().item(), LOGITS)
    differ("2017's block, PyTorch", "gradients", max(bent), GRADIENTS)


def test_the_balance_loss_is_transformers_own_for_one_layer() -> None:
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    model = stirred(ModelConfig("qwen3_moe", **SIZES | {"n_layers": 1}, moe=MoEConfig(8, 2, balance=1.0))).train()
    kept: list[Tensor] = []
    model.blocks[0].mlp.router.register_forward_hook(lambda module, inputs, output: kept.append(output))
    model(torch.randint(96, (3, 40), generator=torch.Generator().manual_seed(3)))
    balance = model.balance()
    assert balance is not None
    assert balance.item() == pytest.approx(load_balancing_loss_func((kept[0],), 8, 2).item(), rel=1e-6)
