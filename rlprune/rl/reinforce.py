"""REINFORCE (Williams 1992) on RLlib's new API stack: the library ships no plain policy gradient."""

from typing import Any

import torch
from ray.rllib.algorithms import Algorithm, AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from rlprune.rl.advantages import leave_pair_out_advantages
from rlprune.rl.modules import PAIR, PruningModule

MOMENTUM = (0.5, 0.999)
"""Adam's betas: with some 30 updates in all, the usual first one (0.9) drags early gradients along."""


class PolicyOptimizers(TorchLearner):
    """Two Adams a module: free logits at the full learning rate, the policy's network at a share of it."""

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """Register the optimizers of one module."""
        assert config is not None
        module = self.module[module_id].unwrapped()
        groups = (
            ("free", module.free_parameters(), 1.0),
            ("network", module.network_parameters(), module.policy.network_rate),
        )
        for name, parameters, share in groups:
            if parameters:
                self.register_optimizer(
                    module_id=module_id,
                    optimizer_name=name,
                    optimizer=torch.optim.Adam(parameters, betas=MOMENTUM),
                    params=parameters,
                    lr_or_lr_schedule=config.lr * share,
                )


class PruningPPOLearner(PolicyOptimizers, PPOTorchLearner):
    """RLlib's PPO loss with the two learning rates of a pruning policy."""


class REINFORCETorchLearner(PolicyOptimizers):
    """Policy gradient with a leave-one-out baseline and an entropy bonus; both terms are means per filter."""

    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """The loss of one batch of one-step episodes, a scalar."""
        module = self.module[module_id].unwrapped()
        logits = fwd_out[Columns.ACTION_DIST_INPUTS]
        distribution = module.get_train_action_dist_cls().from_logits(logits)
        advantages = leave_pair_out_advantages(batch[Columns.REWARDS], batch[PAIR])
        gain = (advantages * distribution.logp(batch[Columns.ACTIONS])).mean()
        return -(gain + config.entropy_coeff * distribution.entropy().mean()) / logits.shape[1]


class REINFORCEConfig(AlgorithmConfig):
    """RLlib's configuration plus ``entropy_coeff``."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or REINFORCE)
        self.entropy_coeff = 0.0

    def training(self, *, entropy_coeff: float | None = None, **kwargs: Any) -> "REINFORCEConfig":
        """Set ``entropy_coeff`` and RLlib's own training settings.

        Args:
            entropy_coeff: Weight of the policy's entropy; None leaves it as it is.
            kwargs: See ``AlgorithmConfig.training``.
        """
        super().training(**kwargs)
        if entropy_coeff is not None:
            self.entropy_coeff = entropy_coeff
        return self

    def get_default_learner_class(self) -> type:
        """The learner of this algorithm."""
        return REINFORCETorchLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module that is trained, without its settings."""
        return RLModuleSpec(module_class=PruningModule)


class WithoutLogFolder(Algorithm):
    """An algorithm that makes no folder under ``~/ray_results``."""

    def _setup_logdir(self) -> None:
        self._logdir = None


class PruningPPO(WithoutLogFolder, PPO):
    """PPO as RLlib ships it."""


class REINFORCE(WithoutLogFolder):
    """One iteration: sample complete one-step episodes, one gradient step, weights back to the sampler."""

    @classmethod
    def get_default_config(cls) -> REINFORCEConfig:
        """The configuration to start from."""
        return REINFORCEConfig()

    def training_step(self) -> None:
        """Run one iteration."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            episodes, sampling = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                max_env_steps=self.config.total_train_batch_size,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
            self.metrics.aggregate(sampling, key=ENV_RUNNER_RESULTS)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
            learning = self.learner_group.update(
                episodes=episodes, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps}
            )
            self.metrics.aggregate(learning, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self._sync_weights()

    def _sync_weights(self) -> None:
        """Hand the learned weights to the sampler; within one process no Ray is needed for it."""
        if self.env_runner_group.num_remote_workers():
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, inference_only=True
            )
            return
        state = self.learner_group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )
        self.env_runner.set_state(state[COMPONENT_LEARNER])
