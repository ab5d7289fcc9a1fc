"""Fractions of a GPU, with Ray's logical GPUs: how many trials run together, and what each is shown."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import stand_in_run
from stand_in_run import WEIGHTS, StandInRun, Step, search_config

from rlprune.config_loading import config_to_dict
from rlprune.local_ray import start_local_ray
from rlprune.results.folder import RunFolder
from rlprune.search import ray_session
from rlprune.search.runner import run_trials

pytestmark = pytest.mark.ray

SECONDS_TO_MEET = 300.0


class MeetingRun(StandInRun):
    """Says in a file of its own which GPU it is shown, then waits until so many trials are there."""

    def step(self, on_part: Any = None) -> Step:
        if self.position == 0:
            place = Path(self.behaviour["place"])
            shown = [os.environ.get("CUDA_VISIBLE_DEVICES"), self.config.device]
            (place / str(self.config.seed)).write_text(json.dumps(shown))
            began = time.monotonic()
            while len(list(place.iterdir())) < self.behaviour["together"]:
                assert time.monotonic() - began < SECONDS_TO_MEET, "not so many trials run together"
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


def shown_to_trials(path: Path, gpus: float, trials: int, together: int) -> list[tuple[str | None, str]]:
    """What every trial of a search was shown: CUDA_VISIBLE_DEVICES and the device of its settings."""
    config = search_config((1.0,), trials, gpus_per_trial=gpus, cpus_per_trial=0.5)
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
    return [tuple(json.loads(file.read_text())) for file in place.iterdir()]


def test_trials_share_the_devices_that_they_are_given(two_gpus: None, tmp_path: Path) -> None:
    halves, none = tmp_path / "halves", tmp_path / "none"
    halves.mkdir()
    none.mkdir()
    shown = shown_to_trials(halves, gpus=0.5, trials=4, together=4)
    assert Counter(device for device, _ in shown) == {"0": 2, "1": 2}
    assert {device for _, device in shown} == {"cpu"}, "there is no real GPU here"
    assert {device or "" for device, _ in shown_to_trials(none, gpus=0.0, trials=1, together=1)} == {""}
