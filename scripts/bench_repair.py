"""Repair, patch by patch or channel by channel: what is each worth, and what does a mask cost?

Patch-wise, what rlprune does: the consumer's weights are solved again, one unknown for each kept channel and
tap of the kernel. Channel-wise: each cut channel is written as a linear mix of the kept ones, at the same
pixel, and the consumer reads the mix; one unknown for each kept channel. For some groups, keep ratios and
random masks: the accuracy of the cut network on reward images without repair and with either, seconds of the
set-up of a group and of a mask's solve. One line of ``--out`` a group; a second start goes on.

    python scripts/bench_repair.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --groups 2,5,8 --out repair.jsonl
"""

import argparse
import copy
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_network import (
    CLOCKS,
    LOW,
    Subject,
    add_clock_option,
    add_network_options,
    load_subject,
    provenance,
)
from records import Records, read_rows
from reward_tables import repair_report
from torch import nn

from rlprune.pruning.groups import FilterGroup, Member
from rlprune.pruning.repair import Repair, apply_repair, cholesky, repair_for_mask
from rlprune.pruning.surgery import cut
from rlprune.workbench import Workbench

RATIOS = (0.3, 0.5, 0.75)
PIXELS_PER_CHANNEL = 100
"""Pixels that the channels' covariance is estimated from, for each channel, at most."""

Solve = Callable[[np.ndarray], Repair]


def channel_repair(model: nn.Module, member: Member, inputs: torch.Tensor, ridge: float) -> Solve:
    """The channel-wise repair of a convolution, from one pass over images ``(n, c, h, w)``."""
    layer = model.get_submodule(member.layer)
    assert isinstance(layer, nn.Conv2d)
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        for batch in inputs.split(500):
            model(batch)
    handle.remove()
    pixels = torch.cat(seen).permute(0, 2, 3, 1).reshape(-1, layer.in_channels)
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    pixels = pixels[chosen[: PIXELS_PER_CHANNEL * layer.in_channels]]
    mean = pixels.mean(0)
    covariance = (pixels - mean).T @ (pixels - mean) / len(pixels)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean())
    weight, bias = layer.weight.detach(), layer.bias
    own = torch.zeros(layer.out_channels) if bias is None else bias.detach()

    def solve(mask: np.ndarray) -> Repair:
        kept = torch.from_numpy(member.kept(mask, layer.in_channels))
        gone = torch.from_numpy(np.sort(member.dropped(mask)))
        factor = cholesky(covariance[kept][:, kept])
        mix = torch.cholesky_solve(covariance[kept][:, gone], factor)
        lost = weight[:, gone]
        shift = torch.einsum("ogyx,g->o", lost, mean[gone] - mix.T @ mean[kept])
        return Repair(weight[:, kept] + torch.einsum("ogyx,kg->okyx", lost, mix), own + shift)

    return solve


def cut_accuracy(
    subject: Subject, group: FilterGroup, mask: np.ndarray, repairs: dict[str, Repair], images: int
) -> float:
    """The accuracy of a cut and repaired copy on reward images, percentage points."""
    smaller = copy.deepcopy(subject.model).eval()
    cut(smaller, group, mask)
    for layer, repair in repairs.items():
        apply_repair(smaller.get_submodule(layer), repair)  # type: ignore[arg-type]
    smaller = smaller.to(LOW).to(memory_format=torch.channels_last)
    inputs, labels = subject.normalised("reward", images, seed=1)
    inputs = inputs.to(LOW).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        decided = torch.cat([smaller(batch).argmax(1) for batch in inputs.split(250)])
    return 100 * float((decided == labels).double().mean())


def bench_group(subject: Subject, group: FilterGroup, arguments: argparse.Namespace) -> dict[str, object]:
    """Accuracies by way and keep ratio, and seconds of set-up and of solves by way."""
    clock = CLOCKS[arguments.clock]
    bench = Workbench(subject.config, subject.splits)
    (member,) = group.with_role("consumer")
    calibration, _ = bench.calibration(group.name)
    times = [clock()]
    moments = bench.moments(subject.model, group, calibration)
    repair_for_mask(subject.model, group, np.arange(group.n_filters) > 0, moments)  # inverts the covariance
    times.append(clock())
    channel = channel_repair(subject.model, member, calibration, subject.config.pruning.ridge)
    times.append(clock())
    ways: dict[str, Callable[[np.ndarray], dict[str, Repair]]] = {
        "none": lambda mask: {},
        "patch": lambda mask: repair_for_mask(subject.model, group, mask, moments),
        "channel": lambda mask: {member.layer: channel(mask)},
    }
    accuracies: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ways}
    solves: dict[str, list[float]] = {name: [] for name in ways}
    generator = np.random.default_rng(0)
    for ratio in RATIOS:
        for _ in range(arguments.masks):
            mask = generator.permutation(group.n_filters) < max(1, round(ratio * group.n_filters))
            for name, way in ways.items():
                began = clock()
                repairs = way(mask)
                solves[name].append(clock() - began)
                found = cut_accuracy(subject, group, mask, repairs, arguments.images)
                accuracies[name][str(ratio)].append(found)
    set_up = {"patch": times[1] - times[0], "channel": times[2] - times[1]}
    return {"set_up": set_up, "solves": solves, "accuracies": accuracies}


def measurable(subject: Subject) -> list[FilterGroup]:
    """The groups that one convolution reads: for them the two ways are compared. It says what is left out.

    Raises:
        SystemExit: No group is left.
    """
    consumers = {group.name: group.with_role("consumer") for group in subject.groups}
    found = [
        group
        for group in subject.groups
        if len(consumers[group.name]) == 1
        and isinstance(subject.model.get_submodule(consumers[group.name][0].layer), nn.Conv2d)
    ]
    left_out = [group.name for group in subject.groups if group not in found]
    if left_out:
        print(f"not read by one convolution alone, left out: {', '.join(left_out)}", flush=True)
    if not found:
        raise SystemExit("no group is left: give others with --groups")
    return found


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--images", type=int, default=1000, help="of the reward split")
    parser.add_argument("--masks", type=int, default=4, help="random masks a keep ratio")
    add_clock_option(parser)
    parser.add_argument("--out", required=True, metavar="JSONL", help="records; what is there is kept")
    parser.add_argument("--report", action="store_true", help="only print the table of what is there")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    if not arguments.report:
        subject, records = load_subject(arguments), Records(out)
        groups = measurable(subject)
        records.begin(**provenance(), clock=arguments.clock, images=arguments.images)
        done = {row["group"] for row in records.of_kind("repair")}
        for group in groups:
            if group.name not in done:
                found = bench_group(subject, group, arguments)
                records.add("repair", group=group.name, filters=group.n_filters, **found)
    print(repair_report(read_rows(out)))


if __name__ == "__main__":
    main()
