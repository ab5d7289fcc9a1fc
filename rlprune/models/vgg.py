"""VGG-16 with batch norm, in torchvision's layout (Simonyan & Zisserman 2014, arXiv 1409.1556)."""

import torch
from torch import Tensor, nn

from rlprune.errors import ModelError

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Filters of the convolutions of each stage at width 1; a max pooling ends each stage."""


def scaled_filters(filters: int, width: float) -> int:
    """The number of filters at a width multiplier, at least one."""
    if not width > 0:
        raise ModelError(f"width: expected a multiplier above 0, for example 0.25; got {width!r}")
    return max(1, round(filters * width))


def initialise(model: nn.Module) -> None:
    """Draw starting weights from torch's global generator; convolutions as in arXiv 1502.01852."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


class VGG(nn.Module):
    """``features`` (convolution, batch norm, ReLU, pooling), ``avgpool``, one linear ``classifier``."""

    def __init__(self, features: nn.Sequential, filters: int, num_classes: int) -> None:
        super().__init__()
        self.features = features
        # 32 x 32 images leave 1 x 1 features, which this passes on unchanged; it makes larger images fit.
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(filters, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of normalised images (n, c, h, w); h and w are 32 or more."""
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


def vgg16_bn(*, width: float, num_classes: int, in_channels: int) -> VGG:
    """VGG-16-BN with a single linear classifier.

    Args:
        width: Multiplier of every layer's filters; 1 gives 64-64-128-...-512.
        num_classes: Outputs of the classifier.
        in_channels: Channels of the images.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for stage in _STAGES:
        for filters in (scaled_filters(filters, width) for filters in stage):
            layers += [
                nn.Conv2d(channels, filters, 3, padding=1),
                nn.BatchNorm2d(filters),
                nn.ReLU(inplace=True),
            ]
            channels = filters
        layers.append(nn.MaxPool2d(2, 2))
    model = VGG(nn.Sequential(*layers), channels, num_classes)
    initialise(model)
    return model
