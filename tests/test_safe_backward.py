"""Strided 1 x 1 convolutions of few channels: the same function and gradients, and no process ends."""

import pytest
import torch
from torch import nn

from rlprune.safe_backward import safe_backward

CPU = torch.device("cpu")


def gradients(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The output, and the gradients of the images, the weight and the bias."""
    images = images.clone().requires_grad_()
    output = network(images)
    return (output, *torch.autograd.grad(output.square().sum(), (images, *network.parameters())))


@pytest.mark.parametrize(("channels", "stride", "size"), [(4, 2, 32), (1, 2, 9), (7, (2, 3), 17)])
def test_the_same_function_and_gradients(channels: int, stride: int | tuple[int, int], size: int) -> None:
    convolution = nn.Conv2d(channels, 8, 1, stride=stride)
    images = torch.randn(64, channels, size, size)
    # channels first in memory: oneDNN's fault is not met
    expected = gradients(convolution, images)
    convolution = convolution.to(memory_format=torch.channels_last)
    for _ in range(10):
        with safe_backward(convolution, CPU):
            found = gradients(convolution, images.contiguous(memory_format=torch.channels_last))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_only_what_is_affected_takes_the_other_way_and_all_is_put_back() -> None:
    layers = nn.ModuleDict(
        {
            "affected": nn.Conv2d(4, 8, 1, stride=2, padding="valid"),
            "wide": nn.Conv2d(8, 8, 1, stride=2),
            "patches": nn.Conv2d(4, 8, 3, stride=2),
            "dense": nn.Conv2d(4, 8, 1),
            "padded": nn.Conv2d(4, 8, 1, stride=2, padding=1),
            "grouped": nn.Conv2d(4, 8, 1, stride=2, groups=2),
        }
    )

    def on_the_other_way() -> list[str]:
        return [name for name, layer in layers.items() if "forward" in vars(layer)]

    with safe_backward(layers, CPU):
        assert on_the_other_way() == ["affected"]
    assert on_the_other_way() == []
    with safe_backward(layers, torch.device("cuda")):
        assert on_the_other_way() == []
