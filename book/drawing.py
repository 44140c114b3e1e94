"""One look for every figure: colours that colour-blind readers can tell apart, Inter 8 pt, vector SVG at its true size."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

__all__ = ["BLUE", "GREEN", "INK", "ORANGE", "PURPLE", "SKY", "VERMILION", "Diagram", "apply_style"]

# Okabe and Ito's palette.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, SOFT, GRID = "#1B1F24", "#4A5058", "#DCE0E5"
FILL = {  # what a box of a diagram holds: (face, edge)
    "data": ("#F4F5F7", "#8B949E"),
    "weights": ("#DCEBF7", BLUE),
    "step": ("#FFFFFF", SOFT),
    "square": ("#FDEBD0", "#C77F00"),
    "result": ("#DCF3EA", GREEN),
}


def apply_style() -> None:
    """Sets matplotlib's defaults for the book; the same data give the same bytes."""
    mpl.use("svg")
    for font in sorted((Path(__file__).parent / "fonts").glob("Inter-*.otf")):
        font_manager.fontManager.addfont(font)
    mpl.rcdefaults()
    mpl.rcParams.update({
        "font.family": "Inter", "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8, "mathtext.fontset": "cm",
        "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5, "legend.frameon": False,
        "legend.handlelength": 1.6, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
        "axes.edgecolor": SOFT, "axes.labelcolor": INK, "text.color": INK, "xtick.color": SOFT, "ytick.color": SOFT,
        "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
        "xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.visible": False, "ytick.minor.visible": False,
        "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.5,
        "lines.markersize": 3.8, "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, INK]),
        "figure.figsize": (5.7, 2.3), "figure.constrained_layout.use": True, "figure.dpi": 100,
        "savefig.transparent": True, "svg.fonttype": "path", "svg.hashsalt": "groundup",
    })  # fmt: skip


class Diagram:
    """Boxes and arrows on a canvas measured in inches. `node` places a box, `arrow` joins two."""

    def __init__(self, width: float, height: float) -> None:
        self.figure: Figure = plt.figure(figsize=(width, height), layout="none")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")
        self.boxes: dict[str, tuple[float, float, float, float]] = {}

    def node(
        self, key: str, x: float, y: float, text: str, kind: str = "step", width: float = 0.9, note: str = ""
    ) -> None:
        """Draws a box centred at (x, y), with a smaller note under its text."""
        height = 0.44 if note else 0.34
        face, edge = FILL[kind]
        corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.05"
        shape = FancyBboxPatch(corner, width, height, boxstyle=style, fc=face, ec=edge, lw=0.9)
        self.axes.add_patch(shape)
        lift = 0.075 if note else 0.0
        self.axes.text(x, y + lift, text, ha="center", va="center", fontsize=8, fontweight="medium")
        if note:
            self.axes.text(x, y - 0.095, note, ha="center", va="center", fontsize=6.8, color=SOFT)
        self.boxes[key] = (x, y, width, height)

    def side(self, key: str, side: str) -> tuple[float, float]:
        """Returns the middle of a box's side: left, right, top or bottom."""
        x, y, width, height = self.boxes[key]
        dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, 1), "bottom": (0, -1)}[side]
        return x + dx * width / 2, y + dy * height / 2

    def arrow(
        self, start: str, end: str, out: str = "right", into: str = "left", corners: Sequence[tuple[float, float]] = ()
    ) -> None:
        """Draws an arrow between two boxes, through right-angled corners where they are given."""
        points = [self.side(start, out), *corners, self.side(end, into)]
        self.axes.plot(*zip(*points[:-1]), color=SOFT, lw=0.9, solid_capstyle="round", solid_joinstyle="round")
        head = FancyArrowPatch(
            points[-2], points[-1], arrowstyle="-|>,head_length=3.2,head_width=1.7", color=SOFT, lw=0.9,
            shrinkA=0, shrinkB=0, mutation_scale=1,
        )  # fmt: skip
        self.axes.add_patch(head)
