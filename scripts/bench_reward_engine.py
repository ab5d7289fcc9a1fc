"""How fast are rewards, and are they right? The engine against the plain way, side by side in one run.

Plain way: for each mask the full network in fp32, with the mask on the inputs of the layers that read the
group, over the same images. The engine gets ``--masks`` masks a group, the slow ways ``--plain-masks``; all
repeats take turns. The exact rewards are those of the same engine in fp32 (equal to the plain way: a test).

    python scripts/bench_reward_engine.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt
"""

import argparse
import copy
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_network import Subject, add_network_options, load_subject, machine, random_masks, seconds, spread
from scipy.stats import kendalltau
from torch import nn

from rlprune.pruning.cost import GroupCost, layer_macs
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.pruning.surgery import cut
from rlprune.rl.reward import pruning_reward

B = 2.0
FIDELITIES = ("raw", "bn", "repair")
BATCH = 500


def masked_forward(model: nn.Module, group: FilterGroup, mask: np.ndarray, inputs: torch.Tensor) -> None:
    """The plain way, for one mask."""

    def zero(dropped: torch.Tensor) -> Callable[..., tuple[torch.Tensor, ...]]:
        return lambda _, args: (args[0].index_fill(1, dropped, 0),)

    handles = [
        model.get_submodule(member.layer).register_forward_pre_hook(
            zero(torch.from_numpy(member.dropped(mask)))
        )
        for member in group.with_role("consumer")
    ]
    try:
        with torch.inference_mode():
            for batch in inputs.split(BATCH):
                model(batch).argmax(1)
    finally:
        for handle in handles:
            handle.remove()


def cut_and_run(subject: Subject, group: FilterGroup, mask: np.ndarray, inputs: torch.Tensor) -> None:
    """torch-pruning: a copy is cut and run."""
    smaller = copy.deepcopy(subject.model)
    cut(smaller, group, mask)
    with torch.inference_mode():
        for batch in inputs.split(BATCH):
            smaller(batch).argmax(1)


def make_engine(
    subject: Subject, group: FilterGroup, images: int, fidelity: str, dtype: torch.dtype
) -> RewardEngine:
    """An engine with hard accuracies on images of the reward split."""
    inputs, labels = subject.normalised("reward", images, seed=1)
    calibration, _ = subject.normalised("train", subject.config.pruning.calibration_images, seed=2)
    return RewardEngine(
        subject.model,
        group,
        inputs,
        labels,
        calibration=calibration,
        fidelity=fidelity,  # type: ignore[arg-type]
        accuracy="hard",
        ridge=subject.config.pruning.ridge,
        dtype=dtype,
        seed=3,
    )


def rewards(engine: RewardEngine, cost: GroupCost, masks: np.ndarray) -> np.ndarray:
    """The paper's reward of each mask, over MACs, with b = 2."""
    drop = engine.whole_accuracy() - engine.accuracies(masks)
    return pruning_reward(drop, B, cost.macs(np.array(cost.n_filters)), cost.macs(masks.sum(1)))


def needed_macs(subject: Subject, group: FilterGroup, masks: np.ndarray) -> float:
    """MACs a mask and image that no cache can spare: behind the group, with the kept channels only."""
    per_layer = layer_macs(subject.model, subject.example)
    consumers = {member.layer for member in group.with_role("consumer")}
    names = list(per_layer)
    first = min(names.index(layer) for layer in consumers)
    kept = masks.mean()
    return sum(per_layer[name] * (kept if name in consumers else 1.0) for name in names[first:])


def matrix_peak(dtype: torch.dtype) -> float:
    """The machine's best multiply-accumulates a second in a 2048 x 2048 x 2048 matrix product."""
    a = torch.randn(2048, 2048).to(dtype)
    return 2048**3 / min(seconds(lambda: a @ a) for _ in range(10))


