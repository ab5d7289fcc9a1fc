import dataclasses
import io
import itertools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from toy_pruning import ToyTask

from rlprune.config import AgentConfig
from rlprune.errors import PruningError
from rlprune.rl.advantages import leave_pair_out_advantages
from rlprune.rl.distribution import IndependentBernoulli, antithetic_masks
from rlprune.rl.policies import POLICIES, starting_logits

N_FILTERS = 64
EVALUATIONS = 30 * 16


def settings(**changes: object) -> AgentConfig:
    return dataclasses.replace(
        AgentConfig(iterations=30, masks=16, learning_rate=0.3, entropy_coefficient=0.03), **changes
    )


def start_reward(task: ToyTask, config: AgentConfig) -> float:
    return task.true_reward(starting_logits(task.context.scores, config.keep_probability) > 0)


# ---- what needs no Ray


def test_leave_pair_out_advantages_by_hand() -> None:
    rewards, pairs = torch.tensor([1.0, 2.0, 4.0, 9.0]), torch.tensor([0, 1, 0, 1])
    raw = torch.tensor([1 - 5.5, 2 - 2.5, 4 - 5.5, 9 - 2.5])
    torch.testing.assert_close(leave_pair_out_advantages(rewards, pairs), raw / raw.std())


def test_a_masks_own_reward_and_its_partners_do_not_move_its_baseline() -> None:
    pairs = torch.tensor([0, 1, 2, 0, 1, 2])
    rewards = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 7.0])
    baseline = rewards[0] - _unscaled(rewards, pairs)[0]
    changed = rewards.clone()
    changed[3] = 100.0
    torch.testing.assert_close(changed[0] - _unscaled(changed, pairs)[0], baseline)
    changed[1] = 0.0
    assert changed[0] - _unscaled(changed, pairs)[0] < baseline


