"""Run folders on an object store: what is written, in which order, by whom, and what is refused."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import fsspec
import pytest

from rlprune.cli import main
from rlprune.config import Config
from rlprune.config_loading import config_to_dict
from rlprune.errors import ConfigError, ResultsError
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.checkpoint_places import newest_remote_checkpoint
from rlprune.search.runner import _new_attempt
from rlprune.storage import Mirror, RemoteFolder, fetched, is_url, joined, local_path, shown


@pytest.fixture
def url():
    """A folder of an object store; here one in this process's memory. tests/cluster has a real S3 server."""
    yield "memory://bucket/prefix/run"
    fsspec.filesystem("memory").store.clear()


def record(trial, **fields):
    return TrialRecord(trial=trial, **{"status": "COMPLETE", "drop_val": 1.0, "macs_ratio": 0.5, **fields})


def test_the_folders_of_a_bucket_share_a_file_system():
    options = "?region=us-west-2&scheme=http&endpoint_override=127.0.0.1:9"
    run, other = RemoteFolder(f"s3://bucket/a/b%20c/{options}"), RemoteFolder(f"s3://bucket{options}")
    assert run.filesystem is other.filesystem
    assert (run.root, other.root) == ("bucket/a/b c", "bucket")
    assert RemoteFolder(f"s3://other/a{options}").filesystem is not run.filesystem


def test_places_are_paths_or_urls():
    assert is_url("s3://b/p")
    assert not any(map(is_url, ("results", "/mnt/x", "file:///mnt/x", Path("s3://b"))))
    assert local_path("file:///mnt/x") == Path("/mnt/x")
    assert local_path("file://localhost/my%20runs/50%25") == Path("/my runs/50%")
    assert local_path("~/x") == Path.home() / "x"
    assert joined("results", "run") == "results/run"
    assert joined("file:///mnt/x", "run", "tune") == "/mnt/x/run/tune"
    assert joined("s3://b/p/?region=eu", "run", "tune") == "s3://b/p/run/tune?region=eu"
    assert shown("s3://key:secret@b/p?endpoint_override=x") == "s3://b/p"


@pytest.mark.parametrize(("url", "machine"), [("file://nas/share", "nas"), ("file://~/runs", "~")])
def test_a_file_of_another_machine_is_refused(url, machine):
    with pytest.raises(ConfigError, match=f"names the machine '{machine}'; write .* file:///PATH"):
        local_path(url)


def test_what_is_written_can_be_read_listed_and_deleted(url, tmp_path):
    folder = RemoteFolder(url)
    assert folder.files() == []
    assert folder.read("a") is None
    folder.write("deep/er/b", b"2")
    folder.write("a", b"1")
    folder.write("a", b"11")
    assert folder.files() == ["a", "deep/er/b"]
    assert folder.read("a") == b"11"
    folder.download(folder.files(), tmp_path)
    assert (tmp_path / "deep" / "er" / "b").read_bytes() == b"2"
    folder.check_writable()
    folder.delete("a")
    assert folder.files() == ["deep/er/b"]
    with fetched(joined(url, "deep")) as copy:
        assert (copy / "er" / "b").read_bytes() == b"2"
    with fetched(str(tmp_path)) as same:
        assert same == tmp_path


@pytest.mark.parametrize("bad", ["nonsense://x/y", "s3://b/p?no_such_option=1"])
def test_what_is_no_storage_is_refused_with_what_to_do(bad):
    with pytest.raises(ResultsError, match="s3://BUCKET/PREFIX"):
        RemoteFolder(bad).files()


def test_a_mirror_uploads_what_has_changed_and_only_that(url):
    mirror = Mirror(url)
    (mirror.path / "models").mkdir()
    (mirror.path / "tune" / "attempt-001").mkdir(parents=True)
    for name in ("config.yaml", "models/t0000.pt", "models/t0001.partial", "tune/attempt-001/x", ".hidden"):
        (mirror.path / name).write_text(name)
    mirror.push()
    assert mirror.remote.files() == ["config.yaml", "driver.json", "models/t0000.pt"]
    mirror.remote.write("models/t0000.pt", b"of somebody else")
    (mirror.path / "config.yaml").write_text("new")
    mirror.push()
    assert mirror.remote.read("config.yaml") == b"new"
    assert mirror.remote.read("models/t0000.pt") == b"of somebody else"


def test_another_machine_goes_on_with_what_was_pushed(url):
    first = RunFolder.create(url, config_to_dict(Config()), {"cores": 2})
    first.append(record("a"))
    first.push()
    first.append(record("lost"))
    second = RunFolder.open(url)
    second.mirror.take_over()
    assert second.path != first.path
    assert [row.trial for row in second.records()] == ["a"]
    assert second.config() == config_to_dict(Config())
    second.append(record("b"))
    second.push()
    with pytest.raises(ResultsError, match=r"process \d+ on .+ has taken this run over"):
        first.push(patient=True)
    assert [row.trial for row in RunFolder.open(url).records()] == ["a", "b"]


def test_a_database_is_uploaded_as_of_its_last_transaction(url, tmp_path):
    mirror = Mirror(url)
    with closing(sqlite3.connect(mirror.path / "study.db")) as database:
        database.execute("create table trials (number integer)")
        database.execute("insert into trials values (1)")
        database.commit()
        database.execute("insert into trials values (2)")
        mirror.push()
    (tmp_path / "study.db").write_bytes(mirror.remote.read("study.db"))
    with closing(sqlite3.connect(tmp_path / "study.db")) as copy:
        assert copy.execute("select * from trials").fetchall() == [(1,)]


