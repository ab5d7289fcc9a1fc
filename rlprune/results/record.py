"""One trial as a row: the fields of ``trials.jsonl`` and, the first of them, of ``frontier.csv``."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from rlprune.errors import ResultsError
from rlprune.results.goal import Goal

STATUSES = ("COMPLETE", "FAILED", "STOPPED")

FRONTIER_FIELDS = (
    "trial",
    "b",
    "seed",
    "filter_keep_ratio",
    "macs_ratio",
    "params_ratio",
    "base_accuracy_val",
    "accuracy_val",
    "drop_val",
    "drop_val_low",
    "drop_val_high",
    "base_accuracy_test",
    "accuracy_test",
    "drop_test",
    "drop_test_low",
    "drop_test_high",
    "latency_ms_base_b1",
    "latency_ms_b1",
    "latency_ms_base_b256",
    "latency_ms_b256",
    "network",
)
"""The columns of ``frontier.csv``; those of :data:`FURTHER_FIELDS` that a row knows come after them."""

FURTHER_FIELDS = ("target_macs", "latency_table_batch", "latency_ms_base_table", "latency_ms_table")

MEASURED_FIELDS = (
    "base_accuracy_test",
    "accuracy_test",
    "drop_test",
    "drop_test_low",
    "drop_test_high",
    "images_test",
    "tuned_base_epochs",
    "tuned_base_accuracy_val",
    "tuned_base_accuracy_test",
    "latency_ms_base_b1",
    "latency_ms_b1",
    "latency_ms_base_b256",
    "latency_ms_b256",
    "latency_device",
)
"""Fields that are measured at the end of a run, for the rows of the frontier only."""


@dataclass(kw_only=True)
class TrialRecord:
    """What is known of one trial; None (or an empty text or collection) is what is not known.

    Accuracies, drops and ``b`` are percentage points; ratios are fractions of the base, like
    ``target_macs``, the goal of trials without a ``b``; latencies are milliseconds a batch of 1 or 256
    images, ``_table`` those that the run's table of layer times predicts for a batch of
    ``latency_table_batch``; ``network`` is a path relative to the run folder; the tuned base is the base
    model after as many epochs of fine-tuning as a pruned network gets. ``lineage`` says what a member of a
    population has taken from others: after which ``step``, from which ``donor`` (empty for its own start),
    and the ``b`` and ``settings`` that it went on with.
    """

    status: str
    trial: str = ""
    b: float | None = None
    seed: int | None = None
    filter_keep_ratio: float | None = None
    macs_ratio: float | None = None
    params_ratio: float | None = None
    base_accuracy_val: float | None = None
    accuracy_val: float | None = None
    drop_val: float | None = None
    drop_val_low: float | None = None
    drop_val_high: float | None = None
    base_accuracy_test: float | None = None
    accuracy_test: float | None = None
    drop_test: float | None = None
    drop_test_low: float | None = None
    drop_test_high: float | None = None
    latency_ms_base_b1: float | None = None
    latency_ms_b1: float | None = None
    latency_ms_base_b256: float | None = None
    latency_ms_b256: float | None = None
    network: str | None = None
    target_macs: float | None = None
    latency_table_batch: int | None = None
    latency_ms_base_table: float | None = None
    latency_ms_table: float | None = None
    images_val: int | None = None
    images_test: int | None = None
    latency_device: str = ""
    tuned_base_epochs: float | None = None
    tuned_base_accuracy_val: float | None = None
    tuned_base_accuracy_test: float | None = None
    macs: int | None = None
    params: int | None = None
    base_macs: int | None = None
    base_params: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)
    base_widths: dict[str, int] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    error: str = ""

    @property
    def goal(self) -> Goal:
        """What the trial is after."""
        return Goal(self.b, self.target_macs)

    def to_json(self) -> str:
        """One line of strict JSON; a number that is not finite is not known, and becomes null."""
        return json.dumps(_plain(dataclasses.asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, line: int | None = None) -> "TrialRecord":
        """The record that :meth:`to_json` wrote.

        Args:
            text: One line of JSON.
            line: Where it was read from, for the error message.

        Raises:
            ResultsError: On anything that is no record, with the line and the fault.
        """
        where = "record" if line is None else f"line {line}"
        try:
            values = json.loads(text, parse_constant=refuse_constant)
        except ValueError as error:
            raise ResultsError(f"{where}: is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ResultsError(
                f"{where}: expected a JSON object with the fields of a trial; got {text.strip()[:60]}"
            )
        faults = _faults(values)
        if faults:
            raise ResultsError(f"{where}: {'; '.join(faults)}")
        return cls(**values)


def measured_fields(record: TrialRecord) -> dict[str, Any]:
    """The test and latency fields of a record that are known."""
    return {
        name: _plain(getattr(record, name))
        for name in MEASURED_FIELDS
        if getattr(record, name) not in (None, "")
    }


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(TrialRecord)


def _faults(values: Mapping[str, Any]) -> list[str]:
    hints = _hints()
    faults = [f"field {name} is missing" for name in ("trial", "status") if name not in values]
    for name, value in values.items():
        if name not in hints:
            faults.append(f"unknown field {name!r} (was the file written by a newer version?)")
        elif not _fits(hints[name], value):
            faults.append(f"field {name}: {value!r} is not of type {_type_name(hints[name])}")
    if values.get("status") not in (None, *STATUSES):
        faults.append(f"field status: expected one of {', '.join(STATUSES)}; got {values['status']!r}")
    return faults


def _fits(hint: Any, value: Any) -> bool:
    kinds = [
        get_origin(kind) or kind for kind in ([hint] if get_origin(hint) in (dict, list) else get_args(hint))
    ]
    kinds = kinds or [hint]
    if isinstance(value, bool):
        return False
    if float in kinds and isinstance(value, int):
        return True
    return isinstance(value, tuple(kinds))


def _type_name(hint: Any) -> str:
    return (
        hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    )


def refuse_constant(name: str) -> None:
    """What the JSON of a run folder says to NaN and infinities."""
    raise ValueError(f"{name} is not JSON; unknown values are null")


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: NumPy's numbers as Python's, tuples as lists, NaN and inf as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
