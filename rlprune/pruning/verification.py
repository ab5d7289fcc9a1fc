"""Whether a mask of a group does what a cut does: tried before rewards rest on it."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rlprune.errors import ModelError
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.modes import evaluating
from rlprune.pruning.partition import Partition, to_precision, trace
from rlprune.pruning.surgery import cut

TOLERANCE = 1e-3
"""Largest difference of two outputs that arithmetic in another order explains, as a share of the largest."""
_IMAGES = 3


def refused_groups(
    model: nn.Module, groups: list[FilterGroup], example: torch.Tensor, fidelity: str
) -> dict[str, str]:
    """Why some groups cannot be pruned after all, by name: each is parted, masked and cut once.

    Between a group's layers there may be operations that the dependency graph takes for harmless and that
    look at several filters at a time (a softmax or a mean over channels, a shuffle): there a masked network
    is not the cut one.

    Args:
        model: The network, in evaluation mode.
        groups: Its groups.
        example: One normalised input batch ``(n, c, h, w)`` on the network's device.
        fidelity: How masked networks are measured: ``raw``, ``bn`` or ``repair``.

    Raises:
        ModelError: The network cannot be traced.
    """
    if example.device.type != "cpu":  # a GPU may round what it multiplies (TF32)
        model, example = copy.deepcopy(model).cpu(), example.cpu()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(_IMAGES, *example.shape[1:], generator=generator)
    graph = trace(model, fold_batch_norm=False)
    reasons = {}
    with evaluating(model), torch.inference_mode():
        for group in groups:
            try:
                part = Partition(graph, group)
                for n in (_IMAGES, _IMAGES - 1):  # one of them may be the length of another tensor by chance
                    part.boundary(inputs[:n])
            except ModelError as error:
                reasons[group.name] = str(error)
                continue
            if fidelity == "bn" and any(node.target is F.batch_norm for node in part.suffix.graph.nodes):
                reasons[group.name] = (
                    "behind it a batch norm is computed by a class of the network's own, whose statistics "
                    "cannot be estimated again; choose pruning.fidelity repair or raw"
                )
            elif not _cut_equals_masked(model, group, inputs):
                reasons[group.name] = (
                    "the network without its filters is not the network with them masked: something between "
                    "its layers looks at several filters at a time"
                )
    return reasons


def check_precision(model: nn.Module, example: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuses a network whose layers cannot all compute in ``dtype``, as the reward engine has them do.

    Args:
        model: The network.
        example: One normalised input batch ``(n, c, h, w)`` on the network's device.
        dtype: ``torch.float32`` or ``torch.bfloat16``.

    Raises:
        ModelError: A layer cannot, or the network cannot be traced.
    """
    graph = trace(model, fold_batch_norm=True)
    to_precision(graph, dtype)
    try:
        with torch.inference_mode():
            graph(example.to(dtype=dtype, memory_format=torch.channels_last))
    except RuntimeError as error:
        kind = str(dtype).removeprefix("torch.")
        advice = "make it one of float32" if dtype == torch.float32 else "set precision to fp32"
        raise ModelError(f"{type(model).__name__} cannot compute in {kind} ({error}); {advice}") from error


def _cut_equals_masked(model: nn.Module, group: FilterGroup, inputs: torch.Tensor) -> bool:
    """Whether every second filter can be cut with the same outputs as leaving it out of what reads it."""
    mask = np.arange(group.n_filters) % 2 == 0
    masked, smaller = copy.deepcopy(model), copy.deepcopy(model)
    try:
        for member in group.with_role("consumer"):
            masked.get_parameter(f"{member.layer}.weight")[:, member.dropped(mask)] = 0
        expected = masked(inputs)
        cut(smaller, group, mask)
        found = smaller(inputs)
    except (IndexError, RuntimeError):  # filters that a layer does not have, or shapes that no longer fit
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
