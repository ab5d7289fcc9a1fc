"""Which trial comes next: exactly ``num_samples`` for every b and target, in one study that survives a kill.

The study lives in an SQLite file, and every ask is written there before its trial starts: the number of an
ask is the number of its trial, so names, seeds and counts are the same however often a run is resumed. Ray's
own copies of the searcher's state are not needed and not read.
"""

import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from rlprune.config import Config
from rlprune.errors import ResultsError
from rlprune.results.goal import Goal, goals_of
from rlprune.results.record import TrialRecord
from rlprune.search.samplers import make_sampler
from rlprune.search.space import TARGET, B, distributions
from rlprune.search.study_storage import StudyPlace, open_storage
from rlprune.search.trainable import Assignment
from rlprune.seeding import child_seed

OBJECTIVES = ("drop_val", "macs_ratio")
"""What the study minimises: drop on val in percentage points, MACs as a fraction of the base's."""

_STATES = {"FAILED": TrialState.FAIL, "STOPPED": TrialState.PRUNED}


def trial_name(number: int) -> str:
    """The name of the trial with this number in the study."""
    return f"t{number:04d}"


def trial_number(name: str) -> int:
    """The number in the study of the trial with this name.

    Raises:
        ResultsError: If it is no name of a trial of a search.
    """
    if not (name.startswith("t") and name[1:].isdecimal()):
        raise ResultsError(f"{name!r} is no trial of a search; expected a name such as t0003")
    return int(name[1:])


