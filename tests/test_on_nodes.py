"""What the nodes are asked before a search, on a Ray of this machine."""

import time

import pytest
import ray

from rlprune.config import Config, SearchConfig
from rlprune.search import on_nodes

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
