"""Searches of runs without networks on a real Ray: what is recorded, whatever goes wrong."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import ray
import stand_in_run
import torch
from stand_in_run import N_STEPS, WEIGHTS, run, search_config
from watched_search import PARTS, check_study, parts_done

from rlprune.errors import ConfigError, ResultsError
from rlprune.results.curves import read_curves
from rlprune.results.folder import RunFolder
from rlprune.seeding import child_seed
from rlprune.training.tensor_file import read_tensors

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_ends")]


def test_every_trial_has_its_row_whatever_goes_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, lines = tmp_path / "run", []
    faults = {"0.5": "killed once", "1.0": "raise", "2.0": "nan"}
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
    complete = next(record for record in records if record.status == "COMPLETE")
    assert len(read_curves(path, complete.trial)) == N_STEPS
    assert json.loads((path / "importances.json").read_text()) == {"trials": 2, "objectives": {}}
    for record in records:
        assert record.seed == child_seed(config.seed, "trial", int(record.trial[1:]))
        if record.network:
            saved = torch.load(path / record.network, weights_only=True)["weight"]
            assert torch.equal(saved, torch.tensor(WEIGHTS["weight"]) + record.seed)
    done = parts_done(tmp_path / "log")
    for record in records:
        times = [done[record.seed, position, part] for position, part in PARTS]
        raises = [1] * 6 + [0] * 2  # it goes on from the checkpoint and the part, to where it raises again
        assert times == (raises if record.b == 1.0 else [1] * 8)
        agents = read_tensors(path / "agents" / f"{record.trial}.pt")
        assert torch.equal(agents["conv1"]["mask"], torch.ones(8))
    assert list((path / "tune").glob("*/*/checkpoint_*")) == [], "rows, networks and agents are elsewhere"
    check_study(path, records)
    assert len([line for line in lines if "(4/4)" in line]) == 1
    again = [line.partition(" ")[0] for line in lines if "tried again" in line]
    by_b = {record.b: record.trial for record in records}
    assert Counter(again) == {by_b[0.5]: 1, by_b[1.0]: config.search.max_failures}
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert records == run(config, path, {}, lines), "a finished search has nothing left to do"


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
