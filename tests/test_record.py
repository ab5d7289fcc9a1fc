"""A trial's row survives JSON, and what is no row is refused with its line."""

import dataclasses
import json
import math

import numpy as np
import pytest

from rlprune.errors import ResultsError
from rlprune.results.record import FRONTIER_FIELDS, MEASURED_FIELDS, TrialRecord, measured_fields


def full_record():
    return TrialRecord(
        trial="t1",
        status="COMPLETE",
        b=1.0,
        seed=2**31 - 1,
        drop_val=0.1 + 0.2,
        macs=39_000_000,
        network="models/t1.pt",
        settings={"agent.learning_rate": 0.03, "pruning.keep_whole": ["a"]},
        widths={"features.0": 12},
        groups=[{"name": "features.0", "kept": 12, "rewards": [0.5, None]}],
    )


def test_round_trip_is_exact_and_one_line():
    record = full_record()
    text = record.to_json()
    assert "\n" not in text
    assert TrialRecord.from_json(text) == record


def test_an_error_of_many_lines_stays_one_row():
    record = TrialRecord(trial="t", status="FAILED", error="Traceback\n  boom\u2028ü")
    assert len(record.to_json().splitlines()) == 1
    assert TrialRecord.from_json(record.to_json()).error == record.error


def test_what_is_not_finite_is_not_known():
    record = TrialRecord(trial="t", status="FAILED", drop_val=math.nan, macs_ratio=np.float64(math.inf))
    record.settings = {"max_drop": math.nan, "nested": [np.float32(0.5), np.int64(3)]}
    values = json.loads(record.to_json())
    assert values["drop_val"] is None
    assert values["macs_ratio"] is None
    assert values["settings"] == {"max_drop": None, "nested": [0.5, 3]}


def test_missing_fields_are_unknown_but_name_and_status_are_needed():
    assert TrialRecord.from_json('{"trial": "t", "status": "STOPPED"}') == TrialRecord(
        trial="t", status="STOPPED"
    )
    with pytest.raises(ResultsError, match=r"line 4: field trial is missing; field status is missing"):
        TrialRecord.from_json("{}", 4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"status": "RUNNING"}, "expected one of COMPLETE, FAILED, STOPPED"),
        ({"status": None}, "field status"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"b": "1"}, "field b: '1' is not of type float"),
        ({"b": True}, "field b"),
        ({"seed": 1.5}, "field seed"),
        ({"widths": [1]}, "field widths"),
        ({"groups": {}}, "field groups"),
        ({"error": None}, "field error"),
    ],
)
def test_wrong_fields_are_named(change, expected):
    values = json.loads(full_record().to_json()) | change
    with pytest.raises(ResultsError, match=r"^line 7: ") as caught:
        TrialRecord.from_json(json.dumps(values), 7)
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"trial": "t", "status": "COMPLETE", "b": NaN}'])
def test_what_is_no_json_object(text):
    with pytest.raises(ResultsError, match="line 2"):
        TrialRecord.from_json(text, 2)


def test_whole_numbers_are_fine_where_floats_are_expected():
    assert TrialRecord.from_json('{"trial": "t", "status": "COMPLETE", "b": 1}').b == 1


def test_frontier_fields_are_the_first_fields_of_a_record():
    names = [field.name for field in dataclasses.fields(TrialRecord) if field.name != "status"]
    assert names[: len(FRONTIER_FIELDS)] == list(FRONTIER_FIELDS)
    assert set(MEASURED_FIELDS) <= set(names)


def test_measured_fields_are_those_that_are_known():
    assert measured_fields(full_record()) == {}
    record = TrialRecord(trial="t", status="COMPLETE", drop_test=0.0, latency_device="CPU", drop_val=1.0)
    assert measured_fields(record) == {"drop_test": 0.0, "latency_device": "CPU"}
