"""Fractions of a GPU, with Ray's logical GPUs: how many trials run together, and what each is shown."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import stand_in_run
import torch
from stand_in_run import WEIGHTS, StandInRun, Step, search_config

from rlprune.config_loading import config_to_dict
from rlprune.local_ray import start_local_ray
from rlprune.results.folder import RunFolder
from rlprune.rl.env_runners import EnvRunners
from rlprune.search import ray_session
from rlprune.search.runner import run_trials
from rlprune.search.searcher import GridOptunaSearch
from rlprune.training.device import given_device

pytestmark = pytest.mark.ray

SECONDS_TO_MEET = 300.0


def tell(place: Path, trial: int, process: str, device: str) -> None:
    """Say in a file of its own what a process is shown: its GPU, its device, its placement group."""
    group = ray.util.get_current_placement_group()
    shown = {
        "trial": trial,
        "process": process,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "device": device,
        "group": group.id.hex(),
        "asked": sorted(bundle.get("GPU", 0.0) for bundle in group.bundle_specs),
        "held": ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0),
    }
    (place / f"{trial}-{process}-{os.getpid()}").write_text(json.dumps(shown))


def tell_of_runner(place: Path, trial: int, splits: None) -> None:
    tell(place, trial, "env runner", given_device("auto", 0.25, torch.cuda.is_available()))


class MeetingRun(StandInRun):
    """Says what it and its env runners are shown, then waits until so many processes are there."""

    def step(self, on_part: Any = None) -> Step:
        if self.position == 0:
            place, search = Path(self.behaviour["place"]), self.config.search
            tell(place, self.config.seed, "trial", self.config.device)
            if search.env_runners_per_trial:
                self.runners = EnvRunners(
                    search.env_runners_per_trial,
                    partial(tell_of_runner, place, self.config.seed),
                    None,
                    cpus=search.cpus_per_env_runner,
                    gpus=search.gpus_per_env_runner,
                )
            began = time.monotonic()
            while len(list(place.iterdir())) < self.behaviour["together"]:
                assert time.monotonic() - began < SECONDS_TO_MEET, "not so many processes run together"
                time.sleep(0.05)
        return super().step(on_part)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in ray_session._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    start_local_ray(num_cpus=4, num_gpus=2, log_to_driver=False)
    modules = (stand_in_run, __import__(__name__))
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


def shown_to_processes(path: Path, trials: int, together: int, **search: Any) -> list[dict[str, Any]]:
    """What every process of a search was shown, of which so many have to run at the same time."""
    config = search_config((1.0,), trials, cpus_per_trial=0.5, **search)
    path.mkdir()
    folder = RunFolder.create(path / "run", config_to_dict(config), {})
    place = path / "place"
    place.mkdir()
    behaviour: Any = {"place": str(place), "together": together}
    records = run_trials(
        config, WEIGHTS, behaviour, folder=folder, resume=False, progress=print, build=MeetingRun
    )
    assert [record.status for record in records] == ["COMPLETE"] * trials, [
        record.error for record in records
    ]
    return [json.loads(file.read_text()) for file in place.iterdir()]


def test_trials_share_the_devices_that_they_are_given(two_gpus: None, tmp_path: Path) -> None:
    shown = shown_to_processes(tmp_path / "halves", trials=4, together=4, gpus_per_trial=0.5)
    assert Counter(each["visible"] for each in shown) == {"0": 2, "1": 2}
    assert {each["device"] for each in shown} == {"cpu"}, "there is no real GPU here"
    assert [each["asked"] for each in shown] == [[0.5]] * 4
    (none,) = shown_to_processes(tmp_path / "none", trials=1, together=1, gpus_per_trial=0.0)
    assert none["visible"] in (None, "")
    assert none["held"] == 0


def test_optuna_is_asked_when_a_place_is_free_and_no_earlier(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = GridOptunaSearch.ask

    def noted(searcher: GridOptunaSearch) -> Any:
        assignment = ask(searcher)
        ended = [trial for trial in searcher.study.trials if trial.state.is_finished()]
        if assignment is not None:
            asked.append((len(asked) + 1, len(ended)))
        return assignment

    monkeypatch.setattr(GridOptunaSearch, "ask", noted)
    shown_to_processes(tmp_path / "six", trials=6, together=2, gpus_per_trial=1.0)
    assert asked == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (6, 4)]


def test_env_runners_have_a_bundle_each_beside_their_trial(two_gpus: None, tmp_path: Path) -> None:
    """Two trials with two env runners each fill two GPUs; all six processes run at the same time."""
    runners = {"env_runners_per_trial": 2, "cpus_per_env_runner": 0.5, "gpus_per_env_runner": 0.25}
    shown = shown_to_processes(tmp_path / "runners", trials=2, together=6, gpus_per_trial=0.5, **runners)
    assert len(shown) == 6
    by_trial = {
        name: [each for each in shown if each["trial"] == name] for name in {e["trial"] for e in shown}
    }
    assert len(by_trial) == 2
    for processes in by_trial.values():
        held = sorted((each["process"], each["held"]) for each in processes)
        assert held == [("env runner", 0.25), ("env runner", 0.25), ("trial", 0.5)]
        assert len({each["group"] for each in processes}) == 1, "in the placement group of their trial"
        assert {tuple(each["asked"]) for each in processes} == {(0.25, 0.25, 0.5)}
    on_each: Counter[str] = Counter()
    for each in shown:
        on_each[each["visible"]] += each["held"]
    assert on_each == {"0": 1.0, "1": 1.0}, "no device is given twice"
    assert {each["device"] for each in shown} == {"cpu"}
