"""Splits a traced network at a group: what no mask can change, and what comes after."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.split_module import split_module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rlprune.errors import ModelError
from rlprune.pruning.groups import FilterGroup

PREFIX, SUFFIX = 0, 1


class _Tracer(fx.Tracer):
    """Traces what a network does with images: optional arguments of its forward pass have their defaults."""

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            self.path_of_module(m)
        except NameError:  # made by the forward pass itself, as a slice of layers is
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def trace(model: nn.Module, *, fold_batch_norm: bool) -> fx.GraphModule:
    """A copy of the network as a ``torch.fx`` graph, in evaluation mode.

    Args:
        model: The network.
        fold_batch_norm: Whether a batch norm behind a convolution becomes part of it, where nothing else
            reads the convolution and it runs once.

    Raises:
        ModelError: The forward pass depends on the values of its inputs, or writes into them or into a tensor
            that has another name.
    """
    try:
        own, tracer = copy.deepcopy(model).eval(), _Tracer()
        graph = fx.GraphModule(own, tracer.trace(own), type(model).__name__)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be traced by torch.fx: {error}. Its forward pass must not "
            "branch on the values or shapes of its inputs."
        ) from error
    _write_nothing_in_place(graph)
    if fold_batch_norm:
        _fold_batch_norms(graph)
    _call_parameters(graph)
    return graph


_ALIASES = frozenset(
    "getitem view view_as reshape reshape_as transpose permute movedim swapaxes t squeeze unsqueeze flatten "
    "unflatten chunk split narrow select unbind diagonal expand expand_as contiguous detach Flatten "
    "Unflatten Identity Dropout Dropout2d".split()
)
"""Operations and layers that may give another name to the memory that they read."""


def _write_nothing_in_place(graph: fx.GraphModule) -> None:
    """Has ``x.add_(y)`` give a new tensor: ``x`` may be a value that is kept for every mask."""

    def is_alias(node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(graph.get_submodule(str(node.target))).__name__ in _ALIASES
        return getattr(node.target, "__name__", node.target) in _ALIASES

    nodes, changed = list(graph.graph.nodes), set[fx.Node]()
    for place, node in enumerate(nodes):
        method = str(node.target)
        if node.op != "call_method" or not method.endswith("_"):
            continue
        if not callable(getattr(torch.Tensor, method[:-1], None)):  # requires_grad_ writes nothing
            continue
        source = node.args[0]
        earlier = [source, *(user for user in nodes[:place] if user in source.users)]
        aliases = [] if method[:-1] in _ALIASES else [other for other in earlier if is_alias(other)]
        if source.op == "placeholder" or set(aliases) - changed:
            what = "its input" if source.op == "placeholder" else "a tensor that has another name"
            raise ModelError(
                f"the forward pass writes into {what} ({source.name}.{method}); write "
                f"y = x.{method[:-1]}(...) instead of x.{method}(...)"
            )
        node.target = method[:-1]
        changed.add(node)
        for later in nodes[place + 1 :]:
            later.replace_input_with(source, node)
    graph.recompile()


def _fold_batch_norms(graph: fx.GraphModule) -> None:
    """Each batch norm behind a convolution that only it reads, and that runs once, becomes part of that.

    ``torch.fx.experimental.optimization.fuse`` also folds into a convolution that is called twice.
    """
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        name = str(source.target)
        norm, layer = graph.get_submodule(str(node.target)), graph.get_submodule(name)
        if type(norm) is not nn.BatchNorm2d or type(layer) is not nn.Conv2d or norm.running_mean is None:
            continue
        if calls[name] == 1 and len(source.users) == 1:
            graph.set_submodule(name, fuse_conv_bn_eval(layer, norm))
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def to_precision(graph: fx.GraphModule, dtype: torch.dtype) -> None:
    """Has a graph compute in ``dtype``, channels-last; its batch norms stay in fp32."""
    graph.to(dtype).to(memory_format=torch.channels_last)
    for module in graph.modules():
        if isinstance(module, _BatchNorm):
            module.float()


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
        called = {node.target for node in after if node.op == "call_module" and not node.kwargs}
        if missing := consumers - called:
            raise ModelError(
                f"{', '.join(sorted(missing))}, which reads the group of {group.name}, must be an nn.Conv2d "
                "or nn.Linear itself, not of a class derived from it, and be called as layer(x)"
            )

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
