"""What one step of a pruning run did."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one step did; accuracies and drops in percentage points, ratios as fractions of the base."""

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

    def to_metrics(self) -> dict[str, str | float | int]:
        """The report as a flat dict."""
        return dataclasses.asdict(self)
