"""How fast are rewards, and are they right? The engine against the plain way, side by side in one run.

Plain way: for each mask the full network in fp32, with the mask on the inputs of the layers that read the
group, over the same images. The engine gets ``--masks`` masks a group, the slow ways ``--plain-masks``; all
ways and repeats take turns. The exact rewards are those of the same engine in fp32 (equal to the plain way: a
test). What is measured is one line of ``--out`` a group and repeat; a second start goes on with what is
missing, and ``--report`` only prints the tables of what is there.

    python scripts/bench_reward_engine.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --out engine.jsonl
"""

import argparse
import copy
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_network import (
    CLOCKS,
    LOW,
    LOW_NAME,
    Subject,
    add_clock_option,
    add_network_options,
    load_subject,
    provenance,
    random_masks,
)
from records import Records, read_rows
from reward_tables import engine_report
from scipy.stats import kendalltau
from torch import nn

from rlprune.pruning.cost import layer_macs
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.pruning.screening import round_ends, screened_losses
from rlprune.pruning.surgery import cut
from rlprune.pruning.width_cost import GroupCost
from rlprune.rl.reward import pruning_reward

B = 2.0
PRECISIONS = {"raw": ("fp32", LOW_NAME, "int8"), "bn": (LOW_NAME,), "repair": (LOW_NAME, "int8")}
ENGINES = tuple(dict.fromkeys((way, precision) for way, some in PRECISIONS.items() for precision in some))
"""Fidelities and precisions that are timed; ``raw`` in fp32 on ``--plain-masks`` masks."""
SHARES = (0.25, 0.5)
"""First rounds of the successive halving whose ranking is measured."""
SLICES = (100, 250, 500)
"""Numbers of images whose ranking of all masks is measured."""
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
    subject: Subject, group: FilterGroup, images: int, fidelity: str, accuracy: str, precision: str
) -> RewardEngine:
    """An engine on images of the reward split; in ``fp32``, ``bf16``, or bytes (``int8``)."""
    inputs, labels = subject.normalised("reward", images, seed=1)
    calibration, _ = subject.normalised("train", subject.config.pruning.calibration_images, seed=2)
    return RewardEngine(
        subject.model,
        group,
        inputs,
        labels,
        calibration=calibration,
        fidelity=fidelity,  # type: ignore[arg-type]
        accuracy=accuracy,  # type: ignore[arg-type]
        ridge=subject.config.pruning.ridge,
        dtype=torch.float32 if precision == "fp32" else LOW,
        seed=3,
        int8=precision == "int8",
    )


def nearly_whole(group: FilterGroup) -> np.ndarray:
    """The mask that cuts one filter: bool ``(1, f)``; repair needs the whole covariance's inverse for it."""
    return np.arange(group.n_filters)[None] > 0


