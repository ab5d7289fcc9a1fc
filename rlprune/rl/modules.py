"""The RLModule: a policy inside RLlib's new API stack."""

from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from rlprune.rl.distribution import IndependentBernoulli, antithetic_masks
from rlprune.rl.policies import POLICIES

PAIR = "antithetic_pair"
"""Column of a batch: the antithetic pair that a mask belongs to."""


class PruningModule(TorchRLModule, ValueFunctionAPI):
    """Keep logits of one group, whatever the observation: the filters are the same in every episode.

    ``model_config`` holds ``policy`` (a name in ``POLICIES``), ``task`` (whose context the policy reads),
    ``keep_probability``, ``seed`` (of the initial weights and of the sampling), ``value`` (whether to have
    the value estimate that PPO needs: one number, as there is one state) and ``network`` (the parameters of
    another group's module, to begin with its network; None for a fresh one).
    """

    def setup(self) -> None:
        """Build the policy; the global generators stay as they are."""
        settings = self.model_config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings["seed"])  # torch.manual_seed moves a GPU's too
            self.policy = POLICIES[settings["policy"]](settings["task"].context, settings["keep_probability"])
        if settings["network"] is not None:
            prefix = "policy."
            self.policy.take_network(
                {
                    name.removeprefix(prefix): value
                    for name, value in settings["network"].items()
                    if name.startswith(prefix)
                }
            )
        self.value = nn.Parameter(torch.zeros(())) if settings["value"] else None
        self.generator = torch.Generator().manual_seed(settings["seed"])
        self.action_dist_cls = IndependentBernoulli

    def free_parameters(self) -> list[nn.Parameter]:
        """The parameters that take the full learning rate."""
        return [*self.policy.free_parameters(), *([] if self.value is None else [self.value])]

    def network_parameters(self) -> list[nn.Parameter]:
        """The parameters of the policy's network; empty where it has none."""
        return self.policy.network_parameters()

    @torch.no_grad()
    def keep_probabilities(self) -> np.ndarray:
        """The probability that each filter stays, float64 (f,)."""
        return torch.sigmoid(self.policy().double()).numpy()

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """The value estimate, the same for every observation of the batch, (n,)."""
        if self.value is None:
            raise RuntimeError("this module was built without a value estimate (model_config['value'])")
        return self.value.expand(len(batch[Columns.OBS]))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self._logits(batch)}

    @torch.no_grad()
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        logits = self._logits(batch)
        masks, pairs = antithetic_masks(torch.sigmoid(logits[0]), len(logits), self.generator)
        return {
            Columns.ACTIONS: masks,
            Columns.ACTION_LOGP: IndependentBernoulli(logits).logp(masks),
            Columns.ACTION_DIST_INPUTS: logits,
            PAIR: pairs,
        }

    def _logits(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.policy().expand(len(batch[Columns.OBS]), -1)
