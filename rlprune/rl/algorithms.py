"""From the settings of an agent to an RLlib algorithm that runs in this process."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import gymnasium
import ray
import torch
from ray.rllib.algorithms import Algorithm, AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rlprune.config import AgentConfig
from rlprune.local_ray import start_local_ray
from rlprune.rl.env import ContextFilterPruningVectorEnv
from rlprune.rl.mask_record import RecordedTask
from rlprune.rl.modules import PruningModule
from rlprune.rl.reinforce import PruningPPO, PruningPPOLearner, REINFORCEConfig
from rlprune.seeding import child_seed

RLLIB_ENV_ID = "rllib-single-agent-env-v0"
"""The name under which RLlib registers the environment of its latest algorithm with gymnasium."""

PPO_EPOCHS = 4
"""PPO's passes over the masks of an iteration. RLlib's 30 are meant for batches of thousands of steps."""


def build_algorithm(
    task: RecordedTask, config: AgentConfig, seed: int, network: Mapping[str, torch.Tensor] | None = None
) -> Algorithm:
    """Build the algorithm that trains one agent: one local sampler, one local learner, both on the CPU.

    RLlib's global seeding stays off; the environment and the policy have their own generators.

    Args:
        task: The task, handed over by reference.
        config: Settings of the agent.
        seed: Seed of the agent.
        network: The parameters of another group's module, whose network the policy begins with.

    Returns:
        The algorithm; hand it to :func:`close_algorithm` when done.
    """
    ensure_ray()
    with quiet_rllib():
        return _algorithm_config(task, config, seed, network).build_algo(use_copy=False)


def close_algorithm(algorithm: Algorithm) -> None:
    """Stop the algorithm and drop what RLlib leaves behind in gymnasium's registry."""
    algorithm.stop()
    gymnasium.registry.pop(RLLIB_ENV_ID, None)


def ensure_ray(cpus: float = 1) -> None:
    """Start Ray, with so many CPUs, unless it runs: RLlib puts its configuration into Ray's object store."""
    if not ray.is_initialized():
        start_local_ray(num_cpus=math.ceil(cpus), log_to_driver=False, logging_level=logging.ERROR)


@contextmanager
def quiet_rllib() -> Iterator[None]:
    """Keep RLlib's remarks off the terminal; what goes wrong is raised, so its log says nothing more."""
    loggers = [logging.getLogger(name) for name in ("ray.rllib", "ray._common.deprecation")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _algorithm_config(
    task: RecordedTask, config: AgentConfig, seed: int, network: Mapping[str, torch.Tensor] | None
) -> AlgorithmConfig:
    with_value = config.algorithm == "ppo"
    module = RLModuleSpec(
        module_class=PruningModule,
        model_config={
            "policy": config.policy,
            "task": task,
            "keep_probability": config.keep_probability,
            "seed": child_seed(seed, "policy"),
            "value": with_value,
            "network": network,
        },
    )
    return (
        (_ppo(config) if with_value else _reinforce(config))
        .environment(
            env=ContextFilterPruningVectorEnv,
            env_config={"task": task, "seed": child_seed(seed, "environment")},
        )
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=config.masks,
            gym_env_vectorize_mode="vector_entry_point",
            batch_mode="complete_episodes",
            explore=True,
        )
        .learners(num_learners=0, num_gpus_per_learner=0)
        .rl_module(rl_module_spec=module)
        .debugging(log_level="CRITICAL", seed=None)
    )


def _reinforce(config: AgentConfig) -> AlgorithmConfig:
    return REINFORCEConfig().training(
        lr=config.learning_rate,
        entropy_coeff=config.entropy_coefficient,
        grad_clip=config.grad_clip,
        grad_clip_by="global_norm",
        train_batch_size_per_learner=config.masks,
    )


def _ppo(config: AgentConfig) -> AlgorithmConfig:
    return PPOConfig(algo_class=PruningPPO).training(
        lr=config.learning_rate,
        entropy_coeff=config.entropy_coefficient,
        grad_clip=config.grad_clip,
        grad_clip_by="global_norm",
        train_batch_size_per_learner=config.masks,
        minibatch_size=None,
        num_epochs=PPO_EPOCHS,
        shuffle_batch_per_epoch=False,
        use_kl_loss=False,
        learner_class=PruningPPOLearner,
    )
