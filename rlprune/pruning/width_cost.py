"""MACs of a network by how many filters each of its groups keeps, without cutting it."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from rlprune.pruning.cost import layer_macs
from rlprune.pruning.groups import FilterGroup


class WidthCost:
    """The MACs for any widths: a layer's are proportional to its output width and to its input width.

    A dimension of a layer may hold the filters of several groups (concatenated features), a share each.
    """

    def __init__(self, model: nn.Module, groups: Iterable[FilterGroup], example: Tensor) -> None:
        """Counts the whole network once.

        Args:
            model: The network.
            groups: Its groups.
            example: One normalised input batch ``(n, c, h, w)``.
        """
        self.layer_macs = layer_macs(model, example)
        self._filters: dict[str, int] = {}
        self._shares: dict[tuple[str, int], dict[str, float]] = {}
        for group in groups:
            self._filters[group.name] = group.n_filters
            for member in group.members:
                if member.layer not in self.layer_macs:
                    continue
                dimension = 1 if member.role == "consumer" else 0
                weight = model.get_submodule(member.layer).weight
                assert isinstance(weight, Tensor)
                shares = self._shares.setdefault((member.layer, dimension), {})
                shares[group.name] = member.positions.size / weight.shape[dimension]

    @property
    def whole(self) -> int:
        """The MACs of the uncut network."""
        return sum(self.layer_macs.values())

    def macs(self, kept: Mapping[str, int]) -> float:
        """The MACs where the named groups keep so many filters; groups that are not named stay whole."""
        factors = {
            name: 1 - count / self._filters[name]
            for name, count in kept.items()
            if count < self._filters[name]
        }
        macs = dict[str, float](self.layer_macs)
        for (layer, _), shares in self._shares.items():
            macs[layer] *= 1 - sum(share * factors.get(group, 0.0) for group, share in shares.items())
        return sum(macs.values())
