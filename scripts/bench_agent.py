"""How much of an agent's iteration is not reward evaluation: sampling, connectors, learner, weight sync.

python scripts/bench_agent.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --groups 6
"""

import argparse
import dataclasses
import time

import numpy as np
import torch
from bench_network import Subject, add_network_options, load_subject, machine, spread

from rlprune.pruning.cost import GroupCost
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.importance import filter_statistics, filter_weights, importance_scores
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.rl.agent import Agent
from rlprune.rl.group_task import GroupTask
from rlprune.rl.task import FilterContext
from rlprune.training.device import resolve_precision


class TimedTask(GroupTask):
    """A group's task that adds up the time of its evaluations."""

    evaluating = 0.0

    def redraw(self, rng: np.random.Generator) -> None:
        """Draws a fresh subset of the images."""
        began = time.perf_counter()
        super().redraw(rng)
        self.evaluating += time.perf_counter() - began

    def rewards(self, masks: np.ndarray) -> np.ndarray:
        """The paper's reward of each mask."""
        began = time.perf_counter()
        found = super().rewards(masks)
        self.evaluating += time.perf_counter() - began
        return found


def make_task(subject: Subject, group: FilterGroup) -> TimedTask:
    """The task of one group, as a run makes it."""
    pruning = subject.config.pruning
    calibration, classes = subject.normalised("train", pruning.calibration_images, seed=0)
    inputs, labels = subject.normalised("reward", 10**9, seed=1)
    statistics = filter_statistics(subject.model, group, calibration, classes)
    scores = importance_scores(subject.config.agent.importance, statistics, np.random.default_rng(0))
    context = FilterContext(statistics.features(), filter_weights(subject.model, group), scores)
    engine = RewardEngine(
        subject.model,
        group,
        inputs,
        labels,
        calibration=calibration,
        fidelity=pruning.fidelity,  # type: ignore[arg-type]
        accuracy=pruning.accuracy,  # type: ignore[arg-type]
        ridge=pruning.ridge,
        dtype=resolve_precision(subject.config.precision, torch.device("cpu")),
        seed=0,
    )
    return TimedTask(
        engine, context, GroupCost(subject.model, group, subject.example), pruning, b=1.0, spent=0.0
    )


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--masks", default="16,64,256", help="masks an iteration, comma separated")
    parser.add_argument("--iterations", type=int, default=8, help="timed iterations, after two to warm up")
    arguments = parser.parse_args()
    subject = load_subject(arguments)
    print(
        f"{machine()}; {subject.config.pruning.reward_images} images a subset, "
        f"{arguments.iterations} iterations"
    )
    print("| group | filters | masks | iteration ms | not evaluation ms | share |")
    print("|---|---|---|---|---|---|")
    for group in subject.groups:
        task = make_task(subject, group)
        for masks in (int(text) for text in arguments.masks.split(",")):
            settings = dataclasses.replace(subject.config.agent, masks=masks)
            whole, rest = [], []
            with Agent(task, settings, seed=0) as agent:
                for iteration in range(2 + arguments.iterations):
                    task.evaluating = 0.0
                    began = time.perf_counter()
                    agent.train_iteration()
                    taken = time.perf_counter() - began
                    if iteration >= 2:
                        whole.append(1000 * taken)
                        rest.append(1000 * (taken - task.evaluating))
            print(
                f"| {group.name} | {group.n_filters} | {masks} | {spread(whole, '.0f')} "
                f"| {spread(rest, '.0f')} | {100 * sum(rest) / sum(whole):.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
