"""The base model: loaded, or trained once and kept."""

import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.config import BaseConfig, Config
from rlprune.data import DataSplits, Preprocess, image_tensor
from rlprune.errors import ModelError
from rlprune.models import build_model, load_state
from rlprune.models.build import runs_foreign_code
from rlprune.models.code import code_hash
from rlprune.models.load import check_weights, own_copy
from rlprune.pruning.modes import evaluating
from rlprune.seeding import child_seed
from rlprune.training.device import resolve_device, resolve_precision
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.fit import EpochReport, FitSchedule, fit
from rlprune.training.tensor_file import read_tensors, write_tensors

_WARMUP_SHARE = 0.25
_TRIED_IMAGES = 2
"""Images that a new network is tried with in training mode, where batch norm may need two."""
_CPU = torch.device("cpu")
IMBALANCE = 1.5
"""Times its even share that the largest class of val may have before it is taken as chance."""


@dataclass(frozen=True)
class BaseModel:
    """A trained network before pruning.

    Attributes:
        model: In evaluation mode, on the run's device.
        correct_val: bool (n,), which images of val it classifies correctly.
        accuracy_val: Percent.
        path: The state dict that it came from or went to; None where the network was handed over.
    """

    model: nn.Module
    correct_val: np.ndarray
    accuracy_val: float
    path: Path | None


def obtain_base(
    config: Config, splits: DataSplits, *, progress: Callable[[str], None], given: nn.Module | None = None
) -> BaseModel:
    """Load ``config.base.checkpoint``, or train a base model, or take the one trained before from the cache.

    A training that was interrupted continues from its last whole epoch.

    Args:
        config: The run's settings.
        splits: Its data; val is measured, train is trained on, nothing else is read.
        progress: Gets one line an epoch and one at the end.
        given: The trained network itself, which then is the base model; it is copied, not changed.

    Raises:
        ModelError: The network cannot be built, does not fit the data or the weights, or is too weak.
    """
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    model = starting_network(config, splits, given)
    path: Path | None = None
    if given is not None:
        origin = "handed over"
    elif config.base.checkpoint:
        path = Path(config.base.checkpoint).expanduser()
        load_state(model, path)
        origin = f"loaded from {path}"
    else:
        if config.base.start:
            load_state(model, Path(config.base.start).expanduser())
        path = base_path(config, splits)
        origin = f"trained before, from {path}" if path.is_file() else f"trained, kept in {path}"
        if not path.is_file():
            _train(model, path, config, splits, progress)
        load_state(model, path)
    model.to(device).eval()
    correct = correct_predictions(model, splits.val, splits.info, device=device, dtype=dtype)
    base = BaseModel(model, correct, accuracy(correct), path)
    progress(f"base model {origin}: {base.accuracy_val:.2f} % on {len(splits.val):,} val images")
    _warn_of_imbalance(splits, progress)
    _check_floor(base, config, splits)
    return base


def base_path(config: Config, splits: DataSplits) -> Path:
    """Where the base model is kept: the name holds a hash of all that its weights depend on."""
    device = resolve_device(config.device)
    training = dataclasses.asdict(config.base)
    for name in ("checkpoint", "start", "cache", "floor", "allow_weak"):
        del training[name]
    if config.base.start:  # the weights count, not where they lie
        start = Path(config.base.start).expanduser().read_bytes()
        training["start"] = hashlib.blake2b(start, digest_size=8).hexdigest()
    identity = {
        "data": splits.fingerprint,
        "model": dataclasses.asdict(config.model),
        "base": training,
        "seed": config.seed,
        "precision": str(resolve_precision(config.precision, device)),
    }
    if runs_foreign_code(config.model.factory):
        identity["code"] = code_hash(config.model.factory, _built(config, splits))
    text = json.dumps(identity, sort_keys=True)
    key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    name = config.model.factory.rpartition(":")[2]
    return Path(config.base.cache).expanduser() / f"{name}-{key}.pt"


def starting_network(config: Config, splits: DataSplits, given: nn.Module | None = None) -> nn.Module:
    """The network with starting weights, or a copy of one that is given, after one image went through it.

    Raises:
        ModelError: The network cannot be built or does not fit the data.
    """
    info = splits.info
    model = _built(config, splits) if given is None else own_copy(given)
    images, _ = image_tensor(splits.train.take(np.arange(1)), _CPU)
    try:
        with evaluating(model), torch.inference_mode():
            logits = model(Preprocess(info)(images))
    except Exception as error:  # whatever code of the user's raises
        raise ModelError(
            f"{config.model.factory!r} cannot read images of shape {info.image_shape}: {_said(error)}; "
            "choose another model.factory, or another size of the images (data.image_size for imagefolder); "
            "where it flattens by view, write torch.flatten(x, 1): images are channels-last in memory"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, info.num_classes):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(
            f"{config.model.factory!r} must give logits (n, {info.num_classes}) for these data; "
            f"for one image it gave {shape}"
        )
    if given is None or config.finetune.group_epochs or config.finetune.final_epochs:
        _check_training(config, model, splits)
    return model


