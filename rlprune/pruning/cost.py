"""What a network costs, in multiply-accumulates (MACs), parameters, time: whole, and by masks of a group."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import nn

from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.latency_table import LatencyTable
from rlprune.pruning.modes import evaluating


@dataclass(frozen=True)
class Cost:
    """MACs of convolutions and linear layers for one input, and all parameters (batch norm's too)."""

    macs: int
    params: int


class _Weighted(nn.Module):
    weight: torch.Tensor


def has_channels(module: nn.Module) -> TypeGuard[_Weighted]:
    """Whether a layer of a group has a weight that is cut: not batch norm without one, a single slope."""
    if isinstance(module, nn.PReLU) and module.num_parameters == 1:
        return False
    return getattr(module, "weight", None) is not None


def layer_macs(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """MACs of each convolution and linear layer for one input, by layer name.

    Args:
        model: The network.
        example: A normalised input batch ``(n, c, h, w)``; the figures are for one of its images.
    """
    macs: dict[str, int] = {}

    def count(name: str, module: nn.Module, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        macs[name] = macs.get(name, 0) + output.numel() // output.shape[0] * weight[0].numel()

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: count(name, module, output))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        with evaluating(model), torch.inference_mode():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return macs


def count_cost(model: nn.Module, example: torch.Tensor) -> Cost:
    """MACs for one input, and parameters.

    Args:
        model: The network.
        example: A normalised input batch ``(n, c, h, w)``.
    """
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(sum(layer_macs(model, example).values()), params)


def group_macs(model: nn.Module, groups: Iterable[FilterGroup], example: torch.Tensor) -> dict[str, float]:
    """MACs of the layers that each group touches, by its name; a layer of two groups counts half for each."""
    per_layer = layer_macs(model, example)
    touched: Counter[str] = Counter()
    layers = {group.name: {member.layer for member in group.members} & per_layer.keys() for group in groups}
    for names in layers.values():
        touched.update(names)
    return {group: sum(per_layer[name] / touched[name] for name in names) for group, names in layers.items()}


class GroupCost:
    """The cost of the whole network when a group keeps k of its f filters, without cutting it.

    A layer's MACs and weights are proportional to its output width and to its input width, so each scales
    with ``k / f`` once for every dimension of it that the group holds. Its time comes from the table.
    """

    def __init__(
        self,
        model: nn.Module,
        group: FilterGroup,
        example: torch.Tensor,
        table: LatencyTable | None = None,
    ) -> None:
        """Counts the network once.

        Args:
            model: The network, uncut in this group.
            group: The group.
            example: One normalised input batch ``(n, c, h, w)``.
            table: The times of the network's layers; None where :meth:`latency` is not asked for.
        """
        self.n_filters = group.n_filters
        self._latency = None if table is None else table.by_count(model, group)
        whole = count_cost(model, example)
        per_layer = layer_macs(model, example)
        self._macs = np.zeros(3)
        self._params = np.zeros(3)
        self._macs[0], self._params[0] = whole.macs, whole.params
        shares: dict[str, list[float]] = {}
        for member in group.members:
            module = model.get_submodule(member.layer)
            if not has_channels(module):
                continue
            weight, bias = module.weight, getattr(module, "bias", None)
            share = member.positions.size / weight.shape[1 if member.role == "consumer" else 0]
            if member.role != "consumer" and bias is not None:
                self._move(self._params, bias.numel(), [share])
            shares.setdefault(member.layer, []).append(share)
        for layer, parts in shares.items():
            entire = model.get_submodule(layer).weight
            assert isinstance(entire, torch.Tensor)
            self._move(self._params, entire.numel(), parts)
            self._move(self._macs, per_layer.get(layer, 0), parts)

    @staticmethod
    def _move(polynomial: np.ndarray, amount: float, parts: list[float]) -> None:
        """Replaces a constant amount by the product over dimensions of ``1 - share + share * k / f``."""
        scaled = np.array([amount], dtype=float)
        for share in parts:
            scaled = np.convolve(scaled, [1 - share, share])
        polynomial[0] -= amount
        polynomial[: len(scaled)] += scaled

    def macs(self, kept: np.ndarray) -> np.ndarray:
        """MACs of the network for each number of kept filters in ``kept`` ``(m,)``."""
        return np.polynomial.polynomial.polyval(np.asarray(kept) / self.n_filters, self._macs)

    def params(self, kept: np.ndarray) -> np.ndarray:
        """Parameters of the network for each number of kept filters in ``kept`` ``(m,)``."""
        return np.polynomial.polynomial.polyval(np.asarray(kept) / self.n_filters, self._params)

    def latency(self, kept: np.ndarray) -> np.ndarray:
        """Milliseconds of the network, by the table, for each number of kept filters in ``kept`` ``(m,)``."""
        assert self._latency is not None, "who asks for latencies hands over a table"
        return self._latency[np.asarray(kept)]
