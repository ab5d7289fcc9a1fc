"""How well does the table of layer times tell a network's latency at widths that were never measured?

For each network the table is measured, then networks with random widths are cut and timed as a run times its
final networks, in turn with the base model. Each network is cut twice, to any counts and to the nearest
multiples of 8, so that what ``--round-to 8`` does to the latency is seen as well. Weights are random:
times do not depend on them.

    python scripts/bench_latency_table.py --threads 1 --out records.jsonl
"""

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_network import revision
from latency_tables import latency_report
from records import Records, command
from torch import nn

from rlprune.config import FACTORY_ARGUMENTS
from rlprune.models import build_model
from rlprune.pruning.cost import count_cost
from rlprune.pruning.groups import FilterGroup, read_groups
from rlprune.pruning.latency import measure_latency
from rlprune.pruning.layer_times import measure_table
from rlprune.pruning.surgery import cut, groups_after_cut
from rlprune.pruning.verification import refused_groups
from rlprune.results.environment import cpu_name
from rlprune.rl.counts import allowed_counts, nearest_counts
from rlprune.training.device import resolve_device, resolve_precision

PASSES = {1: 31, 256: 7}
ROUNDINGS = (1, 8)


def pruned(
    model: nn.Module, groups: list[FilterGroup], round_to: int, count: int, rng: np.random.Generator
) -> Iterator[nn.Module]:
    """Networks of which every group keeps a random share of its filters, around a share of the network."""
    for keep in np.linspace(0.15, 0.85, count):
        smaller, left = copy.deepcopy(model), groups
        for name in [group.name for group in groups]:
            group = next(each for each in left if each.name == name)
            wanted = np.clip(keep + rng.uniform(-0.15, 0.15), 0, 1) * group.n_filters
            kept = nearest_counts(np.array([round(wanted)]), allowed_counts(group.n_filters, round_to))[0]
            mask = np.arange(group.n_filters) < kept
            cut(smaller, group, mask)
            left = groups_after_cut(left, group, mask)
        yield smaller


def measured(name: str, size: int, batch: int, count: int, device: torch.device) -> dict[str, Any]:
    """The tables' predictions and the times of one network and of those that were cut from it."""
    dtype = resolve_precision("auto", device)
    model = build_model(name, dict(FACTORY_ARGUMENTS.get(name, {})), 10, 3).to(device).eval()
    example = torch.zeros(1, 3, size, size, device=device)
    groups, _ = read_groups(model, example, ())
    refused = refused_groups(model, groups, example)
    groups = [group for group in groups if group.name not in refused]
    networks, tables = [model], []
    for round_to in ROUNDINGS:
        tables.append(
            measure_table(model, groups, example, batch=batch, round_to=round_to, dtype=dtype, device="")
        )
        networks += pruned(model, groups, round_to, count, np.random.default_rng(0))
    placed = [network.to(memory_format=torch.channels_last) for network in networks]
    images = example.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    times = measure_latency(placed, images, passes=PASSES.get(batch, 15), dtype=dtype)
    found = [
        {
            "ms": time.median,
            "low": time.low,
            "high": time.high,
            "macs": count_cost(network, example).macs,
            "table": [table.latency(network) for table in tables],
        }
        for network, time in zip(networks, times, strict=True)
    ]
    parts = {
        str(round_to): found[1 + count * i : 1 + count * (i + 1)] for i, round_to in enumerate(ROUNDINGS)
    }
    return {"network": name, "size": size, "batch": batch, "base": found[0], "pruned": parts}


def main() -> None:
    """Adds a record for each network and batch that is missing and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="vgg16_bn,torchvision:resnet18", metavar="A,B")
    parser.add_argument("--sizes", default="32,64", metavar="N,N", help="height of each one's images")
    parser.add_argument("--batches", default="1", metavar="N,N")
    parser.add_argument("--pruned", type=int, default=16, metavar="N", help="networks cut in each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="file of records, which is added to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    records = Records(arguments.out)
    records.begin(
        command=command(),
        machine=f"{cpu_name()}, {arguments.threads} thread(s), torch {torch.__version__}",
        revision=revision(),
    )
    sizes = [int(size) for size in arguments.sizes.split(",")]
    done = {(row["network"], row["size"], row["batch"]) for row in records.of_kind("latency")}
    for name, size in zip(arguments.networks.split(","), sizes, strict=True):
        for batch in (int(each) for each in arguments.batches.split(",")):
            if (name, size, batch) not in done:
                device = resolve_device(arguments.device)
                records.add("latency", **measured(name, size, batch, arguments.pruned, device))
    print(latency_report(records.rows))


if __name__ == "__main__":
    main()
