"""What the nodes are asked before a search, on a Ray of this machine."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from rlprune import whole_run
from rlprune.config import BaseConfig, Config, SearchConfig
from rlprune.data import DataSplits
from rlprune.errors import ConfigError
from rlprune.job import Job
from rlprune.search import on_nodes
from rlprune.search.ray_session import ray_session
from rlprune.search.resources import PENDING

pytestmark = pytest.mark.ray


class Enough(Exception):
    """Ends a wait that has no end of its own."""


def test_a_node_that_does_not_answer_is_a_fault(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_nodes, "_SECONDS_TO_ANSWER", 1.0)

    def look(seconds: float) -> str:
        time.sleep(seconds)
        return ""

    (fault,) = on_nodes._faults_of_nodes(Config(), print, look, 600.0)
    (node,) = ray.nodes()
    assert fault == f"node {node['NodeManagerAddress']} did not answer within 1 s"


def test_waiting_for_a_node_says_so_again_and_again(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_nodes, "_SECONDS_BETWEEN_REMINDERS", 0.5)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            raise Enough

    config = Config(search=SearchConfig(gpus_per_trial=0.25))  # this Ray has no GPU, and nobody starts one
    with pytest.raises(Enough):
        on_nodes._faults_of_nodes(config, say, lambda: "")
    assert said[0] == "waiting for the first node that a trial fits on"
    assert said[1] == said[2] != said[0]
    assert "`ray status`" in said[1]


def test_workers_are_told_the_whole_path_of_the_run(
    local_ray: None, digits_splits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare_nodes(config: Config, place: str, *others: object) -> None:
        asked.append(place)
        raise Enough

    monkeypatch.setattr(whole_run, "prepare_nodes", prepare_nodes)
    monkeypatch.chdir(tmp_path)
    job = Job("search", lambda *_: [])
    with pytest.raises(Enough):
        whole_run.run_whole(
            Config(), "results/run", job, resuming=False, say=print, verbose=False, splits=digits_splits
        )
    assert asked == [str(tmp_path / "results")]


def test_a_base_model_that_cannot_be_trained_says_why_by_way_of_this_node(
    local_ray: None, digits_splits: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned, remote = [], ray.remote

    def without_gpus(**options: Any) -> Any:
        pinned.append(options.get("scheduling_strategy"))
        return remote(**{**options, "num_gpus": 0})

    def refused(*_: Any) -> None:
        raise ConfigError("device: the driver is too old")

    monkeypatch.setattr(ray, "remote", without_gpus)
    monkeypatch.setattr(on_nodes, "_trained", refused)
    config = Config(base=BaseConfig(cache=str(tmp_path)))
    with pytest.raises(ConfigError) as raised:
        on_nodes.train_base(config, digits_splits, print)
    assert str(raised.value) == "device: the driver is too old"
    lines, training = pinned
    assert (lines.node_id, lines.soft, training) == (ray.get_runtime_context().get_node_id(), False, None)


def test_what_one_search_asks_ahead_is_not_left_to_the_next(local_ray: None) -> None:
    before = os.environ.get(PENDING)
    with ray_session(Config()):
        assert PENDING in os.environ
    assert os.environ.get(PENDING) == before
