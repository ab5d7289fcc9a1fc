"""Measures the table of layer times: each layer alone at several widths, and the network as a whole."""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.latency import CAST, autocast_for, measure_latency
from rlprune.pruning.latency_table import TIMED, LatencyTable, LayerTimes, is_depthwise, layer_widths, rising
from rlprune.pruning.modes import evaluating
from rlprune.pruning.surgery import cut, groups_after_cut

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of a layer's channels that are measured; the first stands for the fewest that may stay."""
ROUNDS, PASSES, WHOLE_PASSES = 3, 3, 15
"""Every layer has its turn so often, each time with so many timed passes; timed passes of whole networks."""


@dataclass(frozen=True)
class _Site:
    """Where a layer is in the network: its module, the shape of its input for one image, and its type."""

    module: nn.Module
    shape: tuple[int, ...]
    dtype: torch.dtype
    calls: int


def measure_table(
    model: nn.Module,
    groups: Sequence[FilterGroup],
    example: torch.Tensor,
    *,
    batch: int,
    round_to: int,
    dtype: torch.dtype,
    device: str,
) -> LatencyTable:
    """The table of a network, with channels last, as networks are timed at the end of a run.

    Layers that are alike are measured once. Every layer is measured at the widths that its groups may leave:
    multiples of ``round_to``, or odd counts where any count may stay, as these are seldom round ones.

    Args:
        model: The network, uncut; it is left as it was.
        groups: Its groups.
        example: One normalised input batch ``(n, c, h, w)`` on the network's device.
        batch: Images of a batch.
        round_to: See ``pruning.round_to``.
        dtype: As in :func:`.measure_latency`.
        device: What the table says that it was measured on.
    """
    whole = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    image = example[:1].contiguous(memory_format=torch.channels_last)
    sites = _sites(whole, image, dtype)
    axes = {name: _axes(site.module, name, groups, round_to) for name, site in sites.items()}
    keys = {name: _key(site, axes[name]) for name, site in sites.items()}
    alike = {key: name for name, key in keys.items()}
    laps: dict[str, list[NDArray[np.float64]]] = {name: [] for name in alike.values()}
    with torch.inference_mode(), autocast_for(example.device, dtype):
        for _ in range(ROUNDS):
            for name, taken in laps.items():
                found = _layer_laps(sites[name], *axes[name], batch=batch, device=example.device, dtype=dtype)
                taken.append(found)
    times = {name: rising(np.median(np.concatenate(taken, -1), -1)) for name, taken in laps.items()}
    layers = {}
    for name, site in sites.items():
        outputs, inputs = axes[name]
        pixels = _pixels(site)
        ms = site.calls * times[alike[keys[name]]]
        layers[name] = LayerTimes(np.array(outputs), np.array(inputs), ms, site.calls * pixels)
    bare = LatencyTable(layers, 0.0, 0.0, batch, device)
    return _with_remainder(bare, whole, groups, image, dtype)


