"""Figures of the report as SVG text: small, labelled, readable in black and white."""

import io
import re
from typing import Any

from groundup.report.collect import curve

__all__ = ["figures", "lines", "svg"]

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.25, "lines.linewidth": 1.4, "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "groundup",
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip


def svg(draw: Any, title: str, x: str, y: str) -> dict[str, str]:
    """Returns {"title", "svg"} of the figure that `draw(axes)` draws."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 2.6), layout="constrained")
        try:
            draw(axes)
            axes.set(xlabel=x, ylabel=y)
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
            stream = io.StringIO()
            figure.savefig(stream, format="svg", metadata={"Date": None})
        finally:
            plt.close(figure)
    text = stream.getvalue()
    return {
        "title": title,
        "svg": re.sub(r"<svg ", f'<svg role="img" aria-label="{title}" ', text[text.index("<svg ") :], count=1),
    }


def smooth(values: list[float], width: int) -> list[float]:
    """Returns the running mean over at most `width` values, so that a curve's trend can be seen."""
    out, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - width] if i >= width else 0.0)
        out.append(total / min(i + 1, width))
    return out


def lines(series: dict[str, tuple[list[float], list[float]]]) -> Any:
    """Returns a drawing function with one line a label, from its (x, y), the points faint behind it; None if all are empty."""
    series = {label: xy for label, xy in series.items() if xy[0]}
    if not series:
        return None

    def draw(axes: Any) -> None:
        for i, (label, (steps, values)) in enumerate(series.items()):
            few = len(steps) < 40
            if not few:
                axes.plot(steps, values, color=f"C{i}", alpha=0.2, lw=0.7)
            axes.plot(
                steps,
                values if few else smooth(values, max(1, len(values) // 40)),
                "o-" if few else "-",
                ms=3,
                color=f"C{i}",
                label=label,
            )

    return draw


# stage -> figures: (title, y axis, {metric: label})
WANTED: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "pretrain": [
        ("Pretraining loss", "nats per token", {"loss": "training", "heldout_loss": "held out"}),
        ("Learning rate", "learning rate", {"lr": ""}),
        ("Gradient norm", "norm before clipping", {"grad_norm": ""}),
        ("Throughput", "tokens per second", {"tokens_per_s": ""}),
    ],
    "sft": [
        (
            "Supervised fine-tuning",
            "nats per token",
            {"loss": "training, replay included", "chat_loss": "answers", "heldout_loss": "answers, held out"},
        )
    ],
    "dpo": [
        (
            "DPO: what the margin is made of",
            "log-probability",
            {"chosen_logprob": "chosen", "rejected_logprob": "rejected", "margin": "margin"},
        ),
    ],
    "grpo": [
        ("GRPO: reward", "share of answers accepted", {"reward": ""}),
        ("GRPO: entropy and distance", "nats", {"entropy": "entropy", "kl": "KL to the start"}),
    ],
}  # fmt: skip


def figures(facts: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Returns the figures of each training stage that has metrics: {"pretrain": [{"title", "svg"}], ...}."""
    found: dict[str, list[dict[str, str]]] = {}
    for stage, wanted in WANTED.items():
        rows = facts["runs"].get(stage, {}).get("metrics", [])
        drawings = [
            (title, y, lines({label: curve(rows, key) for key, label in metrics.items()}))
            for title, y, metrics in wanted
        ]
        if drawn := [svg(draw, title, "step", y) for title, y, draw in drawings if draw]:
            found[stage] = drawn
    return found
