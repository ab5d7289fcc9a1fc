"""What one step of a pruning run did."""

import dataclasses
import math

POINTS_PER_HALVING = 1.0
"""Percentage points of accuracy on val that half of the MACs are worth in :func:`score`."""


def score(drop_val: float, macs_ratio: float) -> float:
    """How good an unfinished network is, in halvings of the MACs; larger is better.

    ``log2(1 / macs_ratio) - drop_val / POINTS_PER_HALVING``: what was saved, minus what was paid. The drop
    bound is not in it, so that it means the same at every b. Networks have to be compared at the same step:
    one with more groups done has had more to save.

    Args:
        drop_val: Drop on val, percentage points.
        macs_ratio: MACs as a fraction of the base's, above 0.

    Returns:
        0 for the base model; NaN if the drop is NaN.
    """
    return -math.log2(macs_ratio) - drop_val / POINTS_PER_HALVING


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one step did; accuracies and drops in percentage points, ratios as fractions of the base.

    ``fine_tunings_undone`` counts those whose loss was not finite: the network from before them stayed.
    """

    step: int
    n_steps: int
    group: str
    filters: int
    kept: int
    accuracy_val: float
    drop_val: float
    filter_keep_ratio: float
    macs_ratio: float
    params_ratio: float
    candidates_tried: int
    evaluations: int
    seconds: float
    fine_tunings_undone: int = 0

    def line(self) -> str:
        """One line for people."""
        kept = f"{self.kept} of {self.filters} filters kept  " if self.filters else ""
        return (
            f"[{self.step}/{self.n_steps}] {self.group}: {kept}"
            f"drop {self.drop_val:+.2f}  MACs {100 * self.macs_ratio:.1f} %  {self.seconds:.0f} s"
        )

    def to_metrics(self) -> dict[str, str | float | int]:
        """The report as a flat dict."""
        return dataclasses.asdict(self)
