"""The run folder: append-only, safe against kills, refused where something is already."""

import errno
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, config_to_dict
from rlprune.errors import ResultsError
from rlprune.results import folder as folder_module
from rlprune.results.environment import describe_environment
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord


def record(trial, **fields):
    return TrialRecord(trial=trial, **{"status": "COMPLETE", "drop_val": 1.0, "macs_ratio": 0.5, **fields})


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "results" / "run", config_to_dict(Config()), {"cores": 2})


def trials(folder):
    return folder.path / "trials.jsonl"


def test_create_open_and_read_back(folder):
    opened = RunFolder.open(str(folder.path))
    assert config_from_dict(opened.config()) == Config()
    assert json.loads((folder.path / "env.json").read_text()) == {"cores": 2}
    assert opened.records() == []
    assert opened.network_path("t_1") == folder.path / "models" / "t_1.pt"
    assert opened.network_path("t_1").parent.is_dir()
    assert {item.name for item in folder.path.iterdir()} == {
        "config.yaml",
        "env.json",
        "models",
        "trials.jsonl",
    }


def test_an_empty_folder_may_be_used(tmp_path):
    assert RunFolder.create(tmp_path, {}, {}).records() == []


def test_a_folder_with_anything_in_it_is_refused_and_untouched(folder, tmp_path):
    before = (folder.path / "config.yaml").read_bytes()
    with pytest.raises(ResultsError, match=r"--resume.*--name"):
        RunFolder.create(folder.path, {"seed": 9}, {})
    assert (folder.path / "config.yaml").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="file: holds something"):
        RunFolder.create(tmp_path / "file", {}, {})
    with pytest.raises(ResultsError, match="file is no folder that can be written to"):
        RunFolder.create(tmp_path / "file" / "run", {}, {})


def test_a_folder_that_cannot_be_made_leaves_nothing_behind(tmp_path, monkeypatch):
    place = tmp_path / "results" / "run"
    with pytest.raises(ResultsError, match="cannot represent an object"):
        RunFolder.create(place, {"seed": object()}, {})
    assert list(tmp_path.iterdir()) == []

    def full(path, content):
        path.write_text("half")
        if path.name == "env.json":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "write_atomically", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        RunFolder.create(place, {}, {})
    assert list(tmp_path.iterdir()) == []
    place.mkdir(parents=True)
    with pytest.raises(ResultsError, match="No space left on device"):
        RunFolder.create(place, {}, {})
    assert list(place.iterdir()) == []
    monkeypatch.undo()
    assert RunFolder.create(place, {}, {}).records() == []


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="holds no trials"):
        RunFolder.open(tmp_path)
    with pytest.raises(ResultsError, match="is not a folder"):
        RunFolder.open(tmp_path / "missing")


def test_a_damaged_config_is_named(folder):
    (folder.path / "config.yaml").write_text("a: [1\n")
    with pytest.raises(ResultsError, match=r"config\.yaml"):
        folder.config()
    (folder.path / "config.yaml").write_text("- 1\n")
    with pytest.raises(ResultsError, match="expected a mapping"):
        folder.config()


def test_rows_are_kept_in_order_and_only_appended(folder):
    folder.append(record("b", drop_val=math.nan))
    first = trials(folder).read_bytes()
    folder.append(record("a", status="FAILED", error="boom\nagain"))
    assert trials(folder).read_bytes().startswith(first)
    assert [(row.trial, row.status, row.drop_val) for row in folder.records()] == [
        ("b", "COMPLETE", None),
        ("a", "FAILED", 1.0),
    ]


def test_a_trial_has_one_row(folder):
    folder.append(record("a"))
    before = trials(folder).read_bytes()
    with pytest.raises(ResultsError, match="trial a has a row already"):
        RunFolder.open(folder.path).append(record("a", drop_val=2.0))
    assert trials(folder).read_bytes() == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "ü"])
