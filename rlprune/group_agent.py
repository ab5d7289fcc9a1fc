"""The agent of one group: its task, built from the network as it is now, and its training."""

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlprune.config import AgentConfig, Config, PruningConfig
from rlprune.data import DataSplits
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.importance import filter_statistics, filter_weights, importance_scores
from rlprune.pruning.memory_share import claim_share
from rlprune.pruning.repair import Moments
from rlprune.rl.agent import AgentOutcome, train_agent
from rlprune.rl.env_runners import EnvRunners
from rlprune.rl.group_task import GroupTask
from rlprune.rl.objective import Objective
from rlprune.rl.start import measured_start
from rlprune.rl.task import FilterContext, PruningTask
from rlprune.seeding import generator
from rlprune.training.device import given_device, resolve_device
from rlprune.workbench import Workbench


@dataclasses.dataclass(frozen=True, eq=False)
class GroupAgent:
    """What one group's agent is trained on.

    Attributes:
        task: The masks' rewards, and the context that the policy reads.
        settings: The agent's, with the start that was measured.
        moments: What the repair of the group needs, by consumer; empty without repair.
        network: The policy that this one takes its network from; None to start afresh.
    """

    task: PruningTask
    settings: AgentConfig
    moments: Mapping[str, Moments]
    network: Mapping[str, torch.Tensor] | None = None

    def train(
        self,
        seed: int,
        *,
        state: Mapping[str, Any] | None = None,
        on_state: Callable[[dict[str, Any]], None] | None = None,
    ) -> AgentOutcome:
        """Trains the agent; for the arguments see :func:`rlprune.rl.agent.train_agent`."""
        return train_agent(
            self.task, self.settings, seed, network=self.network, state=state, on_state=on_state
        )


@dataclasses.dataclass(frozen=True, eq=False)
class TaskRecipe:
    """Makes a group's task again in another process: the same network, images and seeds, so the same rewards.

    Attributes:
        model: The network, on the CPU.
        group: One of its groups.
        context: What the policy may know of the filters.
        pruning: The settings of the trial.
        objective: As in :func:`group_agent`.
        spent: As in :func:`group_agent`.
    """

    model: nn.Module
    group: FilterGroup
    context: FilterContext
    pruning: PruningConfig
    objective: Objective
    spent: float

    def __call__(self, bench: Workbench) -> GroupTask:
        """The task, on the images of the process that it is called in."""
        model = bench.placed(self.model).eval()
        calibration, _ = bench.calibration(self.group.name)
        engine = bench.reward_engine(model, self.group, calibration)
        return GroupTask(engine, self.context, self.pruning, self.objective, spent=self.spent)


def env_runners(config: Config, splits: DataSplits) -> EnvRunners | None:
    """The further processes of a trial; None where it has none (``search.env_runners_per_trial``)."""
    search = config.search
    if not search.env_runners_per_trial:
        return None
    return EnvRunners(
        search.env_runners_per_trial,
        partial(_bench_of_runner, config),
        splits,
        cpus=search.cpus_per_env_runner,
        gpus=search.gpus_per_env_runner,
    )


def _bench_of_runner(config: Config, splits: DataSplits) -> Workbench:
    """What an env runner works with: its own device, and its share of the memory."""
    cpus, gpus = config.search.cpus_per_env_runner, config.search.gpus_per_env_runner
    torch.set_num_threads(max(1, int(cpus)))
    device = given_device(config.device, gpus, torch.cuda.is_available())
    claim_share(resolve_device(device), gpus=gpus, machine=min(1.0, cpus / (os.cpu_count() or 1)))
    return Workbench(dataclasses.replace(config, device=device), splits)


def filter_context(
    config: Config,
    bench: Workbench,
    model: nn.Module,
    group: FilterGroup,
    counts: NDArray[np.int64] | None = None,
) -> tuple[FilterContext, torch.Tensor]:
    """What is known of the filters of a group of the network as it is now, and the train images behind it.

    Args:
        config: The settings of the run.
        bench: Its images and device.
        model: The network.
        group: One of its groups.
        counts: How many filters a mask may keep, sorted; None: any number.
    """
    calibration, classes = bench.calibration(group.name)
    statistics = filter_statistics(model, group, calibration, classes)
    scores: np.ndarray = importance_scores(
        config.agent.importance, statistics, generator(config.seed, "importance", group.name)
    )
    weights = filter_weights(model, group)
    return FilterContext(statistics.features(), weights, scores, counts), calibration


def group_agent(
    config: Config,
    bench: Workbench,
    model: nn.Module,
    group: FilterGroup,
    objective: Objective,
    *,
    spent: float,
    earlier: Mapping[str, Mapping[str, Any]],
    runners: EnvRunners | None = None,
) -> GroupAgent:
    """Prepares the agent of a group of the network as it is now.

    Args:
        config: The settings of the run.
        bench: Its images and device.
        model: The network.
        group: One of its groups.
        objective: From drops and kept filters to rewards.
        spent: Drop on val so far, percentage points.
        earlier: What :func:`agent_record` gave for the groups before, the last one last.
        runners: Further processes that judge a part of the masks.
    """
    pruning, agent = config.pruning, config.agent
    context, calibration = filter_context(config, bench, model, group, objective.counts)
    if runners is not None:  # they prepare while this process does
        plain = copy.deepcopy(model).cpu()
        runners.prepare(TaskRecipe(plain, group, context, pruning, objective, spent))
    engine = bench.reward_engine(model, group, calibration)
    task: PruningTask = GroupTask(engine, context, pruning, objective, spent=spent)
    if runners is not None:
        task = runners.join(task)
    if agent.start == "measured":
        start = measured_start(task, generator(config.seed, "start", group.name))
        agent = dataclasses.replace(agent, keep_probability=start)
    moments = engine.moments
    if pruning.repair and not moments:
        moments = bench.moments(model, group, calibration)
    before = list(earlier.values())[-1:] if agent.warm_start else []
    return GroupAgent(task, agent, moments, network=before[0]["policy"] if before else None)


def agent_record(outcome: AgentOutcome, mask: np.ndarray, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is kept of a group's agent.

    Args:
        outcome: What it has learned.
        mask: What the group was cut by: bool ``(f,)``.
        before: What this function gave for the same group in the sweep before, if there was one.

    Returns:
        ``keep_probabilities`` (float64) and ``mask`` (bool) of all filters of the base model; those that an
        earlier sweep has cut have the keep probability that they were cut with. ``history`` (a dict an
        iteration) and ``policy`` (parameters) are of the last sweep.
    """
    keep, kept = torch.from_numpy(outcome.keep_probabilities), torch.from_numpy(mask)
    if before is not None:
        keep = before["keep_probabilities"].masked_scatter(before["mask"], keep)
        kept = before["mask"].masked_scatter(before["mask"], kept)
    return {
        "keep_probabilities": keep,
        "history": outcome.history,
        "policy": outcome.state,
        "mask": kept,
    }
