"""Splits a traced network at a group: what no mask can change, and what comes after."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.passes.split_module import split_module

from rlprune.errors import ModelError
from rlprune.pruning.groups import FilterGroup

PREFIX, SUFFIX = 0, 1


def trace(model: nn.Module, *, fold_batch_norm: bool) -> fx.GraphModule:
    """A copy of the network as a ``torch.fx`` graph, in evaluation mode.

    Args:
        model: The network.
        fold_batch_norm: Whether each batch norm behind a convolution becomes part of the convolution.

    Raises:
        ModelError: The forward pass depends on the values of its inputs.
    """
    try:
        graph = fx.symbolic_trace(copy.deepcopy(model).eval())
        folded = fuse(graph) if fold_batch_norm else graph
        assert isinstance(folded, fx.GraphModule)
        _call_parameters(folded)
        return folded
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be traced by torch.fx: {error}. Its forward pass must not "
            "branch on the values or shapes of its inputs."
        ) from error


class _Stored(nn.Module):
    """A tensor of the network's own, given by a call."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value: torch.Tensor
        self.register_buffer("value", value.detach())

    def forward(self) -> torch.Tensor:
        return self.value


def _call_parameters(graph: fx.GraphModule) -> None:
    """Has parameters and buffers that no layer holds (ConvNeXt's scales) given by modules, one for each use.

    A module belongs to the part of the network that calls it; a parameter would cross from one to the other.
    """
    fetched = [node for node in graph.graph.nodes if node.op == "get_attr"]
    for node in fetched:
        value = graph
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            continue
        for user in list(node.users):
            name = f"_stored_{len(list(graph.children()))}"
            graph.add_submodule(name, _Stored(value))
            with graph.graph.inserting_before(user):
                user.replace_input_with(node, graph.graph.call_module(name))
        graph.graph.erase_node(node)
    if fetched:
        graph.recompile()


class Partition:
    """A network in two parts: up to the inputs of a group's consumers, and from the first of them on.

    Attributes:
        suffix: The second part; it takes the values that :meth:`boundary` gives.
    """

    def __init__(self, graph: fx.GraphModule, group: FilterGroup) -> None:
        consumers = {member.layer for member in group.with_role("consumer")}
        after: set[fx.Node] = set()
        for node in graph.graph.nodes:
            is_consumer = node.op == "call_module" and node.target in consumers
            if is_consumer or any(source in after for source in node.all_input_nodes):
                after.add(node)
        own = [node for node in graph.graph.nodes if node.op == "call_module" and not node.all_input_nodes]
        after.update(node for node in own if node.users.keys() & after)
        if not after:
            raise ModelError(f"no layer that reads the group of {group.name} is called as a module")

        def side(node: fx.Node) -> int:
            return SUFFIX if node in after else PREFIX

        self._whole = split_module(graph, graph, side)
        suffix = getattr(self._whole, f"submod_{SUFFIX}")
        assert isinstance(suffix, fx.GraphModule)
        self.suffix = suffix

    def boundary(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The values that cross from prefix to suffix for a batch of normalised images ``(n, c, h, w)``."""
        values = _StopBefore(self._whole, f"submod_{SUFFIX}").run(inputs)
        for value in values:
            if not isinstance(value, torch.Tensor) or value.shape[:1] != inputs.shape[:1]:
                raise ModelError(
                    "the network passes something else than one tensor row per image between its layers, "
                    "such as a size; write x.flatten(1) instead of x.view(n, -1) with an old n = x.size(0)"
                )
        return values


class _StopBefore(fx.Interpreter):
    """Runs a graph up to one submodule and gives that submodule's inputs as the result."""

    def __init__(self, module: fx.GraphModule, target: str) -> None:
        super().__init__(module)
        self.extra_traceback = False  # it prints the whole graph, which needs memory where memory has run out
        self._target = target

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args if target == self._target else super().call_module(target, args, kwargs)


def replace_modules(graph: fx.GraphModule, replacements: Mapping[str, nn.Module]) -> None:
    """Puts other modules in the place of some modules of a graph, by name."""
    for name, module in replacements.items():
        graph.set_submodule(name, module)