def _said(error: Exception) -> str:
    """An error of code that is not ours: its text alone may be a bare key, or nothing."""
    return str(error) if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: {error}"


def _check_training(config: Config, model: nn.Module, splits: DataSplits) -> None:
    """Refuses a network that cannot compute in training mode, or gives something else there."""
    name, info = config.model.factory, splits.info
    for count in (_TRIED_IMAGES, config.finetune.batch_size):  # the whole batch only where few are not enough
        images, _ = image_tensor(splits.train.take(np.arange(min(count, len(splits.train)))), _CPU)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                outputs = copy.deepcopy(model).train()(Preprocess(info)(images))
            break
        except Exception as error:  # whatever code of the user's raises
            fault = error
    else:
        raise ModelError(f"{name!r} cannot compute in training mode: {_said(fault)}") from fault
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (len(images), info.num_classes):
        raise ModelError(
            f"{name!r} gives {type(outputs).__name__}, not logits (n, {info.num_classes}), in training mode; "
            "switch its auxiliary heads off (torchvision's: aux_logits=False, or false in model.arguments)"
        )


def _built(config: Config, splits: DataSplits) -> nn.Module:
    info = splits.info
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child_seed(config.seed, "base", "weights"))
        model = build_model(
            config.model.factory, config.model.arguments, info.num_classes, info.image_shape[0]
        )
    check_weights(model)
    return model


def _train(
    model: nn.Module, path: Path, config: Config, splits: DataSplits, progress: Callable[[str], None]
) -> None:
    """Train from the starting weights or the last whole epoch, and write the state dict."""
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    unfinished = path.with_suffix(".unfinished.pt")
    state: dict[str, Any] | None = None
    if unfinished.is_file():
        state = read_tensors(unfinished)
        progress(f"base model: continues the training kept in {unfinished}")
    last = time.monotonic()

    def on_epoch(report: EpochReport) -> None:
        nonlocal last
        write_tensors(unfinished, report.state)
        correct = correct_predictions(model, splits.val, splits.info, device=device, dtype=dtype)
        now = time.monotonic()
        seconds, last = (now - last) * (report.epochs - report.epoch), now
        progress(
            f"base model: epoch {report.epoch}/{report.epochs:g}, loss {report.loss:.3f}, "
            f"val {accuracy(correct):.2f} %, {seconds:.0f} s left"
        )

    fit(
        model,
        splits.train,
        splits.info,
        _schedule(config.base),
        device=device,
        dtype=dtype,
        seed=child_seed(config.seed, "base", "fit"),
        on_epoch=on_epoch,
        state=state,
    )
    write_tensors(path, {name: value.cpu().contiguous() for name, value in model.state_dict().items()})
    unfinished.unlink(missing_ok=True)


def _schedule(settings: BaseConfig) -> FitSchedule:
    return FitSchedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        warmup_share=_WARMUP_SHARE,
    )


def _majority(splits: DataSplits) -> tuple[str, float]:
    """The class that val holds most of, and percent of val that are of it."""
    counts = np.bincount(splits.val.labels, minlength=splits.info.num_classes)
    return splits.info.class_names[int(counts.argmax())], 100 * float(counts.max() / counts.sum())


def _is_imbalanced(splits: DataSplits) -> bool:
    return _majority(splits)[1] > IMBALANCE * 100 / splits.info.num_classes


def _chance(splits: DataSplits) -> float:
    """What a network that has learnt nothing scores on val, percent; more where one class prevails."""
    return _majority(splits)[1] if _is_imbalanced(splits) else 100 / splits.info.num_classes


def _warn_of_imbalance(splits: DataSplits, progress: Callable[[str], None]) -> None:
    if _is_imbalanced(splits):
        name, share = _majority(splits)
        progress(
            f"warning: {share:.1f} % of val is of class {name!r}; a network that always answers so scores "
            "that much: it is taken as chance. Accuracies and drops count images, not classes; "
            "rare classes may vanish unnoticed"
        )


def _check_floor(base: BaseModel, config: Config, splits: DataSplits) -> None:
    """Refuse to prune a network that has hardly learnt anything."""
    chance = _chance(splits)
    needed = min(config.base.floor * chance, (100 + chance) / 2)
    if base.accuracy_val < needed and not config.base.allow_weak:
        raise ModelError(
            f"the base model {base.path or config.model.factory} is hardly better than chance: "
            f"{base.accuracy_val:.2f} % on {len(splits.val):,} val images, chance {chance:.2f} %, "
            f"needed {needed:.2f} % (base.floor {config.base.floor:g} x chance, at most half-way from chance "
            "to 100 %). Check that the weights belong to these data and their normalisation, train longer "
            "(base.epochs), or go on all the same with --allow-weak-base"
        )
