"""Advantages of sampled masks: how much better each did than the others."""

import torch


def leave_pair_out_advantages(rewards: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Reward minus the mean reward of all masks outside the mask's own antithetic pair, scaled.

    The leave-one-out baseline of Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!". The
    partner is left out too: it depends on the mask, so with it in the baseline the gradient would be biased.

    Args:
        rewards: (m,), of at least two pairs.
        pairs: The pair that each mask belongs to, int64 (m,).

    Returns:
        Advantages (m,), divided by their standard deviation; zeros where all rewards are equal.
    """
    exact = rewards.double()
    same = (pairs[:, None] == pairs[None, :]).double()
    others = len(exact) - same.sum(dim=1)
    advantages = exact - (exact.sum() - same @ exact) / others
    return (advantages / advantages.std().clamp(min=1e-8)).to(rewards.dtype)
