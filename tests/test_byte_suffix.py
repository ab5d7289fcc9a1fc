"""Masks measured in 8-bit integers: layers against torch's own, engines against exact ones."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_pruning import find_groups, make_engine, random_masks, warmed
from torch import nn

from rlprune.config_loading import load_config
from rlprune.errors import PruningError
from rlprune.models.build import build_model
from rlprune.pruning import byte_layers, prefix_cache
from rlprune.pruning.byte_layers import (
    IN_PAIRS,
    WITH_VNNI,
    ByteConvolution,
    ByteFormat,
    ByteMaxPool,
    ByteWeights,
    as_bytes,
    byte_range,
    runs_bytes,
)
from rlprune.pruning.byte_suffix import ByteSuffix, never_negative
from rlprune.pruning.partition import Partition, trace
from rlprune.workbench import Workbench

pytestmark = pytest.mark.skipif(
    not runs_bytes(torch.device("cpu")), reason="this CPU multiplies no bytes (AVX2)"
)
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def calibration() -> torch.Tensor:
    return torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def last(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("settings", [{}, {"padding": 1}, {"stride": 2, "padding": 2}, {"dilation": 2}])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("greatest", [True, False])
def test_what_bytes_can_tell_exactly_is_exact(settings, relu, dtype, greatest) -> None:
    """All inputs and weights at their greatest is where sums of products are cut off first."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(5, 6, 3, **settings)
    inputs_to, weights_to = byte_range().inputs, byte_range().weights
    weight = torch.randint(-weights_to, weights_to + 1, (6, 5, 3, 3), generator=generator).float()
    inputs = torch.randint(0, inputs_to + 1, (4, 5, 9, 9), generator=generator).float()
    if greatest:
        weight, inputs = torch.full_like(weight, weights_to), torch.full_like(inputs, inputs_to)
        weight[3:] *= -1
    weight[:, 0, 0, 0] = weights_to  # so the step is one
    bias = torch.randint(-900, 900, (6,), generator=generator).float()
    expected = F.conv2d(inputs, weight, bias, layer.stride, layer.padding, layer.dilation)
    expected = expected.relu() if relu else expected
    given = last(as_bytes(inputs, torch.ones(5)))
    wide = ByteWeights(layer, weight, bias, ByteFormat(torch.ones(5), None, relu, dtype))(given)
    torch.testing.assert_close(wide, expected.to(dtype), check_stride=False)
    if relu:
        step = float(expected.max() / 255)
        narrow = ByteWeights(layer, weight, bias, ByteFormat(torch.ones(5), step, relu, dtype))(given)
        assert narrow.dtype == torch.uint8
        assert (narrow.float() * step - expected).abs().max() <= 0.51 * step


@pytest.mark.parametrize("numbers", [WITH_VNNI, IN_PAIRS])
def test_products_fit_where_a_cpu_adds_them(numbers: byte_layers.ByteRange) -> None:
    assert numbers.inputs <= 255
    assert numbers.weights <= 127
    assert numbers is WITH_VNNI or 2 * numbers.inputs * numbers.weights < 2**15


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((3, 2), (1, 2))])
def test_a_pool_of_bytes_is_the_pool(pool: nn.MaxPool2d) -> None:
    inputs = torch.randint(0, 256, (3, 4, 9, 8), generator=torch.Generator().manual_seed(0))
    found = ByteMaxPool(pool)(last(inputs.to(torch.uint8)))
    assert torch.equal(found.float(), pool(inputs.float()))


@pytest.mark.parametrize("fidelity", ["raw", "repair"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "network",
    [
        "vgg16_bn",
        "resnet20",
        "flattened",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet56", "resnet18", "mobilenet_v2")),
    ],
)
def test_engines_in_bytes_are_close_to_exact_ones(network, fidelity, dtype, images, calibration) -> None:
    model = warmed(network)
    groups = find_groups(model, images[:1])
    for group in groups[:: 1 + len(groups) // 3]:
        masks = np.concatenate([random_masks(group, 3), np.ones((1, group.n_filters), dtype=bool)])
        exact = make_engine(model, group, images, calibration, fidelity).accuracies(masks)
        fast = make_engine(model, group, images, calibration, fidelity, dtype=dtype, int8=True)
        assert np.abs(fast.accuracies(masks) - exact).max() < 1.0, group.name


def byte_suffix(model: nn.Module, position: int, images: torch.Tensor, block: int = 64) -> ByteSuffix:
    """The layers behind a group in bytes, by a sample of images that is looked at some at a time."""
    graph = trace(model, fold_batch_norm=True)
    part = Partition(graph, find_groups(model, images[:1])[position])
    return ByteSuffix(
        part.suffix, [part.boundary(some) for some in images.split(block)], never_negative(graph)
    )


def test_a_chain_of_convolutions_is_in_bytes_to_its_end(images) -> None:
    found = byte_suffix(warmed("vgg16_bn"), 3, images)
    forms = list(found.formats.values())
    assert len(forms) == 9
    assert all(form.relu for form in forms)
    assert [form.step_out is None for form in forms] == [False] * 8 + [True]
    assert all((other.steps_in == one.step_out).all() for one, other in itertools.pairwise(forms))


def test_what_an_addition_reads_stays_as_it_was(images) -> None:
    found = byte_suffix(warmed("resnet20"), 1, images)
    assert [(form.step_out, form.relu) for form in found.formats.values()] == [(None, False)]


def called_twice() -> list[nn.Module]:
    layer = nn.Conv2d(4, 4, 3)
    return [layer, nn.ReLU(), layer]


EXACT: dict[str, Callable[[], list[nn.Module]]] = {
    "reflecting": lambda: [nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")],
    "grouped": lambda: [nn.Conv2d(4, 4, 3, groups=2)],
    "named padding": lambda: [nn.Conv2d(4, 4, 3, padding="same")],
    "pool that rounds up": lambda: [nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(4, 4, 3)],
    "called twice": called_twice,
}
"""Layers that are not computed in bytes."""


@pytest.mark.parametrize("kind", EXACT)
def test_layers_that_bytes_cannot_compute_stay_as_they_are(kind: str) -> None:
    torch.manual_seed(0)
    head = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU()]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)]
    found = byte_suffix(nn.Sequential(*head, *EXACT[kind](), *tail).eval(), 0, torch.randn(8, 3, 31, 31))
    assert [form.step_out for form in found.formats.values()] == [None], (
        "the layer that reads the group alone"
    )


