"""Whether the cluster can run a trial at all: a trial runs on one node, which must have its CPUs and GPUs."""

import time
from collections.abc import Iterable, Iterator, Mapping

from rlprune.config import SearchConfig
from rlprune.errors import ConfigError
from rlprune.search.node_types import may_start_anything, node_types, nodes_expected, trials_side_by_side

_WANTED = (("CPU", "cpus_per_trial"), ("GPU", "gpus_per_trial"))
_SECONDS_TO_JOIN = 180.0  # for machines that `ray up` has only just started


def check_resources(search: SearchConfig) -> None:
    """Refuse at once what Ray would wait for for ever. Ray must run.

    Raises:
        ConfigError: If no node, nor any that the cluster can start, has the CPUs or GPUs of a trial.
    """
    if may_start_anything():
        return
    to_come = [found.resources for found in node_types() if found.most > 0]
    ends = time.monotonic() + _SECONDS_TO_JOIN
    while faults := list(resource_faults(search, [*_running_nodes(), *to_come])):
        if len(_running_nodes()) >= nodes_expected() or time.monotonic() > ends:
            raise ConfigError(faults)
        time.sleep(1)


def resource_faults(search: SearchConfig, nodes: Iterable[Mapping[str, float]]) -> Iterator[str]:
    """What no node has.

    Args:
        search: Settings of the search.
        nodes: CPUs and GPUs of each node, under ``CPU`` and ``GPU``.
    """
    nodes = list(nodes)
    too_small = False
    for resource, setting in _WANTED:
        wanted = getattr(search, setting)
        most = max((node.get(resource, 0.0) for node in nodes), default=0.0)
        if wanted > most:
            advice = f"use at most {most:g}, or a cluster with larger nodes (search.address)"
            if most == 0:
                advice = f"leave it out, or use a cluster that has {resource}s (search.address)"
            yield (
                f"search.{setting}: a trial asks for {wanted:g} {resource}s, but the node with the most has"
                f" {most:g}, and no autoscaler of the cluster can start one with more; {advice}"
            )
            too_small = True
    fits = any(all(node.get(name, 0.0) >= getattr(search, key) for name, key in _WANTED) for node in nodes)
    if not fits and not too_small:
        yield (
            f"search.cpus_per_trial, search.gpus_per_trial: no single node has {search.cpus_per_trial:g} CPUs"
            f" and {search.gpus_per_trial:g} GPUs; a trial runs on one node"
        )


def trials_to_ask_for(search: SearchConfig) -> int:
    """How many trials may wait for a place: as many as the nodes hold that the autoscaler starts for them.

    With no nodes to be started it is one: trials are asked for as late as can be, when Optuna knows more.
    """
    wanted = {resource: getattr(search, setting) for resource, setting in _WANTED}
    return max(1, trials_side_by_side(wanted, node_types()))


def share_of_this_node(cpus: float) -> float:
    """The share of this node, and so of its memory, that a trial with these CPUs has."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == here]
    return min(1.0, cpus / node["Resources"].get("CPU", cpus))


def _running_nodes() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