def rewards(cost: GroupCost, lost: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The paper's reward of each mask, over MACs, with b = 2."""
    return pruning_reward(lost, B, cost.macs(np.array(cost.n_filters)), cost.macs(masks.sum(1)))


def needed_macs(subject: Subject, group: FilterGroup, masks: np.ndarray) -> float:
    """MACs a mask and image that no cache can spare: behind the group, with the kept channels only."""
    per_layer = layer_macs(subject.model, subject.example)
    consumers = {member.layer for member in group.with_role("consumer")}
    names = list(per_layer)
    first = min(names.index(layer) for layer in consumers)
    kept = masks.mean()
    return sum(per_layer[name] * (kept if name in consumers else 1.0) for name in names[first:])


def matrix_peak(dtype: torch.dtype, clock: str) -> float:
    """The machine's best multiply-accumulates a second in a 2048 x 2048 x 2048 matrix product."""
    a = torch.randn(2048, 2048).to(dtype)
    return 2048**3 / min(seconds(lambda: a @ a, clock) for _ in range(10))


def seconds(run: Callable[[], object], clock: str) -> float:
    """The time of one call, on the wall or summed over the cores that worked on it."""
    began = CLOCKS[clock]()
    run()
    return CLOCKS[clock]() - began


def reset_peak_memory() -> None:
    """Forgets the process's peak of resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Peak of resident memory since the last reset, MiB."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


WAYS = (
    *("plain fp32", f"plain {LOW_NAME}, channels-last", "torch-pruning fp32"),
    *(f"engine {fidelity} {precision}" for fidelity, precision in ENGINES),
)


def is_asked(way: str, ways: str) -> bool:
    """Whether a way is among those of ``--ways``: a name may have a comma in it."""
    return not ways or set(way.split(",")) <= set(ways.split(","))


def check_ways(ways: str) -> None:
    """Raises SystemExit on ways that are not known, or that leave out what all are compared with."""
    unknown = set(ways.split(",")) - {part for way in WAYS if is_asked(way, ways) for part in way.split(",")}
    if ways and (unknown or not is_asked(WAYS[0], ways)):
        raise SystemExit(
            f"--ways: expected {WAYS[0]!r} and some of {', '.join(map(repr, WAYS[1:]))}; got {ways!r}"
        )


def bench_group(
    subject: Subject, group: FilterGroup, arguments: argparse.Namespace, repeat: int
) -> dict[str, dict[str, float]]:
    """Seconds a mask, seconds of set-up and peak memory of each way, for one group and repeat."""
    inputs, _ = subject.normalised("reward", arguments.images, seed=1)
    low = copy.deepcopy(subject.model).to(LOW).to(memory_format=torch.channels_last)
    low_inputs = inputs.to(LOW).contiguous(memory_format=torch.channels_last)
    plain_inputs = inputs.contiguous()
    few = random_masks(group, arguments.plain_masks, seed=100 + repeat)
    many = random_masks(group, arguments.masks, seed=200 + repeat)
    ways: dict[str, Callable[[np.ndarray], None]] = {
        "plain fp32": lambda mask: masked_forward(subject.model, group, mask, plain_inputs),
        f"plain {LOW_NAME}, channels-last": lambda mask: masked_forward(low, group, mask, low_inputs),
        "torch-pruning fp32": lambda mask: cut_and_run(subject, group, mask, plain_inputs),
    }
    found: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        if not is_asked(name, arguments.ways):
            continue
        reset_peak_memory()
        taken = sum(seconds(lambda mask=mask, way=way: way(mask), arguments.clock) for mask in few) / len(few)
        found[name] = {"mask": taken, "set-up": 0.0, "memory": peak_memory()}
    for fidelity, precision in ENGINES:
        name = f"engine {fidelity} {precision}"
        if not is_asked(name, arguments.ways):
            continue
        masks = few if (fidelity, precision) == ("raw", "fp32") else many
        reset_peak_memory()
        began = CLOCKS[arguments.clock]()
        engine = make_engine(subject, group, arguments.images, fidelity, "hard", precision)
        engine.accuracies(nearly_whole(group))  # makes what an engine makes when it is first needed
        setup = CLOCKS[arguments.clock]() - began
        taken = seconds(lambda engine=engine, masks=masks: engine.accuracies(masks), arguments.clock) / len(
            masks
        )
        found[name] = {"mask": taken, "set-up": setup, "memory": peak_memory()}
    return found


def agreement(
    subject: Subject, group: FilterGroup, arguments: argparse.Namespace, fidelity: str, accuracy: str
) -> dict[str, object]:
    """Rewards in each precision on all images, on some of them and with screening, against the exact ones."""
    masks = random_masks(group, arguments.agreement_masks, seed=300)
    cost = GroupCost(subject.model, group, subject.example)
    exact = make_engine(subject, group, arguments.images, fidelity, accuracy, "fp32")
    true = exact.whole_accuracy() - exact.accuracies(masks)
    order = np.random.default_rng(4).permutation(exact.n_images)

    def tau(lost: np.ndarray) -> float:
        return float(kendalltau(rewards(cost, lost, masks), rewards(cost, true, masks)).statistic)

    found: dict[str, object] = {"masks": len(masks)}
    for precision in dict.fromkeys([LOW_NAME] if fidelity == "bn" else [LOW_NAME, "int8"]):
        engine = make_engine(subject, group, arguments.images, fidelity, accuracy, precision)
        fast = MeasuredParts(engine, order, masks)

        def screened(images: np.ndarray, share: float, fast: MeasuredParts = fast) -> np.ndarray:
            judge = functools.partial(rewards, cost)
            return screened_losses(fast, images, masks, share, judge)  # type: ignore[arg-type]

        lost = screened(order, 1.0)
        found[precision] = {
            "difference": float(np.abs(lost - true).max()),
            "tau": tau(lost),
            "slices": {
                str(count): tau(screened(order[:count], 1.0)) for count in SLICES if count < len(order)
            },
            "screened": {str(share): tau(screened(order, share)) for share in SHARES},
        }
    return found


class MeasuredParts:
    """What an engine says of some masks on parts of the images; runs of parts are put together from it."""

    def __init__(self, engine: RewardEngine, order: np.ndarray, masks: np.ndarray) -> None:
        bounds = {0, len(order), *(count for count in SLICES if count < len(order))}
        bounds.update(end for share in SHARES for end in round_ends(len(order), share))
        self._bounds = np.array(sorted(bounds))
        self._position = {int(image): position for position, image in enumerate(order)}
        self._row = {mask.tobytes(): row for row, mask in enumerate(masks)}
        self._gained = np.zeros((len(self._bounds) - 1, len(masks)))
        for part, (start, stop) in enumerate(itertools.pairwise(self._bounds)):
            engine.use_images(order[start:stop])
            self._gained[part] = engine.accuracies(masks) - engine.whole_accuracy()

    def use_images(self, images: np.ndarray) -> None:
        """Takes the parts that make up some images."""
        start = self._position[int(images[0])]
        inside = (self._bounds[:-1] >= start) & (self._bounds[1:] <= start + len(images))
        self._weights = np.where(inside, np.diff(self._bounds), 0) / len(images)

    def whole_accuracy(self) -> float:
        """Zero: accuracies are told against the whole network."""
        return 0.0

    def accuracies(self, masks: np.ndarray) -> np.ndarray:
        """What each mask gains against the whole network, percentage points."""
        return (self._weights @ self._gained)[[self._row[mask.tobytes()] for mask in masks]]


def run_missing(subject: Subject, arguments: argparse.Namespace, records: Records) -> None:
    """Measures what is not recorded yet; each result is written as soon as it is there."""
    timed = {(row["repeat"], row["group"]) for row in records.of_kind("speed")}
    peak = matrix_peak(LOW, arguments.clock)
    records.begin(**provenance(), clock=arguments.clock, peak=peak, peak_dtype=LOW_NAME)
    for repeat, group in itertools.product(range(arguments.repeats), subject.groups):
        if (repeat, group.name) in timed:
            continue
        ways = bench_group(subject, group, arguments, repeat)
        macs = needed_macs(subject, group, random_masks(group, arguments.masks, seed=200 + repeat))
        sizes = {name: getattr(arguments, name) for name in ("images", "masks", "plain_masks")}
        records.add("speed", repeat=repeat, group=group.name, macs=macs, **sizes, ways=ways)
        print(f"repeat {repeat + 1}, {group.name} done", flush=True)
    if not arguments.skip_agreement:
        record_agreement(subject, arguments, records)


def record_agreement(subject: Subject, arguments: argparse.Namespace, records: Records) -> None:
    """Measures the agreement with the exact rewards where it is not recorded yet."""
    agreed = {(row["fidelity"], row["accuracy"], row["group"]) for row in records.of_kind("agreement")}
    kinds = itertools.product(arguments.accuracies.split(","), arguments.fidelities.split(","))
    for (accuracy, fidelity), group in itertools.product(kinds, subject.groups):
        if (fidelity, accuracy, group.name) not in agreed:
            found = agreement(subject, group, arguments, fidelity, accuracy)
            records.add("agreement", fidelity=fidelity, accuracy=accuracy, group=group.name, **found)
            print(f"agreement, {fidelity} {accuracy}, {group.name} done", flush=True)


def main() -> None:
    """Runs what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=64, help="masks a group for the engine")
    parser.add_argument("--plain-masks", type=int, default=4, help="masks a group for the slow ways")
    parser.add_argument("--ways", default="", help="ways of the table to time, comma separated; empty: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--agreement-masks", type=int, default=64, help="masks a group, also in fp32")
    parser.add_argument("--fidelities", default="raw,bn,repair", help="of the agreement; comma separated")
    parser.add_argument("--accuracies", default="soft,hard", help="of the agreement; comma separated")
    add_clock_option(parser)
    parser.add_argument("--skip-agreement", action="store_true")
    parser.add_argument("--out", required=True, metavar="JSONL", help="records; what is there is kept")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    check_ways(arguments.ways)
    if not arguments.report:
        run_missing(load_subject(arguments), arguments, Records(Path(arguments.out)))
    print(engine_report(read_rows(Path(arguments.out))))


if __name__ == "__main__":
    main()
