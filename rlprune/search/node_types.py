"""What the autoscaler of a cluster may start: Ray does not tell its drivers, the head has a file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_HEADS_FILE = Path("~/ray_bootstrap_config.yaml")  # `ray up` writes it to the head


@dataclass(frozen=True)
class NodeType:
    """A kind of node.

    Attributes:
        resources: What a node of this type has, under Ray's names.
        most: How many there may be at once.
    """

    resources: Mapping[str, float]
    most: int


def node_types() -> list[NodeType]:
    """The types of node that the autoscaler may start; none where there is no autoscaler."""
    config = _heads_file()
    head, most = config.get("head_node_type"), config.get("max_workers", 0)
    return [
        NodeType(found["resources"], min(most, found.get("max_workers", most)))
        for name, found in config.get("available_node_types", {}).items()
        if name != head
    ]


def nodes_expected() -> int:
    """How many nodes there are, with the head, once those have joined that are started in any case."""
    return 1 + sum(
        found.get("min_workers", 0) for found in _heads_file().get("available_node_types", {}).values()
    )


def may_start_anything() -> bool:
    """Whether nodes may come of which nothing is known here: on Kubernetes, KubeRay alone knows its pods."""
    return os.environ.get("RAY_USAGE_STATS_KUBERAY_IN_USE") == "1"


def trials_side_by_side(wanted: Mapping[str, float], types: list[NodeType]) -> int:
    """How many trials all nodes that may be started can hold at once.

    Args:
        wanted: What a trial asks for, under Ray's names.
        types: The types of node; the largest number of nodes of one type counts, as types replace each other.
    """
    return max((found.most * _fit(wanted, found.resources) for found in types), default=0)


def _fit(wanted: Mapping[str, float], resources: Mapping[str, float]) -> int:
    asked = {name: _parts(amount) for name, amount in wanted.items() if amount > 0}
    return min((_parts(resources.get(name, 0.0)) // parts for name, parts in asked.items()), default=0)


def _parts(amount: float) -> int:
    """A resource as Ray counts it, in ten thousandths."""
    return max(1, round(amount * 10_000)) if amount > 0 else 0


def _heads_file() -> Mapping[str, Any]:
    path = _HEADS_FILE.expanduser()
    if not (path.is_file() and _on_the_head()):
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _on_the_head() -> bool:
    """Whether this process is on the head of the cluster that it is connected to, not on another."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    heads = (node for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
    return any(head["NodeID"] == here for head in heads)
