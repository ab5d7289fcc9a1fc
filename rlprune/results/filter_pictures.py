"""Pictures of one group's filters: what is known of each, and the filters themselves."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlprune.results.layer_filters import LayerFilters
from rlprune.results.pictures import new_figure, png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEPT, CUT = "tab:blue", "tab:orange"
_MOST_NAMED = 40
"""Filters up to which each is numbered on the axis."""


def layer_png(layer: LayerFilters) -> bytes:
    """Four panels over the filters, sorted by the agent's keep probability.

    Keep probability; what cutting this filter alone loses; what turning it round would change in the mask's
    reward; correlation with the nearest twin.
    """
    order = np.argsort(-layer.keep_probability, kind="stable")
    figure = new_figure(width=5 + 0.11 * len(order), height=8)
    figure.suptitle(f"{layer.group}: {int(layer.kept.sum())} of {len(layer.kept)} filters kept")
    panels = (
        ("keep probability", layer.keep_probability),
        ("lost if it alone is cut, points", layer.lost_alone),
        ("reward if turned round,\nminus the mask's", layer.gain),
        ("correlation with twin", layer.correlation),
    )
    axes: Axes | None = None
    for row, (label, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, row, sharex=axes)
        _bars(axes, values[order], layer.kept[order])
        axes.set_ylabel(label, fontsize=8)
        if row == 1:
            axes.legend(fontsize=8, loc="lower left")
    assert axes is not None
    axes.set_xlabel("filter, from the one that the agent wants most")
    if len(order) <= _MOST_NAMED:
        axes.set_xticks(range(len(order)), [str(index) for index in order], fontsize=7, rotation=90)
    return png_of(figure)


def _bars(axes: "Axes", values: NDArray[np.float64], kept: NDArray[np.bool_]) -> None:
    places = np.arange(len(values))
    for name, colour, chosen in (("kept", KEPT, kept), ("cut", CUT, ~kept)):
        axes.bar(places[chosen], np.nan_to_num(values[chosen]), color=colour, label=name)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.3)


def weights_png(layer: LayerFilters) -> bytes | None:
    """The filters as small images, each stretched to its own range, framed by whether it is kept.

    Returns:
        A PNG file, the filters that the agent wants most first; None if they are not of 1 or 3 channels.
    """
    if layer.weights is None:
        return None
    order = np.argsort(-layer.keep_probability, kind="stable")
    columns = min(len(order), 12)
    rows = math.ceil(len(order) / columns)
    figure = new_figure(width=0.9 * columns + 0.4, height=1.1 * rows + 0.6)
    figure.suptitle(f"{layer.group}: filters (blue: kept, orange: cut; number, keep probability)", fontsize=8)
    for place, index in enumerate(order, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(_as_image(layer.weights[index]), cmap="gray")
        axes.set_title(f"{index}  {layer.keep_probability[index]:.2f}", fontsize=6, pad=2)
        axes.set_xticks([])
        axes.set_yticks([])
        for edge in axes.spines.values():
            edge.set(color=KEPT if layer.kept[index] else CUT, linewidth=2)
    return png_of(figure)


def _as_image(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """A filter ``(c, h, w)`` as an image ``(h, w, 3)`` or ``(h, w)``, from 0 to 1."""
    low, high = weights.min(), weights.max()
    image: NDArray[np.float32] = (weights - low) / max(float(high - low), 1e-12)
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
