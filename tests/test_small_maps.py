"""Convolutions of small maps as products: the same function and gradients as oneDNN's, in bfloat16."""

import pytest
import torch
from torch import nn

from rlprune.training import small_maps
from rlprune.training.small_maps import products_for_small_maps

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def with_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AMX: the way of computing works on all."""
    monkeypatch.setattr(small_maps, "has_matrix_tiles", lambda: True)


def results(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of the images and of all parameters, computed under autocast."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    parameters = list(network.parameters())
    return [output, *torch.autograd.grad((output.float() * weights).sum(), (images, *parameters))]


@pytest.mark.parametrize(
    ("kernel", "padding", "bias", "size"),
    [(3, 1, True, (4, 4)), (3, "same", False, (2, 2)), (5, 2, True, (4, 3)), (3, 1, False, (1, 1))],
)
def test_the_same_function_and_gradients(
    kernel: int, padding: int | str, bias: bool, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nn.Conv2d(24, 40, kernel, padding=padding, bias=bias).to(memory_format=torch.channels_last)
    images = torch.randn(16, 24, *size).contiguous(memory_format=torch.channels_last)
    calls = []
    columns = small_maps._columns
    monkeypatch.setattr(small_maps, "_columns", lambda *given: calls.append(1) or columns(*given))
    expected = results(layer, images)
    assert not calls
    with products_for_small_maps(layer, CPU, torch.bfloat16):
        found = results(layer, images)
    assert len(calls) == 1
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert (one - other).float().norm() <= 0.01 * one.float().norm()


def test_only_dense_layers_that_keep_the_map_are_changed_and_all_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = nn.ModuleDict(
        {
            "suited": nn.Conv2d(4, 8, 3, padding=1),
            "pointwise": nn.Conv2d(4, 8, 1),
            "even": nn.Conv2d(4, 8, 4, padding="same"),
            "oblong": nn.Conv2d(4, 8, (3, 1), padding=(1, 0)),
            "shrinking": nn.Conv2d(4, 8, 3),
            "strided": nn.Conv2d(4, 8, 3, padding=1, stride=2),
            "dilated": nn.Conv2d(4, 8, 3, padding="same", dilation=2),
            "grouped": nn.Conv2d(4, 8, 3, padding=1, groups=2),
            "reflecting": nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        }
    )

    def changed() -> list[str]:
        return [name for name, layer in layers.items() if "forward" in vars(layer)]

    with products_for_small_maps(layers, CPU, torch.bfloat16):
        assert changed() == ["suited"]
    assert changed() == []
    with products_for_small_maps(layers, CPU, torch.float32):
        assert changed() == []
    with products_for_small_maps(layers, torch.device("cuda"), torch.bfloat16):
        assert changed() == []
    monkeypatch.setattr(small_maps, "has_matrix_tiles", lambda: False)
    with products_for_small_maps(layers, CPU, torch.bfloat16):
        assert changed() == []


def test_large_maps_and_single_images_take_the_usual_way() -> None:
    layer = nn.Conv2d(4, 8, 3, padding=1)
    images = torch.randn(2, 4, 5, 4)
    expected, alone = layer(images), layer(images[0])
    with products_for_small_maps(layer, CPU, torch.bfloat16):
        assert torch.equal(layer(images), expected)
        assert torch.equal(layer(images[0]), alone)


def test_a_layer_whose_forward_someone_replaced_is_left_alone() -> None:
    layer = nn.Conv2d(4, 8, 3, padding=1)
    layer.forward = own = lambda images: images  # type: ignore[method-assign,assignment]
    with products_for_small_maps(layer, CPU, torch.bfloat16):
        assert layer.forward is own
    assert layer.forward is own
