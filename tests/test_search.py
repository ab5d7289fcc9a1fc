"""Searches of runs without networks on a real Ray: what is recorded, whatever goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import ray
import stand_in_run
import torch
from optuna.trial import TrialState
from stand_in_run import N_PARTS, N_STEPS, WEIGHTS, run, search_config

from rlprune.errors import ConfigError, ResultsError
from rlprune.results.curves import read_curves
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.seeding import child_seed
from rlprune.training.tensor_file import read_tensors

pytestmark = pytest.mark.ray
PARTS = [(step, part) for step in range(N_STEPS) for part in range(N_PARTS)]


@pytest.fixture(autouse=True)
def ray_ends() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(stand_in_run)
    yield
    ray.cloudpickle.unregister_pickle_by_value(stand_in_run)
    ray.shutdown()


def check_study(path: Path, records: list[TrialRecord]) -> None:
    """The study says of each trial what its row says."""
    study = optuna.load_study(study_name="rlprune", storage=f"sqlite:///{path / 'study.db'}")
    states = {"COMPLETE": TrialState.COMPLETE, "FAILED": TrialState.FAIL, "STOPPED": TrialState.PRUNED}
    assert len(study.trials) == len(records)
    for record in records:
        trial = study.trials[int(record.trial[1:])]
        assert trial.state == states[record.status]
        assert trial.params == {"pruning.b": record.b, **record.settings}
        assert trial.values == ([record.drop_val, record.macs_ratio] if record.status == "COMPLETE" else None)
        assert trial.user_attrs.get("network") == record.network


def steps_done(log: Path) -> Counter:
    """How often each part of each step of each trial (by its seed) was done."""
    return Counter(tuple(json.loads(line)) for line in log.read_text().splitlines())


def test_every_trial_has_its_row_whatever_goes_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, lines = tmp_path / "run", []
    faults = {"0.5": "die once", "1.0": "raise", "2.0": "nan"}
    config = search_config((0.5, 1.0, 2.0, 4.0), 1)
    records = run(config, path, {"log": str(tmp_path / "log"), "b_faults": faults}, lines)
    assert sorted(record.trial for record in records) == [f"t{number:04d}" for number in range(4)]
    assert Counter((record.b, record.status) for record in records) == {
        (0.5, "COMPLETE"): 1,
        (1.0, "FAILED"): 1,
        (2.0, "FAILED"): 1,
        (4.0, "COMPLETE"): 1,
    }
    assert {record.error.partition("\n")[0] for record in records} == {
        "",
        "PruningError: group conv3 cannot be cut",
        "drop_val: is no finite number",
    }
    assert {file.stem for file in (path / "curves").iterdir()} == {record.trial for record in records}
    assert len(read_curves(path, records[-1].trial)) == N_STEPS
    assert json.loads((path / "importances.json").read_text()) == {"trials": 2, "objectives": {}}
    for record in records:
        assert record.seed == child_seed(config.seed, "trial", int(record.trial[1:]))
        if record.network:
            saved = torch.load(path / record.network, weights_only=True)["weight"]
            assert torch.equal(saved, torch.tensor(WEIGHTS["weight"]) + record.seed)
    done = steps_done(tmp_path / "log")
    for record in records:
        times = [done[record.seed, position, part] for position, part in PARTS]
        raises = [1] * 6 + [0] * 2  # it goes on from the checkpoint and the part, to where it raises again
        assert times == (raises if record.b == 1.0 else [1] * 8)
        agents = read_tensors(path / "agents" / f"{record.trial}.pt")
        assert torch.equal(agents["conv1"]["mask"], torch.ones(8))
    assert list((path / "tune").glob("*/*/checkpoint_*")) == [], "rows, networks and agents are elsewhere"
    check_study(path, records)
    assert len([line for line in lines if "(4/4)" in line]) == 1
    assert len([line for line in lines if "tried again" in line]) == 2
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert records == run(config, path, {}, lines), "a finished search has nothing left to do"


def start_script(path: Path, settings: dict) -> subprocess.Popen:
    command = [sys.executable, stand_in_run.__file__, str(path), json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment)


def wait_for_parts(process: subprocess.Popen, log: Path, number: int) -> None:
    """Wait until so many parts of steps were done; a process that ended earlier fails the test."""
    while not log.exists() or len(log.read_text().splitlines()) < number:
        assert process.poll() is None, "the search has ended before it could be disturbed"
        time.sleep(0.05)


def test_nothing_is_lost_when_the_driver_is_killed(tmp_path: Path) -> None:
    path, log = tmp_path / "run", tmp_path / "log"
    settings = {"b_grid": [0.5, 1.0], "num_samples": 3, "seconds": 0.3, "log": str(log)}
    for parts in (7, 21):
        process = start_script(path, settings)
        wait_for_parts(process, log, parts)
        process.kill()
        process.wait()
    records = run(search_config((0.5, 1.0), 3), path, settings, [])
    assert Counter(record.b for record in records) == {0.5: 3, 1.0: 3}
    assert len({record.trial for record in records}) == 6
    check_study(path, records)
    done = steps_done(log)
    assert set(done) == {(record.seed, *part) for record in records for part in PARTS}
    repeated = sum(done.values()) - len(done)
    assert repeated <= 2 * (os.cpu_count() or 1), "more than the parts in progress were repeated"

    whole = run(search_config((0.5, 1.0), 3), tmp_path / "whole", {}, [])
    by_trial = {record.trial: record for record in whole}
    first = [record for record in records if record.trial in ("t0000", "t0001")]
    assert first == [by_trial[record.trial] for record in first], "resumed or not, a trial is the same"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_gracefully_and_can_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    path, log = tmp_path / "run", tmp_path / "log"
    settings = {"b_grid": [1.0], "num_samples": 4, "seconds": 0.3, "log": str(log)}
    process = start_script(path, settings)
    wait_for_parts(process, log, N_PARTS * N_STEPS + 1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    before = RunFolder.open(path).records()
    assert len(before) < 4
    records = run(search_config((1.0,), 4), path, settings, [])
    assert records[: len(before)] == before
    assert sorted(record.trial for record in records) == ["t0000", "t0001", "t0002", "t0003"]
    check_study(path, records)


def test_more_than_a_node_has_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cpus_per_trial: a trial asks for 10000 CPUs"):
        run(search_config((1.0,), 1, cpus_per_trial=1e4), tmp_path / "run", {}, [])
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://"])
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.address"):
        run(search_config((1.0,), 1, address=address), tmp_path / "run", {}, [])
    assert not ray.is_initialized()


def test_a_run_folder_that_cannot_be_written_ends_the_search(tmp_path: Path) -> None:
    path = tmp_path / "run"

    class Sabotage(list):
        def append(self, line: str) -> None:
            models = path / "models"
            if models.is_dir() and "complete" in line:
                shutil.rmtree(models)
                models.write_text("in the way")

    with pytest.raises((ResultsError, OSError)):
        run(search_config((1.0,), 6), path, {}, Sabotage())
    (path / "models").unlink()
    records = run(search_config((1.0,), 6), path, {}, [])
    assert Counter(record.status for record in records) == {"COMPLETE": 6}
    check_study(path, records)


def test_a_search_is_not_started_over(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", {}, {})
    (folder.path / "study.db").touch()
    with pytest.raises(ResultsError, match="--resume"):
        stand_in_run.run_trials(
            search_config((1.0,), 1),
            WEIGHTS,
            {},
            folder=folder,
            resume=False,
            progress=print,
            build=stand_in_run.StandInRun,
        )
