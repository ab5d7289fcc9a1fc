"""A comparison as a picture: accuracy over MACs, a line a method."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlprune.results.baseline_record import OWN, TUNED_BASE, BaselineRecord
from rlprune.results.baseline_table import Entry, entries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osv^<>DPX*hdp8"


def comparison_png(records: Sequence[BaselineRecord]) -> bytes:
    """Accuracy on test (on val before test was read) over MACs, with the 95 % intervals of the table.

    Returns:
        A PNG file. No state of matplotlib is changed.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    found = entries(records)
    methods = sorted({entry.method for entry in found} - {OWN, TUNED_BASE})
    colours = colormaps["tab20"]
    for index, method in enumerate(methods):
        style = {"color": colours(index % 20), "marker": _MARKERS[index % len(_MARKERS)], "linewidth": 1.0}
        _draw(axes, [entry for entry in found if entry.method == method], method, style)
    own = {"color": "black", "marker": "o", "linewidth": 2.5, "zorder": 5}
    _draw(axes, [entry for entry in found if entry.method == OWN], OWN, own)
    _draw_base(axes, records)
    axes.set_xlabel("MACs, % of the base model")
    axes.set_ylabel(f"accuracy on {'test' if all(record.on_test for record in records) else 'val'}, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: "Axes", found: Sequence[Entry], label: str, style: dict[str, object]) -> None:
    points = []
    for entry in sorted(found, key=lambda entry: entry.macs_ratio):
        drop, accuracy = entry.drop_test, entry.accuracy_test
        if drop is None or accuracy is None:
            points.append((100 * entry.macs_ratio, entry.accuracy_val, 0.0, 0.0))
            continue
        below, above = (
            0.0 if end != end else max(end, 0.0) for end in (drop[2] - drop[0], drop[0] - drop[1])
        )
        points.append((100 * entry.macs_ratio, accuracy, below, above))
    if points:
        macs, accuracies, lower, upper = zip(*points, strict=True)
        axes.errorbar(
            macs,
            accuracies,
            yerr=(lower, upper),
            capsize=2,
            markersize=4,
            label=label,
            **style,  # type: ignore[arg-type]
        )


def _draw_base(axes: "Axes", records: Sequence[BaselineRecord]) -> None:
    """The base model, and the best that it reaches by a row's fine-tuning, as levels."""
    tests = [record.on_test for record in records if record.on_test]
    tuned = [
        record.on_test.accuracy_test for record in records if record.on_test and record.method == TUNED_BASE
    ]
    if tests:
        axes.axhline(tests[0].base_accuracy_test, color="0.4", linestyle=":", label="base model")
    if tuned:
        axes.axhline(max(tuned), color="0.4", linestyle="--", label="base model, fine-tuned as long")