class GridOptunaSearch(OptunaSearch):
    """Fixes b or the target for each ask, the one with the fewest trials first; Optuna samples the rest.

    Attributes:
        under_way: Trials that Tune has been given and that have not ended, as Tune's callback counts them.
    """

    def __init__(
        self,
        config: Config,
        place: StudyPlace,
        go_on: Callable[[Assignment], Assignment],
        places: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        """Open the study, or make it.

        Args:
            config: The settings of the run.
            place: Database and name of the study.
            go_on: What a trial of an earlier process began with -> what it goes on with.
            places: How many trials may be under way now; members of a population all are.
        """
        self._config = config
        self._go_on = go_on
        self._places = places
        self.under_way = 0
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            space=distributions(config),
            metric=list(OBJECTIVES),
            mode=["min"] * len(OBJECTIVES),
            sampler=make_sampler(self._sampler_name, child_seed(config.seed, "sampler"), self._total),
            storage=open_storage(place.url),
            study_name=place.name,
        )
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            self.study.set_metric_names(list(OBJECTIVES))
        self._unfinished = [trial.number for trial in self._trials(TrialState.RUNNING)]

    @property
    def study(self) -> optuna.Study:
        """The study with every trial that was ever asked for."""
        return self._ot_study

    @property
    def _total(self) -> int:
        return self._config.search.n_trials

    @property
    def _sampler_name(self) -> str:
        """Members of a population begin at random: all are asked for before anything is known."""
        return "random" if self._config.search.is_population else self._config.search.sampler

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def is_complete(self) -> bool:
        """Whether every goal has its trials and all of them have ended."""
        return self._next_goal() is None and not self._trials(TrialState.RUNNING, TrialState.WAITING)

    def _next_goal(self) -> Goal | None:
        """The one with the fewest trials; None if each has enough. Failed and stopped trials count."""
        counts = Counter(_goal_of(trial) for trial in self._trials())
        goal = min(goals_of(self._config.search), key=lambda goal: counts[goal])
        return goal if counts[goal] < self._config.search.num_samples else None

    def ask(self) -> Assignment | None:
        """The next trial to run, first those that an earlier process left unfinished; None at the end."""
        number = self._next_number()
        return None if number is None else self._assign(number)

    def unfinished(self) -> list[Assignment]:
        """The trials that an earlier process asked for and that have no row."""
        return [self._assign(number) for number in self._unfinished]

    def _assign(self, number: int) -> Assignment:
        seed = child_seed(self._config.seed, "sampler", number)
        self.study.sampler = make_sampler(self._sampler_name, seed, self._total)
        name = trial_name(number)
        asked = self._trials()[number]
        again, space = asked.state == TrialState.RUNNING, self._space_of(_goal_of(asked))
        trial = optuna.Trial(self.study, asked._trial_id) if again else self.study.ask()
        settings = {name: self._suggest(trial, name, space[name]) for name in space}
        assignment = Assignment(
            trial=name,
            b=settings.pop(B, None),
            target_macs=settings.pop(TARGET, None),
            seed=child_seed(self._config.seed, "trial", number),
            settings=settings,
        )
        return self._go_on(assignment) if again else assignment

    def _space_of(self, goal: Goal) -> dict[str, BaseDistribution]:
        """What is drawn for a trial: of b and the target, only the one that it has."""
        without = B if goal.b is None else TARGET
        return {name: found for name, found in self._space.items() if name != without}

    def _next_number(self) -> int | None:
        if self._unfinished:
            return self._unfinished.pop(0)
        waiting = self._trials(TrialState.WAITING)  # enqueued by a process that was killed before it asked
        if waiting:
            return waiting[0].number
        goal = self._next_goal()
        if goal is None:
            return None
        self.study.enqueue_trial({TARGET: goal.target_macs} if goal.b is None else {B: goal.b})
        return len(self._trials()) - 1

    def _suggest(self, trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
        """One setting: the one in the file, or where a kill came before it was written, the one it would be.

        Each is drawn with a seed of its own, so that it does not matter how many were drawn before.
        """
        seed = child_seed(self._config.seed, "sampler", trial.number, name)
        self.study.sampler = make_sampler(self._sampler_name, seed, self._total)
        return trial._suggest(name, distribution)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of Tune's next trial, or FINISHED; None for none now.

        That is as long as every place is taken, or the members of a population go on: once a searcher has
        finished Tune keeps no process for trials that it has paused, as those of a population are at each
        meeting, and each would be started anew.
        """
        population = self._config.search.is_population
        if not population and self.under_way >= max(1, self._places()):
            return None
        assignment = self.ask()
        if assignment is not None:
            self.under_way += 1
            return dict(vars(assignment))
        waits = population and self._trials(TrialState.RUNNING)
        return None if waits else Searcher.FINISHED

    def tell(self, record: TrialRecord) -> None:
        """Tell the study how a trial ended: COMPLETE, FAIL or PRUNED. Telling it again changes nothing.

        Raises:
            ResultsError: If the study does not hold the trial.
        """
        number = trial_number(record.trial)
        trials = self._trials()
        if number >= len(trials):
            raise ResultsError(
                f"the study does not hold trial {record.trial} of the rows: its database is of another run"
                " or was replaced; put the one that belongs to this run back"
            )
        if trials[number].state.is_finished():
            return
        storage, storage_id = self.study._storage, trials[number]._trial_id
        storage.set_trial_user_attr(storage_id, "trial", record.trial)
        for name in ("network", "error"):
            if getattr(record, name):
                storage.set_trial_user_attr(storage_id, name, getattr(record, name))
        if record.lineage:  # the study's parameters are those that the member began with
            ended = {"b": record.b, "settings": record.settings, "lineage": record.lineage}
            for name, value in ended.items():
                storage.set_trial_user_attr(storage_id, name, value)
        if number in self._unfinished:
            self._unfinished.remove(number)
        if record.status != "COMPLETE":
            self.study.tell(number, state=_STATES[record.status])
            return
        values = [getattr(record, name) for name in OBJECTIVES]
        if all(value is not None and math.isfinite(value) for value in values):
            self.study.tell(number, values=values)
        else:
            self.study.tell(number, state=TrialState.FAIL)

    def reconcile(self, records: Iterable[TrialRecord]) -> None:
        """Tell the study of every trial that has a row, should a kill have come between the two.

        Raises:
            ResultsError: If the study does not hold one of the trials, or holds finished ones without a row.
        """
        names = set()
        for record in records:
            self.tell(record)
            names.add(record.trial)
        ended = self._trials(TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
        strangers = [name for trial in ended if (name := trial_name(trial.number)) not in names]
        if strangers:
            raise ResultsError(
                f"the study holds {', '.join(strangers)}, which the rows do not: another run, perhaps a "
                "copy of this folder, goes on with the same study; start a new run with another --name"
            )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a half-pruned network is no result."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: :meth:`tell` is called once the row is on the disk, so the study never runs ahead."""

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file for Ray, which expects one: the state is in the study's own."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read: the state is in the study's file."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for :meth:`save`: Ray pickles the searcher, for nobody to read."""
        return {}


def _goal_of(trial: FrozenTrial) -> Goal:
    """What a trial was enqueued with, or has been given since."""
    fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return Goal(fixed.get(B), fixed.get(TARGET))
