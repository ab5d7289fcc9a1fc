"""Trains one agent on one group and hands back the masks it believes in."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner import Learner

from rlprune.config import AgentConfig
from rlprune.rl.algorithms import build_algorithm, close_algorithm, quiet_rllib
from rlprune.rl.counts import with_allowed_counts
from rlprune.rl.env import FilterPruningVectorEnv
from rlprune.rl.mask_record import RecordedTask
from rlprune.rl.modules import PruningModule
from rlprune.rl.task import PruningTask


@dataclass(frozen=True, eq=False)
class AgentOutcome:
    """What a trained agent hands back.

    Attributes:
        mode: bool (f,), the most probable mask; True = keep, never empty.
        keep_probabilities: float64 (f,).
        masks: bool (k, f), all distinct masks that were judged, best first.
        rewards: float64 (k,), the mean reward of each.
        history: One JSON-able dict an iteration.
        evaluations: Masks judged in all, repetitions included.
        state: The policy's parameters.
    """

    mode: NDArray[np.bool_]
    keep_probabilities: NDArray[np.float64]
    masks: NDArray[np.bool_]
    rewards: NDArray[np.float64]
    history: list[dict[str, float]]
    evaluations: int
    state: dict[str, torch.Tensor]


class Agent:
    """A policy-gradient agent of one group; a context manager that closes itself.

    Everything is drawn from the agent's own generators: the same seed, settings and task give the same
    outcome, and an agent that loads a state goes on exactly as the saved one would have, provided that the
    task holds no state but what ``redraw`` sets.
    """

    def __init__(
        self,
        task: PruningTask,
        config: AgentConfig,
        seed: int,
        network: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Build the agent.

        Args:
            task: The group and the judge of its masks.
            config: Settings.
            seed: Seed of the initial weights, the sampled masks and ``task.redraw``.
            network: The ``state`` of another group's outcome; the policy's network begins as that one ended.
        """
        self._record = RecordedTask(task)
        self._algorithm = build_algorithm(self._record, config, seed, network)
        self._history: list[dict[str, float]] = []

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def iterations(self) -> int:
        """Training iterations done."""
        return len(self._history)

    def train_iteration(self) -> dict[str, float]:
        """Judge one batch of masks and take one step of training.

        Returns:
            ``iteration`` (1 for the first), ``evaluations`` so far, ``reward_mean``, ``reward_max`` and
            ``reward_std`` of this batch, and of the policy after the step ``keep_mean`` (mean keep
            probability), ``mode_kept`` (filters that the mode keeps) and ``entropy`` (mean per filter, nats).

        Raises:
            Exception: Whatever the task raised.
        """
        try:
            with quiet_rllib():
                self._algorithm.train()
        except Exception:
            if self._record.failure is None:
                raise
            raise self._record.failure from None
        rewards = self._record.latest_rewards
        keep = self._module().keep_probabilities()
        entropy = -(keep * np.log(keep.clip(1e-12)) + (1 - keep) * np.log((1 - keep).clip(1e-12)))
        report = {
            "iteration": self.iterations + 1,
            "evaluations": self._record.evaluations,
            "reward_mean": float(rewards.mean()),
            "reward_max": float(rewards.max()),
            "reward_std": float(rewards.std()),
            "keep_mean": float(keep.mean()),
            "mode_kept": int(_mode(keep, self._record.context.allowed).sum()),
            "entropy": float(entropy.mean()),
        }
        self._history.append(report)
        return dict(report)

    def outcome(self) -> AgentOutcome:
        """What the agent has learned so far; at least one iteration must be done."""
        if not self.iterations:
            raise RuntimeError("the agent has not been trained; call train_iteration first")
        keep = self._module().keep_probabilities()
        masks, rewards = self._record.ranking()
        return AgentOutcome(
            mode=_mode(keep, self._record.context.allowed),
            keep_probabilities=keep,
            masks=masks,
            rewards=rewards,
            history=[dict(report) for report in self._history],
            evaluations=self._record.evaluations,
            state={name: value.clone() for name, value in self._module().state_dict().items()},
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration needs: tensors, numbers, strings, lists and dicts only."""
        learner = self._learner()
        return {
            "module": {name: value.clone() for name, value in self._module().state_dict().items()},
            "optimizers": {
                name: _cloned(optimizer.state_dict())
                for name, optimizer in learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
            },
            "mask_generator": self._sampler().generator.get_state(),
            "image_generator": json.dumps(self._environment().np_random.bit_generator.state),
            "record": self._record.state(),
            "history": [dict(report) for report in self._history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` of an agent with the same settings and group gave."""
        self._module().load_state_dict(state["module"])
        self._sampler().load_state_dict(state["module"])
        for name, optimizer in self._learner().get_optimizers_for_module(DEFAULT_MODULE_ID):
            optimizer.load_state_dict(_cloned(state["optimizers"][name]))
        self._sampler().generator.set_state(state["mask_generator"])
        self._environment().np_random.bit_generator.state = json.loads(state["image_generator"])
        self._record.load_state(state["record"])
        self._history = [dict(report) for report in state["history"]]

    def close(self) -> None:
        """Stop the algorithm and let go of the task; what was learned cannot be read afterwards."""
        close_algorithm(self._algorithm)
        self._record.release()

    def _learner(self) -> Learner:
        return self._algorithm.learner_group._learner

    def _module(self) -> PruningModule:
        return self._learner().module[DEFAULT_MODULE_ID].unwrapped()

    def _sampler(self) -> PruningModule:
        return self._algorithm.env_runner.module

    def _environment(self) -> FilterPruningVectorEnv:
        return self._algorithm.env_runner.env.unwrapped


def train_agent(
    task: PruningTask,
    config: AgentConfig,
    seed: int,
    on_iteration: Callable[[dict[str, float]], None] | None = None,
    *,
    network: Mapping[str, torch.Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
    on_state: Callable[[dict[str, Any]], None] | None = None,
) -> AgentOutcome:
    """Train one agent for ``config.iterations`` iterations of ``config.masks`` masks.

    Args:
        task: The group and the judge of its masks.
        config: Settings.
        seed: Seed of everything the agent draws.
        on_iteration: Called with the report of each iteration; see :meth:`Agent.train_iteration`.
        network: The ``state`` of another group's outcome, whose network this policy begins with.
        state: What an interrupted training of the same agent gave to ``on_state``; it goes on from there.
        on_state: Called with the agent's state every ``config.checkpoint_every`` iterations, and at the end.

    Returns:
        The mode, the masks it saw and how it went.
    """
    with Agent(task, config, seed, network) as agent:
        if state is not None:
            agent.load_state_dict(state)
        while agent.iterations < config.iterations:
            report = agent.train_iteration()
            if on_iteration is not None:
                on_iteration(report)
            if on_state is not None and _is_saved(agent.iterations, config):
                on_state(agent.state_dict())
        return agent.outcome()


def _is_saved(iteration: int, config: AgentConfig) -> bool:
    every = config.checkpoint_every
    return every > 0 and (iteration % every == 0 or iteration == config.iterations)


def _mode(keep_probabilities: NDArray[np.float64], allowed: NDArray[np.int64]) -> NDArray[np.bool_]:
    return with_allowed_counts((keep_probabilities > 0.5)[None], keep_probabilities, allowed)[0]


def _cloned(value: Any) -> Any:
    """A copy of nested dicts and lists whose tensors are copies too; tuples become lists."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _cloned(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cloned(entry) for entry in value]
    return value
