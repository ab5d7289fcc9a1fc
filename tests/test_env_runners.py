"""Rewards that further processes judge are the trial's own, and so is everything that follows from them."""

import dataclasses
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import ray
import test_pruning_run
import toy_pruning
from numpy.typing import NDArray
from test_pruning_run import comparable, finish, start
from torch import nn
from toy_pruning import ToyTask

from rlprune.config import AgentConfig, SearchConfig
from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.errors import ConfigError
from rlprune.local_ray import start_local_ray
from rlprune.rl.agent import train_agent
from rlprune.rl.env_runners import EnvRunners
from rlprune.search.resources import bundles, resource_faults, total_faults
from rlprune.whole_run import check_env_runners

SEARCH = SearchConfig(env_runners_per_trial=2, cpus_per_env_runner=0.5, gpus_per_env_runner=0.25)


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    start_local_ray(num_cpus=4, log_to_driver=False)
    modules = (toy_pruning, test_pruning_run, __import__("tiny_network"), __import__(__name__))
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


class ExactTask(ToyTask):
    """Judges mask by mask, as the reward engine does: what a mask gets does not depend on its neighbours."""

    def rewards(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.concatenate([ToyTask.rewards(self, mask[None]) for mask in masks])


def toy(made: Any = None) -> ExactTask:
    return ExactTask(24, seed=3, noise=0.0)


@pytest.mark.ray
def test_an_agent_with_env_runners_is_the_same_agent(four_cpus: None) -> None:
    runners = EnvRunners(2, repr, None, cpus=0.5, gpus=0.0)
    runners.prepare(toy)
    shared = runners.join(toy())
    masks = np.random.default_rng(0).random((7, 24)) < 0.5
    for rng in (np.random.default_rng(1), np.random.default_rng(2)):
        alone, again = toy(), np.random.default_rng()
        again.bit_generator.state = rng.bit_generator.state
        alone.redraw(rng)
        shared.redraw(again)
        assert again.bit_generator.state == rng.bit_generator.state
        assert np.array_equal(shared.rewards(masks), alone.rewards(masks))
        assert np.array_equal(shared.rewards(masks[:1]), alone.rewards(masks[:1])), "fewer masks than judges"
    config = dataclasses.replace(AgentConfig(), iterations=3, masks=8)
    outcomes = [train_agent(task, config, 5) for task in (toy(), shared)]
    assert outcomes[0].history == outcomes[1].history
    assert np.array_equal(outcomes[0].masks, outcomes[1].masks)


@pytest.mark.ray
def test_a_process_that_draws_something_else_is_noticed(four_cpus: None) -> None:
    runners = EnvRunners(1, repr, None, cpus=0.5, gpus=0.0)
    runners.prepare(lambda made: Drawing(24, seed=3, noise=0.0))
    shared = runners.join(toy())
    with pytest.raises(RuntimeError, match="they drew other images"):
        shared.redraw(np.random.default_rng(0))


class Drawing(ToyTask):
    def redraw(self, rng: np.random.Generator) -> None:
        super().redraw(rng)
        rng.normal()


@pytest.mark.ray
def test_a_run_with_env_runners_is_the_same_run(
    four_cpus: None, tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    records = []
    for number in (0, 2):
        run = start(tiny_model, digits_splits, search__env_runners_per_trial=number)
        finish(run)
        records.append(comparable(run.record()))
    assert records[0] == records[1]
    assert min(group["kept"] for group in records[0].groups[:-1]) > 0


# ---- what they take


def test_a_trial_asks_for_its_own_process_and_for_each_env_runner() -> None:
    search = dataclasses.replace(SEARCH, gpus_per_trial=0.5)
    runner = {"CPU": 0.5, "GPU": 0.25}
    assert bundles(search) == [{"CPU": 1.0, "GPU": 0.5}, runner, runner]
    assert bundles(SearchConfig()) == [{"CPU": 1.0, "GPU": 0.0}]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([{"CPU": 2.0, "GPU": 0.5}], []),
        ([{"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}], []),
        ([{"CPU": 1.0, "GPU": 0.25}], ["ask for 2 CPUs, but the cluster has 1", "ask for 0.5 GPUs"]),
        ([{"CPU": 4.0}], ["search.gpus_per_env_runner: an env runner asks for 0.25 GPUs"]),
    ],
)
def test_what_a_cluster_cannot_give_is_refused(nodes: list[dict[str, float]], expected: list[str]) -> None:
    found = list(resource_faults(SEARCH, nodes)) or list(total_faults(SEARCH, nodes))
    assert len(found) == len(expected)
    assert all(text in fault for text, fault in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"search.gpus_per_trial": 0.5}, "one of them is 0"),
        ({"search.gpus_per_env_runner": 0.5}, "one of them is 0"),
        (
            {"search.gpus_per_trial": 2, "search.gpus_per_env_runner": 1.5},
            "search.gpus_per_env_runner: above 1 only whole",
        ),
        ({"pruning.screening": 0.25}, "each env runner sees a part"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(None, {"search.env_runners_per_trial": 1, **changes})


@pytest.mark.parametrize(
    ("verb", "kind", "gpus", "refused"),
    [
        ("prune", "cuda", 0.0, True),
        ("prune", "cuda", 0.5, False),
        ("prune", "cpu", 0.0, False),
        ("search", "cuda", 0.0, False),  # its trials compute on the CPU too, whatever the driver could
    ],
)
def test_a_run_on_a_gpu_has_its_env_runners_there_too(
    verb: str, kind: str, gpus: float, refused: bool
) -> None:
    config = load_config(
        None,
        {
            "search.env_runners_per_trial": 1,
            "search.gpus_per_trial": gpus,
            "search.gpus_per_env_runner": gpus,
        },
    )
    with pytest.raises(ConfigError, match="compute other rewards") if refused else nullcontext():
        check_env_runners(config, verb, kind)
