"""What each sampled setting did, by Optuna's fANOVA."""

import json

import optuna
import pytest

from rlprune.search.importances import importances_json


def study_of(n_trials, objectives):
    """A study whose trials sample x and y; ``objectives`` maps x to (drop, MACs)."""
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for _ in range(n_trials):
        trial = study.ask(
            {
                "x": optuna.distributions.FloatDistribution(0, 1),
                "y": optuna.distributions.FloatDistribution(0, 1),
            }
        )
        study.tell(trial, objectives(trial.params["x"]))
    return study


def test_the_setting_that_matters_has_the_importance():
    found = json.loads(importances_json(study_of(24, lambda x: (x, 1 - x))))
    assert found["trials"] == 24
    for objective in ("drop_val", "macs_ratio"):
        mean, low, high = found["objectives"][objective]["x"]
        assert low <= mean <= high
        assert mean > 0.8 > found["objectives"][objective]["y"][0]


@pytest.mark.parametrize("n_trials", [4, 12])
def test_trials_that_came_out_alike_tell_nothing(n_trials):
    found = json.loads(importances_json(study_of(n_trials, lambda x: (0.0, x))))
    assert found["objectives"]["drop_val"] == {}
    assert found["objectives"]["macs_ratio"]["x"]


def test_too_few_trials_tell_nothing():
    assert json.loads(importances_json(study_of(3, lambda x: (x, x)))) == {"trials": 3, "objectives": {}}


@pytest.mark.parametrize("varied", [True, False])
def test_what_all_trials_had_alike_has_no_importance(varied):
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    grid = {"b": optuna.distributions.FloatDistribution(1, 1)}
    for number in range(6):
        trial = study.ask({**grid, "x": optuna.distributions.FloatDistribution(0, 1)} if varied else grid)
        study.tell(trial, (float(number), float(-number)))
    found = json.loads(importances_json(study))["objectives"]
    assert {name for settings in found.values() for name in settings} == ({"x"} if varied else set())