def _unscaled(rewards: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Advantages before the division by their deviation, recovered from two masks of different pairs."""
    scaled = leave_pair_out_advantages(rewards, pairs)
    n = len(rewards)
    same = (pairs[:, None] == pairs[None]).float()
    unit = rewards - (rewards.sum() - same @ rewards) / (n - same.sum(1))
    return scaled * unit.std()


def test_equal_rewards_give_no_gradient() -> None:
    advantages = leave_pair_out_advantages(torch.full((8,), 0.3), torch.arange(8) % 4)
    torch.testing.assert_close(advantages, torch.zeros(8))


def test_policy_gradient_with_pairs_is_unbiased() -> None:
    logits = torch.tensor([0.4, -0.3, 0.8], requires_grad=True)
    worth = torch.tensor([1.0, -2.0, 0.5])
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    probability = IndependentBernoulli(logits.expand(8, -1)).logp(every).exp()
    exact = torch.autograd.grad((probability * ((every @ worth) ** 2)).sum(), logits)[0]

    generator = torch.Generator().manual_seed(0)
    total, rounds, size = torch.zeros(3), 2000, 16
    for _ in range(rounds):
        masks, pairs = antithetic_masks(torch.sigmoid(logits.detach()), size, generator)
        rewards = (masks.float() @ worth) ** 2
        same = (pairs[:, None] == pairs[None]).float()
        advantages = rewards - (rewards.sum() - same @ rewards) / (size - 2)
        log_probability = IndependentBernoulli(logits.expand(size, -1)).logp(masks)
        total += torch.autograd.grad((advantages * log_probability).mean(), logits)[0]
    torch.testing.assert_close(total / rounds, exact, atol=0.02, rtol=0.05)


def test_antithetic_masks_have_the_right_marginals_and_mirrored_pairs() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.9])
    masks, pairs = antithetic_masks(probabilities, 4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(masks.float().mean(0), probabilities, atol=0.02, rtol=0)
    first, second = masks[:2000], masks[2000:]
    assert (pairs[:2000] == pairs[2000:]).all()
    assert (first[:, 1] != second[:, 1]).all()
    assert ((first[:, 0] & second[:, 0]) == 0).all()
    assert ((first[:, 2] | second[:, 2]) == 1).all()
    odd, odd_pairs = antithetic_masks(probabilities, 5, torch.Generator().manual_seed(0))
    assert odd.shape == (5, 3)
    assert odd_pairs.tolist() == [0, 1, 2, 0, 1]


def test_bernoulli_agrees_with_torch() -> None:
    logits, masks = torch.randn(5, 7), torch.randint(0, 2, (5, 7), dtype=torch.int8)
    ours, theirs = IndependentBernoulli.from_logits(logits), torch.distributions.Bernoulli(logits=logits)
    torch.testing.assert_close(ours.logp(masks), theirs.log_prob(masks.float()).sum(1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(1))
    torch.testing.assert_close(ours.to_deterministic().sample(), (logits > 0).to(torch.int8))
    assert not IndependentBernoulli(torch.zeros(1, 3)).to_deterministic().sample().any()
    other = IndependentBernoulli.from_logits(torch.randn(5, 7))
    assert (ours.kl(other) > 0).all()


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.75, 0.97])
def test_starting_logits_follow_the_scores_at_the_wanted_mean(keep: float) -> None:
    scores = np.random.default_rng(0).lognormal(size=200).astype(np.float32)
    logits = starting_logits(scores, keep)
    assert np.mean(1 / (1 + np.exp(-logits))) == pytest.approx(keep, abs=1e-4)
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(logits, kind="stable"))


def test_equal_scores_start_with_equal_probabilities() -> None:
    np.testing.assert_allclose(starting_logits(np.full(9, 3.0), 0.75), np.log(3), rtol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("n_filters", [3, 64])
def test_policy_contract(name: str, n_filters: int) -> None:
    """Starts at the scores, reaches every parameter with the gradient, and splits its parameters in two."""
    context = ToyTask(n_filters, seed=0, noise=0.0).context
    policy = POLICIES[name](context, 0.75)
    np.testing.assert_allclose(policy().detach().numpy(), starting_logits(context.scores, 0.75), rtol=1e-6)
    (policy() ** 2).sum().backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())
    free, network = policy.free_parameters(), policy.network_parameters()
    assert len(free) + len(network) == len(list(policy.parameters()))
    assert sum(parameter.numel() for parameter in free) == n_filters
    assert not any(name.startswith(("start", "features", "matrix")) for name in policy.state_dict())


@pytest.mark.parametrize("name", POLICIES)
def test_the_network_of_a_policy_learns_at_its_share_of_the_rate(name: str) -> None:
    from rlprune.rl.reinforce import PolicyOptimizers

    policy = POLICIES[name](ToyTask(8, seed=0, noise=0.0).context, 0.75)
    rates = {}

    def register(optimizer_name: str, lr_or_lr_schedule: float, **_: Any) -> None:
        rates[optimizer_name] = lr_or_lr_schedule

    module = SimpleNamespace(
        free_parameters=policy.free_parameters, network_parameters=policy.network_parameters, policy=policy
    )
    learner: Any = SimpleNamespace(
        module={"group": SimpleNamespace(unwrapped=lambda: module)}, register_optimizer=register
    )
    PolicyOptimizers.configure_optimizers_for_module(learner, "group", SimpleNamespace(lr=0.5))
    assert rates.pop("free") == 0.5
    assert rates == ({} if name == "logits" else {"network": 0.5 * policy.network_rate})
    assert policy.network_rate < 1 or name == "logits"


def test_a_policy_gradient_step_raises_rewarded_masks_and_the_entropy() -> None:
    from ray.rllib.core.columns import Columns

    from rlprune.rl.modules import PAIR
    from rlprune.rl.reinforce import REINFORCETorchLearner

    policy = SimpleNamespace(get_train_action_dist_cls=lambda: IndependentBernoulli)
    learner: Any = SimpleNamespace(module={"group": SimpleNamespace(unwrapped=lambda: policy)})
    masks = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=torch.int8)
    logits = torch.tensor([2.0, -1.0], requires_grad=True)

    def step(rewards: torch.Tensor, coefficient: float) -> torch.Tensor:
        """Where gradient descent moves the logits of two filters, one likely and one unlikely to stay."""
        loss = REINFORCETorchLearner.compute_loss_for_module(
            learner,
            module_id="group",
            config=SimpleNamespace(entropy_coeff=coefficient),
            batch={Columns.ACTIONS: masks, Columns.REWARDS: rewards, PAIR: torch.tensor([0, 1, 0, 1])},
            fwd_out={Columns.ACTION_DIST_INPUTS: logits.expand(4, -1)},
        )
        return -torch.autograd.grad(loss, logits)[0]

    raw = torch.tensor([1 - 5.5, 2 - 2.5, 4 - 5.5, 9 - 2.5])  # as in the test of advantages by hand
    towards = raw[:, None] / raw.std() * (masks - logits.detach().sigmoid())
    torch.testing.assert_close(step(torch.tensor([1.0, 2.0, 4.0, 9.0]), 0.0), towards.mean(0) / 2)
    first, second = step(torch.ones(4), 0.5)
    assert first < 0 < second, "an entropy bonus leads towards even chances"


def test_a_policy_can_begin_with_the_network_of_another_group() -> None:
    """What was learned orders the filters anew, but does not say how many stay."""
    donor = POLICIES["set"](ToyTask(12, seed=0, noise=0.0).context, 0.75)
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    policy = POLICIES["set"](ToyTask(64, seed=1, noise=0.0).context, 0.75)
    policy.take_network(donor.state_dict())
    moved = (policy() - policy.start).detach()
    assert moved.std() > 0.1
    assert moved.mean().abs() < 1e-5
    with torch.no_grad():
        again = policy.embed(donor.features)
    torch.testing.assert_close(again, donor.embed(donor.features))
    assert (policy.free == 0).all()
    for name in ("logits", "paper"):
        with pytest.raises(RuntimeError, match="no network that fits"):
            POLICIES[name](ToyTask(12, seed=0, noise=0.0).context, 0.75).take_network(donor.state_dict())


# ---- agents, inside RLlib


@pytest.mark.ray
@pytest.mark.parametrize("policy", POLICIES)
def test_64_filters_are_solved_within_2560_evaluations(local_ray: None, policy: str) -> None:
    from rlprune.rl.agent import train_agent

    task = ToyTask(N_FILTERS, seed=0, noise=0.05)
    config = settings(policy=policy, iterations=80, masks=32, entropy_coefficient=0.1)
    outcome = train_agent(task, config, seed=0)
    assert outcome.evaluations == 2560 == sum(len(call) for call in task.calls)
    assert start_reward(task, config) < 0.3 * task.best_reward()
    assert task.true_reward(outcome.mode) > 0.93 * task.best_reward()


@pytest.mark.ray
@pytest.mark.parametrize("policy", POLICIES)
def test_480_noisy_evaluations_give_a_clearly_better_mask(local_ray: None, policy: str) -> None:
    from rlprune.rl.agent import train_agent

    task, config = ToyTask(N_FILTERS, seed=0, noise=0.15), settings(policy=policy)
    outcome = train_agent(task, config, seed=0)
    assert outcome.evaluations == EVALUATIONS
    assert task.true_reward(outcome.mode) > max(0.6 * task.best_reward(), 2 * start_reward(task, config))


@pytest.mark.ray
def test_ppo_learns_through_the_same_environment(local_ray: None) -> None:
    from rlprune.rl.agent import train_agent

    task, config = ToyTask(N_FILTERS, seed=0, noise=0.15), settings(algorithm="ppo", learning_rate=0.1)
    outcome = train_agent(task, config, seed=0)
    assert outcome.evaluations == EVALUATIONS
    assert task.true_reward(outcome.mode) > start_reward(task, config)
    assert "value" in outcome.state


@pytest.mark.ray
def test_outcome_is_consistent(local_ray: None) -> None:
    from rlprune.rl.agent import train_agent

    task, reports = ToyTask(12, seed=0, noise=0.1), []
    outcome = train_agent(task, settings(iterations=4), seed=0, on_iteration=reports.append)
    assert outcome.history == reports
    assert [report["iteration"] for report in reports] == [1, 2, 3, 4]
    assert task.redraws == len(task.calls) == 4
    assert len({mask.tobytes() for mask in outcome.masks}) == len(outcome.masks) <= outcome.evaluations == 64
    assert (np.diff(outcome.rewards) <= 0).all()
    assert outcome.masks.any(axis=1).all()
    np.testing.assert_array_equal(outcome.mode, outcome.keep_probabilities > 0.5)
    assert reports[-1]["keep_mean"] == pytest.approx(outcome.keep_probabilities.mean())


@pytest.mark.ray
@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_same_seed_same_outcome(local_ray: None, algorithm: str) -> None:
    from rlprune.rl.agent import train_agent

    def outcome(seed: int) -> list[np.ndarray]:
        np.random.seed(None)
        result = train_agent(ToyTask(12, 0, 0.1), settings(iterations=4, algorithm=algorithm), seed)
        return [result.keep_probabilities, result.masks, result.rewards]

    first, second, other = outcome(1), outcome(1), outcome(2)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.ray
@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [("reinforce", "set"), ("reinforce", "paper"), ("reinforce", "logits"), ("ppo", "set")],
)
def test_resumed_agent_equals_the_uninterrupted_one(local_ray: None, algorithm: str, policy: str) -> None:
    from rlprune.rl.agent import Agent

    config = settings(algorithm=algorithm, policy=policy)
    with Agent(ToyTask(12, 0, 0.1), config, seed=0) as agent:
        for _ in range(3):
            agent.train_iteration()
        file = io.BytesIO()
        torch.save(agent.state_dict(), file)
        expected = [agent.train_iteration() for _ in range(3)]
        expected_outcome = agent.outcome()
    file.seek(0)
    with Agent(ToyTask(12, 0, 0.1), config, seed=99) as agent:
        agent.load_state_dict(torch.load(file, weights_only=True))
        assert agent.iterations == 3
        assert [agent.train_iteration() for _ in range(3)] == expected
        outcome = agent.outcome()
    np.testing.assert_array_equal(outcome.keep_probabilities, expected_outcome.keep_probabilities)
    np.testing.assert_array_equal(outcome.masks, expected_outcome.masks)
    assert outcome.history == expected_outcome.history


@pytest.mark.ray
def test_what_the_task_raises_reaches_the_caller(local_ray: None) -> None:
    from rlprune.rl.agent import train_agent

    class Failing(ToyTask):
        def rewards(self, masks: np.ndarray) -> np.ndarray:
            raise PruningError("this group cannot be judged")

    with pytest.raises(PruningError, match="cannot be judged"):
        train_agent(Failing(8, 0, 0.0), settings(), seed=0)


@pytest.mark.ray
def test_a_closed_agent_leaves_nothing_behind(
    local_ray: None, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import weakref

    from rlprune.rl.agent import train_agent

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    registered = set(gymnasium.registry)
    global_state = torch.get_rng_state()
    task = ToyTask(8, 0, 0.1)
    reference = weakref.ref(task)
    train_agent(task, settings(iterations=2), seed=0)
    del task
    gc.collect()
    assert reference() is None
    assert set(gymnasium.registry) == registered
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), global_state)
