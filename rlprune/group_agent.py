"""The agent of one group: its task, built from the network as it is now, and its training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.config import AgentConfig, Config
from rlprune.pruning.cost import GroupCost
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.importance import filter_statistics, filter_weights, importance_scores
from rlprune.pruning.repair import Moments
from rlprune.rl.agent import AgentOutcome, train_agent
from rlprune.rl.group_task import GroupTask
from rlprune.rl.start import measured_start
from rlprune.rl.task import FilterContext
from rlprune.seeding import generator
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

    task: GroupTask
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


def group_agent(
    config: Config,
    bench: Workbench,
    model: nn.Module,
    group: FilterGroup,
    cost: GroupCost,
    *,
    bound: float,
    spent: float,
    earlier: Mapping[str, Mapping[str, Any]],
) -> GroupAgent:
    """Prepares the agent of a group of the network as it is now.

    Args:
        config: The settings of the run.
        bench: Its images and device.
        model: The network.
        group: One of its groups.
        cost: What the group costs.
        bound: Drop bound in this group's reward, percentage points.
        spent: Drop on val so far, percentage points.
        earlier: What :func:`agent_record` gave for the groups before, the last one last.
    """
    pruning, agent = config.pruning, config.agent
    calibration, classes = bench.calibration(group.name)
    statistics = filter_statistics(model, group, calibration, classes)
    scores: np.ndarray = importance_scores(
        agent.importance, statistics, generator(config.seed, "importance", group.name)
    )
    context = FilterContext(
        statistics.features(), filter_weights(model, group), scores, multiple=pruning.round_to
    )
    engine = bench.reward_engine(model, group, calibration)
    task = GroupTask(engine, context, cost, pruning, b=bound, spent=spent)
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
