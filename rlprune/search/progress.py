"""Progress that a person can read: a line per group of a trial, not too often, and one per finished trial."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rlprune.results.record import TrialRecord

SECONDS_BETWEEN_LINES = 3.0
"""Least time between two lines about groups; lines about finished trials are never held back."""


class SearchProgress:
    """Says what happens in a search, a line at a time."""

    def __init__(
        self,
        show: Callable[[str], None],
        total: int,
        finished: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            show: Takes a line.
            total: Trials of the whole search.
            finished: Trials that have ended already, before this process.
            clock: Seconds since any moment.
        """
        self._show, self._total, self._finished, self._clock = show, total, finished, clock
        self._last_line = float("-inf")

    def group_done(self, trial: str, b: float, metrics: Mapping[str, Any]) -> None:
        """A trial has done one of its steps; ``metrics`` are those of ``StepReport.to_metrics``."""
        now = self._clock()
        if metrics.get("done") or now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        self._show(
            f"{trial}  b {b:g}  step {metrics['step']}/{metrics['n_steps']}  {metrics['group']}:"
            f" {metrics['kept']}/{metrics['filters']} filters  drop {metrics['drop_val']:+.2f}"
            f"  MACs {100 * metrics['macs_ratio']:.1f} %"
        )

    def retried(self, trial: str, error: str) -> None:
        """A trial has failed and starts again from its last checkpoint."""
        self._show(f"{trial}  failed and is tried again from its last checkpoint: {first_line(error)}")

    def finished(self, record: TrialRecord) -> None:
        """A trial has a row."""
        self._finished += 1
        start = f"{record.trial}  b {record.b:g}  {record.status.lower()} ({self._finished}/{self._total})"
        if record.status == "COMPLETE":
            took = "" if record.seconds is None else f"  {record.seconds:.0f} s"
            start += f"  drop {_number(record.drop_val, '+.2f')}  MACs {_percent(record.macs_ratio)}{took}"
        elif record.error:
            start += f": {first_line(record.error)}"
        self._show(start)


def first_line(text: str) -> str:
    """The first line of an error."""
    return text.strip().partition("\n")[0]


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _percent(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{100 * ratio:.1f} %"