def test_steps_are_found_on_all_blocks_of_the_sample() -> None:
    """The brightest images are in the first block, the darkest in the last."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)).eval()
    images = torch.randn(16, 3, 16, 16) * torch.linspace(3, 0.1, 16)[:, None, None, None]
    for sample in (images, images.flip(0)):
        whole, blocks = (byte_suffix(model, 0, sample, size) for size in (16, 4))
        assert whole.formats
        for one, other in zip(whole.formats.values(), blocks.formats.values(), strict=True):
            torch.testing.assert_close(one.steps_in, other.steps_in)


@pytest.mark.parametrize("between", [nn.LeakyReLU(), nn.Sigmoid(), nn.Hardswish(), nn.ReLU6()])
def test_only_what_is_surely_not_negative_is_held_as_bytes(between, images) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        between,
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    ).eval()
    assert byte_suffix(model, 0, images.abs()).formats == {}


def test_a_small_cache_changes_no_reward_in_bytes(images, calibration, monkeypatch) -> None:
    model = warmed("vgg16_bn")
    group = find_groups(model, images[:1])[3]
    masks = random_masks(group, 5)
    more = {"dtype": torch.bfloat16, "int8": True}
    expected = make_engine(model, group, images, calibration, "raw", **more).accuracies(masks)
    monkeypatch.setattr(prefix_cache, "BLOCK_IMAGES", 5)  # the steps, too, are found block by block
    tight = make_engine(model, group, images, calibration, "raw", cache_bytes=0, **more)
    assert tight._images.cached_bytes == 0
    np.testing.assert_allclose(tight.accuracies(masks), expected, atol=0.05)


def test_copied_channels_and_zero_weights_give_the_same(images, calibration, monkeypatch) -> None:
    model = warmed("vgg16_bn")
    group = find_groups(model, images[:1])[7]
    masks = random_masks(group, 4)
    found = []
    for cost in (0.0, 1e9):
        monkeypatch.setattr("rlprune.pruning.masked_consumer.BYTE_SELECTION_COST", cost)
        engine = make_engine(model, group, images, calibration, "raw", dtype=torch.bfloat16, int8=True)
        found.append(engine.accuracies(masks))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("broken", ["image", "weight"])
def test_numbers_that_are_not_finite_are_refused(broken, images, calibration) -> None:
    model = warmed("vgg16_bn")
    group = find_groups(model, images[:1])[2]
    images = images.clone()
    if broken == "image":
        images[23, 0, 5, 5] = torch.nan
    else:
        model.get_parameter("features.14.weight").data[0, 0, 0, 0] = torch.inf
    with pytest.raises(PruningError, match="within the network that are not finite"):
        make_engine(model, group, images, calibration, "raw", dtype=torch.bfloat16, int8=True).accuracies(
            random_masks(group, 2)
        )


def test_without_avx2_nothing_is_in_bytes(images, calibration, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: False)
    assert not byte_layers.runs_bytes(torch.device("cpu"))
    model = warmed("vgg16_bn")
    group = find_groups(model, images[:1])[3]
    masks = random_masks(group, 3)
    plain, fallen = (
        make_engine(model, group, images, calibration, "raw", int8=int8).accuracies(masks)
        for int8 in (False, True)
    )
    np.testing.assert_array_equal(fallen, plain)


@pytest.mark.parametrize(("precision", "in_bytes"), [("fp32", False), ("auto", True), ("bf16", True)])
def test_who_asks_for_fp32_gets_no_bytes(precision, in_bytes, digits_splits) -> None:
    config = load_config(None, {"precision": precision, "device": "cpu"})
    bench = Workbench(config, digits_splits.sealed())
    model = build_model("vgg16_bn", {"width": 0.125}, 10, digits_splits.info.image_shape[0]).eval()
    calibration, _ = bench.calibration("any")
    engine = bench.reward_engine(model, bench.groups(model)[3], calibration)
    assert any(isinstance(module, ByteConvolution) for module in engine._suffix.modules()) == in_bytes
