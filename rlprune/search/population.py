"""Populations: after every few groups the worst members go on from copies of the best ones' networks.

Ray's synchronous ``PopulationBasedTraining`` and ``PB2`` decide who copies whom and what is tried next; here
is what they lack. A copy keeps its own name and seed. All decisions of a meeting are on the disk before the
first takes effect, and a resumed search goes on from there. The draws depend on the run's seed and the step
alone. A member that fails for good keeps nobody waiting. :class:`FrontPopulation` compares members on the
drop and the MACs at once, so that they may have different drop bounds, which it explores as well.
"""

import dataclasses
import math
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.schedulers.pb2 import PB2

from rlprune.config import Config
from rlprune.search.checkpoint import place_of
from rlprune.search.journal import Exploit, Journal, Meeting, Standing
from rlprune.search.selection import best_first
from rlprune.search.trainable import Assignment
from rlprune.seeding import child_seed

SETTINGS = "settings"  # the field of an assignment that populations explore
FACTORS = (1.2, 0.8)
"""What a number is multiplied by when it is explored and not drawn afresh."""


class _Population(PopulationBasedTraining):
    """What is common to all populations."""

    def __init__(self, config: Config, journal: Journal, key: str, **explored: Any) -> None:
        interval = config.search.perturbation_interval
        super().__init__(
            time_attr="step",
            metric="score",
            mode="max",
            perturbation_interval=interval,
            log_config=False,
            synch=True,
            **explored,
        )
        self._config, self._journal, self._key, self._interval = config, journal, key, interval
        self._next_perturbation_sync = interval + max((m.step for m in journal.meetings(key)), default=0)
        self._agreed: dict[Trial, tuple[Trial, dict[str, Any]]] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A member is there, or is tried again: it was at all meetings so far."""
        super().on_trial_add(tune_controller, trial)
        self._trial_state[trial].last_perturbation_time = self._next_perturbation_sync - self._interval

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """A member has done a step; the last one to come to a meeting lets it begin."""
        step = self._next_perturbation_sync
        with _global_generators(child_seed(self._config.seed, "population", self._key, step)):
            decision: str = super().on_trial_result(tune_controller, trial, result)
        if self._next_perturbation_sync == step:
            return decision
        self._journal.append(self._minutes(step, tune_controller))
        for member, (donor, _) in self._agreed.items():
            super()._exploit(tune_controller, member, donor)
        self._agreed = {}
        return TrialScheduler.NOOP if trial.status == Trial.PAUSED else TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next member to go on; a meeting that waits for members that have failed begins first."""
        live = tune_controller.get_live_trials()
        if live and all(self._waits(trial) for trial in live):
            self.on_trial_result(tune_controller, live[0], self._trial_state[live[0]].last_result)
        chosen: Trial | None = super().choose_trial_to_run(tune_controller)
        return chosen

    def _waits(self, trial: Trial) -> bool:
        arrived: bool = self._trial_state[trial].last_train_time >= self._next_perturbation_sync
        return trial.status == Trial.PAUSED and arrived

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        """Only notes what was decided; :meth:`on_trial_result` does it once it is on the disk."""
        config, _ = self._get_new_config(trial, trial_to_clone)
        self._agreed[trial] = trial_to_clone, config

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """The donor's settings, explored, in the member's own assignment; the same when asked again."""
        if trial in self._agreed:
            return self._agreed[trial][1], {}
        explored, operations = super()._get_new_config(trial, trial_to_clone)
        settings = within(self._config.search.space, explored[SETTINGS])
        b = self._explored_b(trial_to_clone)
        return self._own(trial, trial_to_clone, b, settings), operations

    def _explored_b(self, donor: Trial) -> float | None:
        """The b that a copy of a donor goes on with; None where the members have a target."""
        b: float | None = donor.config["b"]
        return b

    def _own(self, trial: Trial, donor: Trial, b: float | None, settings: dict[str, Any]) -> dict[str, Any]:
        """The assignment of a copy: its own name and seed, the donor's b and settings as explored."""
        own = Assignment(**trial.config)
        state = self._trial_state[trial]
        start = {"step": 0, "donor": "", "b": own.b, SETTINGS: own.settings}
        event = {
            "step": state.last_train_time,
            "donor": donor.config["trial"],
            "b": b,
            SETTINGS: settings,
            "left": {name: state.last_result[name] for name in ("score", "drop_val", "macs_ratio")},
        }
        lineage = [*(own.lineage or [start]), event]
        changed = dataclasses.replace(own, b=b, settings=settings, checkpoint="", lineage=lineage)
        return dict(vars(changed))

    def _minutes(self, step: int, controller: Any) -> Meeting:
        members = [trial for trial in controller.get_live_trials() if self._trial_state[trial].last_result]
        exploits = [
            Exploit(
                trial.config["trial"],
                donor.config["trial"],
                place_of(self._trial_state[donor].last_checkpoint.path),
                config,
            )
            for trial, (donor, config) in self._agreed.items()
        ]
        return Meeting(self._key, step, [self._standing(trial) for trial in members], exploits)

    def _standing(self, trial: Trial) -> Standing:
        result = self._trial_state[trial].last_result
        return Standing(
            trial.config["trial"],
            trial.config["b"],
            trial.config[SETTINGS],
            *(result[name] for name in ("score", "drop_val", "macs_ratio")),
        )


