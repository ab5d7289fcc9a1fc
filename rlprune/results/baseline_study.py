"""Several comparisons in one table: means over seeds with 95 % intervals, for each goal."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rlprune.errors import ResultsError
from rlprune.results.baseline_record import OWN, TUNED_BASE
from rlprune.results.baseline_table import REFERENCE_FACTOR, unequal_training
from rlprune.results.compared import COMPARED
from rlprune.results.frontier import hypervolume
from rlprune.results.goal import Goal
from rlprune.results.interval import mean_interval
from rlprune.results.markdown import Columns, interval_text, markdown_table, method_text, number

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Point:
    """One network of a run's comparison, as ``compare.csv`` has it.

    Epochs are NaN in a file without them, the drop against the tuned base where that was not measured.
    """

    run: int
    trial: str
    method: str
    seed: int
    goal: Goal
    macs_ratio: float
    accuracy: float
    drop_val: float
    drop: float
    drop_tuned: float
    epochs: float


def read_points(runs: Sequence[Path]) -> list[Point]:
    """The networks of several runs that test was read for.

    Raises:
        ResultsError: A run was not compared, or its comparison is not finished.
    """
    points = []
    for number_, run in enumerate(runs):
        path = run / COMPARED
        if not path.is_file():
            raise ResultsError(f"{path}: no such file; run rlprune compare {run} first")
        for line, row in enumerate(csv.DictReader(io.StringIO(path.read_text("utf-8"))), start=2):
            try:
                points.append(_point(number_, row))
            except (KeyError, TypeError, ValueError) as error:
                raise ResultsError(
                    f"{path}: line {line}: a figure is missing or no number: {error}"
                ) from error
    return points


def _point(run: int, row: dict[str, str]) -> Point:
    return Point(
        run=run,
        trial=row["trial"],
        method=row["method"],
        seed=int(row["seed"]),
        goal=Goal(*(float(text) if (text := row.get(name)) else None for name in ("b", "target_macs"))),
        macs_ratio=float(row["macs_ratio"]),
        accuracy=float(row["accuracy_test"]),
        drop_val=float(row["drop_val"]),
        drop=float(row["drop_test"]),
        drop_tuned=float(row["drop_test_against_tuned_base"] or "nan"),
        epochs=float(row.get("epochs") or "nan"),
    )


@dataclass(frozen=True)
class StudyEntry:
    """A method at a drop bound or a target, on test.

    Attributes:
        n: Independent repetitions: runs; of one run alone the repetitions of the method.
        drop_val: The mean drop on val, by which the networks were chosen.
        ahead: By how many points the run's own network is more accurate than the method's at the same row.
    """

    goal: Goal
    method: str
    n: int
    macs_ratio: float
    accuracy: Interval
    drop_val: float
    drop: Interval
    drop_tuned: Interval
    ahead: Interval


def study_entries(points: Sequence[Point]) -> list[StudyEntry]:
    """The methods at each drop bound and target, the most accurate first."""
    own = {(point.run, point.trial): point.accuracy for point in points if point.method == OWN}
    unit = _unit(points)
    groups: dict[tuple[Goal, str], dict[int, list[Point]]] = {}
    for point in points:
        groups.setdefault((point.goal, point.method), {}).setdefault(unit(point), []).append(point)

    def over(units: dict[int, list[Point]], value: Callable[[Point], float]) -> Interval:
        return mean_interval([fmean(map(value, one)) for one in units.values()])

    found = [
        StudyEntry(
            goal=goal,
            method=method,
            n=len(units),
            macs_ratio=fmean(point.macs_ratio for one in units.values() for point in one),
            accuracy=over(units, lambda point: point.accuracy),
            drop_val=over(units, lambda point: point.drop_val)[0],
            drop=over(units, lambda point: point.drop),
            drop_tuned=over(units, lambda point: point.drop_tuned),
            ahead=over(units, lambda point: own[point.run, point.trial] - point.accuracy),
        )
        for (goal, method), units in groups.items()
    ]
    return sorted(found, key=lambda entry: (entry.goal.place, -entry.accuracy[0], entry.method))


def _unit(points: Iterable[Point]) -> Callable[[Point], int]:
    """What counts as one repetition of a study: a run, and where it is of but one run, a seed of that."""
    several = len({point.run for point in points}) > 1
    return (lambda point: point.run) if several else (lambda point: point.seed)


@dataclass(frozen=True)
class StudyVolume:
    """The hypervolume of a method on test, over runs, or over the repetitions of a single run."""

    method: str
    n: int
    volume: Interval


def study_volumes(points: Sequence[Point]) -> tuple[list[StudyVolume], float]:
    """The hypervolume of the methods that have networks at every row of every run, and the reference drop.

    A repetition that lacks a row of its run does not count.
    """
    reference = REFERENCE_FACTOR * max((point.goal.b for point in points if point.goal.b), default=1.0)
    unit = _unit(points)
    rows: dict[int, set[str]] = {}
    fronts: dict[str, dict[tuple[int, int], list[Point]]] = {}
    for point in points:
        if point.method == OWN:
            rows.setdefault(point.run, set()).add(point.trial)
        if point.method != TUNED_BASE:
            fronts.setdefault(point.method, {}).setdefault((point.run, point.seed), []).append(point)
    found = []
    for method, every in fronts.items():
        whole = [front for (run, _), front in every.items() if {point.trial for point in front} == rows[run]]
        if {front[0].run for front in whole} == set(rows):
            areas: dict[int, list[float]] = {}
            for front in whole:
                area = hypervolume([(point.drop, point.macs_ratio) for point in front], (reference, 1.0))
                areas.setdefault(unit(front[0]), []).append(area)
            found.append(StudyVolume(method, len(areas), mean_interval([fmean(a) for a in areas.values()])))
    return sorted(found, key=lambda volume: -volume.volume[0]), reference


def unequally_trained(points: Sequence[Point]) -> list[str]:
    """A line on the methods whose networks were not trained for as long as their rows; none if all were."""
    rows = {(point.run, point.trial): point.epochs for point in points if point.method == OWN}
    return unequal_training((point.method, point.epochs, rows[point.run, point.trial]) for point in points)


def study_markdown(points: Sequence[Point]) -> str:
    """The table of a study."""
    found, reference = study_volumes(points)
    runs = len({point.run for point in points})
    unit = f"{runs} runs" if runs > 1 else "the repetitions of one run (rlprune itself has one)"
    lines = [
        f"On test, but for `drop val`, by which the networks were chosen; intervals: 95 % (Student's t) over "
        f"{unit}. ahead: points by which rlprune's network is more accurate at the same row.",
        "",
        *unequally_trained(points),
        *markdown_table(ENTRY_COLUMNS, study_entries(points)),
        "",
        f"Hypervolume on test (points x fraction of MACs; reference point: drop {reference:g}, MACs 100 %), "
        "of the methods that have a network at every row.",
        "",
        *markdown_table(VOLUME_COLUMNS, found),
    ]
    return "\n".join(lines) + "\n"


ENTRY_COLUMNS: Columns = {
    "b": lambda entry: entry.goal.cell,
    "method": lambda entry: method_text(entry.method, OWN),
    "n": lambda entry: str(entry.n),
    "MACs %": lambda entry: number(100 * entry.macs_ratio, ".1f"),
    "test % [95 %]": lambda entry: interval_text(entry.accuracy, ".2f"),
    "drop val": lambda entry: number(entry.drop_val, ".2f"),
    "drop [95 %]": lambda entry: interval_text(entry.drop, ".2f"),
    "drop, tuned base [95 %]": lambda entry: interval_text(entry.drop_tuned, ".2f"),
    "ahead [95 %]": lambda entry: interval_text(entry.ahead, ".2f"),
}
VOLUME_COLUMNS: Columns = {
    "method": lambda volume: method_text(volume.method, OWN),
    "n": lambda volume: str(volume.n),
    "hypervolume [95 %]": lambda volume: interval_text(volume.volume, ".3f"),
}
