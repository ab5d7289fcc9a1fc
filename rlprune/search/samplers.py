"""Optuna's samplers by name, with start-up counts that suit small budgets."""

import optuna
from optuna.samplers import BaseSampler

_SHARE_AT_RANDOM = 4  # one quarter of the trials, within the limits below, is sampled at random first


def make_sampler(name: str, seed: int, trials: int) -> BaseSampler:
    """A sampler.

    Args:
        name: ``tpe | nsga2 | random``.
        seed: Seed of its generator.
        trials: Trials of the whole study.
    """
    start_up = max(4, trials // _SHARE_AT_RANDOM)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, start_up))
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=min(50, start_up))
    assert name == "random", name
    return optuna.samplers.RandomSampler(seed=seed)
