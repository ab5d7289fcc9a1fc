"""What the masks of each group of a run are judged by, from the first to the last."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.config import Config, PruningConfig
from rlprune.drop_plan import DropPlan
from rlprune.errors import ConfigError
from rlprune.loss_curves import measured_curves
from rlprune.macs_target import TargetPlan, check_reachable
from rlprune.pruning.cost import group_macs
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.latency_table import LatencyTable
from rlprune.pruning.width_cost import GroupCost
from rlprune.rl.counts import allowed_counts
from rlprune.rl.objective import DropBound, MacsTarget, Objective
from rlprune.workbench import Workbench


def objective_alone(
    pruning: PruningConfig,
    model: nn.Module,
    group: FilterGroup,
    example: torch.Tensor,
    table: LatencyTable | None = None,
) -> Objective:
    """The objective of one group where all others stay as they are; nothing has been spent before it.

    A target of MACs asks nothing of one group alone: there the reward is minus the drop.

    Args:
        pruning: The settings.
        model: The network.
        group: One of its groups.
        example: One normalised input batch ``(n, c, h, w)``.
        table: The times of the layers, for ``pruning.efficiency`` latency.

    Raises:
        ConfigError: They are missing.
    """
    counts = allowed_counts(group.n_filters, pruning.round_to)
    if pruning.has_target:
        return MacsTarget(counts, counts[:1], np.zeros(1))
    if pruning.efficiency == "latency" and table is None:
        raise ConfigError(
            "pruning.efficiency latency needs a table of layer times, and none was given; the verbs and "
            "rlprune.prune measure one"
        )
    cost = GroupCost(model, group, example, table)
    return DropBound(counts, cost, pruning.efficiency, pruning.efficiency_weight, pruning.b)


class GroupObjectives:
    """The objectives of one run: of a drop bound, spread over the groups, or of a target of MACs.

    Attributes:
        groups: The groups of the base model, from the input upward.
        order: Their names in the order of pruning.
    """

    def __init__(
        self, config: Config, bench: Workbench, base: nn.Module, table: LatencyTable | None = None
    ) -> None:
        """Finds the groups.

        Args:
            config: The settings of the run.
            bench: Its images and device.
            base: The base model, which is neither changed nor copied.
            table: The times of its layers, for ``pruning.efficiency`` latency.

        Raises:
            ConfigError: The target is out of reach, or the table is missing.
            ModelError: The network has no prunable group.
        """
        self._config, self._bench, self._base, self._table = config, bench, base, table
        pruning = config.pruning
        self.groups = bench.groups(base)
        self._shares = group_macs(base, self.groups, bench.example)
        self.order = [group.name for group in self.groups]
        if pruning.order == "output-downward":
            self.order.reverse()
        self._plan: TargetPlan | DropPlan | None = None  # measured for the first group
        if pruning.has_target:
            check_reachable((pruning.target_macs,), base, self.groups, bench.example, pruning.round_to)
        else:
            objective_alone(pruning, base, self.groups[0], bench.example, table)  # refuses at once

    def of(
        self, model: nn.Module, groups: Sequence[FilterGroup], group: FilterGroup, sweep: int
    ) -> Objective:
        """The objective of a group of the network as it is now.

        Args:
            model: The network.
            groups: All its groups.
            group: The one that is to be cut.
            sweep: How often all groups have been gone through.
        """
        pruning, example = self._config.pruning, self._bench.example
        rest = self.order[self.order.index(group.name) + 1 :]
        if pruning.has_target:
            if self._plan is None:
                self._plan = TargetPlan.measured(self._config, self._bench, self._base, self.groups)
            return self._plan.objective(model, groups, group.name, rest, example)
        if pruning.is_planned:
            return self._drop_plan(model, groups, sweep).objective(model, groups, group.name, rest, example)
        bound = dataclasses.replace(pruning, b=self._bound(group.name, sweep))
        return objective_alone(bound, model, group, example, self._table)

    def _drop_plan(self, model: nn.Module, groups: Sequence[FilterGroup], sweep: int) -> DropPlan:
        """The plan of a sweep, whose first group measures it on the network as it is then."""
        plan = self._plan
        if not isinstance(plan, DropPlan) or plan.sweep != sweep:
            curves = measured_curves(self._config, self._bench, model, groups)
            self._plan = plan = DropPlan(self._config.pruning, curves, sweep)
        return plan

    def _bound(self, name: str, sweep: int) -> float:
        """The drop bound in the reward of a group: what may have been spent once this group is done."""
        pruning = self._config.pruning
        if pruning.budget == "first-come":
            return pruning.b
        whole = sum(self._shares.values())
        done = sum(self._shares[group] for group in self.order[: self.order.index(name) + 1])
        return pruning.b * (sweep * whole + done) / (pruning.sweeps * whole)

    def state_dict(self) -> dict[str, Any] | None:
        """What was measured before the first group; None for a drop bound, or if nothing was yet."""
        return None if self._plan is None else self._plan.state_dict()

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """The inverse of :meth:`state_dict`."""
        pruning = self._config.pruning
        kind = TargetPlan if pruning.has_target else DropPlan
        self._plan = None if state is None else kind.from_state(pruning, state)
