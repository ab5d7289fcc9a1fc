"""What a network costs as it is: multiply-accumulates (MACs) and parameters."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.modes import evaluating


@dataclass(frozen=True)
class Cost:
    """MACs of convolutions and linear layers for one input, and all parameters (batch norm's too)."""

    macs: int
    params: int


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
        macs[name] = macs.get(name, 0) + output.numel() // len(example) * weight[0].numel()

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
