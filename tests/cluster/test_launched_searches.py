"""Whole searches from `ray up` to `ray down`, on hosts that are namespaces of this machine.

The project's own cluster files are used; what is put in the place of a cloud is in ``lab/launching.py``.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LAB = Path(__file__).with_name("lab")
sys.path.insert(0, str(LAB))

from hosts import OUTER, why_not  # noqa: E402
from launching import load, on_own_machines, on_the_cloud  # noqa: E402

SECONDS = 1200
"""The longest that a scenario may take; each wait within it has a shorter limit of its own."""


in_time = pytest.mark.timeout(2 * SECONDS + 60)  # the first test of them runs the undisturbed search as well


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    """The dotted names of the settings that differ."""
    found = set()
    for name in ours.keys() | theirs.keys():
        one, other = ours.get(name), theirs.get(name)
        if isinstance(one, dict) and isinstance(other, dict) and name not in ("provider", "auth"):
            found |= {f"{name}.{inner}" for inner in differences(one, other)}
        elif one != other:
            found.add(name)
    return found


def test_the_laboratory_replaces_only_what_a_cloud_would_give() -> None:
    cloud = load("cluster.yaml")
    types = "available_node_types"
    assert differences(cloud, on_the_cloud(cloud)) == {
        "provider",
        "auth",
        "max_workers",
        f"{types}.gpu_spot.max_workers",
        f"{types}.gpu_on_demand.max_workers",
        f"{types}.gpu_spot.resources.CPU",
        f"{types}.gpu_spot.resources.GPU",
        f"{types}.gpu_on_demand.resources.CPU",
        f"{types}.gpu_on_demand.resources.GPU",
    }
    own = load("clusters/onprem.yaml")
    placed = on_own_machines(own, "10.77.0.1", ["10.77.0.2"])
    assert differences(own, placed) == {"provider", "auth", "worker_start_ray_commands"}
    words, before = placed["worker_start_ray_commands"], own["worker_start_ray_commands"]
    assert words == [*before[:-1], f"{before[-1]} --num-gpus=1"]


@pytest.fixture(scope="module")
def laboratory() -> None:
    """Skips the tests, or fails them, where there can be no laboratory."""
    reason = why_not()
    if reason and os.environ.get("RLPRUNE_REQUIRE_CLUSTER") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def run(scenario: str, folder: Path) -> None:
    command = [*OUTER, sys.executable, str(LAB / "launched.py"), scenario, str(folder)]
    done = subprocess.run(command, check=False, timeout=SECONDS)  # with its end all that runs in there ends
    if done.returncode:
        pytest.fail(f"{scenario}: exit code {done.returncode}; the timeline tells", pytrace=False)


@pytest.fixture(scope="module")
def undisturbed(laboratory: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the table of a search that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run("own-machines", folder)
    return folder


@pytest.mark.cluster
@in_time
def test_three_machines_of_ones_own(undisturbed: Path) -> None:
    assert (undisturbed / "frontier.md").read_text(encoding="utf-8").count("models/t0") >= 1


@pytest.mark.cluster
@in_time
def test_a_reclaimed_worker_is_replaced_and_its_trials_go_on(undisturbed: Path) -> None:
    run("spot", undisturbed)


@pytest.mark.cluster
@in_time
def test_a_second_cluster_goes_on_after_the_loss_of_the_head(undisturbed: Path) -> None:
    run("head", undisturbed)
