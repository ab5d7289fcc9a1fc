"""What each lever of the reward engine gives, one added to the next; how often an agent asks the same.

From the plain way (for each mask the whole network in fp32, the mask applied) to the engine in 8-bit
integers: the same masks on the same images, all steps of a group side by side in each repeat. Then an agent
is trained for each group with the settings of a run, and the masks are counted that it asks for again on the
same images: those the engine knows. One line of ``--out`` each; a second start goes on with what is missing.

    python scripts/bench_levers.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --out levers.jsonl
"""

import argparse
import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_agent import prepared
from bench_network import (
    LOW_NAME,
    Subject,
    add_clock_option,
    add_network_options,
    load_subject,
    provenance,
    random_masks,
)
from bench_reward_engine import make_engine, masked_forward, nearly_whole, seconds
from lever_tables import lever_report
from records import Records, read_rows

from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.partition import trace
from rlprune.rl.agent import Agent
from rlprune.rl.algorithms import ensure_ray
from rlprune.rl.task import PruningTask
from rlprune.workbench import Workbench

PLAIN, LAST, FOLDED = "plain fp32", "channels-last", "batch norms folded"
PREFIX, KEPT = "what comes before kept", "kept channels only"
PRECISIONS = tuple(dict.fromkeys(["fp32", LOW_NAME, "int8"]))[1:]
"""In which the engine runs after its steps in fp32."""


class CountingTask:
    """A group's task that counts the masks it is asked for, and those that are new on the images in use."""

    def __init__(self, task: PruningTask) -> None:
        self._task, self._seen = task, set[bytes]()
        self.n_filters, self.context = task.n_filters, task.context
        self.asked = self.new = 0

    def redraw(self, rng: np.random.Generator) -> None:
        """Draws a fresh subset of the images."""
        self._seen.clear()
        self._task.redraw(rng)

    def rewards(self, masks: np.ndarray) -> np.ndarray:
        """The reward of each mask."""
        known = len(self._seen)
        self._seen.update(mask.tobytes() for mask in np.asarray(masks, dtype=bool))
        self.asked, self.new = self.asked + len(masks), self.new + len(self._seen) - known
        return self._task.rewards(masks)


def step_times(
    subject: Subject, group: FilterGroup, masks: np.ndarray, images: int, clock: str
) -> dict[str, float]:
    """Seconds a mask after each step; set-up is not counted."""
    inputs, _ = subject.normalised("reward", images, seed=1)
    last = inputs.contiguous(memory_format=torch.channels_last)
    turned = copy.deepcopy(subject.model).to(memory_format=torch.channels_last)
    folded = trace(subject.model, fold_batch_norm=True).to(memory_format=torch.channels_last)
    ways: dict[str, tuple[torch.nn.Module, torch.Tensor]] = {
        PLAIN: (subject.model, inputs.contiguous()),
        LAST: (turned, last),
        FOLDED: (folded, last),
    }

    def average(run: Callable[[np.ndarray], object]) -> float:
        return sum(seconds(lambda mask=mask: run(mask), clock) for mask in masks) / len(masks)

    found = {
        name: average(lambda mask, model=model, given=given: masked_forward(model, group, mask, given))
        for name, (model, given) in ways.items()
    }
    engine = make_engine(subject, group, images, "raw", "hard", "fp32")
    engine.accuracies(nearly_whole(group))
    found[PREFIX] = average(lambda _: (engine.use_images(None), engine.whole_accuracy()))
    found[KEPT] = seconds(lambda: engine.accuracies(masks), clock) / len(masks)
    for precision in PRECISIONS:
        engine = make_engine(subject, group, images, "raw", "hard", precision)
        engine.accuracies(nearly_whole(group))
        found[precision] = seconds(lambda engine=engine: engine.accuracies(masks), clock) / len(masks)
    return found


def asked_again(subject: Subject, group: FilterGroup) -> dict[str, int]:
    """How many masks a group's agent asks for, and how many of them are new on the images in use."""
    agent = prepared(subject, Workbench(subject.config, subject.splits), group)
    task = CountingTask(agent.task)
    with Agent(task, agent.settings, seed=0) as trained:
        for _ in range(agent.settings.iterations):
            trained.train_iteration()
    return {"asked": task.asked, "new": task.new, "iterations": agent.settings.iterations}


def main() -> None:
    """Runs what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=2, help="masks a group")
    parser.add_argument("--repeats", type=int, default=5)
    add_clock_option(parser)
    parser.add_argument("--out", required=True, metavar="JSONL", help="records; what is there is kept")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    if not arguments.report:
        record_missing(load_subject(arguments), arguments, Records(Path(arguments.out)))
    print(lever_report(read_rows(Path(arguments.out))))


def record_missing(subject: Subject, arguments: argparse.Namespace, records: Records) -> None:
    """Times and counts what is not recorded yet."""
    sizes = {name: getattr(arguments, name) for name in ("images", "masks")}
    records.begin(**provenance(), clock=arguments.clock, low=LOW_NAME, **sizes)
    done = {(row["repeat"], row["group"]) for row in records.of_kind("levers")}
    for repeat, group in itertools.product(range(arguments.repeats), subject.groups):
        if (repeat, group.name) not in done:
            masks = random_masks(group, arguments.masks, seed=400 + repeat)
            times = step_times(subject, group, masks, arguments.images, arguments.clock)
            records.add("levers", repeat=repeat, group=group.name, times=times)
            print(f"repeat {repeat + 1}, {group.name} done", flush=True)
    ensure_ray()
    counted = {row["group"] for row in records.of_kind("equal")}
    for group in subject.groups:
        if group.name not in counted:
            records.add("equal", group=group.name, filters=group.n_filters, **asked_again(subject, group))


if __name__ == "__main__":
    main()