class BoundPopulation(_Population):
    """Population-based training (Jaderberg et al. 2017) of the members of one b."""

    def __init__(self, config: Config, journal: Journal, key: str) -> None:
        super().__init__(
            config,
            journal,
            key,
            hyperparam_mutations={SETTINGS: mutations(config.search.space)},
            perturbation_factors=FACTORS,
        )


class BanditPopulation(_Population, PB2):
    """Population-based bandits (Parker-Holder et al. 2020): a Gaussian process says what to try next.

    Only ranges are explored; choices go over from the donor as they are.
    """

    def __init__(self, config: Config, journal: Journal, key: str) -> None:
        ranges = {name: entry for name, entry in config.search.space.items() if "low" in entry}
        bounds = {name: [entry["low"], entry["high"]] for name, entry in ranges.items()}
        super().__init__(config, journal, key, hyperparam_bounds={SETTINGS: bounds})
        self._columns = {f"{SETTINGS}/{name}": name for name in bounds}
        rows = [row for meeting in journal.meetings(key) for row in self._rows(meeting)]
        if rows:
            self.data = pd.DataFrame(rows)

    def _rows(self, meeting: Meeting) -> Iterator[dict[str, Any]]:
        """What Ray keeps of a meeting: how each stood, and what copies that try something new begin with."""
        standings = {member.trial: member for member in meeting.members}
        begun = [(member.trial, member.settings, member.score) for member in meeting.members]
        for exploit in meeting.exploits:
            donor, settings = standings[exploit.donor], exploit.assignment[SETTINGS]
            if settings != donor.settings:
                begun.append((exploit.trial, settings, donor.score))
        for trial, settings, score in begun:
            values = {column: settings[name] for column, name in self._columns.items()}
            yield {"Trial": trial, "Time": meeting.step, **values, "Reward": score}

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """As Ray has it, but the same in whatever order the members came to the meeting.

        In its record too the copy's settings are brought within their range.
        """
        self.data = self.data.sort_values(["Time", "Trial"], kind="stable", ignore_index=True)
        before = len(self.data)
        with warnings.catch_warnings(action="ignore"):  # of the fit, on so few points
            config, operations = super()._get_new_config(trial, trial_to_clone)
        if len(self.data) > before:
            for column, name in self._columns.items():
                self.data.loc[len(self.data) - 1, column] = config[SETTINGS][name]
        return config, operations


class FrontPopulation(BoundPopulation):
    """One population for the whole front, after Dushatskiy et al. 2023.

    The members to be replaced and the donors are the last and the first by front and hypervolume
    contribution, over the drop on val and the MACs; b is explored like a setting.
    """

    def _quantiles(self) -> tuple[list[Trial], list[Trial]]:
        """The members to be replaced, worst first, and the donors."""
        members, points = [], []
        for trial, state in self._trial_state.items():
            if state.last_result is not None and not trial.is_finished():
                point = state.last_result["drop_val"], state.last_result["macs_ratio"]
                if all(math.isfinite(coordinate) for coordinate in point):
                    members.append(trial)
                    points.append(point)
        if len(members) < 2:
            return [], []
        count = min(math.ceil(len(members) * self._quantile_fraction), len(members) // 2)
        order = [members[index] for index in best_first(points)]
        return order[::-1][:count], order[:count]

    def _explored_b(self, donor: Trial) -> float:
        """Drawn afresh within the grid's range, or the donor's a little changed; never below its drop."""
        low, high = min(self._config.search.b_grid), max(self._config.search.b_grid)
        if random.random() < self._resample_probability:
            b = math.exp(random.uniform(math.log(low), math.log(high)))
        else:
            b = donor.config["b"] * random.choice(FACTORS)
        return float(min(max(b, low, self._trial_state[donor].last_result["drop_val"]), high))


def mutations(space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What Ray draws from when it explores: for each sampled setting a distribution, or its choices."""
    return {name: _domain(entry) for name, entry in space.items()}


def _domain(entry: Mapping[str, Any]) -> Any:
    if "choices" in entry:
        return list(entry["choices"])
    low, high = entry["low"], entry["high"]
    if isinstance(low, int):
        return tune.randint(low, high + 1)
    return tune.loguniform(low, high) if entry.get("log") else tune.uniform(low, high)


def within(space: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with every number brought into its range."""
    ranges = {name: entry for name, entry in space.items() if "low" in entry}
    return {
        name: min(max(value, ranges[name]["low"]), ranges[name]["high"]) if name in ranges else value
        for name, value in settings.items()
    }


@contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """Within the block Python's and NumPy's global generators, which Ray draws from, begin at a seed."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
