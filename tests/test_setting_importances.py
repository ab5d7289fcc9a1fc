"""What Optuna says of the settings, as the run folder keeps it."""

import json

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from rlprune.search import importances
from rlprune.search.importances import importances_json
from rlprune.search.searcher import OBJECTIVES


def study_of(trials):
    """A study in which b makes the drop, and neither setting makes the MACs alone."""
    study = optuna.create_study(directions=["minimize"] * len(OBJECTIVES))
    space = {name: FloatDistribution(0, 1) for name in ("pruning.b", "agent.learning_rate")}
    for number in range(trials):
        b, rate = number / max(1, trials - 1), (number * 5 % 7) / 7
        study.add_trial(
            create_trial(
                params={"pruning.b": b, "agent.learning_rate": rate},
                distributions=space,
                values=[3 * b, 0.5 + (number * 3 % 5) / 10],
            )
        )
    study.add_trial(create_trial(state=TrialState.FAIL))
    return study


def test_the_setting_that_makes_the_objective_is_the_important_one(monkeypatch):
    monkeypatch.setattr(importances, "FORESTS", 1)  # they take a while
    found = json.loads(importances_json(study_of(8)))
    assert found["trials"] == 8
    assert set(found["objectives"]) == set(OBJECTIVES)
    drop = found["objectives"]["drop_val"]
    assert drop["pruning.b"][0] > 0.6 > drop["agent.learning_rate"][0]
    for entries in found["objectives"].values():
        assert all(0 <= low <= mean <= high <= 1 for mean, low, high in entries.values())


def test_few_trials_say_nothing():
    assert json.loads(importances_json(study_of(2))) == {"trials": 2, "objectives": {}}
