"""Whether the cluster can run a trial at all: a trial runs on one node, which must have its CPUs and GPUs."""

from collections.abc import Iterable, Iterator, Mapping

from rlprune.config import SearchConfig
from rlprune.errors import ConfigError

_WANTED = (("CPU", "cpus_per_trial"), ("GPU", "gpus_per_trial"))


def check_resources(search: SearchConfig) -> None:
    """Refuse at once what Ray would wait for for ever. Ray must run.

    Raises:
        ConfigError: If no node, nor any that the cluster can start, has the CPUs or GPUs of a trial.
    """
    faults = list(resource_faults(search, [*_running_nodes(), *_nodes_to_start()]))
    if faults:
        raise ConfigError(faults)


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
            yield (
                f"search.{setting}: a trial asks for {wanted:g} {resource}s, but the node with the most has"
                f" {most:g}; use at most {most:g}, or a cluster with larger nodes (search.address)"
            )
            too_small = True
    fits = any(all(node.get(name, 0.0) >= getattr(search, key) for name, key in _WANTED) for node in nodes)
    if not fits and not too_small:
        yield (
            f"search.cpus_per_trial, search.gpus_per_trial: no single node has {search.cpus_per_trial:g} CPUs"
            f" and {search.gpus_per_trial:g} GPUs; a trial runs on one node"
        )


def share_of_this_node(cpus: float) -> float:
    """The share of this node, and so of its memory, that a trial with these CPUs has."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == here]
    return min(1.0, cpus / node["Resources"].get("CPU", cpus))


def _running_nodes() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _nodes_to_start() -> list[Mapping[str, float]]:
    """Resources of each type of node that an autoscaler may start; none where there is no autoscaler."""
    from ray._private.state import state

    cluster = state.get_cluster_config()
    return [] if cluster is None else [dict(group.resources) for group in cluster.node_group_configs]
