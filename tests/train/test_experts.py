"""Pretraining a mixture of experts, and with a preset: what the rows of metrics say, and whose vocabulary counts."""

import json
from dataclasses import replace
from pathlib import Path

from groundup.base.runs import latest_checkpoint
from groundup.model.config import ModelConfig, MoEConfig
from groundup.model.weights import load_model
from groundup.train.config import LoopConfig, PretrainConfig
from groundup.train.pretrain import main


def test_the_rows_say_how_busy_the_experts_are(project: Path) -> None:
    shape = ModelConfig("qwen3_moe", context=32, d_model=32, n_layers=2, n_heads=2, d_ff=16, moe=MoEConfig(4, 2))
    loop = LoopConfig(steps=6, batch_tokens=128, micro_batch=2, log_every=3)
    main(PretrainConfig(project, model=shape, train=loop, device="cpu", precision="fp32"))
    path = project / "05-pretrain" / "main"
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "expert_tokens" in row]
    counts = [[sum(layer) for layer in row["expert_tokens"]] for row in logged]
    assert sum(sum(row) for row in counts) == 6 * 128 * 2 * 2
    assert all(1 <= row["expert_busiest"] <= 2 for row in logged)
    assert all(0.02 <= row["balance"] < 0.04 for row in logged)  # 0.01 times 2, where all are equally busy
    checkpoint = latest_checkpoint(path)
    assert checkpoint is not None
    assert load_model(checkpoint).config.moe == shape.moe


def test_a_presets_vocabulary_gives_way_to_the_tokenizers(project: Path) -> None:
    shape = replace(ModelConfig.from_dict({"preset": "gpt2-124m"}), context=32, d_model=32, n_layers=1, n_heads=2)
    main(
        PretrainConfig(project, model=shape, train=LoopConfig(steps=1, batch_tokens=64), device="cpu", precision="fp32")
    )
    checkpoint = latest_checkpoint(project / "05-pretrain" / "main")
    assert checkpoint is not None
    assert load_model(checkpoint).config.vocab_size == 257
