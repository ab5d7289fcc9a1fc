"""What is known of each filter of one group: as CSV, and as lines for the terminal."""

import csv
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LayerFilters:
    """One row a filter; f filters. Rewards and losses are those of the base model with this group cut.

    Attributes:
        group: Name of the group.
        keep_probability: float (f,), the trained agent's.
        kept: bool (f,), the mask that the trial cut the group by.
        lost_alone: float (f,), accuracy that is lost when this filter alone is cut, percentage points.
        reward_alone: float (f,), the reward of cutting this filter alone.
        reward_flipped: float (f,), the reward of the mask with this filter the other way round; NaN where
            that would leave no filter.
        reward_mask: The reward of the mask itself.
        scores: float (f,) each, by the kind of importance; a higher score means that the filter should stay.
        twin: int (f,), the other filter with which it is correlated the most; its own number if it has none.
        correlation: float (f,), how much, without the sign.
        weights: float (f, c, h, w), the filters themselves, where they can be looked at: 1 or 3 channels.
    """

    group: str
    keep_probability: NDArray[np.float64]
    kept: NDArray[np.bool_]
    lost_alone: NDArray[np.float64]
    reward_alone: NDArray[np.float64]
    reward_flipped: NDArray[np.float64]
    reward_mask: float
    scores: dict[str, NDArray[np.float32]]
    twin: NDArray[np.int64]
    correlation: NDArray[np.float64]
    weights: NDArray[np.float32] | None = None

    @property
    def gain(self) -> NDArray[np.float64]:
        """How much the reward of the mask would rise if this filter were the other way round: float (f,)."""
        return self.reward_flipped - self.reward_mask


def filters_csv(layer: LayerFilters) -> str:
    """One line a filter, full precision; what is not known is left empty."""
    columns = {
        "filter": np.arange(len(layer.kept)),
        "kept": layer.kept.astype(int),
        "keep_probability": layer.keep_probability,
        "lost_alone": layer.lost_alone,
        "reward_alone": layer.reward_alone,
        "reward_flipped": layer.reward_flipped,
        "twin": layer.twin,
        "correlation": layer.correlation,
        **layer.scores,
    }
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        writer.writerow(["" if value != value else value for value in values])
    return buffer.getvalue()


def summary_line(layer: LayerFilters) -> str:
    """A group in one line."""
    better = int((layer.gain > 0).sum())
    return (
        f"{layer.group}: {int(layer.kept.sum())} of {len(layer.kept)} filters kept, reward of the mask "
        f"{layer.reward_mask:.3f}; {better} single change{'' if better == 1 else 's'} would raise it; "
        f"median correlation with the nearest twin {np.median(layer.correlation):.2f}"
    )


def filters_table(layer: LayerFilters, importance: str, top: int) -> str:
    """The filters that the agent would rather drop, one a line, the least wanted first.

    Args:
        layer: The group.
        importance: Which score is shown; the first one where it is none of these.
        top: How many lines.
    """
    kind = importance if importance in layer.scores else next(iter(layer.scores))
    order = np.argsort(layer.keep_probability, kind="stable")[:top]
    lines = [f"  filter   keep p  kept  lost alone  reward alone  if flipped    twin (corr.)  {kind:>10}"]
    for index in order:
        flipped = "-" if np.isnan(layer.gain[index]) else f"{layer.gain[index]:+.4f}"
        lines.append(
            f"  {index:6d}  {layer.keep_probability[index]:7.3f}  {'yes' if layer.kept[index] else 'no':>4}"
            f"  {layer.lost_alone[index]:10.2f}  {layer.reward_alone[index]:12.4f}  {flipped:>10}"
            f"  {layer.twin[index]:6d} ({layer.correlation[index]:.2f})  {layer.scores[kind][index]:10.4g}"
        )
    return "\n".join(lines)
