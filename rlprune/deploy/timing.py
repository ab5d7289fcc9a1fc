"""The latency of an exported network beside that of its base model, in the same format and place."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from rlprune.deploy.formats import Format, Runner
from rlprune.final_table import PASSES
from rlprune.pruning.latency import Latency, measure_latency
from rlprune.pruning.memory import is_out_of_memory
from rlprune.results.environment import cpu_name
from rlprune.results.latency_note import fell
from rlprune.training.network_file import PrunedNetwork


@dataclass(frozen=True)
class Timing:
    """One batch size: the base model's latency and the pruned network's, milliseconds a batch."""

    batch: int
    base: Latency
    pruned: Latency

    @property
    def faster(self) -> bool:
        """Whether pruning made it faster."""
        return fell(self.base.median, self.pruned.median)


def time_pair(
    network: PrunedNetwork, exported: Runner, form: Format, say: Callable[[str], None]
) -> list[Timing]:
    """Times the exported file and the base model exported alike, their passes taking turns.

    The base model's weights do not change its time: its architecture, as the factory builds it, is timed.

    Args:
        network: The pruned network.
        exported: Its exported file, opened.
        form: The format.
        say: Takes a line of text: a batch that memory cannot hold.

    Returns:
        One for each batch size that memory can hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"base{form.suffix}"
        whole = base_architecture(network)
        form.write(whole, path)
        base = form.open(path, whole)
        timings = []
        for batch, passes in PASSES.items():
            try:
                timings.append(_timing(base, exported, network, batch, passes))
            except Exception as error:  # an engine's own kinds too
                if not is_out_of_memory(error):
                    raise
                reason, _, _ = str(error).partition("\n")
                say(f"no latency at batch {batch}: memory ran out ({reason})")
        return timings


def _timing(base: Runner, exported: Runner, network: PrunedNetwork, batch: int, passes: int) -> Timing:
    example = torch.zeros(batch, *network.info.image_shape, dtype=torch.uint8)
    times = measure_latency([base, exported], example, passes=passes, dtype=torch.float32)
    return Timing(batch, *times)


def base_architecture(network: PrunedNetwork) -> PrunedNetwork:
    """The network before pruning, whose weights mean nothing."""
    whole = network.base_architecture().requires_grad_(False)
    return PrunedNetwork(whole, network.spec, {}, network.config, network.versions, base=whole).eval()


def timed_on(form: Format) -> str:
    """What :func:`time_pair` measures on: engine, processor, threads, precision."""
    return f"{form.engine}, {cpu_name()}, {torch.get_num_threads()} thread(s), fp32"
