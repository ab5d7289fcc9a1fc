"""What the baselines choose from: the base model, its groups and scores, and the networks to be matched."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import nn

from rlprune.baselines.orders import Removal, Scores
from rlprune.config import Config
from rlprune.pruning.group_norm import group_norm_order
from rlprune.pruning.importance import FilterStatistics, filter_statistics, importance_scores
from rlprune.pruning.width_cost import WidthCost
from rlprune.results.record import TrialRecord
from rlprune.seeding import generator
from rlprune.workbench import Workbench

FROM_IMAGES = {"taylor", "activation", "redundancy"}
"""Importances that are measured on images; the others read the weights alone."""


@dataclass(frozen=True, eq=False)
class Row:
    """A network of the run that the baselines are compared with.

    Attributes:
        record: Its record; MACs and widths are what is matched.
        config: The settings of its trial, the sampled ones included.
        epochs: Passes over train that its fine-tunings took together.
        rankings: How its agents rank the filters ``(f,)``, by group, higher = keep; empty without agents.
    """

    record: TrialRecord
    config: Config
    epochs: float
    rankings: Mapping[str, np.ndarray]


class Subject:
    """The base model and what is known of its filters."""

    def __init__(self, bench: Workbench, base: nn.Module) -> None:
        """Finds the groups.

        Args:
            bench: Images and device; its seed draws calibration images and random scores.
            base: The base model, in evaluation mode; it is not changed.
        """
        self.bench = bench
        self.base = base
        self.groups = bench.groups(base)
        self.cost = WidthCost(base, self.groups, bench.example)
        self._statistics: dict[tuple[str, bool], FilterStatistics] = {}
        self.group_norm_order = cache(self._group_norm_order)

    def scores(self, kind: str) -> dict[str, np.ndarray]:
        """Importance scores ``(f,)`` of one kind, by group, measured on the uncut base model."""
        found = {}
        for group in self.groups:
            key = (group.name, kind in FROM_IMAGES)
            if key not in self._statistics:
                images, classes = self.bench.calibration(group.name)
                count = len(images) if kind in FROM_IMAGES else 1
                self._statistics[key] = filter_statistics(self.base, group, images[:count], classes[:count])
            draws = generator(self.bench.seed("importance", group.name))
            found[group.name] = importance_scores(kind, self._statistics[key], draws).astype(np.float64)
        return found

    def _group_norm_order(self, isomorphic: bool) -> list[Removal]:
        return group_norm_order(self.base, self.groups, self.bench.example, isomorphic=isomorphic)


def by_mean(scores: Scores) -> dict[str, np.ndarray]:
    """Scores divided by their mean over the group: what differs from group to group in scale goes."""
    return {name: values / max(values.mean(), 1e-12) for name, values in scores.items()}


def by_norm(scores: Scores) -> dict[str, np.ndarray]:
    """Scores divided by their L2 norm over the group (Molchanov et al. 2017, section 2.2)."""
    return {name: values / max(np.linalg.norm(values), 1e-12) for name, values in scores.items()}
