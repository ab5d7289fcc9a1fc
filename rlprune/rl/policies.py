"""Policies: what maps the filters of a group to keep logits. Plain torch; each starts from the scores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlprune.rl.task import FilterContext

SCORE_SCALE = 1.5
"""Logits per standard deviation of the importance score at the start. On toy groups of 16 to 256
filters, 1.5 to 2 gave the best masks after 30 iterations of 16 masks."""

PAPER_COLUMNS = 64
"""The paper's agent sees at most this many columns; wider weight matrices are averaged down to it."""


def starting_logits(scores: NDArray[np.floating], keep_probability: float) -> NDArray[np.float32]:
    """Logits (f,) that rise with the scores (f,) and whose mean probability is ``keep_probability``.

    The scores are standardised, scaled by ``SCORE_SCALE`` and shifted; the shift is found by bisection.
    """
    logits = SCORE_SCALE * _standardised(np.asarray(scores, dtype=np.float64))
    low, high = -20.0 - np.abs(logits).max(), 20.0 + np.abs(logits).max()
    for _ in range(60):
        shift = (low + high) / 2
        if np.mean(1 / (1 + np.exp(-(logits + shift)))) < keep_probability:
            low = shift
        else:
            high = shift
    return (logits + shift).astype(np.float32)


class Policy(nn.Module, ABC):
    """Keep logits of one group.

    A policy has two kinds of parameters: ``free`` ones that belong to one filter (or to none), and those of a
    ``network`` shared between filters, which need a smaller learning rate.

    Attributes:
        network_rate: Learning rate of the network, as a share of the rate of the free parameters.
    """

    network_rate = 1.0

    def __init__(self, context: FilterContext, keep_probability: float) -> None:
        super().__init__()
        start = torch.from_numpy(starting_logits(context.scores, keep_probability))
        self.start = nn.Buffer(start, persistent=False)

    @abstractmethod
    def forward(self) -> torch.Tensor:
        """Logits, (f,)."""

    @abstractmethod
    def free_parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to single filters."""

    def network_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        free = {id(parameter) for parameter in self.free_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in free]

    def take_network(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Start with the network of another group's policy.

        Args:
            parameters: The other policy's state dict.

        Raises:
            RuntimeError: This policy has no network, or one that depends on the group.
        """
        raise RuntimeError(f"{type(self).__name__} has no network that fits another group")


class LogitsPolicy(Policy):
    """A free logit per filter, nothing else, as in DECORE (Alwani et al. 2022, arXiv 2106.06091)."""

    def __init__(self, context: FilterContext, keep_probability: float) -> None:
        super().__init__(context, keep_probability)
        self.free = nn.Parameter(torch.zeros_like(self.start))

    def forward(self) -> torch.Tensor:
        """Logits, (f,)."""
        return self.start + self.free

    def free_parameters(self) -> list[nn.Parameter]:
        """The logits."""
        return [self.free]


class SetPolicy(LogitsPolicy):
    """A free logit per filter plus a small network over per-filter features, the same for every filter.

    The network sees a filter's features beside the mean over the group (Zaheer et al. 2017, "Deep Sets",
    arXiv 1703.06114): permuting the filters permutes its outputs. Its last layer starts at zero.
    """

    network_rate = 0.1

    def __init__(self, context: FilterContext, keep_probability: float, width: int = 32) -> None:
        super().__init__(context, keep_probability)
        score = _standardised(context.scores)[:, None]
        features = np.concatenate([context.features, score], axis=1).astype(np.float32)
        self.features = nn.Buffer(torch.from_numpy(features), persistent=False)
        self.embed = nn.Sequential(nn.Linear(features.shape[1], width), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), _zeroed(nn.Linear(width, 1)))

    def forward(self) -> torch.Tensor:
        """Logits, (f,)."""
        own = self.embed(self.features)
        group = own.mean(dim=0, keepdim=True).expand_as(own)
        return super().forward() + self.head(torch.cat([own, group], dim=1)).squeeze(1)

    @torch.no_grad()
    def take_network(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Start with the network of another group's policy; the mean logit stays what it was.

        Args:
            parameters: The other policy's state dict.
        """
        for name, own in self.named_parameters():
            if name != "free":
                own.copy_(parameters[name])
        mean = (self() - self.start).mean()
        self.get_parameter("head.2.bias").sub_(mean)


class PaperPolicy(Policy):
    """The agent of Huang et al. 2018: 7x7 convolutions over the layer's weights, then two linear layers.

    The input is the weight matrix, filters x weights, standardised, its columns averaged down to
    ``PAPER_COLUMNS``. The last layer starts at zero and is added to the starting logits; its bias is a free
    parameter a filter.
    """

    network_rate = 0.003

    def __init__(
        self,
        context: FilterContext,
        keep_probability: float,
        channels: int = 8,
        n_layers: int = 4,
        width: int = 64,
    ) -> None:
        super().__init__(context, keep_probability)
        n_filters, n_weights = context.weights.shape
        matrix = torch.from_numpy(_standardised(context.weights).astype(np.float32))[None, None]
        matrix = nn.functional.adaptive_avg_pool2d(matrix, (n_filters, min(n_weights, PAPER_COLUMNS)))
        self.matrix = nn.Buffer(matrix / matrix.std().clamp(min=1e-6), persistent=False)
        layers: list[nn.Module] = []
        for layer in range(n_layers):
            layers += [nn.Conv2d(channels if layer else 1, channels, 7, padding=3), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        n_values = self.convolutions(self.matrix).shape[1]
        self.hidden = nn.Sequential(nn.Linear(n_values, width), nn.ReLU())
        self.output = _zeroed(nn.Linear(width, n_filters))

    def forward(self) -> torch.Tensor:
        """Logits, (f,)."""
        return self.start + self.output(self.hidden(self.convolutions(self.matrix))).squeeze(0)

    def free_parameters(self) -> list[nn.Parameter]:
        """The last layer's bias."""
        return [self.output.bias]


POLICIES: dict[str, type[Policy]] = {"set": SetPolicy, "paper": PaperPolicy, "logits": LogitsPolicy}


def _standardised(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean 0 and deviation 1 over all values; zeros where all values are equal."""
    centred = values - values.mean()
    deviation = centred.std()
    return centred / deviation if deviation > 0 else np.zeros_like(centred)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
