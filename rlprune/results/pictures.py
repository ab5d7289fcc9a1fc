"""Pictures beside the report page: filters kept by layer, and how the agents learned."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlprune.results.record import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 5
_MOST_ACROSS = 30
"""Layers up to which they stand side by side."""
_INCHES_A_LETTER = 0.065
_HIGHEST = 80
"""Inches of the longest picture; beyond, its letters become smaller."""


def filters_png(rows: Sequence[TrialRecord]) -> bytes | None:
    """Percent of each convolution's filters that each network keeps, as a heat map.

    Args:
        rows: Networks, one a line of the picture; one a column where the layers are many.

    Returns:
        A PNG file; None if no widths are known.
    """
    known = [row for row in rows if row.widths and row.base_widths]
    if not known:
        return None
    layers = list(known[0].base_widths)
    shares = np.array(
        [[100 * row.widths[layer] / row.base_widths[layer] for layer in layers] for row in known]
    )
    names = [_name(row) for row in known]
    if len(layers) > _MOST_ACROSS:
        return _heat_map(shares.T, lines=layers, columns=names)
    return _heat_map(shares, lines=names, columns=layers)


def _heat_map(shares: NDArray[np.float64], *, lines: Sequence[str], columns: Sequence[str]) -> bytes:
    """Percentages as a table of colours and figures, with room for the longest names of lines and columns."""
    beside, below = (_INCHES_A_LETTER * max(map(len, names)) for names in (lines, columns))
    height = 0.8 + below + 0.24 * len(lines)
    figure = new_figure(width=1.8 + beside + 0.42 * len(columns), height=height, highest=_HIGHEST)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=100, cmap="Blues", aspect="auto")
    size = 7 * min(1.0, _HIGHEST / height)
    for line, values in enumerate(shares):
        for column, share in enumerate(values):
            ink = "white" if share > 60 else "black"
            axes.text(column, line, f"{share:.0f}", ha="center", va="center", color=ink, fontsize=size)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(lines)), lines, fontsize=size)
    figure.colorbar(image, ax=axes, label="filters kept, %", aspect=max(8, min(40, 3 * height)))
    return png_of(figure)


def _name(row: TrialRecord) -> str:
    return f"{row.trial}, {row.goal.text(' = ')}" if any(row.goal) else row.trial


def rewards_png(trial: str, curves: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Reward over iterations, a panel a group.

    Args:
        trial: Whose.
        curves: What :func:`rlprune.results.curves.read_curves` gives.

    Returns:
        A PNG file; None without curves.
    """
    if not curves:
        return None
    lines = math.ceil(len(curves) / _COLUMNS)
    figure = new_figure(width=2.4 * min(_COLUMNS, len(curves)) + 0.4, height=1.7 * lines + 0.6)
    for number, curve in enumerate(curves, start=1):
        _draw_rewards(figure.add_subplot(lines, min(_COLUMNS, len(curves)), number), curve)
    figure.suptitle(f"{trial}: reward of the masks (line: mean, band: one deviation, dots: best)", fontsize=9)
    figure.supxlabel("iteration", fontsize=8)
    return png_of(figure)


def _draw_rewards(axes: "Axes", curve: Mapping[str, Any]) -> None:
    steps = curve["iteration"]
    means, spreads, best = (
        np.array(curve[name], dtype=float) for name in ("reward_mean", "reward_std", "reward_max")
    )
    axes.fill_between(steps, means - spreads, means + spreads, alpha=0.2)
    axes.plot(steps, means)
    axes.plot(steps, best, ".", markersize=4)
    axes.set_title(curve["group"], fontsize=8 if len(curve["group"]) < 30 else 6)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def new_figure(*, width: float, height: float, highest: float = 40) -> "Figure":
    """A figure with its own canvas: no state of matplotlib is changed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(width, 40), min(height, highest)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
