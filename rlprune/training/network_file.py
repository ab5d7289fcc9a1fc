"""Network files: everything that it takes to use a network elsewhere, tensors and JSON only."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data import DataInfo, Preprocess
from rlprune.errors import CheckpointError, DataError, ModelError
from rlprune.models import build_model
from rlprune.models.build import is_in_memory, runs_foreign_code
from rlprune.models.load import own_copy
from rlprune.training.safetensors_file import SUFFIX, read_safetensors, write_safetensors
from rlprune.training.tensor_file import read_tensors, write_tensors

_FORMAT = "rlprune-network-1"


@dataclass(frozen=True)
class NetworkSpec:
    """How a network is built, before its state dict gives every layer its shape.

    Attributes:
        factory: As in ``model.factory``.
        arguments: As in ``model.arguments``; JSON's types.
        num_classes: Classes of the data.
        in_channels: Channels of the images.
        info: Normalisation, class names and image shape.
        widths: Filters left in each convolution, for the reader's information.
    """

    factory: str
    arguments: dict[str, Any]
    num_classes: int
    in_channels: int
    info: DataInfo
    widths: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {**vars(self), "info": self.info.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NetworkSpec":
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "info": DataInfo.from_dict(values["info"])})


class PrunedNetwork(nn.Module):
    """A network that takes images as they come, uint8 ``(n, c, h, w)``, and gives logits ``(n, classes)``.

    Attributes:
        network: The network itself, on normalised images: ``(x / 255 - mean) / std``.
        spec: How it was built.
        record: What was measured, by name, JSON's types: accuracies and drops in percentage points
            (``accuracy_val``, ``drop_val``, ``drop_val_low``, ``drop_val_high``, and the same of ``test``
            where it was read), ratios as fractions of the base (``macs_ratio``, ``params_ratio``,
            ``filter_keep_ratio``), latencies in milliseconds a batch (``latency_ms_b1``,
            ``latency_ms_base_b1``, and at batch 256); None is what is not known.
        config: The settings of the run that made it.
        versions: The packages' versions of that run.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: NetworkSpec,
        record: dict[str, Any],
        config: dict[str, Any],
        versions: dict[str, Any],
        base: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(spec.info)
        self.network = network
        self.spec, self.record, self.config, self.versions = spec, record, config, versions
        self._base = [base]  # in a list: its weights are none of this network's

    @property
    def info(self) -> DataInfo:
        """Normalisation, class names and image shape."""
        return self.spec.info

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        return int(self.record["macs"])

    @property
    def params(self) -> int:
        """Parameters."""
        return int(self.record["params"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """What each step of the run did, in order: one dict a group, the last for the final fine-tuning.

        ``group``, ``filters`` and ``kept`` (numbers of filters), ``accuracy_val`` and ``drop_val``
        (percentage points), ``macs_ratio``, ``params_ratio``, ``filter_keep_ratio``, ``candidates_tried``,
        ``evaluations`` (masks judged) and ``seconds``.
        """
        return [dict(step) for step in self.record["groups"]]

    def summary(self) -> str:
        """A few lines for people: cost, accuracy on val and test, latency; what is not known is left out."""
        record = self.record
        lines = [
            f"{name}: {record[f'base_{key}']:,} -> {record[key]:,} ({100 * record[f'{key}_ratio']:.1f} %)"
            for key, name in (("macs", "MACs"), ("params", "parameters"))
            if record.get(key) is not None
        ]
        for split in ("val", "test"):
            if record.get(f"accuracy_{split}") is not None:
                low, high = record[f"drop_{split}_low"], record[f"drop_{split}_high"]
                lines.append(
                    f"accuracy on {split}: {record[f'base_accuracy_{split}']:.2f} -> "
                    f"{record[f'accuracy_{split}']:.2f} %, drop {record[f'drop_{split}']:.2f} points, "
                    f"95 % interval [{low:.2f}, {high:.2f}], {record[f'images_{split}']:,} images"
                )
        lines += [
            f"latency at batch {batch}: {record[f'latency_ms_base_b{batch}']:.3g} -> "
            f"{record[f'latency_ms_b{batch}']:.3g} ms ({record['latency_device']})"
            for batch in (1, 256)
            if record.get(f"latency_ms_b{batch}") is not None
        ]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write a network file, whole or not at all, that ``load`` reads.

        Args:
            path: The file, by custom ``NAME.pt``; its folder is made.

        Raises:
            CheckpointError: It cannot be written.
        """
        save_network(
            Path(path).expanduser(),
            self.network,
            spec=self.spec,
            record=self.record,
            config=self.config,
            versions=self.versions,
        )

    def base_architecture(self) -> nn.Module:
        """The network before pruning, on the CPU in float32; its weights mean nothing.

        Raises:
            ModelError: Only a Python program can build it, and it was not handed over.
        """
        (base,) = self._base
        if base is not None:
            return copy.deepcopy(base).cpu().float()
        spec = self.spec
        with torch.random.fork_rng(devices=[]):
            return build_model(spec.factory, spec.arguments, spec.num_classes, spec.in_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of uint8 images (n, c, h, w)."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != self.spec.in_channels:
            raise DataError(
                f"expected uint8 images (n, {self.spec.in_channels}, h, w), not normalised; "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        return self.network(self.preprocess(images))


def save_network(
    path: str | Path,
    model: nn.Module,
    *,
    spec: NetworkSpec,
    record: Mapping[str, Any],
    config: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> None:
    """Write a network file, whole or not at all.

    Args:
        path: The file; its folder is made.
        model: The network on normalised images; on any device.
        spec: How it is built.
        record: What was measured; JSON's types.
        config: The run's settings; JSON's types.
        versions: Versions of the packages; JSON's types.
    """
    header = {"spec": spec.to_dict(), "record": record, "config": config, "versions": versions}
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_tensors(path, {"format": _FORMAT, "header": json.dumps(header), "state": state})


def save_safetensors(path: Path, network: PrunedNetwork) -> None:
    """Write a network as ``NAME.safetensors`` and ``NAME.json``, which ``load`` reads too.

    Args:
        path: ``NAME.safetensors``.
        network: The network.
    """
    header = {
        "format": _FORMAT,
        "spec": network.spec.to_dict(),
        "record": network.record,
        "config": network.config,
        "versions": network.versions,
    }
    write_safetensors(path, network.network.state_dict(), header)


def load(path: str | Path, *, trust_code: bool = False, model: nn.Module | None = None) -> PrunedNetwork:
    """Read a network file; needs no source edits and no knowledge of how the network was cut.

    Args:
        path: A file written by rlprune, for example ``results/<run>/models/<trial>.pt``, or the
            ``.safetensors`` file of an export, with its ``.json`` beside it.
        trust_code: Whether a ``package.module:factory`` that the file names may be imported and called.
        model: The network before pruning, with any weights; needed for a network that was pruned in memory
            (``rlprune.prune`` with a module), and used instead of the factory where it is given.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        CheckpointError: The file is missing, damaged, of another kind, names code that is not trusted, or
            needs ``model``.
    """
    form, header, state = _read(Path(path).expanduser())
    if form != _FORMAT:
        raise CheckpointError(
            f"{path} is not a network file of this version (format {form!r}, "
            f"expected {_FORMAT!r}); a plain state dict goes to --base instead"
        )
    try:
        values = json.loads(header) if isinstance(header, str) else header
        spec = NetworkSpec.from_dict(values["spec"])
        record, settings, versions = (values[name] for name in ("record", "config", "versions"))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: its header cannot be read ({error!r})") from error
    if is_in_memory(spec.factory) and model is None:
        raise CheckpointError(
            f"{path} holds {spec.factory!r}, which was pruned in memory; hand over the network before "
            "pruning, with any weights, in a Python program: rlprune.load(path, model=...) or "
            "rlprune.Frontier(folder, model); the command line cannot do that"
        )
    if runs_foreign_code(spec.factory) and not trust_code and model is None:
        raise CheckpointError(
            f"{path} is built by {spec.factory!r}, code outside rlprune; "
            "if you trust it, add --trust-code, or trust_code=True in a Python program"
        )
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} is damaged: it holds no state dict")
    network = _rebuild(path, spec, state, model)
    return PrunedNetwork(network, spec, record, settings, versions, base=model).eval()


def _read(path: Path) -> tuple[Any, Any, Any]:
    """Format, header and state dict of a file of either kind, not yet checked."""
    if path.suffix == SUFFIX:
        state, header = read_safetensors(path)
        return header.get("format"), header, state
    content = read_tensors(path)
    return content.get("format"), content.get("header"), content.get("state")


def _rebuild(
    path: str | Path, spec: NetworkSpec, state: Mapping[str, Tensor], model: nn.Module | None
) -> nn.Module:
    """The factory's network, or a copy of the given one, with the shapes and values of the state dict."""
    from rlprune.pruning.surgery import resize_to_state

    try:
        if model is not None:
            network = own_copy(model)
        else:
            with torch.random.fork_rng(devices=[]):
                network = build_model(spec.factory, spec.arguments, spec.num_classes, spec.in_channels)
        resize_to_state(network, state)
        network.load_state_dict(state)
    except (ModelError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit {spec.factory!r}: {error}") from error
    return network.requires_grad_(False)
