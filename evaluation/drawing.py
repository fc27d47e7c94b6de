"""What the figures share: one style, one palette, and how they reach the disk.

Figures are built on matplotlib's object interface. `pyplot` is never imported, so no backend is chosen and no figure
is kept alive, and the user's settings are neither read nor changed. matplotlib itself is imported on first use.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .files import PathLike, atomic_path


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 144

# Okabe and Ito's colours, which stay apart under the common kinds of colour blindness.
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, GREY, LIGHT = "#222222", "#8A8A8A", "#D0D0D0"
SEQUENTIAL = "Blues"
ORDERED = "viridis"

LONGEST_LABEL = 24

STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5 to $10"
}


@contextlib.contextmanager
def drawing(path: PathLike, width: float = 6.4, height: float = 4.4) -> Iterator["Figure"]:
    """A new figure of `width` × `height` inches in the house style; leaving the block writes it to `path` as PNG.

    The file appears in one step, or not at all if the block raises. The same drawing gives the same bytes.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
        canvas = FigureCanvasAgg(figure)
        yield figure
        with atomic_path(path) as temporary:
            canvas.print_png(str(temporary), metadata={"Software": None})


def ensure_png(path: PathLike) -> Path:
    """`path` as a Path, or a `ValueError` if its suffix promises another format."""
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"figures are written as PNG: `path` must end in .png, got {target.name!r}")
    return target


def shorten(label: str, longest: int = LONGEST_LABEL) -> str:
    """The label on one line of at most `longest` characters, cut with an ellipsis."""
    line = " ".join(label.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def thinned(count: int, at_most: int) -> range:
    """Positions 0, s, 2s, … below `count` with the smallest step s that gives no more than `at_most` of them."""
    return range(0, count, max(1, -(-count // at_most)))


def legend_below(figure: "Figure", columns: int = 2) -> None:
    """Put the legend of all the axes under them, where it covers no data, with dots large enough to see."""
    from matplotlib.collections import PathCollection

    legend = figure.legend(loc="outside lower center", ncols=columns)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([30])


def note(axes: "Axes", text: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def ordered_colours(count: int) -> Sequence[tuple[float, float, float, float]]:
    """`count` colours from dark to light for things that come in an order, such as rounds."""
    from matplotlib import colormaps

    scale = colormaps[ORDERED]
    return [scale(0.9 * position / max(count - 1, 1)) for position in range(count)]