class FailingFolder(RemoteFolder):
    """A store that cannot be reached once its third file was written."""

    def write(self, name, content):
        if len(self.files()) >= 3:
            raise ResultsError("no route to the store")
        super().write(name, content)


def test_networks_are_there_before_their_rows_and_rows_before_the_study(url):
    mirror = Mirror(url)
    (mirror.path / "models").mkdir()
    for name in ("study.db", "trials.jsonl", "models/t0000.pt", "env.json"):
        (mirror.path / name).touch()
    mirror.remote = FailingFolder(url)
    with pytest.raises(ResultsError, match="no route"):
        mirror.push()
    assert mirror.remote.files() == ["driver.json", "env.json", "models/t0000.pt"]


def test_a_store_that_cannot_be_reached_is_tried_again_for_some_minutes(url):
    now = 0.0
    mirror = Mirror(url, clock=lambda: now)
    for name in "abc":
        (mirror.path / name).touch()
    reachable, mirror.remote = mirror.remote, FailingFolder(url)
    mirror.push(patient=True)
    now = 300.0
    mirror.push(patient=True)
    mirror.remote = reachable
    now = 301.0
    mirror.push(patient=True)
    assert "c" not in reachable.files(), "it waits a little between two tries"
    now = 311.0
    mirror.push(patient=True)
    assert "c" in reachable.files()
    (mirror.path / "d").touch()
    mirror.remote = FailingFolder(url)
    now = 1000.0
    mirror.push(patient=True)
    now = 1700.0
    with pytest.raises(ResultsError, match="no route to the store\nwhat is not there yet is kept in "):
        mirror.push(patient=True)


def test_what_is_not_uploaded_is_not_deleted_at_the_end(url: str) -> None:
    mirror = Mirror(url)
    (mirror.path / "trials.jsonl").write_text("row\n")
    mirror._tidy()
    assert (mirror.path / "trials.jsonl").exists()
    mirror.push()
    mirror._tidy()
    assert not mirror.path.exists()


def test_a_run_is_never_overwritten_and_what_is_no_run_is_not_opened(url):
    with pytest.raises(ResultsError, match=r"memory://bucket/prefix/run: holds no trials\.jsonl"):
        RunFolder.open(url)
    RunFolder.create(url, {}, {})
    with pytest.raises(ResultsError, match=r"--resume.*--name"):
        RunFolder.create(url, {}, {})


def test_the_newest_undamaged_checkpoint_over_all_attempts(url):
    run = RemoteFolder(url)
    for attempt, trial, number, damaged in (
        ("attempt-001", "t0000", 5, False),
        ("attempt-002", "t0000", 1, False),
        ("attempt-002", "t0000", 2, True),
        ("attempt-003", "t0001", 0, False),
    ):
        place = f"tune/{attempt}/{trial}/checkpoint_{number:06d}"
        run.write(f"{place}/state.pt", b"state")
        hashes = {"state.pt": "wrong"} if damaged else {"state.pt": hashlib.blake2b(b"state").hexdigest()}
        run.write(f"{place}/manifest.json", json.dumps(hashes).encode())
    run.write("tune/attempt-003/t0000/params.json", b"{}")
    assert newest_remote_checkpoint(run, "t0000") == f"{url}/tune/attempt-002/t0000/checkpoint_000001"
    assert newest_remote_checkpoint(run, "t0002") is None


def test_attempts_on_a_store_are_ordered_and_counted_by_their_numbers(url):
    folder = RunFolder.create(url, {}, {})
    (folder.path / "tune").mkdir()
    run = folder.mirror.remote
    for attempt in ("attempt-999", "attempt-1000"):
        place = f"tune/{attempt}/t0000/checkpoint_000000"
        run.write(f"{place}/state.pt", b"state")
        hashes = {"state.pt": hashlib.blake2b(b"state").hexdigest()}
        run.write(f"{place}/manifest.json", json.dumps(hashes).encode())
    assert newest_remote_checkpoint(run, "t0000") == f"{url}/tune/attempt-1000/t0000/checkpoint_000000"
    assert _new_attempt(folder) == "attempt-1001"


def test_report_copies_a_run_and_leaves_the_driver_in_peace(url, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(url, config_to_dict(Config()), {"cores": 2})
    RemoteFolder(url).write("tune/attempt-001/t0000/checkpoint_000000/state.pt", b"large")
    folder.append(record("t0000"))
    folder.push()
    assert main(["report", url]) == 0
    assert "copied to results/run" in capsys.readouterr().err
    assert not (tmp_path / "results" / "run" / "tune").exists()
    folder.append(record("t0001", drop_val=0.5, macs_ratio=0.6))
    folder.push()
    assert main(["report", url]) == 0
    assert (tmp_path / "results" / "run" / "frontier.csv").read_text().count("\n") == 3
    assert "frontier.csv" not in RemoteFolder(url).files()
    (tmp_path / "results" / "run" / "env.json").write_text("of another run")
    assert main(["report", url]) == 2
    assert "--to" in capsys.readouterr().err
    assert main(["report", url, "--to", "elsewhere"]) == 0
