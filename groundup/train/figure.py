"""A figure of a sweep or a race as SVG and PNG: small, labelled, readable in black and white."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.base.files import atomic_file

__all__ = ["figure"]

STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "lines.linewidth": 1.4, "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "groundup",
}  # fmt: skip


@contextmanager
def figure(path: Path, rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.6, 3.2)) -> Iterator[Any]:
    """Yields axes to draw on (an array of them, if there are several); then writes `path` with the endings .svg and .png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(STYLE):
        drawn, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
        try:
            yield axes
            for kind in ("svg", "png"):
                metadata = {"Date": None} if kind == "svg" else None
                with atomic_file(path.with_suffix(f".{kind}")) as temporary:
                    drawn.savefig(temporary, format=kind, dpi=150, metadata=metadata)
        finally:
            plt.close(drawn)
