"""What a trial is after: the smallest network within a drop bound, or the best one at a target of MACs."""

from typing import NamedTuple

from rlprune.config import SearchConfig


class Goal(NamedTuple):
    """One of the two is known, the other is None; both are of a row that does not say.

    Attributes:
        b: Drop bound, percentage points.
        target_macs: Share of the base model's MACs.
    """

    b: float | None = None
    target_macs: float | None = None

    def text(self, between: str = " ") -> str:
        """``b 0.5`` or ``target 0.3``, with something else between name and number."""
        if self.target_macs is not None:
            return f"target{between}{self.target_macs:g}"
        return f"b{between}{'-' if self.b is None else format(self.b, 'g')}"

    @property
    def cell(self) -> str:
        """The same in a column of drop bounds."""
        if self.target_macs is not None:
            return f"to {100 * self.target_macs:g} %"
        return "-" if self.b is None else format(self.b, "g")

    @property
    def place(self) -> tuple[bool, float]:
        """Where it stands among others: drop bounds first, small numbers before large ones."""
        known = self.b if self.target_macs is None else self.target_macs
        return self.target_macs is not None, known or 0.0

    @property
    def key(self) -> str:
        """The same for trials that may be compared."""
        return f"b={self.b!r}" if self.target_macs is None else f"target_macs={self.target_macs!r}"


def goals_of(search: SearchConfig) -> list[Goal]:
    """The goals of a search, each of which gets ``num_samples`` trials."""
    return [*(Goal(b=b) for b in search.b_grid), *(Goal(target_macs=t) for t in search.target_macs)]
