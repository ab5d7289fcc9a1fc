"""Searches on several hosts, which are namespaces of this machine: they share a folder and a network only.

Needs root, and of Debian the packages util-linux and iproute2. Where namespaces are not to be had the tests
are skipped and say why; with RLPRUNE_REQUIRE_CLUSTER=1 they fail.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).with_name("lab")
sys.path.insert(0, str(LAB))

from hosts import OUTER, why_not  # noqa: E402

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def laboratory() -> None:
    """Skips the tests, or fails them, where there can be no laboratory."""
    reason = why_not()
    if reason and os.environ.get("RLPRUNE_REQUIRE_CLUSTER") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def run(scenario: str) -> None:
    subprocess.run([*OUTER, sys.executable, str(LAB / "scenarios.py"), scenario], check=True)


def test_fractions_of_gpus_are_packed_onto_all_devices() -> None:
    run("packing")


def test_what_a_cluster_cannot_do_is_refused_early() -> None:
    run("refusals")