def _sites(model: nn.Module, image: torch.Tensor, dtype: torch.dtype) -> dict[str, _Site]:
    """The layers that are timed, in the order in which they run."""
    sites: dict[str, _Site] = {}

    def note(name: str, module: nn.Module, value: torch.Tensor) -> None:
        calls = sites[name].calls + 1 if name in sites else 1
        sites[name] = _Site(module, tuple(value.shape[1:]), value.dtype, calls)

    handles = [
        module.register_forward_pre_hook(
            lambda module, given, named, name=name: note(name, module, *given, *named.values()),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if isinstance(module, TIMED)
    ]
    try:
        with evaluating(model), torch.inference_mode(), autocast_for(image.device, dtype):
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return sites


def _axes(
    module: nn.Module, name: str, groups: Iterable[FilterGroup], round_to: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The output and the input widths at which a layer is measured: one only where no group changes it."""
    steps = {False: 0, True: 0}  # entries of the output and of the input that one filter holds
    for group in groups:
        for member in group.members:
            if member.layer == name:
                steps[member.role == "consumer"] = member.positions.shape[1]
    outputs, inputs = layer_widths(module)
    return _counts(outputs, steps[False], round_to), _counts(inputs, steps[True], round_to)


def _counts(width: int, step: int, round_to: int) -> tuple[int, ...]:
    """Widths to measure, rising, the whole one among them; ``step`` entries of the width are one filter."""
    if not step:
        return (width,)
    filters = width // step
    counts = {width}
    for share in SHARES[:-1]:
        count = max(1, round(share * filters / round_to)) * round_to
        count = count | 1 if round_to == 1 else count
        counts.add(step * min(count, filters))
    return tuple(sorted(counts))


def _key(site: _Site, axes: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[object, ...]:
    """What two layers have in common that take the same time."""
    module = site.module
    kind: tuple[object, ...] = (type(module), getattr(module, "bias", None) is None)
    if isinstance(module, nn.Conv2d):
        kind += (module.kernel_size, module.stride, module.padding, module.dilation, module.padding_mode)
        kind += (is_depthwise(module), module.groups)
    return (*kind, site.shape, site.dtype, axes)


def _pixels(site: _Site) -> int:
    """Values of one output channel of a convolution for one image."""
    module = site.module
    if not isinstance(module, nn.Conv2d):
        return 0
    with torch.inference_mode():
        image = torch.zeros(1, *site.shape, device=module.weight.device, dtype=module.weight.dtype)
        return module(image)[0, 0].numel()


def _layer_laps(
    site: _Site,
    outputs: Sequence[int],
    inputs: Sequence[int],
    *,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
) -> NDArray[np.float64]:
    """Milliseconds of a layer at all combinations of widths ``(o, i, passes)``, which take turns."""
    calls = []
    images: dict[tuple[int, ...], torch.Tensor] = {}
    for width in outputs:
        for read in inputs:
            layer = _at_width(site.module, width, read)
            layer.to(device, dtype if type(layer) in CAST else None, memory_format=torch.channels_last)  # type: ignore[call-overload]
            shape = _input_shape(site, read or width)
            if shape not in images:
                value = torch.zeros(batch, *shape, device=device, dtype=site.dtype)
                four = value.dim() == 4 and not isinstance(site.module, nn.Linear)
                last = value.contiguous(memory_format=torch.channels_last) if four else value
                images[shape] = last
            calls.append(lambda layer=layer, value=images[shape]: layer(value))
    laps = lap_times(calls, PASSES, device)
    return np.array(laps).reshape(len(outputs), len(inputs), PASSES)


def _input_shape(site: _Site, width: int) -> tuple[int, ...]:
    if isinstance(site.module, nn.Linear):
        return (*site.shape[:-1], width)
    return (width, *site.shape[1:])


def _at_width(module: nn.Module, outputs: int, inputs: int) -> nn.Module:
    """A layer of the same kind with other widths, whose weights mean nothing."""
    if isinstance(module, nn.Conv2d):
        depthwise = is_depthwise(module)
        layer: nn.Module = nn.Conv2d(
            outputs if depthwise else inputs,
            outputs,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            groups=outputs if depthwise else module.groups,
            bias=module.bias is not None,
            padding_mode=module.padding_mode,
        )
    elif isinstance(module, nn.Linear):
        layer = nn.Linear(inputs, outputs, bias=module.bias is not None)
    else:
        assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        kind = nn.BatchNorm1d if isinstance(module, nn.BatchNorm1d) else nn.BatchNorm2d
        layer = kind(outputs, affine=module.affine, track_running_stats=module.track_running_stats)
    return layer.eval().requires_grad_(False)


def lap_times(calls: Sequence[Callable[[], object]], passes: int, device: torch.device) -> list[list[float]]:
    """Milliseconds of each call in each pass, after one pass to warm up; the calls take turns.

    On a GPU the clock is that of the GPU (events in its stream), and the host waits once, at the end.
    """
    for call in calls:
        call()
    if device.type != "cuda":
        laps: list[list[float]] = [[] for _ in calls]
        for _ in range(passes):
            for call, taken in zip(calls, laps, strict=True):
                began = time.perf_counter()
                call()
                taken.append(1000 * (time.perf_counter() - began))
        return laps
    with torch.cuda.device(device):
        events: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[] for _ in calls]
        for _ in range(passes):
            for call, pairs in zip(calls, events, strict=True):
                pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                pair[0].record()
                call()
                pair[1].record()
                pairs.append(pair)
        torch.cuda.synchronize(device)
    return [[began.elapsed_time(ended) for began, ended in pairs] for pairs in events]


def _with_remainder(
    bare: LatencyTable,
    whole: nn.Module,
    groups: Sequence[FilterGroup],
    image: torch.Tensor,
    dtype: torch.dtype,
) -> LatencyTable:
    """The table with what two measured networks take beside their layers: the whole and one of half width.

    The part of it that grows with the convolutions' outputs, and the part that does not, follow from the two;
    neither is negative. Where the whole network takes less than its layers alone, their times are scaled.
    """
    half = copy.deepcopy(whole)
    for name in [group.name for group in groups]:
        group = next(each for each in groups if each.name == name)  # as the cuts before have left it
        mask = np.arange(group.n_filters) % 2 == 0
        cut(half, group, mask)
        groups = groups_after_cut(groups, group, mask)
    images = image.expand(bare.batch, *image.shape[1:]).contiguous(memory_format=torch.channels_last)
    measured = measure_latency([whole, half], images, passes=WHOLE_PASSES, dtype=dtype)
    alone, values = (
        [bare.latency(model) for model in (whole, half)],
        [_values(bare, m) for m in (whole, half)],
    )
    scale = min(1.0, measured[0].median / alone[0])
    left = [found.median - scale * layers for found, layers in zip(measured, alone, strict=True)]
    growth = (left[0] - left[1]) / max(values[0] - values[1], 1)
    slope = float(np.clip(growth, 0.0, left[0] / max(values[0], 1)))
    layers = {name: dataclasses.replace(layer, ms=scale * layer.ms) for name, layer in bare.layers.items()}
    fixed = max(0.0, left[0] - slope * values[0])
    return dataclasses.replace(bare, layers=layers, fixed_ms=fixed, ms_per_value=slope)


def _values(table: LatencyTable, model: nn.Module) -> int:
    """What a network's convolutions put out for one image."""
    return sum(
        layer.pixels * layer_widths(model.get_submodule(name))[0] for name, layer in table.layers.items()
    )
