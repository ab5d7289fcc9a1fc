"""Surgery: from a mask to a physically smaller network."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from rlprune.errors import ModelError, PruningError
from rlprune.pruning.groups import FilterGroup, Member
from rlprune.pruning.pixel_layers import pixel_layers


def check_mask(group: FilterGroup, mask: np.ndarray) -> np.ndarray:
    """The mask as a bool array ``(f,)``.

    Raises:
        PruningError: The mask has another length or keeps no filter.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != (group.n_filters,):
        raise PruningError(
            f"the group of {group.name} has {group.n_filters} filters; the mask has shape {mask.shape}"
        )
    if not mask.any():
        raise PruningError(f"the mask keeps no filter of the group of {group.name}; at least one must stay")
    return mask


def cut(model: nn.Module, group: FilterGroup, mask: np.ndarray) -> None:
    """Removes the filters that a mask drops from every layer of a group, in place.

    The cut network gives the same outputs as the masked one: whatever reads the group no longer sees those
    filters.

    Args:
        model: The network that the group was found in, not cut since.
        group: The group.
        mask: bool ``(f,)``, True = keep.

    Raises:
        PruningError: The mask does not fit the group or keeps nothing.
    """
    mask = check_mask(group, mask)
    if mask.all():
        return
    for member in group.members:
        module = model.get_submodule(member.layer)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            kept = _kept_part(module, member, mask, name, tensor)
            if kept is not None:
                setattr(module, name, kept)
        _set_widths(module)


def groups_after_cut(
    groups: Sequence[FilterGroup], group: FilterGroup, mask: np.ndarray
) -> list[FilterGroup]:
    """The groups of a network once one of them has been cut: filters that come after others move up.

    Args:
        groups: All groups of the network before the cut, in any order.
        group: The one that is cut.
        mask: bool ``(f,)``, True = keep.

    Returns:
        The same groups in the same order.
    """
    mask = check_mask(group, mask)
    gone: dict[tuple[str, bool], list[np.ndarray]] = {}
    for member in group.members:
        gone.setdefault((member.layer, member.role == "consumer"), []).append(member.dropped(mask))
    dropped = {side: np.sort(np.concatenate(parts)) for side, parts in gone.items()}

    def moved(member: Member, rows: np.ndarray) -> Member:
        side = dropped.get((member.layer, member.role == "consumer"), np.empty(0, dtype=np.int64))
        positions = member.positions[rows]
        return dataclasses.replace(member, positions=positions - np.searchsorted(side, positions))

    def after(each: FilterGroup) -> FilterGroup:
        rows = mask if each.name == group.name else np.ones(each.n_filters, dtype=bool)
        members = tuple(moved(member, rows) for member in each.members)
        return FilterGroup(each.name, int(rows.sum()), members)

    return [after(each) for each in groups]


def _kept_part(
    module: nn.Module, member: Member, mask: np.ndarray, name: str, tensor: torch.Tensor
) -> torch.Tensor | None:
    """What stays of one tensor of a layer; None for a tensor that the mask does not touch."""
    reads = member.role == "consumer"
    one_slope = isinstance(module, nn.PReLU) and module.num_parameters == 1
    if tensor.dim() == 0 or one_slope or (reads and name != "weight"):
        return None
    axis = 1 if reads else 0
    index = torch.from_numpy(member.kept(mask, tensor.shape[axis])).to(tensor.device)
    kept = tensor.detach().index_select(axis, index)
    return nn.Parameter(kept, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else kept


def resize_to_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Gives every layer of a freshly built network the shapes of a state dict, in place; loads no values.

    Args:
        model: The network as its factory builds it.
        state: The state dict of the same network after surgery.

    Raises:
        ModelError: The state dict does not belong to this architecture.
    """
    _add_repaired_biases(model, state)
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ModelError(
            "the stored weights belong to another architecture: "
            f"missing {missing[:5] or 'none'}, unexpected {unexpected[:5] or 'none'}"
        )
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for key, tensor in tensors.items():
                stored = state.get(prefix + key)
                if tensor is None or stored is None or tensor.shape == stored.shape:
                    continue
                if tensor.dim() != stored.dim():
                    raise ModelError(
                        f"{prefix}{key} is {tuple(tensor.shape)} here and {tuple(stored.shape)} in the file"
                    )
                fresh = tensor.new_zeros(stored.shape)
                tensors[key] = nn.Parameter(fresh, tensor.requires_grad) if kind == "parameter" else fresh
        _set_widths(module)


def _add_repaired_biases(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Gives a bias to the layers that got one by repair."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is None and f"{name}.bias" in state:
            zeros = torch.zeros(module.weight.shape[0]).to(module.weight)
            module.bias = nn.Parameter(zeros, module.weight.requires_grad)


def _set_widths(module: nn.Module) -> None:
    """Makes a layer's stated widths agree with its tensors."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels == module.out_channels
        module.out_channels = module.weight.shape[0]
        if depthwise and module.weight.shape[1] == 1:
            module.groups = module.out_channels
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        width = module.running_mean if module.weight is None else module.weight
        module.num_features = module.num_features if width is None else width.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]


def widths(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """The number of filters of every layer that makes some, by its name: see :func:`.pixel_layers`."""
    makers = pixel_layers(model, example)
    sizes = ((name, module.weight) for name, module in model.named_modules() if name in makers)
    return {name: len(weight) for name, weight in sizes if isinstance(weight, torch.Tensor)}
