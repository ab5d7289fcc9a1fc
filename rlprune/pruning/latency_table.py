"""A network's latency for any widths, read off a table of its layers' times; no network is cut for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from rlprune.errors import CheckpointError
from rlprune.pruning.groups import FilterGroup

TIMED = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d)
"""Layers with times of their own; what lies between them is in the table's remainder."""


@dataclass(frozen=True, eq=False)
class LayerTimes:
    """Times of one layer at several widths, at its own input size.

    Attributes:
        outputs: Numbers of output channels that were measured, rising: int64 ``(o,)``.
        inputs: The same of its input channels ``(i,)``; ``[0]`` for a layer whose input is as wide as its
            output (batch norm, depthwise convolution).
        ms: Milliseconds of one batch ``(o, i)``.
        pixels: Values that an output channel of a convolution has for one image; 0 for other layers.
    """

    outputs: NDArray[np.int64]
    inputs: NDArray[np.int64]
    ms: NDArray[np.float64]
    pixels: int

    def at(self, outputs: ArrayLike, inputs: ArrayLike) -> NDArray[np.float64]:
        """Milliseconds at any widths ``(m,)``: linear between the measured ones, constant beyond them."""
        row, up = _between(self.outputs, np.asarray(outputs))
        column, right = _between(self.inputs, np.asarray(inputs))
        below, above = (
            np.minimum(row + 1, len(self.outputs) - 1),
            np.minimum(column + 1, len(self.inputs) - 1),
        )
        near = (1 - right) * self.ms[row, column] + right * self.ms[row, above]
        far = (1 - right) * self.ms[below, column] + right * self.ms[below, above]
        return (1 - up) * near + up * far


def _between(known: NDArray[np.int64], wanted: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices of the known counts below the wanted ones, and how far these are on the way to the next."""
    place = np.interp(wanted, known, np.arange(len(known)))
    index = np.floor(place).astype(np.int64)
    return index, place - index


def rising(ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times ``(o, i)`` that fall along neither axis; times of which that holds already stay as they are.

    More channels never count as faster: what a noisy or an awkward width breaks is put half-way between the
    running maximum from the narrow end and the running minimum from the wide end.
    """
    highest = np.maximum.accumulate(np.maximum.accumulate(ms, 0), 1)
    lowest = np.minimum.accumulate(np.minimum.accumulate(ms[::-1, ::-1], 0), 1)[::-1, ::-1]
    return (highest + lowest) / 2


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """The times of a network's layers, and what the network takes beside them.

    Attributes:
        layers: By layer name.
        fixed_ms: What does not depend on widths, such as the calls of the layers.
        ms_per_value: What does (activations, pooling, additions), for each value that the convolutions put
            out for one image.
        batch: Images of a batch.
        device: What it was measured on, and how.
    """

    layers: Mapping[str, LayerTimes]
    fixed_ms: float
    ms_per_value: float
    batch: int
    device: str

    def latency(self, model: nn.Module) -> float:
        """Milliseconds that the network takes as it is; its layers are those of the table, at any widths."""
        return float(self._ms({name: layer_widths(model.get_submodule(name)) for name in self.layers}))

    def by_count(self, model: nn.Module, group: FilterGroup) -> NDArray[np.float64]:
        """Milliseconds of the network where a group keeps 0, 1, ... or all f of its filters: ``(f + 1,)``.

        Args:
            model: The network as it is now, uncut in this group.
            group: One of its groups.

        Raises:
            CheckpointError: The table belongs to another network.
        """
        missing = [
            member.layer
            for member in group.members
            if member.layer not in self.layers and isinstance(model.get_submodule(member.layer), TIMED)
        ]
        if missing:
            raise CheckpointError(
                f"the table of layer times knows no {', '.join(missing)}: it is another network's"
            )
        gone = group.n_filters - np.arange(group.n_filters + 1)
        widths: dict[str, list[Any]] = {
            name: [*layer_widths(model.get_submodule(name))] for name in self.layers
        }
        for member in group.members:
            if member.layer in widths:
                widths[member.layer][member.role == "consumer"] -= gone * member.positions.shape[1]
        return self._ms(widths) + np.zeros(len(gone))

    def _ms(self, widths: Mapping[str, Sequence[ArrayLike]]) -> NDArray[np.float64]:
        """Milliseconds for the widths (output, input) of every layer."""
        times: NDArray[np.float64] = np.array(self.fixed_ms)
        for name, (outputs, inputs) in widths.items():
            layer = self.layers[name]
            times = times + layer.at(outputs, inputs)
            times = times + self.ms_per_value * layer.pixels * np.asarray(outputs)
        return times

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return {
            "batch": self.batch,
            "device": self.device,
            "fixed_ms": self.fixed_ms,
            "ms_per_value": self.ms_per_value,
            "layers": {
                name: {
                    "outputs": layer.outputs.tolist(),
                    "inputs": layer.inputs.tolist(),
                    "ms": layer.ms.tolist(),
                    "pixels": layer.pixels,
                }
                for name, layer in self.layers.items()
            },
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "LatencyTable":
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: It is none.
        """
        try:
            layers = {
                name: LayerTimes(
                    np.array(layer["outputs"], dtype=np.int64),
                    np.array(layer["inputs"], dtype=np.int64),
                    np.array(layer["ms"], dtype=np.float64),
                    int(layer["pixels"]),
                )
                for name, layer in content["layers"].items()
            }
            fixed, slope = float(content["fixed_ms"]), float(content["ms_per_value"])
            table = cls(layers, fixed, slope, int(content["batch"]), str(content["device"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"this is no table of layer times: {type(error).__name__}: {error}"
            ) from error
        wrong = [
            name
            for name, layer in layers.items()
            if layer.ms.shape != (len(layer.outputs), len(layer.inputs)) or not layer.ms.size
        ]
        if wrong:
            raise CheckpointError(f"the table of layer times is damaged: {', '.join(wrong)}")
        return table


def layer_widths(module: nn.Module) -> tuple[int, int]:
    """Output and input channels of a layer of a :data:`TIMED` kind; 0 inputs where they are its outputs."""
    if isinstance(module, nn.Conv2d):
        return module.out_channels, 0 if is_depthwise(module) else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    return module.num_features, 0


def is_depthwise(module: nn.Conv2d) -> bool:
    """Whether each filter of a convolution reads one channel, its own."""
    return 1 < module.groups == module.in_channels == module.out_channels
