"""How much of an agent's time is not reward evaluation: sampling, connectors, learner, weight sync.

For each group and number of masks: the time of an iteration, and of what in it is not evaluation; and the
share of the latter, with building the agent, in all that a run does for the group with its settings: images
and moments, the agent, candidates, fine-tuning. One line of ``--out`` each; a second start goes on with what
is missing.

    python scripts/bench_agent.py --data parquet:../shared/data/cifar10 \
        --base ../shared/models/vgg16_bn_w025_cifar10.pt --groups 1,6,10 --out agent.jsonl
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_network import CLOCKS, Subject, add_clock_option, add_network_options, load_subject, provenance
from records import Records, read_rows
from reward_tables import agent_report

from rlprune.candidates import candidate_masks, make_candidate
from rlprune.group_agent import GroupAgent, group_agent
from rlprune.group_objective import objective_alone
from rlprune.pruning.groups import FilterGroup
from rlprune.rl.agent import Agent, AgentOutcome
from rlprune.rl.algorithms import ensure_ray
from rlprune.rl.group_task import GroupTask
from rlprune.workbench import Workbench

WARM_UP = 2
"""Iterations that are not timed."""


class TimedTask:
    """A group's task that adds up the time of its evaluations."""

    def __init__(self, task: GroupTask, clock: Callable[[], float]) -> None:
        self._task, self._clock, self.evaluating = task, clock, 0.0
        self.n_filters, self.context = task.n_filters, task.context

    def redraw(self, rng: np.random.Generator) -> None:
        """Draws a fresh subset of the images."""
        began = self._clock()
        self._task.redraw(rng)
        self.evaluating += self._clock() - began

    def rewards(self, masks: np.ndarray) -> np.ndarray:
        """The reward of each mask."""
        began = self._clock()
        found = self._task.rewards(masks)
        self.evaluating += self._clock() - began
        return found


def prepared(subject: Subject, bench: Workbench, group: FilterGroup) -> GroupAgent:
    """The agent of a group, as a run prepares it."""
    objective = objective_alone(subject.config.pruning, subject.model, group, subject.example)
    return group_agent(subject.config, bench, subject.model, group, objective, spent=0.0, earlier={})


def timed_iterations(
    agent: GroupAgent, masks: int, iterations: int, clock: Callable[[], float]
) -> dict[str, object]:
    """Seconds of building an agent, of its iterations, and of what in them is not evaluation."""
    task = TimedTask(agent.task, clock)
    settings = dataclasses.replace(agent.settings, masks=masks)
    began = clock()
    whole, rest = [], []
    with Agent(task, settings, seed=0) as trained:
        build = clock() - began
        for iteration in range(WARM_UP + iterations):
            task.evaluating = 0.0
            began = clock()
            trained.train_iteration()
            taken = clock() - began
            if iteration >= WARM_UP:
                whole.append(taken)
                rest.append(taken - task.evaluating)
    return {"build": build, "whole": whole, "rest": rest}


def learned(agent: GroupAgent) -> AgentOutcome:
    """What an agent has learned after one iteration: any masks will do for the time of what follows."""
    settings = dataclasses.replace(agent.settings, iterations=1)
    return dataclasses.replace(agent, settings=settings).train(0)


def finish(
    subject: Subject, bench: Workbench, group: FilterGroup, agent: GroupAgent, outcome: AgentOutcome
) -> None:
    """What a run does with a group after its agent: candidates on val, and fine-tuning of the best."""
    pruning = subject.config.pruning
    for mask in candidate_masks(outcome, pruning.candidates, agent.task.context.allowed):
        candidate = make_candidate(bench, subject.model, group, mask, agent.moments)
    bench.fine_tune(candidate.model, subject.config.finetune.group_epochs, group.name)
    bench.correct_val(candidate.model)


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network_options(parser)
    parser.add_argument("--masks", default="16,64,256", help="masks an iteration, comma separated")
    parser.add_argument("--iterations", type=int, default=8, help="timed iterations, after two to warm up")
    add_clock_option(parser)
    parser.add_argument("--out", required=True, metavar="JSONL", help="records; what is there is kept")
    parser.add_argument("--report", action="store_true", help="only print the table of what is there")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    if not arguments.report:
        subject, records = load_subject(arguments), Records(out)
        bench = Workbench(subject.config, subject.splits)
        settings = subject.config.agent
        records.begin(
            **provenance(),
            iterations=settings.iterations,
            masks=settings.masks,
            clock=arguments.clock,
            images=subject.config.pruning.reward_images,
            candidates=subject.config.pruning.candidates,
            group_epochs=subject.config.finetune.group_epochs,
        )
        ensure_ray()
        for group in subject.groups:
            record_group(subject, bench, group, arguments, records)
    print(agent_report(read_rows(out)))


def record_group(
    subject: Subject,
    bench: Workbench,
    group: FilterGroup,
    arguments: argparse.Namespace,
    records: Records,
) -> None:
    """Times what is missing of one group."""
    counts = [int(text) for text in arguments.masks.split(",")]
    done = {row["masks"] for row in records.of_kind("agent") if row["group"] == group.name}
    if done >= set(counts):
        return
    clock = CLOCKS[arguments.clock]
    times = [clock()]
    agent = prepared(subject, bench, group)
    times.append(clock())
    outcome = learned(agent)
    began = clock()
    finish(subject, bench, group, agent, outcome)
    after = clock() - began
    for count in counts:
        if count not in done:
            found = timed_iterations(agent, count, arguments.iterations, clock)
            records.add(
                "agent",
                group=group.name,
                filters=group.n_filters,
                masks=count,
                prepare=times[1] - times[0],
                after=after,
                **found,
            )
            print(f"{group.name}, {count} masks done", flush=True)


if __name__ == "__main__":
    main()
