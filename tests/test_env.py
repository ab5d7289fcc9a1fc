import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from toy_pruning import ToyTask

from rlprune.rl.env import FilterPruningVectorEnv
from rlprune.rl.mask_record import RecordedTask


def make_env(n_masks: int = 6, seed: int = 0) -> tuple[FilterPruningVectorEnv, ToyTask]:
    task = ToyTask(n_filters=16, seed=0, noise=0.2)
    return FilterPruningVectorEnv(task, n_masks, seed), task


def test_spaces_hold_what_the_environment_gives() -> None:
    env, _ = make_env()
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.single_action_space == gymnasium.spaces.MultiBinary(16)
    observations, infos = env.reset(seed=1)
    assert env.observation_space.contains(observations)
    assert infos == {}
    actions = env.action_space.sample()
    observations, rewards, terminations, truncations, infos = env.step(actions)
    assert env.observation_space.contains(observations)
    assert all(env.single_observation_space.contains(observation) for observation in observations)
    assert rewards.shape == terminations.shape == truncations.shape == (6,)
    assert terminations.all()
    assert not truncations.any()
    assert infos == {}


def test_gymnasium_makes_wraps_and_checks_it() -> None:
    task = ToyTask(n_filters=16, seed=0, noise=0.2)
    name = "rlprune-test-v0"
    gymnasium.register(
        name, vector_entry_point=lambda num_envs: FilterPruningVectorEnv(task, num_envs, seed=0)
    )
    try:
        env = gymnasium.make_vec(name, num_envs=4, vectorization_mode="vector_entry_point")
        env = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
        env.reset(seed=0)
        _, rewards, terminations, _, infos = env.step(env.action_space.sample())
        np.testing.assert_allclose(infos["episode"]["r"], rewards, rtol=1e-6)
        assert (infos["episode"]["l"] == 1).all()
        assert terminations.all()
        env.close()
    finally:
        gymnasium.registry.pop(name)


def test_all_masks_of_a_step_are_one_call_on_one_subset() -> None:
    env, task = make_env()
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, (6, 16))
    actions[:, 0] = 1
    _, rewards, *_ = env.step(actions)
    assert len(task.calls) == task.redraws == 1
    np.testing.assert_array_equal(task.calls[0], actions.astype(bool))
    assert len(set(rewards)) == 6


def test_autoreset_step_redraws_and_judges_nothing() -> None:
    env, task = make_env()
    env.reset(seed=0)
    env.step(np.ones((6, 16), dtype=np.int8))
    _, rewards, terminations, truncations, _ = env.step(np.ones((6, 16), dtype=np.int8))
    assert (rewards == 0).all()
    assert not (terminations | truncations).any()
    assert len(task.calls) == 1
    assert task.redraws == 2
    _, rewards, terminations, _, _ = env.step(np.eye(6, 16, dtype=np.int8))
    assert terminations.all()
    assert len(task.calls) == 2


def test_same_seed_same_rollout_and_another_seed_another() -> None:
    actions = np.random.default_rng(0).integers(0, 2, (5, 6, 16)) | np.eye(16, dtype=int)[0]

    def rollout(seed: int) -> np.ndarray:
        env, _ = make_env(seed=123)
        env.reset(seed=seed)
        first = env.step(actions[0])[1]
        return np.stack([first] + [env.step(action)[1] for action in actions[1:]])

    np.testing.assert_array_equal(rollout(3), rollout(3))
    assert not np.array_equal(rollout(3), rollout(4))


def test_global_generators_are_left_alone() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    env, _ = make_env()
    env.reset(seed=5)
    env.step(np.ones((6, 16), dtype=np.int8))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_an_empty_mask_keeps_the_filter_with_the_highest_score() -> None:
    env, task = make_env(n_masks=2)
    env.reset(seed=0)
    actions = np.zeros((2, 16), dtype=np.int8)
    actions[1, [2, 5]] = 1
    env.step(actions)
    best = int(np.argmax(task.context.scores))
    np.testing.assert_array_equal(np.flatnonzero(task.calls[0][0]), [best])
    np.testing.assert_array_equal(np.flatnonzero(task.calls[0][1]), [2, 5])
    assert actions.sum() == 2


def test_actions_of_another_shape_are_refused() -> None:
    env, _ = make_env()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"\(6, 16\).*\(6, 15\)"):
        env.step(np.ones((6, 15), dtype=np.int8))


def test_record_averages_repeated_masks_and_ranks_them() -> None:
    class Sequence(ToyTask):
        values = iter([[1.0, 5.0], [3.0, 4.0]])

        def rewards(self, masks: np.ndarray) -> np.ndarray:
            return np.array(next(self.values))

    record = RecordedTask(Sequence(n_filters=10, seed=0, noise=0.0))
    one, two, three = (np.arange(10) < kept for kept in (3, 5, 9))
    record.rewards(np.stack([one, two]))
    record.rewards(np.stack([one, three]))
    masks, rewards = record.ranking()
    np.testing.assert_array_equal(masks, np.stack([two, three, one]))
    np.testing.assert_array_equal(rewards, [5.0, 4.0, 2.0])
    assert record.evaluations == 4
    again = RecordedTask(ToyTask(n_filters=10, seed=0, noise=0.0))
    again.load_state(record.state())
    np.testing.assert_array_equal(again.ranking()[0], masks)


@pytest.mark.parametrize("wrong", [[1.0, np.nan], [1.0], [1.0, np.inf]])
def test_rewards_that_are_not_numbers_are_refused(wrong: list[float]) -> None:
    class Broken(ToyTask):
        def rewards(self, masks: np.ndarray) -> np.ndarray:
            return np.array(wrong)

    with pytest.raises(ValueError, match="one finite reward each"):
        RecordedTask(Broken(n_filters=4, seed=0, noise=0.0)).rewards(np.ones((2, 4), dtype=bool))


def test_a_task_is_never_copied_nor_loaded_from_a_pickle() -> None:
    record = RecordedTask(ToyTask(n_filters=4, seed=0, noise=0.0))
    assert copy.deepcopy({"task": record})["task"] is record
    data = pickle.dumps({"task": record})
    assert len(data) < 200
    with pytest.raises(TypeError, match="by reference"):
        pickle.loads(data)
