"""The frontier as a picture: accuracy over MACs."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlprune.results.frontier import objectives
from rlprune.results.record import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPLITS = (("val", "tab:blue", "o"), ("test", "tab:orange", "s"))


def frontier_png(rows: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> bytes:
    """Accuracy on val and test over MACs, with 95 % intervals; the other finished trials are grey.

    Args:
        rows: The records of the frontier.
        records: All records of the run.

    Returns:
        A PNG file. No state of matplotlib is changed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_others(axes, rows, records)
    for split, colour, marker in _SPLITS:
        _draw_split(axes, rows, split, colour, marker)
    axes.set_xlabel("MACs, % of the base model")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_others(axes: "Axes", rows: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> None:
    on_frontier = {row.trial for row in rows}
    others = [
        (100 * record.macs_ratio, record.accuracy_val)
        for record in records
        if objectives(record) and record.trial not in on_frontier
        if record.macs_ratio is not None and record.accuracy_val is not None
    ]
    if others:
        macs, accuracies = zip(*others, strict=True)
        axes.plot(macs, accuracies, "o", color="0.75", label="other trials, val")


def _draw_split(axes: "Axes", rows: Sequence[TrialRecord], split: str, colour: str, marker: str) -> None:
    points = []
    for row in rows:
        base, accuracy = getattr(row, f"base_accuracy_{split}"), getattr(row, f"accuracy_{split}")
        low, high = getattr(row, f"drop_{split}_low"), getattr(row, f"drop_{split}_high")
        if row.macs_ratio is not None and None not in (base, accuracy, low, high):
            below, above = accuracy - (base - high), (base - low) - accuracy
            points.append((100 * row.macs_ratio, accuracy, max(below, 0.0), max(above, 0.0), base))
    if not points:
        return
    macs, accuracies, below, above, bases = zip(*points, strict=True)
    axes.errorbar(
        macs,
        accuracies,
        yerr=(below, above),
        color=colour,
        marker=marker,
        capsize=3,
        label=f"frontier, {split}",
    )
    axes.axhline(bases[0], color=colour, linestyle=":", label=f"base model, {split}")
