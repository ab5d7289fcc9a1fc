"""From ``search.space`` to Optuna's distributions, and what a trial's settings say of its goal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlprune.config import Config
from rlprune.config_values import all_settings
from rlprune.results.goal import Goal

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

B = "pruning.b"
"""The name of the drop bound in the study; its values come from ``search.b_grid``."""
TARGET = "pruning.target_macs"
"""The name of the target in the study; its values come from ``search.target_macs``."""


def distributions(config: Config) -> "dict[str, BaseDistribution]":
    """Optuna's distribution of every sampled setting, and of b and the target over their grids.

    Args:
        config: Settings whose ``search.space`` was checked when it was loaded.
    """
    from optuna.distributions import FloatDistribution

    sampled = {name: _distribution(name, entry) for name, entry in config.search.space.items()}
    grids = {B: config.search.b_grid, TARGET: config.search.target_macs}
    fixed = {name: FloatDistribution(min(grid), max(grid)) for name, grid in grids.items() if grid}
    return {**fixed, **sampled}


def _distribution(name: str, entry: Mapping[str, Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "choices" in entry:
        return CategoricalDistribution(entry["choices"])
    kind = IntDistribution if all_settings()[name].type is int else FloatDistribution
    return kind(entry["low"], entry["high"], log=bool(entry.get("log")))


def goal_settings(goal: Goal) -> dict[str, float | None]:
    """What a trial's settings say of its goal; without a target b counts, whatever the run's settings say."""
    return {TARGET: goal.target_macs} if goal.b is None else {B: goal.b, TARGET: None}
