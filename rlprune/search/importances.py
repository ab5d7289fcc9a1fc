"""What each sampled setting did, as Optuna estimates it from the finished trials of the study."""

import json
import math
import warnings

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from rlprune.search.searcher import OBJECTIVES

FORESTS = 3
"""Random forests that are fitted: their range shows how far an importance is a matter of chance."""
_FEWEST = 4  # with fewer trials a forest has nothing to tell apart


def importances_json(study: optuna.Study) -> str:
    """The fANOVA importance of each setting for each objective, as the run folder keeps it.

    Source: Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter
    Importance".

    Returns:
        JSON: ``trials`` (finished ones) and ``objectives``: objective -> setting -> mean, low and high over
        the forests; without objectives where fewer than four trials have finished, without settings where all
        trials came out alike, and without those of which all trials had the same.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found = {}
    if len(trials) >= _FEWEST:
        for index, objective in enumerate(OBJECTIVES):
            found[objective] = _importances(study, index, _varied(trials))
    return json.dumps({"trials": len(trials), "objectives": found}, indent=2) + "\n"


def _varied(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """The settings that all trials have, with more than one value among them."""
    common = set.intersection(*(set(trial.params) for trial in trials))
    return sorted(name for name in common if len({trial.params[name] for trial in trials}) > 1)


def _importances(study: optuna.Study, objective: int, settings: list[str]) -> dict[str, list[float]]:
    if not settings:
        return {}

    def target(trial: optuna.trial.FrozenTrial) -> float:
        return float(trial.values[objective])

    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        try:
            forests = [
                get_param_importances(
                    study, evaluator=FanovaImportanceEvaluator(seed=seed), params=settings, target=target
                )
                for seed in range(FORESTS)
            ]
        except RuntimeError as error:
            if "zero total variance" not in str(error):
                raise
            return {}
    by_setting = {name: np.array([float(forest[name]) for forest in forests]) for name in sorted(forests[0])}
    return {
        name: [float(values.mean()), float(values.min()), float(values.max())]
        for name, values in by_setting.items()
        if math.isfinite(values.sum())
    }
