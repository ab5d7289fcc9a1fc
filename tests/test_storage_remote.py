"""Other people's object stores and other processes' runs: what is refused, and who writes."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile
from tiny_network import FACTORY

from rlprune.cli import main
from rlprune.config_loading import config_to_dict, load_config
from rlprune.errors import ResultsError
from rlprune.library.searching import Frontier
from rlprune.results.folder import TRIALS, RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.checkpoint_places import forget_checkpoints
from rlprune.storage import Mirror, RemoteFolder, download_run, fetched


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of an object store in this process's memory; copies of it are made below ``tmp_path/deep``."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "deep" / "er"))
    yield "memory://bucket/run"
    fsspec.filesystem("memory").store.clear()


def run_at(url: str, *trials: str) -> RunFolder:
    """A run of a network of the user's own, driven by this process, with rows of these trials."""
    config = config_to_dict(load_config(None, {"model.factory": FACTORY, "model.arguments": {}}))
    folder = RunFolder.create(url, config, {"verb": "search"})
    for trial in trials:
        add_row(folder, trial)
    return folder


def add_row(folder: RunFolder, trial: str) -> None:
    folder.append(TrialRecord(trial=trial, status="COMPLETE", drop_val=1.0, macs_ratio=0.5))
    folder.push()


def trials_at(url: str) -> list[str]:
    return [json.loads(line)["trial"] for line in (RemoteFolder(url).read(TRIALS) or b"").splitlines()]


# ---- names that lead out of a folder


@pytest.mark.parametrize(
    "name", ["../evil", "models/../../evil", "./evil", "models//evil", "/evil", "..", ""]
)
def test_a_name_that_may_lead_out_of_the_folder_is_refused(name: str, url: str, tmp_path: Path) -> None:
    remote = RemoteFolder(url)
    remote.write("good", b"good")
    with pytest.raises(ResultsError, match="nothing was copied: an object there is named"):
        remote.download(["good", name], tmp_path / "to")
    assert not (tmp_path / "to").exists()
    remote.download(["good"], tmp_path / "to")
    assert (tmp_path / "to" / "good").read_bytes() == b"good"


@pytest.mark.parametrize(
    "copy",
    [
        lambda url, to: download_run(url, to),
        lambda url, to: fetched(url).__enter__(),
        lambda url, to: RunFolder.open(url),
        lambda url, to: Mirror(url),
    ],
    ids=["download_run", "fetched", "open", "mirror"],
)
def test_no_way_to_copy_a_run_writes_outside_of_the_copy(
    copy: Callable[[str, Path], object], url: str, tmp_path: Path
) -> None:
    run_at(url)
    memory, path = fsspec.filesystem("memory"), "/bucket/run/../../evil"
    memory.store[path] = MemoryFile(memory, path, b"evil")
    assert "../../evil" in RemoteFolder(url).files()
    with pytest.raises(ResultsError, match=r"'\.\./\.\./evil'"):
        copy(url, tmp_path / "deep" / "er" / "copy")
    assert main(["report", url, "--to", str(tmp_path / "deep" / "er" / "report")]) == 2
    assert not list(tmp_path.rglob("evil"))


# ---- who writes a run


@pytest.mark.parametrize(
    "command",
    [["inspect", "URL", "t9"], ["compare", "URL", "--rows", "t9"], ["resume", "URL"]],
    ids=lambda command: command[0],
)
def test_a_command_that_only_looks_or_is_refused_leaves_the_driver_in_peace(
    command: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = run_at(url, "t0000")
    assert main([url if word == "URL" else word for word in command]) == 2
    assert "has taken this run over" not in capsys.readouterr().err
    add_row(driver, "t0001")
    assert trials_at(url) == ["t0000", "t0001"]


def test_a_frontier_of_a_search_that_goes_on_leaves_its_driver_in_peace(url: str) -> None:
    driver = run_at(url, "t0000")
    assert [row["trial"] for row in Frontier(url).rows] == ["t0000"]
    add_row(driver, "t0001")
    assert trials_at(url) == ["t0000", "t0001"]


def test_a_reader_may_not_write_before_it_has_taken_the_run_over(url: str) -> None:
    run_at(url, "t0000")
    reader = RunFolder.open(url)
    with pytest.raises(ResultsError, match="has taken this run over"):
        add_row(reader, "t0001")
    assert trials_at(url) == ["t0000"]


def test_a_row_that_ends_while_the_run_is_taken_over_is_not_erased(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reads of the new driver the old one may still push, or be told that it may not."""
    driver, second = run_at(url, "t0000"), RunFolder.open(url)
    add_row(driver, "t0001")
    download = RemoteFolder.download

    def disturbed(remote: RemoteFolder, names: Iterable[str], to: Path) -> None:
        download(remote, names, to)
        with pytest.raises(ResultsError, match="has taken this run over"):
            add_row(driver, "t0002")

    monkeypatch.setattr(RemoteFolder, "download", disturbed)
    assert second.mirror is not None
    second.mirror.take_over()
    add_row(second, "t0003")
    assert trials_at(url) == ["t0000", "t0001", "t0003"]


def test_a_driver_that_was_taken_over_during_an_upload_does_not_write_its_rows(url: str) -> None:
    driver, second = run_at(url, "t0000"), RunFolder.open(url)
    assert driver.mirror is not None
    assert second.mirror is not None

    class SlowFolder(RemoteFolder):
        """A store where a network takes so long that the run has another driver when it is there."""

        def write(self, name: str, content: bytes) -> None:
            super().write(name, content)
            if name.startswith("models/"):
                second.mirror.take_over()
                add_row(second, "t0001")

    driver.mirror.remote = SlowFolder(url)
    driver.network_path("t0002").write_bytes(b"large")
    with pytest.raises(ResultsError, match="has taken this run over"):
        add_row(driver, "t0002")
    assert trials_at(url) == ["t0000", "t0001"]


def test_checkpoints_of_all_trials_go_with_one_look_at_the_store(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(url, "t0000", "t0001", "t0002")
    remote = RemoteFolder(url)
    for trial in ("t0000", "t0001", "t0002"):
        remote.write(f"tune/attempt-001/{trial}/checkpoint_000000/state.json", b"{}")
        remote.write(f"tune/attempt-001/{trial}/error.txt", b"why")
    looks = []
    files = RemoteFolder.files
    monkeypatch.setattr(RemoteFolder, "files", lambda folder: looks.append(folder) or files(folder))
    forget_checkpoints(run, ["t0000", "t0002"])
    assert len(looks) == 1
    left = [name for name in remote.files() if name.startswith("tune/")]
    assert left == [
        "tune/attempt-001/t0000/error.txt",
        "tune/attempt-001/t0001/checkpoint_000000/state.json",
        "tune/attempt-001/t0001/error.txt",
        "tune/attempt-001/t0002/error.txt",
    ]
