import pickle
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import ray
import torch
from optuna.trial import TrialState
from stand_in_run import WEIGHTS, StandInRun, search_config

from rlprune.config import Config, SearchConfig
from rlprune.config_loading import field_help, trial_config
from rlprune.errors import CheckpointError, ConfigError, ResultsError
from rlprune.results.goal import Goal
from rlprune.results.record import TrialRecord
from rlprune.search import ray_session, resources
from rlprune.search.checkpoint import (
    keep_agents,
    newest_checkpoint,
    read_record,
    read_state,
    remove_checkpoints,
    undamaged_at_or_before,
    write_checkpoint,
)
from rlprune.search.interrupt import exclusive, graceful_signals
from rlprune.search.node_types import NodeType, trials_side_by_side
from rlprune.search.parts import AT_THE_START, part_path, read_part, write_part
from rlprune.search.progress import SECONDS_BETWEEN_LINES, SearchProgress
from rlprune.search.resources import resource_faults
from rlprune.search.samplers import SAMPLERS, make_sampler
from rlprune.search.searcher import GridOptunaSearch
from rlprune.search.space import distributions
from rlprune.search.study_storage import STUDY, study_place, with_storage_checked
from rlprune.search.trainable import Assignment
from rlprune.training import device as devices
from rlprune.training.device import given_device
from rlprune.training.tensor_file import read_tensors
from rlprune.whole_run import checked

GRID = (0.5, 1.0, 2.0)


def searcher_in(folder: Path, config: Config) -> GridOptunaSearch:
    return GridOptunaSearch(config, study_place(config, folder), lambda assignment: assignment)


def outcome(assignment: Assignment, status: str = "COMPLETE") -> TrialRecord:
    rate = assignment.settings["agent.learning_rate"]
    known = {"drop_val": rate * (assignment.b or 1.0), "macs_ratio": 1 - rate} if status == "COMPLETE" else {}
    return TrialRecord(
        status=status, trial=assignment.trial, b=assignment.b, target_macs=assignment.target_macs, **known
    )


def asked(searcher: GridOptunaSearch) -> list[Assignment]:
    assignments = []
    while (assignment := searcher.ask()) is not None:
        searcher.tell(outcome(assignment))
        assignments.append(assignment)
    return assignments


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_gives_every_b_exactly_its_trials(tmp_path: Path, sampler: str) -> None:
    """The contract of the table: ask, b fixed, the rest within its bounds, tell."""
    config = search_config(GRID, 3, sampler=sampler)
    bounds = config.search.space["agent.learning_rate"]
    searcher = searcher_in(tmp_path, config)
    assignments = asked(searcher)
    assert Counter(assignment.b for assignment in assignments) == dict.fromkeys(GRID, 3)
    assert [assignment.trial for assignment in assignments] == [f"t{number:04d}" for number in range(9)]
    assert len({assignment.seed for assignment in assignments}) == 9
    rates = [assignment.settings["agent.learning_rate"] for assignment in assignments]
    assert len(set(rates[:4])) == 4, "the start-up is at random"
    assert len(set(rates)) > 4 or sampler.startswith("nsga")  # children inherit their parents' values
    for settings in (assignment.settings for assignment in assignments):
        assert isinstance(settings["agent.iterations"], int)
        assert bounds["low"] <= settings["agent.learning_rate"] <= bounds["high"]
    assert searcher.is_complete()
    assert len(searcher.study.best_trials) >= 1


def test_the_samplers_are_those_of_the_setting_and_start_up_within_small_budgets() -> None:
    choices = next(entry.choices for entry in field_help() if entry.name == "search.sampler")
    assert tuple(SAMPLERS) == choices
    assert [make_sampler("tpe", 0, trials)._n_startup_trials for trials in (1, 24, 400)] == [4, 6, 10]
    assert [make_sampler("nsga3", 0, trials)._population_size for trials in (1, 24, 400)] == [4, 6, 50]


def stored(url: str) -> Config:
    return search_config((1.0,), 1, study_storage=url)


