"""What a trial of an earlier process goes on with, from a run folder that may have been changed or moved."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stand_in_run import WEIGHTS, StandInRun, search_config

from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.errors import CheckpointError, ResultsError
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.checkpoint import MANIFEST, RECORD, _hash, write_checkpoint
from rlprune.search.journal import JOURNAL, Exploit, Journal, Meeting
from rlprune.search.recording import _LONGEST_ERROR, TrialRecorder, _copy_whole, _shortened
from rlprune.search.resuming import _warn, going_on, standings
from rlprune.search.runner import _new_attempt
from rlprune.search.searcher import OBJECTIVES
from rlprune.search.trainable import Assignment
from rlprune.storage import TRIALS_OWN

SETTINGS = {"agent.learning_rate": 0.3}
BEGUN = Assignment("t0000", 1.0, 7, {"agent.learning_rate": 0.1})
FOREIGN = ("model.factory", "data.source", "base.checkpoint", "search.address", "seed")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "run", {}, {})
    (made.path / TRIALS_OWN).mkdir()
    return made


def config_of(scheduler: str = "pbt") -> Config:
    return search_config((1.0,), 2, scheduler=scheduler)


def checkpoint(folder: RunFolder, of: str, **fields: Any) -> Path:
    """A checkpoint whose hashes are right, whatever its record says."""
    run = StandInRun(search_config((1.0,), 1), WEIGHTS, {})
    run.step(lambda part: None)
    path = folder.path / TRIALS_OWN / "attempt-001" / of / "checkpoint_000000"
    path.mkdir(parents=True)
    write_checkpoint(path, run, {**BEGUN.for_record(), "settings": SETTINGS, **fields})
    return path


def journal_of(folder: RunFolder, checkpoint: str, **changes: Any) -> Journal:
    """What a population has decided: t0000 is to go on as t0001 does."""
    lineage = [{"step": 0}, {"step": 1, "donor": "t0001"}]
    agreed = {**vars(BEGUN), "settings": SETTINGS, "lineage": lineage, **changes}
    journal = Journal(folder.path / TRIALS_OWN / JOURNAL)
    journal.append(Meeting("b=1.0", 1, [], [Exploit("t0000", "t0001", checkpoint, agreed)]))
    return Journal(folder.path / TRIALS_OWN / JOURNAL)


def test_a_trial_goes_on_from_its_checkpoint_with_the_settings_found_there(folder: RunFolder) -> None:
    newest = checkpoint(folder, "t0000", trial="../x", seed=99, target_macs=0.5)
    found = going_on(config_of("none"), folder, Journal(folder.path / JOURNAL), BEGUN)
    assert found == replace(BEGUN, settings=SETTINGS, checkpoint=str(newest)), (
        "its name, seed and target stay"
    )


@pytest.mark.parametrize("name", FOREIGN)
def test_a_checkpoint_that_sets_what_is_not_sampled_is_refused(folder: RunFolder, name: str) -> None:
    path = checkpoint(folder, "t0000")
    record = json.loads((path / RECORD).read_text())
    record["settings"][name] = "trap_of_others:build"
    (path / RECORD).write_text(json.dumps(record))
    hashes = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**hashes, RECORD: _hash(path / RECORD)}))
    with pytest.raises(CheckpointError, match=f"checkpoint_000000: settings hold {name}.*; .* remove it"):
        going_on(config_of("none"), folder, Journal(folder.path / JOURNAL), BEGUN)


@pytest.mark.parametrize("name", FOREIGN)
def test_whatever_the_settings_name_a_trial_keeps_what_the_run_brings_in(name: str) -> None:
    config = load_config(None, {"model.factory": "resnet20", "model.arguments.width": 0.25, "seed": 3})
    value = 5 if name == "seed" else "trap_of_others:build"
    resolved = replace(BEGUN, settings={name: value, **SETTINGS}).to_config(config)
    assert (resolved.agent.learning_rate, resolved.pruning.b, resolved.seed) == (0.3, 1.0, BEGUN.seed)
    for section in ("model", "data", "base", "search", "device"):
        assert getattr(resolved, section) == getattr(config, section)


def test_what_a_population_agreed_on_gives_b_settings_and_lineage_and_no_more(folder: RunFolder) -> None:
    donor = checkpoint(folder, "t0001")
    journal = journal_of(folder, str(donor), trial="../../../x", seed=99, target_macs=0.5, b=2.0)
    found = going_on(config_of("mo-pbt"), folder, journal, BEGUN)
    lineage = journal.newest_exploit("t0000").assignment["lineage"]
    assert found == replace(BEGUN, b=2.0, settings=SETTINGS, lineage=lineage, checkpoint=str(donor))
    assert going_on(config_of("none"), folder, journal, BEGUN) == BEGUN, "without a population nobody copies"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": {"model.factory": "x:y"}}, r"settings hold model\.factory"),
        ({"settings": None}, "settings are missing"),
        ({"b": float("inf")}, "b is inf"),
        ({"b": None}, "b is None"),
        ({"b": "1"}, "b is '1'"),
        ({"lineage": 7}, "lineage is no list"),
        ({"lineage": [7]}, "lineage is no list"),
    ],
)
def test_a_journal_that_decides_what_no_population_can_is_refused(
    folder: RunFolder, changes: dict[str, Any], named: str
) -> None:
    journal = journal_of(folder, str(checkpoint(folder, "t0001")), **changes)
    with pytest.raises(CheckpointError, match=rf"populations\.jsonl: t0000: {named}"):
        going_on(config_of(), folder, journal, BEGUN)


def test_a_trial_with_a_target_takes_on_no_b(folder: RunFolder) -> None:
    begun = replace(BEGUN, b=None, target_macs=0.5)
    journal = journal_of(folder, str(checkpoint(folder, "t0001")), b=1.0)
    with pytest.raises(CheckpointError, match=r"b is 1\.0"):
        going_on(config_of(), folder, journal, begun)


@pytest.mark.parametrize("written", ["place", "path"], ids=["as now", "as by earlier versions"])
def test_a_run_folder_that_was_moved_keeps_what_a_population_decided(
    folder: RunFolder, tmp_path: Path, written: str
) -> None:
    donor = checkpoint(folder, "t0001")
    journal_of(folder, "attempt-001/t0001/checkpoint_000000" if written == "place" else str(donor))
    shutil.move(folder.path, tmp_path / "elsewhere")
    moved = RunFolder.open(tmp_path / "elsewhere")
    found = going_on(config_of(), moved, Journal(moved.path / TRIALS_OWN / JOURNAL), BEGUN)
    assert found.checkpoint == str(moved.path / TRIALS_OWN / "attempt-001/t0001/checkpoint_000000")
    assert found.settings == SETTINGS


@pytest.mark.parametrize(
    "place", ["attempt-001/t0001/checkpoint_000005", "/etc", "attempt-001/../checkpoint_000000", "s3://b/p"]
)
def test_a_copy_whose_checkpoint_is_gone_is_told_of_once(
    folder: RunFolder, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    _warn.cache_clear()
    own = checkpoint(folder, "t0000")
    journal = journal_of(folder, place)
    with caplog.at_level(logging.WARNING):
        found = [going_on(config_of(), folder, journal, BEGUN) for _ in range(2)]
    assert found == [replace(BEGUN, settings=SETTINGS, checkpoint=str(own))] * 2
    (told,) = caplog.messages
    assert "t0000 cannot copy t0001 and goes on with its own network" in told
    assert place in told


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], "attempt-001"),
        (["attempt-002"], "attempt-003"),
        (["attempt-002", "attempt-010", "parts", "attempt-x"], "attempt-011"),
        (["attempt-999", "attempt-1000"], "attempt-1001"),
    ],
)
def test_an_attempt_is_numbered_after_the_highest_one(
    folder: RunFolder, there: list[str], expected: str
) -> None:
    for name in there:
        (folder.path / TRIALS_OWN / name).mkdir()
    assert _new_attempt(folder) == expected


def test_a_run_that_is_named_by_a_relative_path_gives_whole_paths_to_the_workers(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = checkpoint(folder, "t0000")
    monkeypatch.chdir(folder.path.parent)
    found = going_on(config_of("none"), RunFolder.open("run"), Journal(folder.path / JOURNAL), BEGUN)
    assert found.checkpoint == str(newest)


def test_the_step_that_is_reported_again_is_no_standing(folder: RunFolder) -> None:
    going = replace(BEGUN, checkpoint=str(checkpoint(folder, "t0000")))
    (record,) = standings(folder, [going, replace(BEGUN, trial="t0001")])
    assert record.groups == []


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_trial_without_a_finite_objective_has_failed(folder: RunFolder, name: str) -> None:
    told: list[TrialRecord] = []
    searcher, progress = SimpleNamespace(tell=told.append), SimpleNamespace(finished=lambda record: None)
    recorder = TrialRecorder(folder, searcher, progress)  # type: ignore[arg-type]
    path = checkpoint(folder, "t0000", status="COMPLETE", **{name: float("nan")})
    assert recorder.recover(replace(BEGUN, checkpoint=str(path)))
    (row,) = folder.records()
    assert (row.status, row.error, row.network) == ("FAILED", f"{name}: is no finite number", None)
    assert told == [row]


def test_curves_that_cannot_be_read_now_are_left_for_the_next_step(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    class Store:
        def open_input_stream(self, name: str) -> None:
            raise OSError("the store does not answer")

    recorder = TrialRecorder(folder, None, None)  # type: ignore[arg-type]
    trial = SimpleNamespace(config={"trial": "t0000"})
    recorder.on_checkpoint(1, [], trial, SimpleNamespace(filesystem=Store(), path="c"))  # type: ignore[arg-type]
    assert recorder.fault is None
    assert "the store does not answer" in caplog.text


def test_a_network_that_cannot_be_copied_is_named_and_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"t0000\.pt: No such file"):
        _copy_whole(tmp_path / "nothing.pt", tmp_path / "models" / "t0000.pt")
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"t0000\.pt: "):
        _copy_whole(tmp_path / "file", tmp_path / "file" / "t0000.pt")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_long_error_keeps_its_name_and_where_it_was_raised() -> None:
    lines = "".join(f'  File "deep_{n}.py", line 1\n' for n in range(1000))
    whole = f"ValueError: no good\n{lines}    raise ValueError('no good')"
    short = _shortened(whole)
    assert short.startswith("ValueError: no good\n")
    assert short.endswith("    raise ValueError('no good')")
    assert f"... {len(whole) - _LONGEST_ERROR:,} characters ..." in short
    assert len(short) < _LONGEST_ERROR + 50
    assert _shortened(short[:_LONGEST_ERROR]) == short[:_LONGEST_ERROR]
