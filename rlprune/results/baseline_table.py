"""A comparison as text: every network as CSV, and for the reader the methods beside each row of the run."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rlprune.results.baseline_record import OWN, TUNED_BASE, BaselineRecord, Key
from rlprune.results.frontier import hypervolume
from rlprune.results.goal import Goal
from rlprune.results.interval import mean_interval
from rlprune.results.markdown import Columns, interval_text, markdown_table, method_text, number

CSV_FIELDS = (
    "method",
    "trial",
    "b",
    "target_macs",
    "seed",
    "macs_ratio",
    "params_ratio",
    "accuracy_val",
    "drop_val",
    "drop_val_low",
    "drop_val_high",
    "accuracy_test",
    "drop_test",
    "drop_test_low",
    "drop_test_high",
    "drop_test_against_tuned_base",
    "repaired",
    "epochs",
)
REFERENCE_FACTOR = 2
"""The hypervolume's reference point: this many times the largest b as drop, and the base model's MACs."""


def csv_values(record: BaselineRecord, records: Mapping[Key, BaselineRecord]) -> dict[str, Any]:
    """A network as a line of the CSV, None where a figure is not known."""
    test = record.on_test
    values = {name: getattr(record, name, None) for name in CSV_FIELDS}
    values |= {name: getattr(test, name) for name in CSV_FIELDS if hasattr(test, name)}
    return {**values, "drop_test_against_tuned_base": drop_against_tuned_base(record, records)}


def comparison_csv(records: Sequence[BaselineRecord]) -> str:
    """All networks, one a line, in full precision; what is not known is left empty."""
    known = {record.key: record for record in records}
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_values(record, known) for record in records)
    return buffer.getvalue()


def drop_against_tuned_base(record: BaselineRecord, records: Mapping[Key, BaselineRecord]) -> float | None:
    """The drop on test against the base model fine-tuned as long, of the same repetition or their mean."""
    same = records.get(Key(record.trial, TUNED_BASE, record.seed))
    tuned = [same] if same and record.method != OWN else _tuned(record.trial, records.values())
    accuracies = [other.on_test.accuracy_test for other in tuned if other.on_test]
    if record.on_test is None or not accuracies:
        return None
    return fmean(accuracies) - record.on_test.accuracy_test


def _tuned(trial: str, records: Iterable[BaselineRecord]) -> list[BaselineRecord]:
    return [other for other in records if other.trial == trial and other.method == TUNED_BASE]


@dataclass(frozen=True)
class Entry:
    """A method at one row of the run: means over its repetitions, n of them.

    Attributes:
        drop_test: The mean drop on test with its 95 % interval: over the draw of the images for one
            repetition, over the repetitions for several; None where test was not read.
    """

    trial: str
    method: str
    goal: Goal
    n: int
    macs_ratio: float
    params_ratio: float
    epochs: float
    accuracy_val_cut: float | None
    accuracy_val: float
    drop_val: float
    accuracy_test: float | None
    drop_test: tuple[float, float, float] | None
    drop_against_tuned_base: float | None


def entries(records: Sequence[BaselineRecord]) -> list[Entry]:
    """The methods of each row of the run, by accuracy, the best first."""
    known = {record.key: record for record in records}
    groups: dict[tuple[str, str], list[BaselineRecord]] = {}
    for record in records:
        groups.setdefault((record.trial, record.method), []).append(record)
    found = [_entry(group, known) for group in groups.values()]
    trials = list(dict.fromkeys(record.trial for record in records))
    return sorted(found, key=lambda entry: (trials.index(entry.trial), -_rank(entry), entry.method))


def _rank(entry: Entry) -> float:
    return entry.accuracy_val if entry.accuracy_test is None else entry.accuracy_test


def _entry(group: Sequence[BaselineRecord], known: Mapping[Key, BaselineRecord]) -> Entry:
    first = group[0]
    tests = [record.on_test for record in group if record.on_test]
    against = [drop_against_tuned_base(record, known) for record in group]
    return Entry(
        trial=first.trial,
        method=first.method,
        goal=first.goal,
        n=len(group),
        macs_ratio=fmean(record.macs_ratio for record in group),
        params_ratio=fmean(record.params_ratio for record in group),
        epochs=fmean(record.epochs for record in group),
        accuracy_val_cut=_mean([record.accuracy_val_cut for record in group]),
        accuracy_val=fmean(record.accuracy_val for record in group),
        drop_val=fmean(record.drop_val for record in group),
        accuracy_test=_mean([test.accuracy_test for test in tests]),
        drop_test=_interval([(test.drop_test, test.drop_test_low, test.drop_test_high) for test in tests]),
        drop_against_tuned_base=_mean(against),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _interval(drops: Sequence[tuple[float, float, float]]) -> tuple[float, float, float] | None:
    if len(drops) < 2:
        return drops[0] if drops else None
    return mean_interval([drop for drop, _, _ in drops])


@dataclass(frozen=True)
class Volume:
    """The hypervolume of a method: its mean over the repetitions with a 95 % interval (NaN ends for one).

    Attributes:
        n: Repetitions that have networks at all those rows; others do not count.
        rows: At how many rows of the run the method has networks, in the repetition that has most.
        on_val: From drops on val, in points times the fraction of MACs.
        on_test: From drops on test; None where test was not read.
    """

    method: str
    n: int
    rows: int
    on_val: tuple[float, float, float]
    on_test: tuple[float, float, float] | None


def reference_point(records: Iterable[BaselineRecord]) -> tuple[float, float]:
    """Drop in points and fraction of MACs: the corner that hypervolumes are measured from."""
    return (REFERENCE_FACTOR * max((record.b for record in records if record.b), default=1.0), 1.0)


def volumes(records: Sequence[BaselineRecord], reference: tuple[float, float]) -> list[Volume]:
    """The hypervolume of each method, the largest first; the fine-tuned base model saves no MACs."""
    methods = dict.fromkeys(record.method for record in records if record.method != TUNED_BASE)
    found = [_volume([r for r in records if r.method == method], reference) for method in methods]
    return sorted(found, key=lambda volume: -(volume.on_test or volume.on_val)[0])


def _volume(group: Sequence[BaselineRecord], reference: tuple[float, float]) -> Volume:
    every: dict[int, dict[str, BaselineRecord]] = {}
    for record in group:
        every.setdefault(record.seed, {})[record.trial] = record
    fullest = max(every.values(), key=len)
    fronts = [list(front.values()) for front in every.values() if front.keys() == fullest.keys()]
    read = all(record.on_test for front in fronts for record in front)

    def areas(drop: Callable[[BaselineRecord], float]) -> tuple[float, float, float]:
        points = [[(drop(record), record.macs_ratio) for record in front] for front in fronts]
        return mean_interval([hypervolume(front, reference) for front in points])

    return Volume(
        method=group[0].method,
        n=len(fronts),
        rows=len(fullest),
        on_val=areas(lambda record: record.drop_val),
        on_test=areas(_drop_test) if read else None,
    )


def _drop_test(record: BaselineRecord) -> float:
    return record.on_test.drop_test if record.on_test else math.nan


def unequal_training(found: Iterable[tuple[str, float, float]]) -> list[str]:
    """A line that names the methods whose networks were not trained for as long as the row; none if all were.

    Args:
        found: Method, epochs of its network, epochs of the row, NaN where they are not known.
    """
    others = dict.fromkeys(method for method, own, row in found if abs(own - row) > 1e-6)
    return [f"Not trained for as many epochs as the row: {', '.join(others)}.", ""] if others else []


def comparison_markdown(records: Sequence[BaselineRecord], base: Sequence[str]) -> str:
    """The comparison for the reader.

    Args:
        records: All networks, the run's own included.
        base: Lines about the base model.
    """
    reference = reference_point(records)
    rows = {record.trial: record.epochs for record in records if record.method == OWN}
    lines = [
        *(text for line in base for text in (line, "")),
        "Each row of the run stands with the baselines at its MACs, fine-tuned for as many epochs as all its "
        "fine-tunings together, at the same rate and on the same images; of each the state that is best on "
        "val. cut: accuracy on val before fine-tuning. Drop: percentage points, 95 % interval over the "
        "draw of the images for n = 1, over the repetitions (Student's t) for more.",
        "",
        *unequal_training((record.method, record.epochs, rows[record.trial]) for record in records),
        *markdown_table(ENTRY_COLUMNS, entries(records)),
        "",
        f"Hypervolume (points x fraction of MACs; reference point: drop {reference[0]:g}, MACs 100 %); rows: "
        "of the run, at which the method was measured; only methods with the same rows compare. n: "
        "repetitions with all of these rows.",
        "",
        *markdown_table(VOLUME_COLUMNS, volumes(records, reference)),
    ]
    return "\n".join(lines) + "\n"


ENTRY_COLUMNS: Columns = {
    "b": lambda entry: entry.goal.cell,
    "row": lambda entry: entry.trial,
    "method": lambda entry: method_text(entry.method, OWN),
    "MACs %": lambda entry: number(100 * entry.macs_ratio, ".1f"),
    "params %": lambda entry: number(100 * entry.params_ratio, ".1f"),
    "epochs": lambda entry: number(entry.epochs, "g"),
    "cut %": lambda entry: number(entry.accuracy_val_cut, ".2f"),
    "val %": lambda entry: number(entry.accuracy_val, ".2f"),
    "test %": lambda entry: number(entry.accuracy_test, ".2f"),
    "drop test [95 %]": lambda entry: interval_text(entry.drop_test, ".2f"),
    "drop test, tuned base": lambda entry: number(entry.drop_against_tuned_base, ".2f"),
    "n": lambda entry: str(entry.n),
}
VOLUME_COLUMNS: Columns = {
    "method": lambda volume: method_text(volume.method, OWN),
    "rows": lambda volume: str(volume.rows),
    "n": lambda volume: str(volume.n),
    "hypervolume val": lambda volume: interval_text(volume.on_val, ".3f"),
    "hypervolume test": lambda volume: interval_text(volume.on_test, ".3f"),
}
