"""What a trial asks for, and whether the cluster can run it at all: each process runs on one node."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping

from rlprune.config import SearchConfig
from rlprune.errors import ConfigError
from rlprune.search.node_types import (
    NodeType,
    may_start_anything,
    node_types,
    nodes_expected,
    trials_side_by_side,
)

PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
"""Trials that Tune asks the cluster for ahead of their start: as many as there are to be places."""

_SETTINGS = {
    "trial": ("cpus_per_trial", "gpus_per_trial"),
    "env runner": ("cpus_per_env_runner", "gpus_per_env_runner"),
}
_SECONDS_TO_JOIN = 180.0  # for machines that `ray up` has only just started
_SECONDS_BETWEEN_LOOKS = 1.0


def bundles(search: SearchConfig) -> list[dict[str, float]]:
    """What a trial asks for: for its own process, then for each of its env runners; each on one node."""
    trial = {"CPU": search.cpus_per_trial, "GPU": search.gpus_per_trial}
    runner = {"CPU": search.cpus_per_env_runner, "GPU": search.gpus_per_env_runner}
    return [trial, *[dict(runner) for _ in range(search.env_runners_per_trial)]]


def check_resources(search: SearchConfig) -> None:
    """Refuse at once what Ray would wait for for ever. Ray must run.

    Raises:
        ConfigError: If no node, nor any that the cluster can start, has the CPUs or GPUs of a trial.
    """
    if may_start_anything():
        return
    to_come = [found.resources for found in node_types() if found.most > 0]
    ends = time.monotonic() + _SECONDS_TO_JOIN
    while faults := list(_faults(search, _running_nodes(), to_come)):
        if len(_running_nodes()) >= nodes_expected() or time.monotonic() > ends:
            raise ConfigError(faults)
        time.sleep(1)


def _faults(
    search: SearchConfig, running: list[Mapping[str, float]], to_come: list[Mapping[str, float]]
) -> Iterator[str]:
    yield from resource_faults(search, [*running, *to_come])
    if not to_come:
        yield from total_faults(search, running)


def resource_faults(search: SearchConfig, nodes: Iterable[Mapping[str, float]]) -> Iterator[str]:
    """What no node has.

    Args:
        search: Settings of the search.
        nodes: CPUs and GPUs of each node, under ``CPU`` and ``GPU``.
    """
    nodes = list(nodes)
    for (what, settings), bundle in zip(_SETTINGS.items(), bundles(search)[:2], strict=False):
        yield from _bundle_faults(what, settings, bundle, nodes)


def _bundle_faults(
    what: str, settings: tuple[str, str], bundle: Mapping[str, float], nodes: list[Mapping[str, float]]
) -> Iterator[str]:
    too_small = False
    for setting, (resource, wanted) in zip(settings, bundle.items(), strict=True):
        most = max((node.get(resource, 0.0) for node in nodes), default=0.0)
        if wanted > most:
            advice = f"use at most {most:g}, or a cluster with larger nodes (search.address)"
            if most == 0:
                advice = f"leave it out, or use a cluster that has {resource}s (search.address)"
            yield (
                f"search.{setting}: {_with_article(what)} asks for {wanted:g} {resource}s, but the node with"
                f" the most has {most:g}, and no autoscaler of the cluster can start one with more; {advice}"
            )
            too_small = True
    fits = any(all(node.get(name, 0.0) >= wanted for name, wanted in bundle.items()) for node in nodes)
    if not fits and not too_small:
        named = ", ".join(f"search.{setting}" for setting in settings)
        yield (
            f"{named}: no single node has {bundle['CPU']:g} CPUs and {bundle['GPU']:g} GPUs;"
            f" {_with_article(what)} runs on one node"
        )


def total_faults(search: SearchConfig, nodes: Iterable[Mapping[str, float]]) -> Iterator[str]:
    """What all nodes together do not have for one trial and its env runners."""
    if not search.env_runners_per_trial:
        return
    nodes = list(nodes)
    for resource, wanted in _of_a_trial(search).items():
        there = sum(node.get(resource, 0.0) for node in nodes)
        if wanted > there:
            yield (
                f"search.env_runners_per_trial: a trial and its {search.env_runners_per_trial} env runners"
                f" ask for {wanted:g} {resource}s, but the cluster has {there:g}; use fewer, or smaller ones"
            )


def trials_to_ask_for(search: SearchConfig) -> int:
    """How many trials may wait for a place: as many as the nodes hold that the autoscaler starts for them.

    With no nodes to be started it is one.
    """
    return max(1, trials_side_by_side(_of_a_trial(search), node_types()))


class Places:
    """How many trials may be under way; what is asked for later is asked for when Optuna knows more.

    Tune bounds only those that wait for a place: it would ask for as many again as run.
    """

    def __init__(self, search: SearchConfig) -> None:
        self._search = search
        self._places, self._looked = 1, -_SECONDS_BETWEEN_LOOKS

    def __call__(self) -> int:
        """The places that are promised, or those of the nodes that run now if they are more; at least one."""
        if time.monotonic() - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._places, self._looked = self._now(), time.monotonic()
        return self._places

    def _now(self) -> int:
        said = os.environ.get(PENDING, "")
        promised = int(said) if said.isdecimal() else 1
        there = trials_held(self._search, _running_nodes())
        others = self._search.address != "local" or may_start_anything()
        # an autoscaler may be there of which nothing is known: it sees the one that waits
        waits = promised <= 1 and others and not node_types()
        return max(1, promised, there + waits)


def trials_held(search: SearchConfig, nodes: list[Mapping[str, float]]) -> int:
    """How many trials some nodes hold at once, or rather more where a trial has env runners on several."""
    wanted = _of_a_trial(search)
    if search.env_runners_per_trial:
        nodes = [{name: sum(node.get(name, 0.0) for node in nodes) for name in wanted}]
    return sum(trials_side_by_side(wanted, [NodeType(node, 1)]) for node in nodes)


def _of_a_trial(search: SearchConfig) -> dict[str, float]:
    """What a trial and its env runners ask for together."""
    return {name: sum(bundle[name] for bundle in bundles(search)) for name in ("CPU", "GPU")}


def _with_article(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"


def share_of_this_node(cpus: float) -> float:
    """The share of this node, and so of its memory, that a trial with these CPUs has."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == here]
    return min(1.0, cpus / node["Resources"].get("CPU", cpus))


def _running_nodes() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
