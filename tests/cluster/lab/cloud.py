"""A cloud: hands machines out and takes them back, over HTTP, and keeps a tally of them."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hosts import GATEWAY, Host, Laboratory, say

PORT = 8700
ENDPOINT = f"http://{GATEWAY}:{PORT}"
KIND, TYPE = "ray-node-type", "ray-user-node-type"


class Cloud:
    """The machines of one account.

    Attributes:
        spot_is_to_be_had: Whether the market has spot machines.
        most_workers: The largest number of workers that were up at once.
    """

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory
        provider = Path(__file__).with_name("laboratory_provider.py")
        place = laboratory.home / "rlprune"  # on the nodes' PYTHONPATH: the head's autoscaler looks for it
        place.mkdir()
        shutil.copy(provider, place)
        self._machines: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self.spot_is_to_be_had = True
        self.most_workers = 0
        server = ThreadingHTTPServer((GATEWAY, PORT), _handler_of(self))
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def answer(self, operation: str, arguments: dict[str, Any]) -> Any:
        """What the provider is told."""
        with self._lock:
            return {
                "list": self._list,
                "create": self._create,
                "tag": self._tag,
                "terminate": self._terminate,
            }[operation](**arguments)

    def up(self, kind: str = "", node_type: str = "") -> dict[str, Host]:
        """The machines that are up, of one kind (head, worker) or type or all, by their names."""
        with self._lock:
            return {
                name: self._laboratory.hosts[name]
                for name, machine in self._machines.items()
                if machine["up"]
                and kind in ("", machine["tags"][KIND])
                and node_type in ("", machine["tags"].get(TYPE))
            }

    def reclaim(self, name: str) -> None:
        """The machine is taken away without a word."""
        with self._lock:
            self._laboratory.hosts[name].lose()
            self._machines[name]["up"] = False

    def _list(self, cluster: str) -> dict[str, Any]:
        return {name: machine for name, machine in self._machines.items() if machine["cluster"] == cluster}

    def _create(
        self, cluster: str, config: dict[str, Any], tags: dict[str, str], count: int
    ) -> dict[str, Any]:
        is_spot = config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        if is_spot and not self.spot_is_to_be_had:
            say(f"cloud: no spot machine is to be had for {tags[TYPE]}")
            raise LookupError("InsufficientInstanceCapacity: there is no Spot capacity")
        created = {}
        for _ in range(count):
            name = f"i-{len(self._machines):04d}"
            host = self._laboratory.boot(name, shared=False)
            created[name] = {"cluster": cluster, "tags": dict(tags), "address": host.address, "up": True}
            self._machines[name] = created[name]
            say(f"cloud: {name} is up, a {tags[KIND]} of type {tags.get(TYPE)}")
        self.most_workers = max(self.most_workers, len(self.up("worker")))
        return created

    def _tag(self, name: str, tags: dict[str, str]) -> dict[str, Any]:
        self._machines[name]["tags"].update(tags)
        return {}

    def _terminate(self, name: str) -> dict[str, Any]:
        if self._machines[name]["up"]:
            self.reclaim(name)
            say(f"cloud: {name} was ended")
        return {}


def _handler_of(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """The timeline is enough."""

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, answer = 200, cloud.answer(self.path.strip("/"), asked)
            except LookupError as error:
                status, answer = 503, {"error": str(error)}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
