"""What the nodes of a cluster do before the trials: a look at the storage, and training the base model."""

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlprune.config import Config
from rlprune.errors import ConfigError, RlpruneError
from rlprune.storage import RemoteFolder, is_url, local_path, shown

if TYPE_CHECKING:
    from rlprune.data import DataSplits
    from rlprune.search.trainable import Weights

_SECONDS_BETWEEN_LINES = 2.0
_SECONDS_TO_ANSWER = 300.0
"""How long a node that is there may take to look; starting a process on a busy one takes most of it."""
_SECONDS_BETWEEN_REMINDERS = 60.0
_FILES_LOOKED_AT = 8
"""Of each split, on each node."""


def prepare_nodes(config: Config, place: str, splits: "DataSplits", say: Callable[[str], None]) -> None:
    """Looks whether the nodes can do their part, and trains the base model on one with a GPU.

    Args:
        config: The settings of the run.
        place: The folder, or address, that the run is to write to.
        splits: The images, sealed.
        say: Takes a line of text.

    Raises:
        ConfigError: A node cannot write to the place, or sees another folder there; or the images are
            streamed and a node does not have their files.
    """
    if config.search.address == "local":
        return
    check_storage(config, place, say)
    check_files(config, splits, say)
    if config.search.gpus_per_trial:
        train_base(config, splits, say)


def check_storage(config: Config, place: str, say: Callable[[str], None]) -> None:
    """Refuses a storage path that a node of the cluster cannot write, or that is another folder on each node.

    Where no node has room for a trial yet, this waits until the autoscaler has started the first one.

    Raises:
        ConfigError: Which nodes cannot use it, and why.
    """
    marker = f".probe-{uuid.uuid4().hex}"
    _write_marker(place, marker)
    try:
        faults = _faults_of_nodes(config, say, _faults_here, place, marker)
    finally:
        _remove_marker(place, marker)
    if faults:
        raise ConfigError(
            [f"search.storage_path: {fault}" for fault in faults]
            + ["name a folder that all nodes share and may write, or an address such as s3://BUCKET/PREFIX"]
        )


def check_files(config: Config, splits: "DataSplits", say: Callable[[str], None]) -> None:
    """Refuses a cluster whose nodes do not all have the files of streamed images.

    A few files of each split stand for all: those that are missing elsewhere end the trial that needs them.

    Raises:
        ConfigError: Which nodes lack which file.
    """
    from rlprune.data import ImageFiles

    some: dict[str, int] = {}
    for split in (splits.train, splits.reward, splits.val):
        if isinstance(split.images, ImageFiles):
            for position in np.linspace(0, len(split) - 1, _FILES_LOOKED_AT).astype(int):
                path = split.images.path(position)
                some[str(path)] = path.stat().st_size
    faults = _faults_of_nodes(config, say, _files_missing_here, some) if some else []
    if faults:
        raise ConfigError(
            [f"data.source: {fault}" for fault in faults]
            + [
                "streamed images are read by each node: put the same folder at the same path on every node, "
                "or have them held (data.stream never): then they are sent to the nodes"
            ]
        )


def _faults_of_nodes(
    config: Config, say: Callable[[str], None], look: Callable[..., str], *arguments: object
) -> list[str]:
    """What a look on every node finds wrong, each fault once; a node that does not answer is a fault."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(max_retries=3)(look)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        answer = remote.options(num_cpus=0, scheduling_strategy=there).remote(*arguments)
        asked[answer] = node["NodeManagerAddress"]
    wanted = {"CPU": config.search.cpus_per_trial, "GPU": config.search.gpus_per_trial}
    first = None
    if not any(_fits(wanted, node["Resources"]) for node in nodes):
        say("waiting for the first node that a trial fits on")
        first = remote.options(num_cpus=wanted["CPU"], num_gpus=wanted["GPU"]).remote(*arguments)
    answers, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS_TO_ANSWER)
    faults = {f"node {asked[answer]} did not answer within {_SECONDS_TO_ANSWER:.0f} s" for answer in silent}
    if first is not None and not faults:
        while not ray.wait([first], timeout=_SECONDS_BETWEEN_REMINDERS)[0]:
            say("still waiting for a node that a trial fits on: `ray status` says what the autoscaler does")
        answers.append(first)
    return sorted(faults | set(ray.get(answers)) - {""})


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


def _files_missing_here(sizes: Mapping[str, int]) -> str:
    """The first of some files, with their bytes, that the node that this runs on does not have; or empty."""
    import ray

    for path, size in sizes.items():
        try:
            found = Path(path).stat().st_size
        except OSError as error:
            return f"node {ray.util.get_node_ip_address()} cannot read {path} ({error.strerror})"
        if found != size:
            return f"{path} has {found:,} bytes on node {ray.util.get_node_ip_address()}, {size:,} here"
    return ""


def _write_marker(place: str, marker: str) -> None:
    if not is_url(place):
        local_path(place).mkdir(parents=True, exist_ok=True)
        (local_path(place) / marker).touch()


def _remove_marker(place: str, marker: str) -> None:
    if not is_url(place):
        (local_path(place) / marker).unlink(missing_ok=True)


def train_base(config: Config, splits: "DataSplits", say: Callable[[str], None]) -> None:
    """Trains the base model on a node with a GPU, if there is none yet, and keeps it on this node.

    Its lines of progress come by way of this node: were they on one that is lost, the search would end.
    """
    import ray
    import torch
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from rlprune.models.build import is_in_memory
    from rlprune.training.base import base_path
    from rlprune.training.tensor_file import write_tensors

    path = base_path(config, splits)
    if config.base.checkpoint or is_in_memory(config.model.factory) or path.is_file():
        return
    say("the base model is trained on a node with a GPU")
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines = ray.remote(num_cpus=0, scheduling_strategy=here)(_Lines).remote()
    gpus = max(1.0, config.search.gpus_per_trial)
    train = ray.remote(num_cpus=config.search.cpus_per_trial, num_gpus=gpus, max_retries=3)(_trained)
    result = train.remote(config, splits, lines)
    done = False
    while not done:
        done = bool(ray.wait([result], timeout=_SECONDS_BETWEEN_LINES)[0])
        for line in ray.get(lines.take.remote()):
            say(line)
    try:
        weights = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, RlpruneError) else error from None
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
