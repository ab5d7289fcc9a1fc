"""What Ray's autoscaler knows of the laboratory's cloud: ``provider: {type: external, module: ...}``."""

import json
import urllib.error
import urllib.request
from typing import Any

from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider

_SECONDS = 60


class LaboratoryProvider(NodeProvider):
    """Its machines are hosts of the laboratory; it asks the cloud anew each time."""

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        return [
            name
            for name, machine in self._machines().items()
            if machine["up"] and tag_filters.items() <= machine["tags"].items()
        ]

    def is_running(self, node_id: str) -> bool:
        return bool(self._machines()[node_id]["up"])

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        return dict(self._machines()[node_id]["tags"])

    def internal_ip(self, node_id: str) -> str:
        return str(self._machines()[node_id]["address"])

    def external_ip(self, node_id: str) -> str:
        return self.internal_ip(node_id)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        try:
            asked = {"cluster": self.cluster_name, "config": node_config, "tags": tags, "count": count}
            return self._ask("create", **asked)
        except urllib.error.HTTPError as error:  # as Ray's own providers say that a cloud has no such machine
            reason = json.load(error)["error"]
            raise NodeLaunchException("InsufficientInstanceCapacity", reason, None) from error

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        self._ask("tag", name=node_id, tags=tags)

    def terminate_node(self, node_id: str) -> dict[str, Any]:
        self._ask("terminate", name=node_id)
        return {node_id: {}}

    def _machines(self) -> dict[str, Any]:
        return self._ask("list", cluster=self.cluster_name)

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        url = f"{self.provider_config['endpoint']}/{operation}"
        request = urllib.request.Request(url, json.dumps(arguments).encode())
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return dict(json.load(answer))
