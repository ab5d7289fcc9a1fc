"""A user's own network with three groups of filters, small enough to be trained on the digits in seconds."""

import torch
from torch import nn

from rlprune.data import DataSplits
from rlprune.training.fit import FitSchedule, fit

FACTORY = "tiny_network:build"
GROUPS = ["0", "3", "6"]
FILTERS = {"0": 8, "3": 12, "6": 16}
SETTINGS = {
    "model.factory": FACTORY,
    "model.arguments": {},
    "device": "cpu",
    "precision": "fp32",
    "agent.iterations": 3,
    "agent.masks": 8,
    "pruning.b": 3.0,
    "pruning.reward_images": 64,
    "pruning.calibration_images": 150,
    "pruning.candidates": 3,
    "pruning.order": "input-upward",
    "pruning.budget": "spread",
    "pruning.sweeps": 1,
    "finetune.group_epochs": 0.5,
    "finetune.final_epochs": 0.5,
}
"""A whole run of a few seconds."""


def build(*, num_classes: int) -> nn.Module:
    """Three strided convolutions with batch norm; the linear layer reads each last filter four times."""
    layers: list[nn.Module] = []
    channels = 3
    for filters in FILTERS.values():
        layers += [nn.Conv2d(channels, filters, 3, stride=2, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, num_classes))


def train(splits: DataSplits) -> nn.Module:
    """The network after ten epochs."""
    torch.manual_seed(0)
    model = build(num_classes=splits.info.num_classes)
    schedule = FitSchedule(
        epochs=10,
        batch_size=64,
        learning_rate=0.1,
        weight_decay=5e-4,
        label_smoothing=0.1,
        warmup_share=0.25,
    )
    fit(
        model,
        splits.train,
        splits.info,
        schedule,
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
    )
    return model
