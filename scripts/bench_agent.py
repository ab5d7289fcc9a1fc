"""How much of an agent's iteration is not reward evaluation: sampling, connectors, learner, weight sync.

python scripts/bench_agent.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --groups 6
"""

import argparse
import dataclasses
import time

import numpy as np
from bench_network import add_network_options, load_subject, machine, seconds, spread

from rlprune.group_agent import group_agent
from rlprune.pruning.cost import GroupCost
from rlprune.rl.agent import Agent
from rlprune.rl.group_task import GroupTask
from rlprune.workbench import Workbench


class TimedTask:
    """A group's task that adds up the time of its evaluations."""

    def __init__(self, task: GroupTask) -> None:
        self._task, self.evaluating = task, 0.0
        self.n_filters, self.context = task.n_filters, task.context

    def redraw(self, rng: np.random.Generator) -> None:
        """Draws a fresh subset of the images."""
        self.evaluating += seconds(lambda: self._task.redraw(rng))

    def rewards(self, masks: np.ndarray) -> np.ndarray:
        """The reward of each mask."""
        began = time.perf_counter()
        found = self._task.rewards(masks)
        self.evaluating += time.perf_counter() - began
        return found


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
    bench = Workbench(subject.config, subject.splits)
    print(
        f"{machine()}; {subject.config.pruning.reward_images} images a subset, "
        f"{arguments.iterations} iterations"
    )
    print("| group | filters | masks | iteration ms | not evaluation ms | share |")
    print("|---|---|---|---|---|---|")
    for group in subject.groups:
        cost = GroupCost(subject.model, group, subject.example)
        bound = subject.config.pruning.b
        agent = group_agent(subject.config, bench, subject.model, group, cost, bound=bound, spent=0.0)
        task = TimedTask(agent.task)
        for masks in (int(text) for text in arguments.masks.split(",")):
            settings = dataclasses.replace(agent.settings, masks=masks)
            whole, rest = [], []
            with Agent(task, settings, seed=0) as trained:
                for iteration in range(2 + arguments.iterations):
                    task.evaluating = 0.0
                    began = time.perf_counter()
                    trained.train_iteration()
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