def test_trial_names_that_are_no_file_names_are_refused(folder, name):
    with pytest.raises(ResultsError, match="trial name"):
        folder.append(record(name))
    assert folder.records() == []


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_last_line_cut_off_by_a_kill_is_passed_over_and_said_once(folder, caplog, cut):
    for name in ("a", "b"):
        folder.append(record(name))
    whole = trials(folder).read_bytes()
    first = whole.index(b"\n") + 1
    trials(folder).write_bytes(whole[: first + cut])
    with caplog.at_level(logging.WARNING):
        assert [row.trial for row in folder.records()] == ["a"]
        folder.records()
    assert [
        entry.getMessage().endswith("is cut off; the 1 rows before it are kept") for entry in caplog.records
    ] == [True]
    folder.append(record("b"))
    assert trials(folder).read_bytes() == whole


def test_a_last_row_without_its_newline_is_a_row(folder):
    folder.append(record("a"))
    whole = trials(folder).read_bytes()
    trials(folder).write_bytes(whole.rstrip(b"\n"))
    assert [row.trial for row in folder.records()] == ["a"]
    folder.append(record("b"))
    assert [row.trial for row in folder.records()] == ["a", "b"]
    assert trials(folder).read_bytes().startswith(whole)


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(folder):
    folder.append(record("a"))
    content = trials(folder).read_bytes()
    trials(folder).write_bytes(content + b"{broken\n" + content.replace(b'"a"', b'"b"'))
    with pytest.raises(ResultsError, match=r"trials\.jsonl: line 2: is not valid JSON"):
        folder.records()
    trials(folder).write_bytes(content + b"\xff\n")
    with pytest.raises(ResultsError, match="line 2"):
        folder.records()


def test_a_killed_writer_leaves_whole_rows(folder):
    script = """
        import sys
        from rlprune.results.folder import RunFolder
        from rlprune.results.record import TrialRecord
        folder = RunFolder.open(sys.argv[1])
        for index in range(100_000):
            folder.append(TrialRecord(trial=f"t{index}", status="COMPLETE", error="x" * 5000))
            print(index, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder.path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        written = next(int(line) for line in writer.stdout if int(line) >= 8)
        writer.send_signal(signal.SIGKILL)
    found = [row.trial for row in folder.records()]
    assert len(found) > written
    assert found == [f"t{index}" for index in range(len(found))]


def test_what_is_measured_at_the_end_is_kept_beside_the_rows(folder):
    folder.append(record("a"))
    folder.append(record("b", drop_val=2.0, macs_ratio=0.3))
    folder.append(record("c", drop_val=3.0, macs_ratio=0.9))
    before = trials(folder).read_bytes()
    rows = folder.write_frontier(folder.records(), None)
    assert [row.trial for row in rows] == ["a", "b"]
    assert not (folder.path / "measured.json").exists()
    rows[0].drop_test, rows[0].latency_device = 0.25, "CPU"
    folder.write_frontier(rows, None)
    rows[1].drop_test = 0.0
    folder.write_frontier(rows[1:], None)
    written = (folder.path / "measured.json").stat()
    folder.write_frontier(rows, None)
    again = (folder.path / "measured.json").stat()
    assert (again.st_ino, again.st_mtime_ns) == (written.st_ino, written.st_mtime_ns), "nothing new"
    assert trials(folder).read_bytes() == before
    assert [(row.drop_test, row.latency_device) for row in RunFolder.open(folder.path).records()] == [
        (0.25, "CPU"),
        (0.0, ""),
        (None, ""),
    ]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"drop_val": 0.0}}'])
def test_damaged_measurements_are_an_error(folder, content):
    (folder.path / "measured.json").write_text(content)
    with pytest.raises(ResultsError, match=r"measured\.json"):
        folder.records()


def test_the_environment_is_json_and_tells_what_ran():
    environment = json.loads(json.dumps(describe_environment(["rlprune", "search"]), allow_nan=False))
    assert environment["command"] == ["rlprune", "search"]
    assert environment["cores"] >= environment["cores_usable"] >= 1
    assert environment["versions"]["numpy"]
    assert environment["cpu"]
