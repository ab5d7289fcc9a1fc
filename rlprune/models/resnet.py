"""Residual networks for small images, with projection shortcuts (He et al. 2015, arXiv 1512.03385, 4.2)."""

import torch
from torch import Tensor, nn

from rlprune.models.vgg import initialise, scaled_filters

_STAGES = (16, 32, 64)
"""Filters of the three stages at width 1; the second and the third halve height and width."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which a shortcut leads."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride=stride, bias=False), nn.BatchNorm2d(filters)
            )
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, filters, h / stride, w / stride) of features (n, channels, h, w)."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(inner + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem, three stages of basic blocks, global average pooling and one linear layer."""

    def __init__(self, blocks_per_stage: int, width: float, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = scaled_filters(_STAGES[0], width)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        stages = []
        for stage, filters in enumerate(scaled_filters(filters, width) for filters in _STAGES):
            blocks = []
            for block in range(blocks_per_stage):
                blocks.append(BasicBlock(channels, filters, stride=2 if stage > 0 and block == 0 else 1))
                channels = filters
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of normalised images (n, c, h, w)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _resnet(blocks_per_stage: int, width: float, num_classes: int, in_channels: int) -> ResNet:
    model = ResNet(blocks_per_stage, width, num_classes, in_channels)
    initialise(model)
    return model


def resnet20(*, width: float, num_classes: int, in_channels: int) -> ResNet:
    """ResNet-20: three blocks a stage; ``width`` multiplies the 16-32-64 filters."""
    return _resnet(3, width, num_classes, in_channels)


def resnet56(*, width: float, num_classes: int, in_channels: int) -> ResNet:
    """ResNet-56: nine blocks a stage; ``width`` multiplies the 16-32-64 filters."""
    return _resnet(9, width, num_classes, in_channels)
