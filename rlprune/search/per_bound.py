"""One scheduler for each goal: trials of different b or targets are never compared."""

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler


class TrialsOfOneBound:
    """What a scheduler sees of Tune's controller: the trials of its own b, and no search algorithm.

    Ray's populations refuse to work beside any search algorithm. Ours only hands out the members.
    """

    search_alg = None

    def __init__(self, controller: Any, belongs: Callable[[Trial], bool]) -> None:
        self._controller, self._belongs = controller, belongs

    def get_trials(self) -> list[Trial]:
        """All trials of this b."""
        return [trial for trial in self._controller.get_trials() if self._belongs(trial)]

    def get_live_trials(self) -> list[Trial]:
        """Those that have not ended; Tune's own list keeps the failed ones."""
        return [trial for trial in self.get_trials() if not trial.is_finished()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class PerBound(TrialScheduler):
    """Hands every trial to the scheduler of its b."""

    _supports_buffered_results = False

    def __init__(self, make: Callable[[str], TrialScheduler], key: Callable[[Trial], str]) -> None:
        """Begin without schedulers; each is made for its first trial.

        Args:
            make: Key -> scheduler.
            key: Trial -> key; the same for all trials that may be compared.
        """
        super().__init__()
        self._make, self._key = make, key
        self._schedulers: dict[str, TrialScheduler] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles the scheduler, for nobody to read."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial is there, or is tried again."""
        key = self._key(trial)
        if key not in self._schedulers:
            self._schedulers[key] = self._make(key)
        self._schedulers[key].on_trial_add(self._view(tune_controller, key), trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A trial has failed."""
        self._of(trial).on_trial_error(self._view(tune_controller, self._key(trial)), trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """A trial has done a step; what is to become of it?"""
        view = self._view(tune_controller, self._key(trial))
        decision: str = self._of(trial).on_trial_result(view, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """A trial is done or stopped."""
        self._of(trial).on_trial_complete(self._view(tune_controller, self._key(trial)), trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """A trial that waited is stopped."""
        self._of(trial).on_trial_remove(self._view(tune_controller, self._key(trial)), trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next trial that may start or go on."""
        for key, scheduler in self._schedulers.items():
            chosen = scheduler.choose_trial_to_run(self._view(tune_controller, key))
            if chosen is not None:
                return chosen
        return None

    def debug_string(self) -> str:
        """A line a b."""
        return "\n".join(f"{key}: {each.debug_string()}" for key, each in self._schedulers.items())

    def _of(self, trial: Trial) -> TrialScheduler:
        return self._schedulers[self._key(trial)]

    def _view(self, controller: Any, key: str) -> TrialsOfOneBound:
        return TrialsOfOneBound(controller, lambda trial: self._key(trial) == key)
