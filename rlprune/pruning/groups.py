"""Filter groups: which dimensions of which layers lose the same indices together.

The groups come from the dependency graph of ``torch_pruning`` (Fang et al. 2023, "DepGraph: Towards Any
Structural Pruning"); here they become plain data that the reward engine, the repair and the surgery share.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch_pruning as tp
from torch import nn
from torch.nn.utils import parametrize

from rlprune.errors import ModelError
from rlprune.pruning.modes import evaluating
from rlprune.pruning.pixel_layers import pixel_layers

Role = Literal["producer", "per_channel", "consumer"]


@dataclass(frozen=True, eq=False)
class Member:
    """One layer of a group.

    Attributes:
        layer: The module's name in the network.
        role: ``producer`` makes the filters (its output dimension is cut), ``consumer`` reads them (its input
            dimension is cut), ``per_channel`` passes each on by itself (batch norm, depthwise convolution,
            PReLU).
        positions: int64 ``(n_filters, r)``: where each filter sits in the layer's dimension; ``r`` is above 1
            where a flattened feature map of ``r`` pixels is read by a linear layer.
    """

    layer: str
    role: Role
    positions: np.ndarray

    def dropped(self, mask: np.ndarray) -> np.ndarray:
        """Indices of the layer's dimension that a mask ``(f,)`` removes: int64."""
        return self.positions[~mask].reshape(-1)

    def kept(self, mask: np.ndarray, width: int) -> np.ndarray:
        """Indices of the layer's ``width`` entries that stay for a mask ``(f,)``: sorted int64."""
        stays = np.ones(width, dtype=bool)
        stays[self.dropped(mask)] = False
        return np.flatnonzero(stays)


@dataclass(frozen=True, eq=False)
class FilterGroup:
    """All (layer, dimension) pairs that lose the same indices together.

    Attributes:
        name: The producer that runs first.
        n_filters: Filters in the group, the length of its masks.
        members: Its layers, in the order in which they run.
    """

    name: str
    n_filters: int
    members: tuple[Member, ...]

    def with_role(self, role: Role) -> tuple[Member, ...]:
        """The members of one role, in the order in which they run."""
        return tuple(member for member in self.members if member.role == role)


def dependency_graph(model: nn.Module, example: torch.Tensor) -> tp.DependencyGraph:
    """The dependency graph of a network; ``example`` is one normalised input batch ``(n, c, h, w)``."""
    required = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(True)
    try:
        with evaluating(model), torch.enable_grad():
            return tp.DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be traced into filter groups (torch-pruning: {error}). The "
            "network must be a plain forward pass from one image batch to one tensor of class scores."
        ) from error
    finally:
        for parameter, flag in zip(model.parameters(), required, strict=True):
            parameter.requires_grad_(flag)


def find_groups(model: nn.Module, example: torch.Tensor, keep_whole: Iterable[str] = ()) -> list[FilterGroup]:
    """The prunable groups of a network, ordered from the input upward.

    Args:
        model: The network; it is left as it was.
        example: One normalised input batch ``(n, c, h, w)`` on the network's device.
        keep_whole: Names of layers whose filters all stay, with those of the layers coupled to them; the name
            of a part of the network stands for all layers in it.

    Raises:
        ModelError: A name in ``keep_whole`` is unknown or that of a layer without filters, or no group can
            be cut.
    """
    groups, refused = read_groups(model, example, keep_whole)
    if not groups:
        raise ModelError(no_group(refused, keep_whole))
    return groups


def no_group(refused: Mapping[str, str], keep_whole: Iterable[str]) -> str:
    """What to say of a network that has no prunable group, with what was refused and why."""
    why = [f"{name}: {reason}" for name, reason in refused.items()]
    why += [f"pruning.keep_whole names {', '.join(keep_whole)}"] if keep_whole else []
    return (
        f"the network has no prunable group of filters. {'; '.join(why) or 'It has no convolution to cut.'}"
    )


