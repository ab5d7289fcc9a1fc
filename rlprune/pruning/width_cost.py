"""What a network would cost by how many filters its groups keep, without cutting it."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

import numpy as np
from torch import Tensor, nn

from rlprune.pruning.cost import layer_macs
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.latency_table import LatencyTable


class WidthCost:
    """A count for any widths: what a tensor holds is proportional to its output width and to its input width.

    A dimension of a layer may hold the filters of several groups (concatenated features), a share each.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[FilterGroup], example: Tensor, efficiency: str = "macs"
    ) -> None:
        """Counts the whole network once.

        Args:
            model: The network.
            groups: Its groups.
            example: One normalised input batch ``(n, c, h, w)``.
            efficiency: ``macs``, ``params``, or ``filters`` (of the groups).
        """
        self._filters = {group.name: group.n_filters for group in groups}
        self._shares: dict[tuple[str, int], dict[str, float]] = {}
        if efficiency == "filters":
            self._amounts = dict(self._filters)
            self._shares = {(name, 0): {name: 1.0} for name in self._filters}
            return
        if efficiency == "macs":
            self._amounts = {f"{name}.weight": macs for name, macs in layer_macs(model, example).items()}
        else:
            self._amounts = {name: parameter.numel() for name, parameter in model.named_parameters()}
        for group in groups:
            for member in group.members:
                if _has_channels(module := model.get_submodule(member.layer)):
                    dimension = 1 if member.role == "consumer" else 0
                    share = member.positions.size / module.weight.shape[dimension]
                    self._cut(f"{member.layer}.weight", dimension, group.name, share)
                    if member.role != "consumer":
                        self._cut(f"{member.layer}.bias", 0, group.name, share)

    def _cut(self, tensor: str, dimension: int, group: str, share: float) -> None:
        if tensor in self._amounts:
            self._shares.setdefault((tensor, dimension), {})[group] = share

    @property
    def whole(self) -> int:
        """The count of the uncut network."""
        return sum(self._amounts.values())

    def left(self, kept: Mapping[str, int]) -> float:
        """The count where the named groups keep so many filters; groups that are not named stay whole."""
        factors = {
            name: 1 - count / self._filters[name]
            for name, count in kept.items()
            if count < self._filters[name]
        }
        left = dict[str, float](self._amounts)
        for (tensor, _), shares in self._shares.items():
            left[tensor] *= 1 - sum(share * factors.get(group, 0.0) for group, share in shares.items())
        return sum(left.values())


class GroupCost:
    """The cost of the whole network when one group keeps k of its f filters; the table has its time."""

    def __init__(
        self, model: nn.Module, group: FilterGroup, example: Tensor, table: LatencyTable | None = None
    ) -> None:
        """Counts the network once.

        Args:
            model: The network, uncut in this group.
            group: The group.
            example: One normalised input batch ``(n, c, h, w)``.
            table: The times of the network's layers; None where :meth:`latency` is not asked for.
        """
        self.n_filters, self._name = group.n_filters, group.name
        self._macs, self._params = (WidthCost(model, [group], example, what) for what in ("macs", "params"))
        self._latency = None if table is None else table.by_count(model, group)

    def macs(self, kept: np.ndarray) -> np.ndarray:
        """MACs of the network for each number of kept filters in ``kept`` ``(m,)``."""
        return self._left(self._macs, kept)

    def params(self, kept: np.ndarray) -> np.ndarray:
        """Parameters of the network for each number of kept filters in ``kept`` ``(m,)``."""
        return self._left(self._params, kept)

    def latency(self, kept: np.ndarray) -> np.ndarray:
        """Milliseconds of the network, by the table, for each number of kept filters in ``kept`` ``(m,)``."""
        assert self._latency is not None, "who asks for latencies hands over a table"
        return self._latency[np.asarray(kept)]

    def _left(self, cost: WidthCost, kept: np.ndarray) -> np.ndarray:
        left = [cost.left({self._name: int(count)}) for count in np.ravel(kept)]
        return np.reshape(left, np.shape(kept))


class _Weighted(nn.Module):
    weight: Tensor


def _has_channels(module: nn.Module) -> TypeGuard[_Weighted]:
    """Whether a layer of a group has a weight that is cut: not batch norm without one, a single slope."""
    if isinstance(module, nn.PReLU) and module.num_parameters == 1:
        return False
    return getattr(module, "weight", None) is not None
