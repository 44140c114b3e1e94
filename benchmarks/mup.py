"""muP: is the learning rate that is best for a narrow model best for a wide one? And without muP?

    python benchmarks/mup.py --data TEXT.txt [--quick]       about a quarter of an hour on two cores; finished points are kept

Trains a small model on bytes (tiny Shakespeare by default) at three widths and seven learning rates, with and without muP, each
for the same steps from the same seed, and measures the loss on the text's last tenth. Writes results/mup_HARDWARE_DATE.json and
the same as a picture beside it.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import claim, save

from groundup.base.files import read_json, write_json
from groundup.model.config import ModelConfig, VariantConfig
from groundup.model.transformer import Transformer
from groundup.optim import adamw
from groundup.optim.schedule import lr_scale

WIDTHS, CONTEXT, ROWS = (64, 128, 256), 64, 16
KINDS = ("standard", "muP")


def windows(text: np.ndarray, rows: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns random windows of the text and their targets, both (B, T)."""
    starts = rng.integers(0, len(text) - CONTEXT, size=rows)
    found = torch.from_numpy(text[starts[:, None] + np.arange(CONTEXT + 1)].astype(np.int64))
    return found[:, :-1], found[:, 1:]


def loss_of(model: Transformer, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns the mean nats per byte."""
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def heldout_loss(text: np.ndarray, width: int, lr: float, mup: bool, steps: int) -> float:
    """Returns the held-out loss of a model of this width, trained with this peak learning rate."""
    split = len(text) * 9 // 10
    config = ModelConfig(vocab_size=256, context=CONTEXT, d_model=width, n_layers=2, n_heads=width // 32,
                         variant=VariantConfig(mup_base=WIDTHS[0] if mup else 0))  # fmt: skip
    model, rng = Transformer(config, seed=0), np.random.default_rng(0)
    optimizer = adamw.build(model, lr, width_multiple=config.width_multiple)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lr_scale(step, steps, steps // 10)
        optimizer.zero_grad()
        loss_of(model, *windows(text[:split], ROWS, rng)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        return loss_of(model, *windows(text[split:], 128, np.random.default_rng(1))).item()


def sweep(
    text: np.ndarray, rates: list[float], steps: int, kept: Path, at_most: int
) -> dict[str, dict[str, list[float]]] | None:
    """Returns {kind: {width: losses by rate}}, or None after `at_most` new points; `kept` holds the points that are done."""
    points: dict[str, float] = read_json(kept) if kept.exists() else {}
    done = len(points)
    for width in (WIDTHS[0], WIDTHS[-1], *WIDTHS[1:-1]):
        for mup in (False, True):
            for lr in rates:
                key = f"{KINDS[mup]} {width} {lr} {steps}"
                if key not in points:
                    points[key] = heldout_loss(text, width, lr, mup, steps)
                    write_json(kept, points)
                    print(f"{key}: {points[key]:.4f}", flush=True)
                    if len(points) - done == at_most:
                        return None
    return {kind: {str(w): [points[f"{kind} {w} {lr} {steps}"] for lr in rates] for w in WIDTHS} for kind in KINDS}


def draw(rates: list[float], losses: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Writes the picture: for each kind, loss over learning rate, a curve for each width and a dot at its best."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lowest = min(min(curve) for kind in losses.values() for curve in kind.values())
    figure, both = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axes, kind in zip(both, KINDS, strict=True):
        for shade, (width, curve) in zip(("#9ecae1", "#4292c6", "#08306b"), losses[kind].items(), strict=True):
            best = int(np.argmin(curve))
            axes.plot(rates, curve, "-", color=shade, label=f"width {width}")
            axes.plot(rates[best], curve[best], "o", color=shade)
        axes.axvline(rates[int(np.argmin(losses[kind][str(WIDTHS[0])]))], color="0.6", lw=0.8, ls=":")
        axes.set(title=kind, xlabel="peak learning rate", xscale="log", ylim=(lowest - 0.05, lowest + 1.0))
        axes.set_xscale("log", base=2)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("held-out loss, nats per byte")
    both[0].legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Runs the sweep, writes the files, prints the claim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("GROUNDUP_DATA") or "../shared/data") / "text" / "tinyshakespeare.txt"
    parser.add_argument("--data", type=Path, default=data, help="the text to train on")
    parser.add_argument("--folder", type=Path, default=Path("mup-points"), help="where finished points are kept")
    parser.add_argument("--at-most", type=int, default=0, help="new points of this call (0: all)")
    parser.add_argument("--quick", action="store_true", help="few steps, three rates; nothing is written to results/")
    asked = parser.parse_args()
    text = np.frombuffer(asked.data.read_bytes(), np.uint8)
    rates, steps = ([2.0**-9, 2.0**-7, 2.0**-5], 12) if asked.quick else ([2.0**e for e in range(-11, -4)], 250)
    losses = sweep(text, rates, steps, asked.folder / "points.json", asked.at_most)
    if losses is None:
        return
    narrow, wide = str(WIDTHS[0]), str(WIDTHS[-1])
    best = {kind: {width: rates[int(np.argmin(curve))] for width, curve in losses[kind].items()} for kind in KINDS}
    there = {kind: losses[kind][wide][int(np.argmin(losses[kind][narrow]))] for kind in KINDS}
    text_of_claim = f"loss at width {wide} with the learning rate that was best at width {narrow}"
    found = claim(text_of_claim, there["muP"], {"standard": there["standard"]}, "nats a byte", 1, higher=False)
    if not asked.quick:
        setting = {
            "text": asked.data.name,
            "steps": steps,
            "tokens": steps * ROWS * CONTEXT,
            "rates": rates,
            "torch": torch.__version__,
        }
        file = save("mup", {**setting, "heldout_loss": losses, "best_rate": best, "claims": [found]})
        draw(rates, losses, file.with_suffix(".png"))


if __name__ == "__main__":
    main()