def read_groups(
    model: nn.Module, example: torch.Tensor, keep_whole: Iterable[str]
) -> tuple[list[FilterGroup], dict[str, str]]:
    """The groups that can be cut, from the input upward, and why others cannot, by their first layer.

    Refused are groups that make the network's outputs, and groups with a layer whose filters cannot be cut
    one by one (grouped convolutions, normalisation over channels). The arguments are those of
    :func:`find_groups`.
    """
    order = _execution_order(model, example)
    kept = _layers_named(model, keep_whole)
    graph = dependency_graph(model, example)
    names = {module: name for name, module in model.named_modules()}
    named = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    makers = pixel_layers(model, example)
    groups, refused = [], {}
    for found in graph.get_all_groups(ignored_layers=[], root_module_types=[nn.Conv2d, nn.Linear]):
        members, reason = _read_members(found, names)
        root = names[found[0].dep.target.module]
        if root not in makers and not any(m.role == "producer" and m.layer in makers for m in members):
            continue  # the hidden values of a classifier, say
        members.sort(key=lambda member: order.get(member.layer, len(order)))
        if not reason and not _first_producer_is_root(members):
            reason = "its layers number the same filters in different ways"
        holders = {member.layer for member in members if member.role != "consumer"}
        named |= holders
        if holders & kept.keys():
            continue
        if not reason and not any(member.role == "consumer" for member in members):
            reason = "its filters are the network's output"
        first = next((member.layer for member in members if member.role == "producer"), None)
        if reason:
            refused[first or root] = reason
        elif first is not None:
            groups.append(FilterGroup(first, len(members[0].positions), tuple(members)))
    without = {
        given for given in kept.values() if not any(kept[name] == given for name in kept.keys() & named)
    }
    if without:
        raise ModelError(
            f"pruning.keep_whole: {', '.join(sorted(without))} holds no filters of its own; "
            "name the convolutions"
        )
    groups.sort(key=lambda group: order.get(group.name, len(order)))
    return groups, dict(sorted(refused.items(), key=lambda entry: order.get(entry[0], len(order))))


def _layers_named(model: nn.Module, keep_whole: Iterable[str]) -> dict[str, str]:
    """Each layer that a name stands for, itself or by the part of the network that it is in -> that name."""
    known = {name for name, _ in model.named_modules() if name}
    unknown = [name for name in keep_whole if name not in known]
    if unknown:
        close = [difflib.get_close_matches(name, known, n=1, cutoff=0.4) for name in unknown]
        hints = [
            f"{name} (did you mean {near[0]}?)" if near else name
            for name, near in zip(unknown, close, strict=True)
        ]
        raise ModelError(
            f"pruning.keep_whole names layers that the network does not have: {', '.join(hints)}"
        )
    return {
        name: given for given in keep_whole for name in known if name == given or name.startswith(f"{given}.")
    }


def _first_producer_is_root(members: list[Member]) -> bool:
    """Whether the first producer's own filter numbers are the group's."""
    first = next((member for member in members if member.role == "producer"), None)
    return first is not None and np.array_equal(first.positions[:, 0], np.arange(len(first.positions)))


def _execution_order(model: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """Leaf module names in the order in which one forward pass calls them first."""
    order: dict[str, int] = {}

    def note(name: str) -> None:
        order.setdefault(name, len(order))

    handles = [
        module.register_forward_hook(lambda *_, name=name: note(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        with evaluating(model), torch.inference_mode():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _read_members(found: tp.Group, names: dict[nn.Module, str]) -> tuple[list[Member], str]:
    """The members of one of torch_pruning's groups, and why it cannot be cut ('' when it can)."""
    members: list[Member] = []
    n_filters = len(found[0].idxs)
    for item in found.items:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            return members, "a parameter outside any layer holds its channels"
        if module not in names:
            continue  # an operation without parameters: addition, activation, reshape
        role, reason = _role(module, item.dep.handler)
        if reason:
            return members, f"{names[module]} ({type(module).__name__}) {reason}"
        positions = np.full((n_filters, len(item.idxs) // n_filters), -1, dtype=np.int64)
        seen = np.zeros(n_filters, dtype=np.int64)
        for index, root in zip(item.idxs, item.root_idxs, strict=True):
            if seen[root] == positions.shape[1]:
                break
            positions[root, seen[root]] = index
            seen[root] += 1
        if positions.size == 0 or positions.min() < 0:
            return members, f"{names[module]} holds some of its filters more often than others"
        if role == "producer" and set(positions.flat) != set(range(len(module.weight))):
            return members, f"{names[module]} shares its filters with what has another number of them"
        members.append(Member(names[module], role, positions))
    return members, ""


def _role(module: nn.Module, handler: object) -> tuple[Role, str]:
    """What a layer does with the group's channels, and why that cannot be cut ('' when it can)."""
    cuts_output = handler in (tp.prune_conv_out_channels, tp.prune_linear_out_channels)
    if parametrize.is_parametrized(module):
        return "per_channel", "has a parametrization: take it away by torch.nn.utils.parametrize"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        depthwise = module.groups == module.in_channels == module.out_channels
        return (
            "per_channel",
            "" if depthwise else "is a grouped convolution, whose groups must stay equal in size",
        )
    if isinstance(module, nn.Conv2d | nn.Linear):
        if not cuts_output and isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            return "consumer", f"pads with '{module.padding_mode}': only zero padding is supported"
        return "producer" if cuts_output else "consumer", ""
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.PReLU):
        return "per_channel", ""
    return "per_channel", "mixes channels or is of a kind that cannot be cut filter by filter"
