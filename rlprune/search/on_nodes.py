"""What the nodes of a cluster do before the trials: a look at the storage, and training the base model."""

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rlprune.config import Config
from rlprune.errors import ConfigError
from rlprune.storage import RemoteFolder, is_url, local_path, shown

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.search.trainable import Weights

_SECONDS_BETWEEN_LINES = 2.0


def prepare_nodes(config: Config, place: str, splits: "DataSplits", say: Callable[[str], None]) -> None:
    """Looks whether the nodes can do their part, and trains the base model on one with a GPU.

    Args:
        config: The settings of the run.
        place: The folder, or address, that the run is to write to.
        splits: The images, sealed.
        say: Takes a line of text.

    Raises:
        ConfigError: A node cannot write to the place, or sees another folder there.
    """
    if config.search.address == "local":
        return
    check_storage(config, place, say)
    if config.search.gpus_per_trial:
        train_base(config, splits, say)


def check_storage(config: Config, place: str, say: Callable[[str], None]) -> None:
    """Refuses a storage path that a node of the cluster cannot write, or that is another folder on each node.

    Where no node has room for a trial yet, this waits until the autoscaler has started the first one.

    Raises:
        ConfigError: Which nodes cannot use it, and why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    marker = f".probe-{uuid.uuid4().hex}"
    _write_marker(place, marker)
    look = ray.remote(max_retries=3)(_faults_here)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        look.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        ).remote(place, marker)
        for node in nodes
    ]
    wanted = {"CPU": config.search.cpus_per_trial, "GPU": config.search.gpus_per_trial}
    if not any(_fits(wanted, node["Resources"]) for node in nodes):
        say("waiting for the first node that a trial fits on")
        asked.append(look.options(num_cpus=wanted["CPU"], num_gpus=wanted["GPU"]).remote(place, marker))
    try:
        faults = sorted({fault for fault in ray.get(asked) if fault})
    finally:
        _remove_marker(place, marker)
    if faults:
        raise ConfigError(
            [f"search.storage_path: {fault}" for fault in faults]
            + ["name a folder that all nodes share and may write, or an address such as s3://BUCKET/PREFIX"]
        )


def _fits(wanted: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= amount for name, amount in wanted.items())


def _faults_here(place: str, marker: str) -> str:
    """Why the node that this runs on cannot use a storage path; empty if it can."""
    import ray

    node = ray.util.get_node_ip_address()
    try:
        if is_url(place):
            RemoteFolder(place).check_writable()
        elif not (local_path(place) / marker).is_file():
            return f"{place} on node {node} is not the folder that the driver sees"
        else:
            written = local_path(place) / f"{marker}-{node}"
            written.touch()
            written.unlink()
    except Exception as error:
        return f"node {node} cannot write {shown(place)}: {error}"
    return ""


def _write_marker(place: str, marker: str) -> None:
    if not is_url(place):
        local_path(place).mkdir(parents=True, exist_ok=True)
        (local_path(place) / marker).touch()


def _remove_marker(place: str, marker: str) -> None:
    if not is_url(place):
        (local_path(place) / marker).unlink(missing_ok=True)


def train_base(config: Config, splits: "DataSplits", say: Callable[[str], None]) -> None:
    """Trains the base model on a node with a GPU, if there is none yet, and keeps it on this node."""
    import ray
    import torch

    from rlprune.models.build import is_in_memory
    from rlprune.training.base import base_path
    from rlprune.training.tensor_file import write_tensors

    path = base_path(config, splits)
    if config.base.checkpoint or is_in_memory(config.model.factory) or path.is_file():
        return
    say("the base model is trained on a node with a GPU")
    lines = ray.remote(num_cpus=0)(_Lines).remote()
    gpus = max(1.0, config.search.gpus_per_trial)
    train = ray.remote(num_cpus=config.search.cpus_per_trial, num_gpus=gpus, max_retries=3)(_trained)
    result = train.remote(config, splits, lines)
    done = False
    while not done:
        done = bool(ray.wait([result], timeout=_SECONDS_BETWEEN_LINES)[0])
        for line in ray.get(lines.take.remote()):
            say(line)
    weights = ray.get(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {name: torch.tensor(array) for name, array in weights.items()})


class _Lines:
    """Hands lines of progress from one process to another."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def append(self, line: str) -> None:
        self._lines.append(line)

    def take(self) -> list[str]:
        taken, self._lines = self._lines, []
        return taken


def _trained(config: Config, splits: "DataSplits", lines: Any) -> "Weights":
    """The weights of a base model that is trained here."""
    import torch

    from rlprune.search.trainable import arrays_of
    from rlprune.training.base import obtain_base
    from rlprune.training.device import given_device

    torch.set_num_threads(max(1, int(config.search.cpus_per_trial)))
    device = given_device(config.device, 1.0, torch.cuda.is_available())
    base = obtain_base(dataclasses.replace(config, device=device), splits, progress=lines.append.remote)
    return arrays_of(base.model)
