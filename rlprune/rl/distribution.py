"""The distribution over masks: independent coins, one a filter."""

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchDeterministic, TorchDistribution


class IndependentBernoulli(TorchDistribution):
    """Each filter stays with probability ``sigmoid(logit)``, independently; masks are 0/1 tensors (m, f)."""

    def __init__(self, logits: torch.Tensor) -> None:
        """Make the distribution of m masks from logits (m, f)."""
        super().__init__(logits=logits)

    def _get_torch_distribution(self, logits: torch.Tensor) -> torch.distributions.Distribution:
        coins = torch.distributions.Bernoulli(logits=logits, validate_args=False)
        return torch.distributions.Independent(coins, 1, validate_args=False)

    def logp(self, value: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """Log-probability of masks (m, f) of any type; (m,)."""
        return self._dist.log_prob(value.to(torch.float32))

    def to_deterministic(self) -> TorchDeterministic:
        """The mode: keep each filter whose probability is above one half."""
        return TorchDeterministic(loc=(self._dist.base_dist.logits > 0).to(torch.int8))

    @staticmethod
    def required_input_dim(space: object, **kwargs: object) -> int:
        """The number of logits that a mask of this space needs."""
        return int(space.n)  # type: ignore[attr-defined]


def antithetic_masks(
    probabilities: torch.Tensor, n_masks: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample masks in antithetic pairs: one is drawn with uniform numbers u, its partner with 1 - u.

    Each mask alone has the right distribution; within a pair they differ as much as the probabilities allow.

    Args:
        probabilities: Keep probabilities, (f,).
        n_masks: The number of masks m; where it is odd, one mask has no partner.
        generator: Source of the uniform numbers.

    Returns:
        Masks, int8 (m, f), and the pair that each belongs to, int64 (m,).
    """
    n_pairs = (n_masks + 1) // 2
    uniform = torch.rand(n_pairs, len(probabilities), generator=generator)
    masks = torch.cat([uniform, 1 - uniform])[:n_masks] < probabilities
    return masks.to(torch.int8), torch.arange(n_masks) % n_pairs