def test_runs_that_share_a_database_have_a_study_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_storage_checked(stored("sqlite:///shared.db"))
    assert config.search.study_storage == f"sqlite:///{tmp_path}/shared.db", "found from any folder"
    studies = []
    for number in range(2):
        folder = tmp_path / str(number) / "run"
        folder.mkdir(parents=True)
        first = searcher_in(folder, config)
        assert [assignment.trial for assignment in asked(first)] == ["t0000"]
        again = searcher_in(folder, config)
        assert again.is_complete(), "a resumed run finds its own study"
        assert again.study.study_name == first.study.study_name
        assert again.study.study_name.startswith("run-")
        assert not (folder / "study.db").exists()
        studies.append(again.study.study_name)
    names = optuna.get_all_study_names(config.search.study_storage)
    assert sorted(names) == sorted(studies)
    (folder / STUDY).write_text("{}")
    with pytest.raises(ResultsError, match=r"study\.json"):
        study_place(config, folder)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("studies", "'studies' is no URL; expected a database URL such as sqlite"),
        ("redis://localhost", "redis.*expected a database URL"),
        ("sqlite://", "in memory only"),
        ("sqlite:////nowhere/at/all.db", "cannot be used: .*unable to open database file"),
        ("postgresql+nothing://host/name", "Can't load plugin|postgresql.nothing"),
        ("postgresql+pg8000://u@127.0.0.1/name", "pip install 'pg8000'|cannot be used: .*refused"),
        ("postgresql://u@127.0.0.1:1/name", "cannot be used: .*refused"),
        ("postgresql://u:secret@127.0.0.1/name", r"a password would be written .* put \$\{NAME\}"),
        ("postgresql://u:${NOT_SET}@127.0.0.1/name", "environment variable NOT_SET is not set"),
        ("postgresql://u:secret@host:port/name", "no port number; expected a database URL"),
        ("postgresql://u@[::1/name", "no port number; expected a database URL"),
        ("sqlite:///~nobody-of-that-name/studies.db", "without ~"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused(url: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        with_storage_checked(stored(url))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["what?1", "50%20x", "a b", "{}", "ü#@:1", "?%3F"])
def test_the_study_is_in_the_run_folder_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    folder, config = tmp_path / name, search_config((1.0,), 1)
    folder.mkdir()
    asked(searcher_in(folder, config))
    assert searcher_in(folder, config).is_complete()
    assert (folder / "study.db").is_file()
    assert list(tmp_path.iterdir()) == [folder]


def test_the_url_of_a_study_is_the_one_that_the_documentation_gives(tmp_path: Path) -> None:
    config = search_config((1.0,), 1)
    assert study_place(config, Path("results/run")).url == "sqlite:///results/run/study.db"
    assert study_place(config, tmp_path).url == f"sqlite:///{tmp_path}/study.db"


def test_a_study_that_knows_more_than_the_rows_is_refused(tmp_path: Path) -> None:
    searcher = searcher_in(tmp_path, search_config((1.0,), 2))
    asked(searcher)
    with pytest.raises(ResultsError, match="holds t0000, t0001, which"):
        searcher_in(tmp_path, search_config((1.0,), 2)).reconcile([])


def test_any_seed_that_the_settings_allow_will_do(tmp_path: Path) -> None:
    config = replace(search_config((1.0,), 1), seed=2**40)
    assert len(asked(searcher_in(tmp_path, config))) == 1


def test_counts_are_exact_with_several_trials_at_once_failures_and_kills(tmp_path: Path) -> None:
    config, dice, running, records = search_config(GRID, 6), random.Random(1), [], []
    searcher = searcher_in(tmp_path, config)
    for _ in range(100):
        if dice.random() < 0.06:  # the process is killed: what it knew is gone, the file stays
            before = {assignment.trial: assignment for assignment in running}
            searcher, running = searcher_in(tmp_path, config), []
            searcher.reconcile(records)
            unfinished = {assignment.trial: assignment for assignment in searcher.unfinished()}
            assert before.items() <= unfinished.items()
        if len(running) < 3 and (assignment := searcher.ask()) is not None:
            running.append(assignment)
        elif running:
            assignment = running.pop(dice.randrange(len(running)))
            records.append(outcome(assignment, dice.choice(["COMPLETE", "COMPLETE", "FAILED", "STOPPED"])))
            if dice.random() < 0.8:  # else killed between the row and the telling
                searcher.tell(records[-1])
    searcher.reconcile(records)
    assert searcher.is_complete()
    assert Counter(record.b for record in records) == dict.fromkeys(GRID, 6)
    assert len({record.trial for record in records}) == 18
    states = {"COMPLETE": TrialState.COMPLETE, "FAILED": TrialState.FAIL, "STOPPED": TrialState.PRUNED}
    told = {trial.user_attrs["trial"]: trial for trial in searcher.study.trials}
    assert {name: trial.state for name, trial in told.items()} == {r.trial: states[r.status] for r in records}
    for record in records:
        values = [record.drop_val, record.macs_ratio] if record.status == "COMPLETE" else None
        assert told[record.trial].values == values
        assert told[record.trial].params["pruning.b"] == record.b


def test_no_more_trials_are_asked_for_than_there_are_places(tmp_path: Path) -> None:
    places = [2]
    config = search_config((1.0,), 5)
    place = study_place(config, tmp_path)
    searcher = GridOptunaSearch(config, place, lambda assignment: assignment, lambda: places[0])
    given = [searcher.suggest("a"), searcher.suggest("b")]
    assert searcher.suggest("c") is None, "both places are taken"
    searcher.under_way -= 1
    given.append(searcher.suggest("c"))
    assert searcher.suggest("d") is None
    places[0] = 3  # a node has joined
    given.append(searcher.suggest("d"))
    searcher.under_way, places[0] = 0, 0  # all have failed, and the nodes are gone
    given.append(searcher.suggest("e"))
    assert [each["trial"] for each in given] == [f"t{number:04d}" for number in range(5)]
    searcher.under_way = 0
    assert searcher.suggest("f") == GridOptunaSearch.FINISHED


def test_members_of_a_population_do_not_wait_for_places(tmp_path: Path) -> None:
    ranges = {"agent.learning_rate": {"low": 0.1, "high": 0.6}}
    config = search_config((1.0,), 3, scheduler="pbt", space=ranges)
    place = study_place(config, tmp_path)
    searcher = GridOptunaSearch(config, place, lambda assignment: assignment, lambda: 1)
    assert None not in [searcher.suggest(str(number)) for number in range(3)]
    assert searcher.suggest("3") is None, "a population is not finished before its members have ended"


GPU_NODE = {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("said", "running", "types", "settings", "expected"),
    [
        ("1", [{"CPU": 2.0}], [], {}, 2),  # this machine
        ("1", [{"CPU": 2.0}], [], {"address": "auto"}, 3),  # one waits: an autoscaler may be there
        ("16", [], [NodeType(GPU_NODE, 4)], {"address": "auto", "gpus_per_trial": 0.25}, 16),
        ("4", [GPU_NODE] * 2, [], {"address": "auto", "gpus_per_trial": 0.25}, 8),
        ("1", [{}], [NodeType(GPU_NODE, 1)], {"address": "auto", "gpus_per_trial": 1.0}, 1),
        ("0", [], [], {}, 1),
        ("auto", [{"CPU": 3.0}], [], {"cpus_per_trial": 0.3}, 10),
        ("1", [{"CPU": 1.0}] * 4, [], {"env_runners_per_trial": 1}, 2),
    ],
)
def test_places_are_those_promised_or_those_that_are_there(
    said: str,
    running: list[dict[str, float]],
    types: list[NodeType],
    settings: dict,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(resources.PENDING, said)
    monkeypatch.setattr(resources, "_running_nodes", lambda: running)
    monkeypatch.setattr(resources, "node_types", lambda: types)
    search = replace(SearchConfig(cpus_per_trial=1.0), **settings)
    assert resources.Places(search)() == expected


def test_the_same_seed_asks_the_same_resumed_or_not(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "resumed", "other seed")]
    for folder in folders:
        folder.mkdir()
    config = search_config(GRID, 2)
    whole = asked(searcher_in(folders[0], config))
    resumed = []
    for _ in range(6):
        searcher = searcher_in(folders[1], config)
        assignment = searcher.ask()
        assert assignment is not None
        searcher.tell(outcome(assignment))
        resumed.append(assignment)
    assert resumed == whole
    assert searcher_in(folders[2], replace(config, seed=1)).ask().settings != whole[0].settings


@pytest.mark.parametrize("cut", ["before the ask", "within the ask"])
def test_a_kill_in_the_middle_of_an_ask_changes_nothing(tmp_path: Path, cut: str) -> None:
    (tmp_path / "cut").mkdir()
    config = search_config(GRID, 2)
    expected = asked(searcher_in(tmp_path, config))
    study = searcher_in(tmp_path / "cut", config).study
    study.enqueue_trial({"pruning.b": 0.5})
    if cut == "within the ask":
        study.ask({"pruning.b": distributions(config)["pruning.b"]})
    assert asked(searcher_in(tmp_path / "cut", config)) == expected


def test_a_kill_between_two_settings_of_an_ask_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial, past the start-up too, is first asked for by a process that is killed."""
    folders = [tmp_path / name for name in ("whole", "cut")]
    for folder in folders:
        folder.mkdir()
    config = search_config(GRID, 2)
    expected = asked(searcher_in(folders[0], config))
    found = []
    for number in range(len(expected)):
        killed = searcher_in(folders[1], config)
        suggest, left = killed._suggest, [None] * (1 + number % 3)

        def until_the_kill(*arguments, suggest=suggest, left=left):
            if not left:
                raise KeyboardInterrupt
            left.pop()
            return suggest(*arguments)

        monkeypatch.setattr(killed, "_suggest", until_the_kill)
        with pytest.raises(KeyboardInterrupt):
            killed.ask()
        searcher = searcher_in(folders[1], config)
        found.append(searcher.ask())
        searcher.tell(outcome(found[-1]))
    assert found == expected


def test_trials_go_on_from_their_checkpoints_after_a_kill(tmp_path: Path) -> None:
    config = search_config((1.0,), 2)
    assert searcher_in(tmp_path, config).ask().checkpoint == ""
    again = GridOptunaSearch(
        config,
        study_place(config, tmp_path),
        lambda known: replace(known, checkpoint=str(tmp_path / known.trial)),
    )
    assert [again.ask().checkpoint for _ in range(2)] == [str(tmp_path / "t0000"), ""]


def test_a_number_that_is_not_finite_fails_in_the_study(tmp_path: Path) -> None:
    searcher = searcher_in(tmp_path, search_config((1.0,), 3))
    for value in (float("nan"), float("inf"), None):
        name = searcher.ask().trial
        record = TrialRecord(status="COMPLETE", trial=name, drop_val=value, macs_ratio=0.5)
        searcher.tell(record)
    assert [trial.state for trial in searcher.study.trials] == [TrialState.FAIL] * 3


def test_rows_of_another_study_are_refused(tmp_path: Path) -> None:
    searcher = searcher_in(tmp_path, search_config((1.0,), 1))
    with pytest.raises(ResultsError, match="t0000"):
        searcher.reconcile([TrialRecord(status="FAILED", trial="t0000")])
    with pytest.raises(ResultsError, match="no trial of a search"):
        searcher.reconcile([TrialRecord(status="FAILED", trial="prune")])


def test_more_samples_can_be_asked_for_later(tmp_path: Path) -> None:
    asked(searcher_in(tmp_path, search_config((0.5, 1.0), 2)))
    more = asked(searcher_in(tmp_path, search_config((0.5, 1.0), 3)))
    assert [assignment.b for assignment in more] == [0.5, 1.0]


def test_the_study_opens_with_its_metric_names_and_the_searcher_pickles(tmp_path: Path) -> None:
    searcher = searcher_in(tmp_path, search_config((1.0,), 1))
    asked(searcher)
    pickle.loads(pickle.dumps(searcher))
    study = optuna.load_study(study_name="rlprune", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.metric_names == ["drop_val", "macs_ratio"]
    assert len(study.best_trials) == 1


def test_the_space_becomes_distributions_and_settings_a_config() -> None:
    space = {"agent.iterations": {"low": 10, "high": 20}, "agent.policy": {"choices": ["set", "logits"]}}
    config = search_config(GRID, 1, space={**space, "finetune.learning_rate": {"low": 1, "high": 2}})
    found = distributions(config)
    assert {name: type(entry).__name__ for name, entry in found.items()} == {
        "pruning.b": "FloatDistribution",
        "agent.iterations": "IntDistribution",
        "agent.policy": "CategoricalDistribution",
        "finetune.learning_rate": "FloatDistribution",
    }
    trial = trial_config(config, {"agent.iterations": 12, "pruning.b": 0.5, "seed": 3})
    assert (trial.agent.iterations, trial.pruning.b, trial.seed) == (12, 0.5, 3)
    assert replace(trial.agent, iterations=config.agent.iterations) == config.agent
    with pytest.raises(ConfigError, match=r"agent\.iterations"):
        trial_config(config, {"agent.iterations": 0})


@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_values_that_go_together_make_a_trial_though_others_of_the_space_do_not(scheduler: str) -> None:
    space = {"agent.warm_start": {"choices": [True, False]}, "agent.policy": {"choices": ["set", "logits"]}}
    ranges = {"agent.learning_rate": {"low": 0.1, "high": 0.6}}
    config = search_config((1.0,), 2, scheduler=scheduler, space={**space, **ranges})
    trial = trial_config(config, {"agent.warm_start": False, "agent.policy": "logits"})
    assert (trial.agent.warm_start, trial.agent.policy) == (False, "logits")
    assert trial.search == config.search, "what the run says of its trials stays"
    with pytest.raises(ConfigError, match=r"^agent\.warm_start: only the set policy"):
        trial_config(config, {"agent.warm_start": True, "agent.policy": "logits"})


def checkpoints(folder: Path, steps: int, attempt: int = 1) -> StandInRun:
    run = StandInRun(search_config((1.0,), 1), WEIGHTS, {})
    for number in range(steps):
        run.step(lambda part: None)
        path = folder / f"attempt-{attempt:03d}" / "t0000" / f"checkpoint_{number:06d}"
        path.mkdir(parents=True)
        write_checkpoint(path, run, {"trial": "t0000"})
    return run


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "bit flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "bit flipped", "missing"])
@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, how: str, file: str) -> None:
    checkpoints(tmp_path, 2)
    first, second = sorted((tmp_path / "attempt-001" / "t0000").iterdir())
    assert newest_checkpoint(tmp_path, "t0000") == second
    damage(second / file, how)
    with pytest.raises(CheckpointError, match="checkpoint"):
        read_state(second)
    assert newest_checkpoint(tmp_path, "t0000") == first
    assert undamaged_at_or_before(second) == first
    assert read_state(first)[0]["position"] == 1
    damage(first / file, how)
    assert newest_checkpoint(tmp_path, "t0000") is None
    with pytest.raises(CheckpointError, match="checkpoint_000001"):
        undamaged_at_or_before(second)


def test_the_last_checkpoint_holds_record_and_network(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, 4)
    paths = sorted((tmp_path / "attempt-001" / "t0000").iterdir())
    records = [read_record(path) for path in paths]
    assert [record.status for record in records] == ["STOPPED"] * 3 + ["COMPLETE"]
    assert [len(record.groups) for record in records] == [1, 2, 3, 4]
    assert records[-1] == replace(run.record(), trial="t0000")
    assert set(torch.load(paths[-1] / "network.pt", weights_only=True)) == {"weight"}


def test_a_part_is_joined_to_the_state_that_its_step_began_from_only(tmp_path: Path) -> None:
    path = part_path(tmp_path, "t0000")
    assert read_part(path, AT_THE_START) is None
    write_part(path, "hash", {"done": 1})
    assert read_part(path, "hash") == {"done": 1}
    assert read_part(path, "another") is None
    assert read_part(path, AT_THE_START) is None
    damage(path, "truncated")
    assert read_part(path, "hash") is None


def test_the_agents_of_a_trial_are_kept_and_its_checkpoints_removed(tmp_path: Path) -> None:
    checkpoints(tmp_path, 2)
    trial = tmp_path / "attempt-001" / "t0000"
    (trial / "error.txt").touch()
    write_part(part_path(tmp_path, "t0000"), "hash", {})
    keep_agents(trial / "checkpoint_000001", tmp_path / "agents" / "t0000.pt")
    assert list(read_tensors(tmp_path / "agents" / "t0000.pt")) == ["conv1"]
    remove_checkpoints(tmp_path, "t0001")
    assert newest_checkpoint(tmp_path, "t0000") is not None
    remove_checkpoints(tmp_path, "t0000")
    assert [path.name for path in trial.iterdir()] == ["error.txt"]
    assert not part_path(tmp_path, "t0000").exists()


def test_a_later_attempt_comes_before_an_earlier_one(tmp_path: Path) -> None:
    checkpoints(tmp_path, 2)
    (tmp_path / "attempt-001").rename(tmp_path / "attempt-002")
    checkpoints(tmp_path, 3)
    assert newest_checkpoint(tmp_path, "t0000") == tmp_path / "attempt-002" / "t0000" / "checkpoint_000001"
    assert newest_checkpoint(tmp_path, "t0001") is None


def test_attempts_are_ordered_by_their_numbers(tmp_path: Path) -> None:
    for attempt, steps in ((999, 3), (1000, 1)):
        checkpoints(tmp_path, steps, attempt)
    assert newest_checkpoint(tmp_path, "t0000") == tmp_path / "attempt-1000" / "t0000" / "checkpoint_000000"


def test_before_the_first_checkpoint_of_an_attempt_comes_the_last_one_of_the_attempt_before(
    tmp_path: Path,
) -> None:
    for attempt, steps in ((1, 2), (2, 1), (3, 2)):
        checkpoints(tmp_path, steps, attempt)
    first, second = (tmp_path / f"attempt-00{number}" / "t0000" for number in (1, 2))
    damage(second / "checkpoint_000000" / "state.pt", "bit flipped")
    assert undamaged_at_or_before(second / "checkpoint_000000") == first / "checkpoint_000001"
    damage(first / "checkpoint_000001" / "state.pt", "bit flipped")
    assert undamaged_at_or_before(second / "checkpoint_000000") == first / "checkpoint_000000"
    damage(first / "checkpoint_000000" / "state.pt", "bit flipped")
    with pytest.raises(CheckpointError, match=r"attempt-002.*checkpoint_000000"):
        undamaged_at_or_before(second / "checkpoint_000000")


def test_the_copy_of_a_remote_checkpoint_has_none_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints(tmp_path, 2)
    (tmp_path / "attempt-001" / "t0000" / "checkpoint_000001").rename("copy")
    damage(Path("copy") / "state.pt", "truncated")
    with pytest.raises(CheckpointError, match=r"copy: .*state\.pt is damaged"):
        undamaged_at_or_before(Path("copy"))


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "named"),
    [
        (1.0, 0.0, [{"CPU": 1.0}], []),
        (2.0, 0.25, [{"CPU": 2.0, "GPU": 1.0}], []),
        (4.0, 0.0, [{"CPU": 2.0}, {"CPU": 3.0}], ["cpus_per_trial: a trial asks for 4 CPUs.* has 3"]),
        (1.0, 1.0, [{"CPU": 2.0}], ["gpus_per_trial: a trial asks for 1 GPUs.* has 0"]),
        (9.0, 2.0, [{"CPU": 2.0, "GPU": 1.0}], ["cpus_per_trial", "gpus_per_trial"]),
        (8.0, 1.0, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], ["no single node has 8 CPUs and 1 GPUs"]),
    ],
)
def test_what_no_node_has_is_refused(cpus: float, gpus: float, nodes: list, named: list[str]) -> None:
    faults = list(resource_faults(SearchConfig(cpus_per_trial=cpus, gpus_per_trial=gpus), nodes))
    assert len(faults) == len(named)
    for fault, pattern in zip(faults, named, strict=True):
        assert re.search(pattern, fault)


@pytest.mark.parametrize(
    "error", [ray.exceptions.AuthenticationError("no token was found"), ConnectionError("no answer")]
)
def test_a_token_that_the_cluster_does_not_know_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError, match=r"search\.address.*\n.*token differs.*auth_token here"):
        ray_session._start(SearchConfig(address="auto"), verbose=True)


@pytest.mark.parametrize(
    ("cpus", "gpus", "types", "trials"),
    [
        (1.0, 0.25, [], 0),
        (1.0, 0.25, [NodeType({"CPU": 8, "GPU": 1}, 4)], 16),
        (4.0, 0.25, [NodeType({"CPU": 8, "GPU": 1}, 4)], 8),
        (1.0, 2.0, [NodeType({"CPU": 8, "GPU": 1}, 4), NodeType({"CPU": 8, "GPU": 4}, 1)], 2),
        (1.0, 0.25, [NodeType({"CPU": 8, "GPU": 1}, 4), NodeType({"CPU": 8, "GPU": 1}, 4)], 16),
        (1.0, 0.0, [NodeType({"CPU": 2}, 3)], 6),
    ],
)
def test_so_many_trials_fit_on_nodes_to_come(
    cpus: float, gpus: float, types: list[NodeType], trials: int
) -> None:
    assert trials_side_by_side({"CPU": cpus, "GPU": gpus}, types) == trials


@pytest.mark.parametrize(
    ("device", "gpus", "available", "expected"),
    [
        ("auto", 0.25, True, "cuda"),
        ("auto", 0.25, False, "cpu"),  # Ray's logical GPUs
        ("auto", 0.0, True, "cpu"),  # a GPU that is there but was not asked for
        ("cpu", 1.0, True, "cpu"),
        ("cuda:1", 1.0, True, "cuda"),  # Ray shows a trial its own device only
    ],
)
def test_a_trial_uses_a_gpu_only_if_it_was_given_one(
    device: str, gpus: float, available: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_NVIDIA", ())
    assert given_device(device, gpus, available) == expected


def test_a_gpu_that_torch_cannot_use_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_NVIDIA", (tmp_path / "none", tmp_path))
    with pytest.raises(ConfigError, match=f"CUDA {torch.version.cuda}, cannot.*newer driver"):
        given_device("auto", 0.25, cuda_available=False)
    assert given_device("cpu", 0.25, cuda_available=False) == "cpu"
    assert given_device("auto", 0.0, cuda_available=False) == "cpu"
    assert given_device("auto", 0.25, cuda_available=True) == "cuda"


def test_a_search_on_one_machine_is_refused_at_once_where_torch_cannot_use_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_NVIDIA", (tmp_path,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="newer driver"):
        checked(search_config((1.0,), 1, gpus_per_trial=0.25), "search")
    checked(search_config((1.0,), 1), "search")
    checked(search_config((1.0,), 1, gpus_per_trial=0.25, address="auto"), "search")


def test_progress_says_enough_and_not_too_much() -> None:
    lines: list[str] = []
    now = [0.0]
    earlier = TrialRecord(status="COMPLETE", trial="t0000", b=0.5, macs_ratio=0.4)
    progress = SearchProgress(lines.append, 6, [earlier], clock=lambda: now[0])
    metrics = {"step": 1, "n_steps": 4, "group": "conv1", "filters": 8, "kept": 5, "drop_val": 0.25}
    for seconds in (0.0, 0.1, SECONDS_BETWEEN_LINES + 0.2):
        now[0] = seconds
        progress.group_done("t0001", Goal(0.5), {**metrics, "macs_ratio": 0.5})
    assert len(lines) == 2
    assert lines[0] == ("t0001  b 0.5  step 1/4  conv1: 5/8 filters  drop +0.25  MACs 50.0 %  about 0 s left")
    progress.finished(
        TrialRecord(status="COMPLETE", trial="t0001", b=0.5, drop_val=0.25, macs_ratio=0.5, seconds=3.2)
    )
    progress.finished(TrialRecord(status="FAILED", trial="t0002", b=1.0, error="PruningError: no\ntrace"))
    assert lines[2:] == [
        "t0001  b 0.5  complete (2/6)  drop +0.25  MACs 50.0 %  3 s  (best at b 0.5: MACs 40.0 %, t0000)"
        "  about 51 s left",
        "t0002  b 1  failed (3/6): PruningError: no  about 38 s left",
    ]
    progress.group_done("t0003", Goal(2.0), {**metrics, "macs_ratio": 0.5, "fine_tunings_undone": 1})
    assert "t0003  b 2  conv1: fine-tuning was undone, its loss was not finite" in lines[4], "never held back"


@pytest.mark.parametrize("on_sigint", [signal.default_int_handler, signal.SIG_IGN], ids=["usual", "ignored"])
def test_sigterm_interrupts_and_the_handlers_come_back(
    on_sigint: Callable[..., object] | signal.Handlers,
) -> None:
    usual = signal.signal(signal.SIGINT, on_sigint)
    try:
        check_sigterm()
    finally:
        signal.signal(signal.SIGINT, usual)


def check_sigterm() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), graceful_signals():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path / "tune"):
        with pytest.raises(ResultsError, match="another process"), exclusive(tmp_path / "tune"):
            pass
    with exclusive(tmp_path / "tune"):
        pass
