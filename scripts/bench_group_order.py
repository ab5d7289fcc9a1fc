"""What the order of the groups gives: the engine where the groups before, or behind, are pruned already.

From the output downward (`pruning.order`) all that a mask has to be sent through is pruned already; from the
input upward only what the cache spares. For each group the engine's time a mask is measured in the network as
it is, with the groups before it pruned, and with those behind it pruned; a pruned group keeps a random half.

    python scripts/bench_group_order.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --out order.jsonl
"""

import argparse
import copy
import dataclasses
import itertools
from pathlib import Path

import numpy as np
from bench_network import (
    CLOCKS,
    Subject,
    add_clock_option,
    add_network_options,
    load_subject,
    provenance,
    random_masks,
)
from bench_reward_engine import make_engine, nearly_whole
from records import Records, read_rows
from reward_tables import order_report

from rlprune.pruning.groups import FilterGroup, find_groups
from rlprune.pruning.surgery import cut

STATES = ("none", "before", "behind")
"""Which other groups are pruned already."""


def with_pruned(subject: Subject, position: int, state: str) -> tuple[Subject, FilterGroup]:
    """A copy in which the groups before or behind a position keep half of their filters; the group there."""
    model = copy.deepcopy(subject.model)
    for other, name in enumerate(group.name for group in find_groups(model, subject.example)):
        if (state == "before" and other < position) or (state == "behind" and other > position):
            group = next(group for group in find_groups(model, subject.example) if group.name == name)
            half = np.random.default_rng(other).permutation(group.n_filters) < max(1, group.n_filters // 2)
            cut(model, group, half)
    return dataclasses.replace(subject, model=model), find_groups(model, subject.example)[position]


def seconds_a_mask(subject: Subject, position: int, state: str, arguments: argparse.Namespace) -> float:
    """What one mask of a group takes."""
    changed, group = with_pruned(subject, position, state)
    engine = make_engine(changed, group, arguments.images, arguments.fidelity, "soft", arguments.precision)
    masks = random_masks(group, arguments.masks, seed=0)
    clock = CLOCKS[arguments.clock]
    engine.accuracies(nearly_whole(group))  # makes what an engine makes when it is first needed
    began = clock()
    engine.accuracies(masks)
    return (clock() - began) / len(masks)


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fidelity", choices=("raw", "bn", "repair"), default="repair")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="int8")
    add_clock_option(parser)
    parser.add_argument("--out", required=True, metavar="JSONL", help="records; what is there is kept")
    parser.add_argument("--report", action="store_true", help="only print the table of what is there")
    arguments = parser.parse_args()
    if not arguments.report:
        subject, records = load_subject(arguments), Records(Path(arguments.out))
        sizes = {name: getattr(arguments, name) for name in ("images", "masks", "fidelity", "precision")}
        records.begin(**provenance(), clock=arguments.clock, **sizes)
        done = {(row["repeat"], row["group"]) for row in records.of_kind("order")}
        every = [group.name for group in find_groups(subject.model, subject.example)]
        for repeat, group in itertools.product(range(arguments.repeats), subject.groups):
            if (repeat, group.name) not in done:
                times = {
                    state: seconds_a_mask(subject, every.index(group.name), state, arguments)
                    for state in STATES
                }
                records.add("order", repeat=repeat, group=group.name, times=times)
    print(order_report(read_rows(Path(arguments.out))))


if __name__ == "__main__":
    main()
