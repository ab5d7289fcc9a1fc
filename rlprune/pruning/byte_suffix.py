"""The suffix of a reward engine in 8-bit integers: more than twice as many multiply-accumulates a second.

A value that is never negative and that nothing but convolutions read (through max-pools, perhaps) is held as
bytes: outputs of a convolution and the ReLU behind it, and what crosses from the prefix. Its step comes from
the greatest number that the whole network makes there on some images; what crosses from the prefix has one
for each channel, because repaired weights may be large where the numbers are small. What else reads such
outputs gets them as floating-point numbers, and everything else stays as it was.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from rlprune.pruning.byte_layers import SMALLEST, ByteConvolution, ByteFormat, ByteMaxPool, byte_range
from rlprune.pruning.masked_consumer import MaskedConsumer

_PASSING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity)


def is_relu(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node is a ReLU."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.ReLU)
    return node.target in (F.relu, torch.relu, "relu", "relu_")


def never_negative(graph: fx.GraphModule) -> set[str]:
    """The names of the nodes whose values are known to have no negative number: ReLUs, and pools of them."""
    modules = dict(graph.named_modules())
    found: set[str] = set()
    for node in graph.graph.nodes:
        passes = node.op == "call_module" and isinstance(modules[str(node.target)], _PASSING)
        if is_relu(node, modules) or (passes and node.all_input_nodes[0].name in found):
            found.add(node.name)
    return found


class ByteSuffix:
    """Turns a suffix into one of bytes, as far as it can be.

    Attributes:
        formats: What each convolution that reads bytes reads and writes, by its module in the suffix.
        steps: Of each of the suffix's inputs that is to be handed over as bytes; None for the others.
    """

    def __init__(
        self, suffix: fx.GraphModule, sample: Sequence[Sequence[torch.Tensor]], positive: Collection[str]
    ) -> None:
        """Decides what is held as bytes; the suffix is not changed yet.

        Args:
            suffix: In evaluation mode.
            sample: Its inputs for some images, in blocks.
            positive: The names of those that are never negative.
        """
        self._suffix = suffix
        self._modules = dict(suffix.named_modules())
        nodes = list(suffix.graph.nodes)
        names = [node.target for node in nodes if node.op == "call_module"]
        self._shared = {name for name in names if names.count(name) > 1}
        self._relus: dict[fx.Node, fx.Node | None] = {}
        self._sources: dict[fx.Node, fx.Node] = {}
        inputs = [node for node in nodes if node.op == "placeholder"]
        held = [
            node
            for node, value in zip(inputs, sample[0], strict=True)
            if value.dim() == 4 and node.name in positive and self._read_as_bytes(node)
        ]
        origin = {node: node for node in held}
        for node in nodes:
            source = node.all_input_nodes[0] if node.all_input_nodes else None
            if source not in origin or not self._reads_bytes(node):
                continue
            self._sources[node] = origin[source]
            if isinstance(self._layer(node), nn.MaxPool2d):
                origin[node] = origin[source]
                continue
            relu = self._relus[node] = self._relu_behind(node)
            if relu is not None and self._read_as_bytes(relu):
                origin[relu] = relu
        greatest = _Greatest(suffix, set(origin.values()))
        for values in sample:
            greatest.run(*values)
        most = byte_range().inputs
        steps = {node: found.clamp_min(SMALLEST) / most for node, found in greatest.found.items()}
        for node in set(origin.values()) - set(held):
            steps[node] = steps[node].amax().expand_as(steps[node])
        self.steps = [steps.get(node) for node in inputs]
        dtype = sample[0][0].dtype
        self.formats = {
            self._modules[str(node.target)]: ByteFormat(
                steps[self._sources[node]],
                float(steps[relu][0]) if relu in steps else None,
                relu is not None,
                dtype,
            )
            for node, relu in self._relus.items()
        }

    def apply(self) -> None:
        """Changes the suffix: it takes bytes where :attr:`steps` says so from now on."""
        for node, relu in self._relus.items():
            if relu is not None:
                relu.replace_all_uses_with(node)
                self._suffix.graph.erase_node(relu)
        for node in self._sources:
            module = self._modules[str(node.target)]
            if isinstance(module, nn.MaxPool2d):
                self._suffix.set_submodule(str(node.target), ByteMaxPool(module))
            elif isinstance(module, nn.Conv2d):
                form = self.formats[module]
                self._suffix.set_submodule(str(node.target), ByteConvolution(module, form))
        self._suffix.recompile()

    def _layer(self, node: fx.Node) -> nn.Module | None:
        """The layer that a node calls; that within, where it is one whose weights are exchanged."""
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        return module.layer if isinstance(module, MaskedConsumer) else module

    def _read_as_bytes(self, node: fx.Node) -> bool:
        """Whether all that reads a value can read bytes."""
        return bool(node.users) and all(self._reads_bytes(user) for user in node.users)

    def _reads_bytes(self, node: fx.Node) -> bool:
        layer = self._layer(node)
        if node.target in self._shared:
            return False
        if isinstance(layer, nn.MaxPool2d):
            plain = layer.dilation in (1, (1, 1)) and not layer.ceil_mode and not layer.return_indices
            return plain and self._read_as_bytes(node)
        return (
            isinstance(layer, nn.Conv2d)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        )

    def _relu_behind(self, node: fx.Node) -> fx.Node | None:
        """The ReLU that alone reads a node."""
        if len(node.users) != 1:
            return None
        (user,) = node.users
        return user if is_relu(user, self._modules) else None


class _Greatest(fx.Interpreter):
    """Runs a graph and keeps the greatest number in each channel of some nodes' values."""

    def __init__(self, module: fx.GraphModule, nodes: set[fx.Node]) -> None:
        super().__init__(module)
        self._nodes = nodes
        self.found: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._nodes:
            greatest = value.detach().float().amax((0, 2, 3))
            self.found[n] = torch.maximum(self.found.get(n, greatest), greatest)
        return value
