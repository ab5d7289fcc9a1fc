"""Which type of node the autoscaler starts, with Ray's own scheduler and the project's cluster file."""

from functools import partial
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for
from ray.autoscaler.node_launch_exception import NodeLaunchException

from rlprune.node_choice import ORDER, prefer_available

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "cluster.yaml").read_text(encoding="utf-8"))
REFUSED = NodeLaunchException("InsufficientInstanceCapacity", "no spot machine", None)
HALF_AN_HOUR = 1800


@pytest.fixture
def clock():
    return {"now": 1_000_000.0}


@pytest.fixture
def tracker(clock, monkeypatch):
    monkeypatch.setenv(ORDER, "gpu_spot,gpu_on_demand")
    return NodeProviderAvailabilityTracker(timer=lambda: clock["now"])


def started(tracker, existing=None, wanted=8, memory=None):
    """How many nodes of which type are started for so many trials of a quarter of a GPU."""
    types = {name: dict(node_type) for name, node_type in CONFIG["available_node_types"].items()}
    for name in ("gpu_spot", "gpu_on_demand"):
        types[name]["resources"] = {"CPU": 8, "GPU": 1}
    if memory:
        types[memory]["resources"]["memory"] = 32e9
    scorer = partial(prefer_available, node_availability_summary=tracker.summary())
    bundles = [{"CPU": 1.0, "GPU": 0.25}] * wanted
    nodes, left = get_nodes_for(types, existing or {}, "head", 4, bundles, scorer)
    assert left == []
    return dict(nodes)


def test_spot_comes_first(tracker):
    assert started(tracker) == {"gpu_spot": 2}


def test_what_the_cloud_has_refused_is_not_asked_for_again_at_once(tracker, clock):
    tracker.update_node_availability("gpu_spot", int(clock["now"]), REFUSED)
    assert started(tracker) == {"gpu_on_demand": 2}
    clock["now"] += HALF_AN_HOUR + 1
    assert started(tracker) == {"gpu_spot": 2}


def test_a_spot_machine_that_came_puts_spot_first_again(tracker, clock):
    tracker.update_node_availability("gpu_spot", int(clock["now"]), REFUSED)
    tracker.update_node_availability("gpu_spot", int(clock["now"]) + 5, None)
    assert started(tracker) == {"gpu_spot": 2}


def test_when_both_are_refused_spot_is_asked_for(tracker, clock):
    for name in ("gpu_spot", "gpu_on_demand"):
        tracker.update_node_availability(name, int(clock["now"]), REFUSED)
    assert started(tracker) == {"gpu_spot": 2}


def test_a_type_that_nothing_fits_on_is_not_weighed(tracker):
    weigh = partial(prefer_available, node_availability_summary=tracker.summary())
    assert weigh({"CPU": 8.0}, [{"GPU": 1.0}], "cpu") is None


def test_a_type_that_has_a_node_already_comes_first_all_the_same(tracker):
    """Ray knows the memory of a type once a node of it is there, which no trial asks for."""
    assert started(tracker, {"gpu_spot": 1}, memory="gpu_spot") == {"gpu_spot": 2}


def test_types_that_are_not_named_come_last(tracker, monkeypatch):
    monkeypatch.setenv(ORDER, "gpu_on_demand")
    assert started(tracker) == {"gpu_on_demand": 2}


def test_the_head_is_told_to_weigh_so():
    words = CONFIG["head_start_ray_commands"][-1].partition(";")[2].partition(";")[0].split()
    name = f"{prefer_available.__module__}.{prefer_available.__name__}"
    assert words == [
        "export",
        "RAY_enable_autoscaler_v2=0",
        f"{ORDER}=gpu_spot,gpu_on_demand",
        f"RAY_AUTOSCALER_UTILIZATION_SCORER={name}",
    ]
