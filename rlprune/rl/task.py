"""What an agent is trained on: a group of filters, and a judge of masks."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FilterContext:
    """What a policy may know of the f filters of one group.

    Attributes:
        features: float32 (f, d), one row of statistics a filter, each column with mean 0 and deviation 1.
        weights: float32 (f, k), each filter's weights, flattened.
        scores: float32 (f,), importance in any unit; a higher score means that the filter should stay.
        counts: How many filters a mask may keep, int64, sorted; None: any number but 0.
    """

    features: NDArray[np.float32]
    weights: NDArray[np.float32]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n_filters = len(self.scores)
        for name, dimensions in {"features": 2, "weights": 2, "scores": 1}.items():
            array = getattr(self, name)
            if array.ndim != dimensions or len(array) != n_filters or 0 in array.shape:
                raise ValueError(
                    f"{name} must have {dimensions} dimension(s), one row for each of the {n_filters} "
                    f"filters; got the shape {array.shape}"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")

    @property
    def allowed(self) -> NDArray[np.int64]:
        """How many filters a mask may keep, sorted."""
        return np.arange(1, len(self.scores) + 1) if self.counts is None else self.counts


class PruningTask(Protocol):
    """One group to prune. The agent holds it by reference: it is never copied or pickled."""

    @property
    def n_filters(self) -> int:
        """The number of filters f of the group."""
        ...

    @property
    def context(self) -> FilterContext:
        """What the policy may know of the filters."""
        ...

    def redraw(self, rng: np.random.Generator) -> None:
        """Draw what the next masks are judged on, for example a fresh subset of the images."""
        ...

    def rewards(self, masks: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Judge masks, bool (m, f), True = keep, none of them empty; rewards (m,), higher is better."""
        ...
