"""Optuna's samplers by name, with start-up counts that suit small budgets."""

import warnings
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_SHARE_AT_RANDOM = 4
"""One quarter of the trials, within the limits below, is sampled at random first."""
_FEWEST_AT_RANDOM = 4


class Sampler(NamedTuple):
    """One of Optuna's samplers.

    Attributes:
        kind: Its class in ``optuna.samplers``.
        start_up: Its argument for the trials that are sampled at random first; empty if it has none.
        most: Optuna's own value of that argument, meant for large budgets.
    """

    kind: str
    start_up: str = ""
    most: int = 0


SAMPLERS = {
    "tpe": Sampler("TPESampler", "n_startup_trials", 10),
    "nsga2": Sampler("NSGAIISampler", "population_size", 50),
    "nsga3": Sampler("NSGAIIISampler", "population_size", 50),
    "gp": Sampler("GPSampler", "n_startup_trials", 10),
    "random": Sampler("RandomSampler"),
}
"""The names that ``search.sampler`` may have."""


def make_sampler(name: str, seed: int, trials: int) -> "BaseSampler":
    """A sampler; Optuna is imported here.

    Args:
        name: One of :data:`SAMPLERS`.
        seed: Seed of its generator.
        trials: Trials of the whole study.
    """
    import optuna

    sampler = SAMPLERS[name]
    first = max(_FEWEST_AT_RANDOM, trials // _SHARE_AT_RANDOM)
    start_up = {sampler.start_up: min(sampler.most, first)} if sampler.start_up else {}
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        made: BaseSampler = getattr(optuna.samplers, sampler.kind)(seed=seed, **start_up)
    return made