def reset_peak_memory() -> None:
    """Forgets the process's peak of resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Peak of resident memory since the last reset, MiB."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def bench_group(
    subject: Subject, group: FilterGroup, arguments: argparse.Namespace, repeat: int
) -> dict[str, dict[str, float]]:
    """Seconds a mask of each way, for one group and repeat: set-up apart, engines also with it."""
    inputs, _ = subject.normalised("reward", arguments.images, seed=1)
    low = copy.deepcopy(subject.model).to(torch.bfloat16).to(memory_format=torch.channels_last)
    low_inputs = inputs.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    plain_inputs = inputs.contiguous()
    few = random_masks(group, arguments.plain_masks, seed=100 + repeat)
    many = random_masks(group, arguments.masks, seed=200 + repeat)
    ways: dict[str, Callable[[np.ndarray], None]] = {
        "plain fp32": lambda mask: masked_forward(subject.model, group, mask, plain_inputs),
        "plain bf16": lambda mask: masked_forward(low, group, mask, low_inputs),
        "torch-pruning fp32": lambda mask: cut_and_run(subject, group, mask, plain_inputs),
    }
    found: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        reset_peak_memory()
        taken = sum(seconds(lambda mask=mask, way=way: way(mask)) for mask in few) / len(few)
        found[name] = {"mask": taken, "with set-up": taken, "memory": peak_memory()}
    for fidelity in FIDELITIES:
        reset_peak_memory()
        began = time.perf_counter()
        engine = make_engine(subject, group, arguments.images, fidelity, torch.bfloat16)
        setup = time.perf_counter() - began
        taken = seconds(lambda engine=engine: engine.accuracies(many)) / len(many)
        found[f"engine {fidelity}"] = {
            "mask": taken,
            "with set-up": taken + setup / len(many),
            "memory": peak_memory(),
        }
    return found


def agreement(subject: Subject, arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """The engine in bf16 against the engine in fp32, for every fidelity and group."""
    found: dict[str, dict[str, list[float]]] = {}
    for fidelity in FIDELITIES:
        found[fidelity] = {"largest difference of accuracies": [], "tau": []}
        for group in subject.groups:
            masks = random_masks(group, arguments.masks, seed=300)
            cost = GroupCost(subject.model, group, subject.example)
            fast = make_engine(subject, group, arguments.images, fidelity, torch.bfloat16)
            exact = make_engine(subject, group, arguments.images, fidelity, torch.float32)
            difference = np.abs(fast.accuracies(masks) - exact.accuracies(masks)).max()
            tau = kendalltau(rewards(fast, cost, masks), rewards(exact, cost, masks)).statistic
            found[fidelity]["largest difference of accuracies"].append(float(difference))
            found[fidelity]["tau"].append(float(tau))
    return found


def print_speed(subject: Subject, arguments: argparse.Namespace, times: list[list[dict]]) -> None:
    """Masks a second and ratios to the plain way, over the whole network and for the worst group."""
    names = list(times[0][0])
    macs = [
        needed_macs(subject, group, random_masks(group, arguments.masks, seed=200))
        for group in subject.groups
    ]
    peak = matrix_peak(torch.bfloat16)
    print(f"bf16 matrix product peak: {peak / 1e9:.0f} GMAC/s")
    print("| way | masks/s | ratio | ratio with set-up | worst group | peak memory MiB | of peak |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        totals: dict[str, list[float]] = defaultdict(list)
        for groups in times:
            plain = sum(group["plain fp32"]["mask"] for group in groups)
            own = sum(group[name]["mask"] for group in groups)
            totals["rate"].append(len(groups) / own)
            totals["ratio"].append(plain / own)
            totals["with set-up"].append(plain / sum(group[name]["with set-up"] for group in groups))
            totals["peak"].append(sum(macs) * arguments.images / own / peak)
        worst = min(
            statistics.median(row[index]["plain fp32"]["mask"] / row[index][name]["mask"] for row in times)
            for index in range(len(subject.groups))
        )
        memory = max(group[name]["memory"] for groups in times for group in groups)
        share = f"{100 * statistics.median(totals['peak']):.0f} %" if name.startswith("engine") else ""
        print(
            f"| {name} | {spread(totals['rate'])} | {spread(totals['ratio'])} "
            f"| {spread(totals['with set-up'])} | {worst:.2f} | {memory:.0f} | {share} |"
        )


def main() -> None:
    """Runs the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=64, help="masks a group for the engine")
    parser.add_argument("--plain-masks", type=int, default=4, help="masks a group for the slow ways")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-agreement", action="store_true")
    parser.add_argument("--out", metavar="JSON", help="also write all times to this file")
    arguments = parser.parse_args()
    subject = load_subject(arguments)
    print(
        f"{machine()}; {arguments.images} images, {len(subject.groups)} groups, {arguments.repeats} repeats"
    )
    times = []
    for repeat in range(arguments.repeats):
        times.append([bench_group(subject, group, arguments, repeat) for group in subject.groups])
        print(f"repeat {repeat + 1} done", flush=True)
    print_speed(subject, arguments, times)
    found = {} if arguments.skip_agreement else agreement(subject, arguments)
    for fidelity, values in found.items():
        print(
            f"{fidelity}: bf16 against exact fp32 rewards, over groups: tau {spread(values['tau'], '.3f')}, "
            f"largest difference of accuracies {max(values['largest difference of accuracies']):.2f} points"
        )
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"machine": machine(), "times": times, "agreement": found}))


if __name__ == "__main__":
    main()
