"""The plain training loop against the one loop, schedules and losses against theirs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from groundup.base.runs import Run
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.optim.schedule import lr_scale
from groundup.shards.dataset import Batch
from groundup.shards.read import Shards
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save
from groundup.train import plain
from groundup.train.config import LoopConfig, OptimConfig
from groundup.train.loop import train
from groundup.train.pretrain import PretrainSource, heldout_loss, pretrain_loss

CONFIG = ModelConfig(vocab_size=300, context=16, d_model=32, n_layers=2, n_heads=2)


class Listed:
    """Batches from a list."""

    parts, tokens = PretrainSource.parts, PretrainSource.tokens

    def __init__(self, batches: list[tuple[Tensor, Tensor]], micro_batch: int = 0) -> None:
        self.batches, self.micro_batch = batches, micro_batch

    def batch(self, number: int) -> Batch:
        tokens, targets = self.batches[number]
        return Batch(tokens, targets)


@pytest.mark.parametrize("micro_batch", [0, 3])
def test_train_takes_the_same_steps(tmp_path: Path, micro_batch: int) -> None:
    save(Tokenizer([], ("<|endoftext|>",), "bytes"), tmp_path / "tokenizer.json")
    batches = plain.text_batches(list(b"the quick brown fox jumps over the lazy dog. " * 20), 16, 7, 12)
    fast, slow = Transformer(CONFIG, seed=3), Transformer(CONFIG, seed=3)
    config = LoopConfig(steps=12, lr=3e-3, warmup=4, log_every=1, clip=0.5, optim=OptimConfig(weight_decay=0.2))
    run = Run(tmp_path / "05-pretrain" / "main")
    run.path.mkdir(parents=True)
    results = train(
        fast, Listed(batches, micro_batch), pretrain_loss, config, run, tokenizer_path=tmp_path / "tokenizer.json"
    )
    losses = plain.train(slow, batches, 3e-3, warmup=4, weight_decay=0.2, clip=0.5)
    assert [row["loss"] for row in run.metrics()] == pytest.approx(losses, abs=1e-5)
    assert losses[-1] < losses[0] - 0.5
    for (name, ours), (_, theirs) in zip(fast.named_parameters(), slow.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3, msg=name)
    assert results["steps"] == 12
    assert results["tokens"] == 12 * 7 * 16


def test_next_token_loss_and_its_gradient() -> None:
    model = Transformer(CONFIG, seed=1)
    tokens = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1).clone()
    targets[:, -3:] = -100
    total, count, _ = pretrain_loss(model, Batch(tokens, targets))
    (total / count).backward()
    gradient = model.embed.weight.grad.clone()  # type: ignore[union-attr]
    model.zero_grad()
    mean = plain.next_token_loss(model(tokens), targets)
    mean.backward()
    assert count == 3 * 13
    assert total.item() / count == pytest.approx(mean.item(), abs=1e-6)
    torch.testing.assert_close(model.embed.weight.grad, gradient, atol=1e-6, rtol=1e-4)


def test_z_loss_and_its_gradient_leave_the_reported_loss_alone() -> None:
    model = Transformer(CONFIG, seed=1)
    tokens = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1).clone()
    targets[:, -3:] = -100
    total, count, metrics = pretrain_loss(model, Batch(tokens, targets), z_loss=0.1)
    (total / count).backward()
    gradient = model.embed.weight.grad.clone()  # type: ignore[union-attr]
    model.zero_grad()
    logits = model(tokens)
    loss, penalty = plain.next_token_loss(logits, targets), 0.1 * plain.z_loss(logits, targets)
    (loss + penalty).backward()
    assert float(metrics["reported"]) / count == pytest.approx(loss.item(), abs=1e-5)
    assert metrics["z_loss"] == pytest.approx(penalty.item(), abs=1e-5)
    torch.testing.assert_close(model.embed.weight.grad, gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_schedules_are_torchs(kind: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    fall = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100, eta_min=0.1)
        if kind == "cosine"
        else torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 100)
    )
    for step in range(100):
        assert lr_scale(step, 100, 0, kind, 0.1) == pytest.approx(fall.get_last_lr()[0], abs=1e-9)  # type: ignore[arg-type]
        optimizer.step()
        fall.step()


@pytest.mark.parametrize("warmup", [0, 10])
def test_cosine_lr_wsd_lr_and_linear_lr(warmup: int) -> None:
    for step in range(100):
        assert 3e-3 * lr_scale(step, 100, warmup, "cosine", 0.1) == pytest.approx(
            plain.cosine_lr(step, 100, 3e-3, warmup, 3e-4)
        )
        assert 3e-3 * lr_scale(step, 100, warmup, "wsd", 0.1, 0.4) == pytest.approx(
            plain.wsd_lr(step, 100, 3e-3, warmup, 3e-4, 0.4)
        )
        assert 3e-3 * lr_scale(step, 100, warmup, "linear", 0.1) == pytest.approx(
            plain.linear_lr(step, 100, 3e-3, warmup, 3e-4)
        )


def test_clip_gradients_is_torchs_clipping() -> None:
    ours, theirs = Transformer(CONFIG, seed=1), Transformer(CONFIG, seed=1)
    for model in (ours, theirs):
        generator = torch.Generator().manual_seed(5)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
    length = plain.clip_gradients(ours, 1.0)
    assert length == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)), rel=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-7, rtol=1e-4)


def test_mean_loss_is_the_heldout_loss(tmp_path: Path) -> None:
    tokenizer = Tokenizer([], ("<|endoftext|>",), "bytes")
    write_texts(["To be, or not to be, that is the question: " * 5], tokenizer, tmp_path / "heldout")
    shards, model = Shards(tmp_path / "heldout"), Transformer(CONFIG, seed=2)
    tokens = shards.slice(0, shards.tokens).astype(int).tolist()
    with torch.no_grad():
        fast = heldout_loss(model.eval(), shards, 16)
    assert fast == pytest.approx(plain.mean_loss(model, tokens, 16), abs=1e-5)


def test_text_batches_targets_follow_their_tokens() -> None:
    for tokens, targets in plain.text_batches(list(range(100, 200)), 8, 3, 4):
        assert tokens.shape == targets.shape == (3, 8)
        assert torch.equal(tokens + 1, targets)
