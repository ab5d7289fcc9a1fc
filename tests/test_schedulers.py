"""Schedulers on a real Ray with runs without networks: who copies whom, who is stopped, what is recorded."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
import stand_in_run
from optuna.trial import TrialState
from stand_in_run import N_STEPS, run, search_config

from rlprune.config import Config
from rlprune.results.record import TrialRecord
from rlprune.results.step_report import score
from rlprune.search.journal import JOURNAL, Journal
from rlprune.search.population import FrontPopulation, mutations, within
from rlprune.search.ray_session import ray_session
from rlprune.search.schedulers import Asha, make_scheduler
from rlprune.seeding import child_seed

GRID = (0.5, 2.0)


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """A Ray for all tests of this file."""
    ray.cloudpickle.register_pickle_by_value(stand_in_run)
    with ray_session(Config()):
        yield
    ray.cloudpickle.unregister_pickle_by_value(stand_in_run)


def settings(scheduler: str, grid: tuple[float, ...] = GRID, samples: int = 4, **changes: Any) -> Config:
    return search_config(
        grid, samples, **{"scheduler": scheduler, "perturbation_interval": 1, "grace_period": 1, **changes}
    )


def check_study(path: Path, records: list[TrialRecord]) -> None:
    """The study says of each trial what its row says."""
    study = optuna.load_study(study_name="rlprune", storage=f"sqlite:///{path / 'study.db'}")
    states = {"COMPLETE": TrialState.COMPLETE, "FAILED": TrialState.FAIL, "STOPPED": TrialState.PRUNED}
    assert len(study.trials) == len(records)
    for record in records:
        trial = study.trials[int(record.trial[1:])]
        assert trial.state == states[record.status]
        assert trial.values == ([record.drop_val, record.macs_ratio] if record.status == "COMPLETE" else None)
        begun = record.lineage[0] if record.lineage else {"b": record.b, "settings": record.settings}
        assert trial.params == {"pruning.b": begun["b"], **begun["settings"]}
        if record.lineage:
            assert trial.user_attrs["settings"] == record.settings
            assert trial.user_attrs["lineage"] == record.lineage
            assert trial.user_attrs["b"] == record.b


def check_lineage(config: Config, records: list[TrialRecord]) -> None:
    """Copies keep their names and seeds, and end with the b and settings that they took last."""
    names = {record.trial for record in records}
    for record in records:
        assert record.seed == child_seed(config.seed, "trial", int(record.trial[1:]))
        steps = [event["step"] for event in record.lineage]
        assert steps == sorted(set(steps))
        assert steps[:1] in ([], [0])
        for event in record.lineage[1:]:
            assert event["donor"] in names - {record.trial}
        if record.lineage:
            assert (record.lineage[-1]["b"], record.lineage[-1]["settings"]) == (record.b, record.settings)
        for name, entry in config.search.space.items():
            assert entry["low"] <= record.settings[name] <= entry["high"]
            assert isinstance(record.settings[name], type(entry["low"]))
        assert min(config.search.b_grid) <= record.b <= max(config.search.b_grid)


@pytest.mark.ray
def test_asha_stops_what_falls_behind_and_records_how_far_it_came(one_ray: None, tmp_path: Path) -> None:
    config = settings("asha", samples=5)
    records = run(config, tmp_path / "run", {"seconds": 0.05}, [])
    assert Counter(record.b for record in records) == dict.fromkeys(GRID, 5)
    statuses = Counter(record.status for record in records)
    assert set(statuses) == {"COMPLETE", "STOPPED"}
    for record in records:
        done = len(record.groups)
        assert (done == N_STEPS) == (record.status == "COMPLETE")
        assert record.macs_ratio == 1 - 0.1 * done, "the partial record is that of its last step"
        assert record.drop_val == record.groups[-1]["drop_val"]
        assert (record.network is not None) == (record.status == "COMPLETE")
        if record.status == "STOPPED":  # by a trial of its own b that was better after the same step
            rivals = [other for other in records if other.b == record.b and len(other.groups) >= done]
            assert any(other.groups[done - 1]["drop_val"] < record.groups[-1]["drop_val"] for other in rivals)
    check_study(tmp_path / "run", records)
    assert records == run(config, tmp_path / "run", {}, [])


@pytest.mark.ray
@pytest.mark.parametrize("scheduler", ["pbt", "pb2", "mo-pbt"])
def test_members_copy_one_another_interrupted_or_not(one_ray: None, tmp_path: Path, scheduler: str) -> None:
    config = settings(scheduler)
    records = run(config, tmp_path / "whole", {}, [])
    assert Counter(record.status for record in records) == {"COMPLETE": 8}
    check_lineage(config, records)
    check_study(tmp_path / "whole", records)
    copied = [record for record in records if record.lineage]
    assert copied
    journal = Journal(tmp_path / "whole" / "tune" / JOURNAL)
    taken_from = journal.newest_exploit(copied[0].trial)
    assert re.fullmatch(rf"attempt-001/{taken_from.donor}/checkpoint_\d+", taken_from.checkpoint)
    bounds = {record.trial: record.b for record in records}
    if scheduler == "mo-pbt":
        assert any(record.b not in GRID for record in copied)
    else:
        assert Counter(bounds.values()) == dict.fromkeys(GRID, 4)
        assert all(bounds[event["donor"]] == record.b for record in copied for event in record.lineage[1:])
    (killed if scheduler == "pbt" else interrupted)(config, tmp_path / "cut")
    resumed = run(config, tmp_path / "cut", {}, [])
    check_study(tmp_path / "cut", resumed)
    assert {record.trial: record for record in resumed} == {record.trial: record for record in records}


def interrupted(config: Config, path: Path) -> None:
    """A search that is ended by Ctrl-C in the middle."""
    log = path.with_name("log")
    watcher = threading.Thread(target=interrupt_after, args=(log, 18), daemon=True)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        run(config, path, {"log": str(log), "seconds": 0.1}, [])
    watcher.join()


def interrupt_after(log: Path, steps: int) -> None:
    while not log.exists() or len(log.read_text().splitlines()) < steps:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def killed(config: Config, path: Path) -> None:
    """A search whose driver is killed in the middle."""
    log = path.with_name("log")
    search = {name: getattr(config.search, name) for name in ("scheduler", "perturbation_interval")}
    options = {"b_grid": GRID, "num_samples": 4, "seconds": 0.1, "log": str(log), "search": search}
    command = [sys.executable, stand_in_run.__file__, str(path), json.dumps(options)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    while not log.exists() or len(log.read_text().splitlines()) < 18:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()


@pytest.mark.ray
def test_members_that_fail_keep_nobody_waiting(one_ray: None, tmp_path: Path) -> None:
    config = settings("mo-pbt", (0.5, 1.0), 3, perturbation_interval=3, max_failures=1)
    faults = {"1.0": "raise", "0.5": "killed once"}
    records = run(config, tmp_path / "run", {"log": str(tmp_path / "log"), "b_faults": faults}, [])
    assert Counter(record.status for record in records) == {"FAILED": 3, "COMPLETE": 3}
    assert {record.b for record in records if record.status == "FAILED"} == {1.0}
    check_study(tmp_path / "run", records)
    meetings = Journal(tmp_path / "run" / "tune" / JOURNAL).meetings("front")
    assert [len(meeting.members) for meeting in meetings] == [3]
    assert len(list(tmp_path.glob("died-*"))) == 3


@pytest.mark.ray
@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_a_trial_that_cannot_be_built_in_a_process_of_another_is_retried(
    scheduler: str, one_ray: None, tmp_path: Path
) -> None:
    config = settings(scheduler, (1.0,), 3, perturbation_interval=2, max_failures=3)
    (built := tmp_path / "built").mkdir()
    records = run(config, tmp_path / "run", {"built": str(built)}, [])
    assert [record.status for record in records] == ["COMPLETE"] * 3
    failed = [marker for marker in built.iterdir() if len(marker.read_text()) > 1]
    assert len(failed) >= 2
    check_study(tmp_path / "run", records)


# ---- without Ray


def step_of(number: int, drop: float) -> dict[str, Any]:
    return {"step": number, "drop_val": drop, "macs_ratio": 0.5}


class Named:
    """A trial as schedulers know it."""

    def __init__(self, name: str, **assigned: Any) -> None:
        self.config = {"trial": name, **assigned}

    def is_finished(self) -> bool:
        return False


def test_asha_knows_the_trials_of_an_earlier_process() -> None:
    config = settings("asha", grace_period=2, reduction_factor=2.0)
    ended = [
        TrialRecord(status="COMPLETE", trial=f"t000{number}", groups=[step_of(n, drop) for n in (1, 2, 3)])
        for number, drop in enumerate((0.1, 0.2, 0.3))
    ]
    asha = Asha(config, ended)
    judged = {}
    for name, drop in (("t0007", 0.15), ("t0008", 0.25)):
        asha.on_trial_add(None, Named(name))
        for step in (1, 2):
            result = {"step": step, "score": score(drop, 0.5)}
            judged[name, step] = asha.on_trial_result(None, Named(name), result)
    assert judged == {
        ("t0007", 1): "CONTINUE",
        ("t0007", 2): "CONTINUE",
        ("t0008", 1): "CONTINUE",
        ("t0008", 2): "STOP",
    }


def test_asha_compares_trials_of_one_bound_only() -> None:
    ended = [
        TrialRecord(status="COMPLETE", trial=f"t000{number}", b=2.0, groups=[step_of(1, 0.1)])
        for number in range(3)
    ]
    scheduler = make_scheduler(settings("asha"), None, ended)  # type: ignore[arg-type]
    assert scheduler is not None
    judged = {}
    for b in GRID:
        trial = Named(f"t001{b:.0f}", b=b, seed=0, settings={})
        scheduler.on_trial_add(None, trial)
        judged[b] = scheduler.on_trial_result(None, trial, {"step": 1, "score": score(9.0, 0.5)})
    assert judged == {0.5: "CONTINUE", 2.0: "STOP"}


def test_asha_stops_nobody_within_a_grace_period_longer_than_any_trial() -> None:
    asha = Asha(settings("asha", grace_period=2_000_000))
    for name, drop in (("t0000", 0.1), ("t0001", 9.0)):
        asha.on_trial_add(None, Named(name))
        judged = [
            asha.on_trial_result(None, Named(name), {"step": n, "score": score(drop, 0.5)}) for n in (1, 999)
        ]
        assert judged == ["CONTINUE", "CONTINUE"]


def test_a_cut_off_line_of_the_journal_is_left_out(tmp_path: Path) -> None:
    from rlprune.errors import ResultsError
    from rlprune.search.journal import Exploit, Meeting, Standing

    path = tmp_path / JOURNAL
    standing = Standing("t0000", 1.0, {"agent.learning_rate": 0.1}, 0.3, 0.2, 0.7)
    exploit = Exploit("t0001", "t0000", "/there", {"trial": "t0001", "lineage": []})
    meetings = [Meeting("b=1.0", step, [standing], [exploit] if step == 2 else []) for step in (2, 4)]
    journal = Journal(path)
    for meeting in meetings:
        journal.append(meeting)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"population": "b=1')
    again = Journal(path)
    assert again.meetings("b=1.0") == meetings
    assert again.newest_exploit("t0001") == exploit
    assert again.newest_exploit("t0000") is None
    again.append(replace(meetings[0], step=6))
    assert [meeting.step for meeting in Journal(path).meetings("b=1.0")] == [2, 4, 6]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(ResultsError, match="line 1"):
        Journal(path)


def test_of_a_front_the_worst_go_on_from_the_best_and_b_is_never_below_the_drop(tmp_path: Path) -> None:
    config = settings("mo-pbt", (0.5, 4.0))
    population = FrontPopulation(config, Journal(tmp_path / JOURNAL), "front")
    points = [(0.1, 0.5), (3.0, 0.9), (2.5, 0.2), (2.6, 0.8)]
    members = [Named(f"t000{number}", b=1.0) for number in range(len(points))]
    population._trial_state = {
        member: SimpleNamespace(last_result={"drop_val": drop, "macs_ratio": macs})
        for member, (drop, macs) in zip(members, points, strict=True)
    }
    replaced, (donor,) = population._quantiles()
    assert replaced == [members[1]], "all others are better in both"
    assert donor in (members[0], members[2])
    for member, (drop, _) in zip(members, points, strict=True):
        drawn = [population._explored_b(member) for _ in range(200)]
        assert max(0.5, drop) <= min(drawn) < max(drawn) <= 4


def test_whole_numbers_are_drawn_to_the_end_of_their_range() -> None:
    space: dict[str, dict[str, Any]] = {
        "agent.iterations": {"low": 5, "high": 6},
        "agent.policy": {"choices": ["set", "paper"]},
    }
    assert {mutations(space)["agent.iterations"].sample() for _ in range(100)} == {5, 6}
    explored = within(space, {"agent.iterations": 9, "agent.policy": "set"})
    assert explored == {"agent.iterations": 6, "agent.policy": "set"}
