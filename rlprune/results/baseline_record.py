"""The networks of a comparison as rows, and the files that hold them."""

import dataclasses
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rlprune.errors import ResultsError
from rlprune.results.goal import Goal
from rlprune.results.record import TrialRecord

RECORDS, TEST, NETWORKS = "compare.jsonl", "compare_test.jsonl", "compare"
OWN, TUNED_BASE = "rlprune", "base-tuned"
"""The methods that are no baselines: the run's own networks, and the base model fine-tuned as long."""

_logger = logging.getLogger(__name__)


class Key(NamedTuple):
    """Which network: the row of the run that it is compared with, how it was made, and which repetition."""

    trial: str
    method: str
    seed: int

    @property
    def file_name(self) -> str:
        """The name of its network file."""
        return f"{re.sub('[^A-Za-z0-9_.-]', '-', f'{self.trial}-{self.method}')}-{self.seed}.pt"


@dataclass(frozen=True, kw_only=True)
class TestFigures:
    """What test says of a network: accuracies and drops in percentage points."""

    __test__ = False  # not a test of pytest's

    accuracy_test: float
    drop_test: float
    drop_test_low: float
    drop_test_high: float
    base_accuracy_test: float
    images_test: int


@dataclass(frozen=True, kw_only=True)
class BaselineRecord:
    """One network of a comparison; ratios are fractions of the base, accuracies and drops percentage points.

    Attributes:
        trial: The trial whose network is matched.
        method: How filters were chosen; ``+repair`` where least squares repaired what reads the cut ones.
        seed: Which repetition, from 0.
        b: Drop bound of the trial, or None where it had a target.
        repaired: Whether least squares repaired the network.
        accuracy_val_cut: Accuracy on val before fine-tuning.
        epochs: Passes over train of its fine-tuning, or of its training from scratch.
        learning_rate: Peak rate of it.
        network: Its file, relative to the run folder.
        on_test: What test says of it, at the end of the comparison only.
        target_macs: The target of the trial, as a share of the base model's MACs.
    """

    trial: str
    method: str
    seed: int
    b: float | None
    repaired: bool
    filter_keep_ratio: float
    macs_ratio: float
    params_ratio: float
    accuracy_val_cut: float | None
    accuracy_val: float
    drop_val: float
    drop_val_low: float
    drop_val_high: float
    images_val: int
    epochs: float
    learning_rate: float
    network: str
    widths: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    on_test: TestFigures | None = None
    target_macs: float | None = None

    @property
    def goal(self) -> Goal:
        """What the trial was after."""
        return Goal(self.b, self.target_macs)

    @property
    def key(self) -> Key:
        """Which network it is."""
        return Key(self.trial, self.method, self.seed)


class BaselineFiles:
    """The records of a comparison in a run folder; a line a network, so that it can go on after any end.

    Two comparisons of one run may go on side by side: lines are only ever added. A damaged line, such as the
    last one of a killed process, counts as not there.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def network_path(self, key: Key) -> Path:
        """Where a network is kept."""
        return self.run / NETWORKS / key.file_name

    def append(self, record: BaselineRecord) -> None:
        """Adds a network; what test says of it is not written here."""
        values = dataclasses.asdict(record)
        del values["on_test"]
        _append(self.run / RECORDS, values)

    def append_test(self, key: Key, figures: TestFigures) -> None:
        """Adds what test says of a network."""
        _append(self.run / TEST, {**key._asdict(), **dataclasses.asdict(figures)})

    def records(self) -> dict[Key, BaselineRecord]:
        """All networks, with what is known of test."""
        figures = self.test_figures()
        records = (_built(BaselineRecord, values) for values in _lines(self.run / RECORDS))
        return {
            record.key: dataclasses.replace(record, on_test=figures.get(record.key))
            for record in records
            if record is not None
        }

    def test_figures(self) -> dict[Key, TestFigures]:
        """What is known of test, the run's own networks included."""
        found = {}
        for values in _lines(self.run / TEST):
            key = _built(Key, {name: values.pop(name, None) for name in Key._fields})
            figures = _built(TestFigures, values)
            if key is not None and figures is not None:
                found[key] = figures
        return found


def own_record(
    row: TrialRecord, *, epochs: float, learning_rate: float, repaired: bool, known: Mapping[Key, TestFigures]
) -> BaselineRecord:
    """The record of a trial's own network; what the run's final table knows of test is taken over.

    Args:
        row: A finished trial.
        epochs: Passes over train of all its fine-tunings.
        learning_rate: Their peak rate.
        repaired: Whether the run repairs.
        known: What the comparison measured on test itself.

    Raises:
        ResultsError: The record lacks a figure that a finished trial has.
    """
    names = ("filter_keep_ratio", "macs_ratio", "params_ratio", "accuracy_val", "drop_val", "network")
    intervals = ("drop_val_low", "drop_val_high", "images_val")
    values: dict[str, Any] = {name: getattr(row, name) for name in (*names, *intervals)}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise ResultsError(f"{row.trial}: the record lacks {', '.join(missing)}, and cannot be compared with")
    test_names = [entry.name for entry in dataclasses.fields(TestFigures)]
    test = {name: getattr(row, name) for name in test_names}
    return BaselineRecord(
        trial=row.trial,
        method=OWN,
        seed=0,
        b=row.b,
        target_macs=row.target_macs,
        repaired=repaired,
        accuracy_val_cut=None,
        epochs=epochs,
        learning_rate=learning_rate,
        widths=row.widths,
        seconds=row.seconds,
        on_test=known.get(Key(row.trial, OWN, 0)) if None in test.values() else TestFigures(**test),
        **values,
    )


def _append(path: Path, values: Mapping[str, Any]) -> None:
    line = json.dumps(values, allow_nan=False).encode() + b"\n"
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from error


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            values = json.loads(line or "null")
        except ValueError:
            values = None
        if isinstance(values, dict):
            yield values
        elif line.strip():
            _logger.warning("%s: line %d is damaged and counts as not there", path, number)


def _built(kind: Any, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        _logger.warning("a line of a comparison is of another version and counts as not there: %s", error)
        return None
