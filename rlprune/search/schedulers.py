"""Schedulers by name: what happens between trials that run side by side."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from rlprune.config import Config
from rlprune.results.record import TrialRecord
from rlprune.results.step_report import score
from rlprune.search.journal import Journal
from rlprune.search.per_bound import PerBound
from rlprune.search.population import BanditPopulation, BoundPopulation, FrontPopulation
from rlprune.search.resources import PENDING
from rlprune.search.trainable import Assignment

_NEVER = 10**6  # steps; a trial ends by itself
_WHOLE_FRONT = "front"


def make_scheduler(config: Config, journal: Journal, records: Iterable[TrialRecord]) -> TrialScheduler | None:
    """The scheduler of a search; None for independent trials.

    Args:
        config: The settings of the run.
        journal: What its populations have decided so far.
        records: How trials of an earlier process stood after each step; the newest step of one that goes on
            is left out, because it is reported again.
    """
    name = config.search.scheduler
    if name == "none":
        return None
    if name == "asha":
        known = list(records)
        return PerBound(lambda key: Asha(config, [each for each in known if each.goal.key == key]), _goal_of)
    if name == "mo-pbt":
        return PerBound(lambda key: FrontPopulation(config, journal, key), lambda trial: _WHOLE_FRONT)
    population = {"pbt": BoundPopulation, "pb2": BanditPopulation}[name]
    return PerBound(lambda key: population(config, journal, key), _goal_of)


def _goal_of(trial: Trial) -> str:
    return Assignment(**trial.config).goal.key


class Asha(ASHAScheduler):
    """Ray's asynchronous successive halving, which knows trials by our names, resumed or not."""

    def __init__(self, config: Config, records: Iterable[TrialRecord] = ()) -> None:
        """Begin with what is known of trials of an earlier process: their records."""
        super().__init__(
            time_attr="step",
            metric="score",
            mode="max",
            max_t=max(_NEVER, config.search.grace_period),
            grace_period=config.search.grace_period,
            reduction_factor=config.search.reduction_factor,
        )
        for record in records:
            for group in record.groups:
                value = score(group["drop_val"], group["macs_ratio"])
                self._brackets[0].on_result(_named(record.trial), group["step"], value)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial is there, or is tried again."""
        super().on_trial_add(tune_controller, _named(trial.config["trial"]))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on or is stopped."""
        decision: str = super().on_trial_result(tune_controller, _named(trial.config["trial"]), result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """A trial is done or stopped."""
        super().on_trial_complete(tune_controller, _named(trial.config["trial"]), result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """A trial that waited is stopped."""
        super().on_trial_remove(tune_controller, _named(trial.config["trial"]))


def _named(trial: str) -> SimpleNamespace:
    """What Ray's rungs need of a trial."""
    return SimpleNamespace(trial_id=trial)


@contextmanager
def all_pending(config: Config) -> Iterator[None]:
    """Within the block Tune asks for all members of a population before it starts the first.

    A meeting waits for the members that are there: asked for one by one, the first would meet alone.
    """
    before = os.environ.get(PENDING)
    if config.search.is_population:
        os.environ[PENDING] = str(config.search.n_trials)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(PENDING, None)
        else:
            os.environ[PENDING] = before
