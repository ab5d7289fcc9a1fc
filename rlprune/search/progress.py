"""Progress that a person can read: a line per group of a trial, not too often, and one per finished trial."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlprune.results.goal import Goal
from rlprune.results.record import TrialRecord

SECONDS_BETWEEN_LINES = 3.0
"""Least time between two lines about groups; lines about finished trials are never held back."""

Show = Callable[[str], None]


class SearchProgress:
    """Says what happens in a search, a line at a time, and how long the rest may take."""

    def __init__(
        self,
        show: Show,
        total: int,
        recorded: Iterable[TrialRecord],
        *,
        show_group: Show | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            show: Takes a line.
            total: Trials of the whole search.
            recorded: Trials that have ended already, before this process.
            show_group: Takes a line about a group of a trial; None: ``show`` does.
            clock: Seconds since any moment.
        """
        self._show, self._show_group, self._clock = show, show_group or show, clock
        self._total, self._finished = total, 0
        self._best: dict[Goal, TrialRecord] = {}
        for record in recorded:
            self._count(record)
        self._steps: dict[str, tuple[int, int]] = {}  # of each running trial: steps done, steps in all
        self._work = 0.0  # done by this process, in trials
        self._began = clock()
        self._last_line = float("-inf")

    def group_done(self, trial: str, goal: Goal, metrics: Mapping[str, Any]) -> None:
        """A trial has done one of its steps; ``metrics`` are those of ``StepReport.to_metrics``."""
        step, n_steps = metrics["step"], metrics["n_steps"]
        before = self._steps.get(trial, (step - 1, n_steps))[0]
        self._work += max(0, step - before) / n_steps
        self._steps[trial] = step, n_steps
        if metrics.get("fine_tunings_undone"):
            self._show(
                f"{trial}  {goal.text()}  {metrics['group']}: fine-tuning was undone, its loss was not "
                "finite; lower finetune.learning_rate"
            )
        now = self._clock()
        if metrics.get("done") or now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        self._show_group(
            f"{trial}  {goal.text()}  step {step}/{n_steps}  {metrics['group']}:"
            f" {metrics['kept']}/{metrics['filters']} filters  drop {metrics['drop_val']:+.2f}"
            f"  MACs {100 * metrics['macs_ratio']:.1f} %{self._left()}"
        )

    def retried(self, trial: str, error: str) -> None:
        """A trial has failed and starts again from its last checkpoint."""
        self._show(f"{trial}  failed and is tried again from its last checkpoint: {first_line(error)}")

    def finished(self, record: TrialRecord) -> None:
        """A trial has a row."""
        self._count(record)
        self._steps.pop(record.trial, None)
        line = (
            f"{record.trial}  {record.goal.text()}  {record.status.lower()} ({self._finished}/{self._total})"
        )
        if record.status == "COMPLETE":
            took = "" if record.seconds is None else f"  {record.seconds:.0f} s"
            line += f"  drop {_number(record.drop_val, '+.2f')}  MACs {_percent(record.macs_ratio)}{took}"
        elif record.error:
            line += f": {first_line(record.error)}"
        best = self._best.get(record.goal)
        if best is not None and best is not record:
            line += f"  (best at {record.goal.text()}: {_figure(best)}, {best.trial})"
        self._show(line + self._left())

    def _count(self, record: TrialRecord) -> None:
        self._finished += 1
        best = self._best.get(record.goal)
        if record.status == "COMPLETE" and (best is None or _rank(record) < _rank(best)):
            self._best[record.goal] = record

    def _left(self) -> str:
        """How long the rest may take, if it goes on at the pace of this process so far."""
        begun = sum(step / n_steps for step, n_steps in self._steps.values())
        left = self._total - self._finished - begun
        if left <= 0 or self._work == 0:
            return ""
        return f"  about {duration((self._clock() - self._began) * left / self._work)} left"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def first_line(text: str) -> str:
    """The first line of an error."""
    return text.strip().partition("\n")[0]


def _rank(record: TrialRecord) -> float:
    """The less, the better among trials of one goal: the MACs within a bound, the drop at a target."""
    value = record.macs_ratio if record.target_macs is None else record.drop_val
    return float("inf") if value is None else value


def _figure(record: TrialRecord) -> str:
    if record.target_macs is None:
        return f"MACs {_percent(record.macs_ratio)}"
    return f"drop {_number(record.drop_val, '+.2f')}"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _percent(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{100 * ratio:.1f} %"
