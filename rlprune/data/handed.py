"""Images that a Python program hands over: arrays, tensors or map-style datasets, to the splits of a run."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from rlprune.config_loading import load_config
from rlprune.data.decoding import check_depth
from rlprune.data.normalisation import (
    augmentation_faults,
    check_same_classes,
    crop_padding_for,
    keeps_class_when_mirrored,
    numbered_classes,
)
from rlprune.data.sources import IN_MEMORY, check_streaming, load_splits
from rlprune.data.splits import DataSplits, ImageSplit, RawData, fingerprint
from rlprune.data.splitting import make_splits
from rlprune.errors import ConfigError, DataError

Images: TypeAlias = Any
"""``(images, labels)``, two arrays or tensors; or a map-style dataset of ``(image, label)``."""

_ITEM = "expected (image, label) or a dict with image (or img) and label (or labels)"
_CHANNELS = (1, 3)
_ROUNDING = 1e-3
"""How far from a whole number 255 x may be for x to be taken as a uint8 that was divided by 255."""


def splits(
    train: Images | str,
    val: Images | None = None,
    test: Images | None = None,
    *,
    class_names: Sequence[str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    flip: bool | None = None,
    crop_padding: int | None = None,
    **settings: Any,
) -> DataSplits:
    """The four splits of a run (train, reward, val, test) from images that you have in Python.

    Images come as they were decoded, and all of one size: uint8, or floats that are uint8 / 255 (what
    ``ToTensor`` gives). Leave ``Normalize`` and random transforms out of a dataset and give ``mean`` and
    ``std`` instead: rlprune augments and normalises by itself. Equal images never sit in two splits.

    Args:
        train: Images to train on, in one of these forms: ``(images, labels)``, arrays or tensors, ``images``
            of shape ``(n, c, h, w)``, ``(n, h, w, c)`` or ``(n, h, w)`` and ``labels`` ``(n,)``; a dataset
            with a length whose items are ``(image, label)`` or a dict with ``image`` (or ``img``) and
            ``label`` (or ``labels``), for example torchvision's, Hugging Face's or your own; or a name as in
            ``data.source``: ``"digits"``, ``"imagefolder:~/photos"``, ``"package.module:factory"``. The
            reward split is held out from it.
        val: Images that the network was not trained on, in the same form. None: held out from ``train``,
            which is only right if the network was not trained on all of that.
        test: The same for the final figures.
        class_names: One name for each label. None: ``train.classes``, or the labels as digits.
        mean: Mean of ``x / 255`` that the network was trained with, one number or one a channel. None:
            computed from train.
        std: The same for the standard deviation. ``mean=0, std=1`` is for a network that takes ``x / 255``.
        flip: Whether a mirrored image is still of its class. None: by the class names (not for digits,
            letters, left and right).
        crop_padding: Pixels by which training images are shifted at most, below their height and width.
            None: an eighth of the shorter side.
        **settings: Settings of the section ``data``, for example ``image_size=64`` or ``val_fraction=0.1``.

    Raises:
        ConfigError: A setting is unknown or out of range.
        DataError: The images cannot be read or split; says which and what to do.
    """
    source = train if isinstance(train, str) else IN_MEMORY
    config = load_config(None, {"data.source": source, **_named(settings)}).data
    if isinstance(train, str):
        if val is not None or test is not None or class_names is not None:
            raise ConfigError(f"val, test and class_names come with the source {train!r}: leave them out")
        made = load_splits(config)
    else:
        check_streaming(config)
        made = make_splits(_raw(train, val, test, class_names), config)
    return _with_info(made, mean=mean, std=std, flip=flip, crop_padding=crop_padding)


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    return {f"data.{name}": value for name, value in settings.items()}


def _raw(
    train: Images, val: Images | None, test: Images | None, class_names: Sequence[str] | None
) -> RawData:
    parts = {
        name: _split(name, images)
        for name, images in (("train", train), ("val", val), ("test", test))
        if images is not None or name == "train"
    }
    said = class_names is not None
    if class_names is None:
        class_names = getattr(train, "classes", None)
    if class_names is None:
        class_names = numbered_classes(
            "train", "name the classes with class_names=", *(part.labels for part in parts.values())
        )
    if isinstance(class_names, str) or not isinstance(class_names, Iterable):
        raise ConfigError(
            f"class_names or train.classes: expected one name for each label; got {class_names!r}"
        )
    names = tuple(str(name) for name in class_names)
    if not said:
        for name, images in (("val", val), ("test", test)):
            own = tuple(map(str, getattr(images, "classes", names)))
            check_same_classes(name, own, names, "say with class_names= what the labels of all parts mean")
    return RawData(
        train=parts["train"],
        val=parts.get("val"),
        test=parts.get("test"),
        class_names=names,
        flip=keeps_class_when_mirrored(names),
        crop_padding=crop_padding_for(*parts["train"].images.shape[2:]),
    )


def _split(name: str, images: Images) -> ImageSplit:
    """Images and labels of one split."""
    if isinstance(images, tuple | list) and len(images) == 2:
        pixels, labels = (_array(name, part) for part in images)
        return ImageSplit(_channels_first(name, _uint8(name, pixels)), _labels(name, labels))
    if isinstance(images, Mapping) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise DataError(
            f"{name}: expected (images, labels) or a dataset with a length whose items are (image, label); "
            f"got {type(images).__name__}"
        )
    return _read_dataset(name, images)


def _read_dataset(name: str, dataset: Any) -> ImageSplit:
    """All items of a map-style dataset."""
    pixels: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for index in range(len(dataset)):
        where = f"{name}, item {index}"
        try:
            item = dataset[index]
            if isinstance(item, Mapping):
                item = (item.get("image", item.get("img")), item.get("label", item.get("labels")))
            image, label = item
        except (TypeError, ValueError, LookupError) as error:
            raise DataError(f"{where}: {_ITEM}: {error}") from error
        if image is None or label is None:
            raise DataError(f"{where} has no {'image' if image is None else 'label'}; {_ITEM}")
        if hasattr(image, "convert"):
            check_depth(image.mode, where)
            if image.mode not in ("RGB", "L"):  # palettes, transparent pictures
                image = image.convert("RGB")
        pixels.append(_channels_first(where, _uint8(where, _array(where, image)[None]))[0])
        labels.append(_array(where, label))
        if pixels[-1].shape != pixels[0].shape:
            raise DataError(
                f"{where}: its shape is {pixels[-1].shape}, that of item 0 {pixels[0].shape}; give the "
                "dataset a transform that brings all images to one shape"
            )
    if not pixels:
        raise DataError(f"{name} holds no images")
    return ImageSplit(np.stack(pixels), _labels(name, _array(f"{name}, labels", labels)))


def _array(where: str, value: Any) -> np.ndarray:
    """An array, tensor on any device, picture or number as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:  # bfloat16, or a list of arrays of several shapes
        raise DataError(
            f"{where}: {type(value).__name__} cannot be made an array ({error}); give uint8 or float32 "
            "images, all of one shape, and whole numbers as labels"
        ) from error


def _uint8(where: str, pixels: np.ndarray) -> np.ndarray:
    """Pixel values as uint8, also from floats that are uint8 / 255."""
    if pixels.dtype == np.uint8:
        return pixels
    if np.issubdtype(pixels.dtype, np.floating) and pixels.size:
        scaled = pixels * 255.0
        whole = scaled.round()
        if whole.min() >= 0 and whole.max() <= 255 and np.abs(scaled - whole).max() < _ROUNDING:
            return whole.astype(np.uint8)
    numbers = pixels.size and np.issubdtype(pixels.dtype, np.number)
    found = f" with values {pixels.min():.3g} to {pixels.max():.3g}" if numbers else ""
    raise DataError(
        f"{where}: expected uint8 images, or floats that are uint8 / 255; got {pixels.dtype}{found}. "
        "Leave Normalize and random transforms out, and give mean= and std= instead"
    )


def _channels_first(where: str, pixels: np.ndarray) -> np.ndarray:
    """Images ``(n, c, h, w)`` from these, ``(n, h, w, c)`` or ``(n, h, w)``."""
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels[:, None])
    if pixels.ndim == 4 and pixels.shape[1] in _CHANNELS:
        return np.ascontiguousarray(pixels)
    if pixels.ndim == 4 and pixels.shape[3] in _CHANNELS:
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    raise DataError(
        f"{where}: expected images (n, c, h, w), (n, h, w, c) or (n, h, w) with 1 or 3 channels; "
        f"got shape {pixels.shape}"
    )


def _labels(name: str, labels: np.ndarray) -> np.ndarray:
    """Labels int64 ``(n,)``."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not (np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1):
        raise DataError(
            f"{name}: expected whole numbers as labels, one an image; got {labels.dtype} {labels.shape}"
        )
    return labels.astype(np.int64)


def _with_info(
    made: DataSplits,
    *,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    flip: bool | None,
    crop_padding: int | None,
) -> DataSplits:
    """The splits with what was said of them instead of what was found."""
    info = made.info
    channels = info.image_shape[0]
    given: dict[str, Any] = {
        "mean": None if mean is None else _per_channel("mean", mean, channels),
        "std": None if std is None else _per_channel("std", std, channels),
        "flip": flip,
        "crop_padding": crop_padding,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed:
        return made
    info = dataclasses.replace(info, **changed)
    faults = augmentation_faults(info.flip, info.crop_padding, info.image_shape)
    if min(info.std) <= 0:
        faults.append(f"std: expected numbers above 0; got {info.std}")
    if faults:
        raise ConfigError(faults)
    info = dataclasses.replace(info, flip=bool(info.flip), crop_padding=int(info.crop_padding))
    parts = {name: part for name in ("train", "reward", "val") if (part := made.split(name))}
    if made.test is not None:
        parts["test"] = made.test
    return dataclasses.replace(made, info=info, fingerprint=fingerprint(parts, info))


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    try:
        values = tuple(float(item) for item in np.atleast_1d(np.asarray(value, dtype=float)))
    except (TypeError, ValueError):  # not numbers
        values = ()
    values = values * channels if len(values) == 1 else values
    if len(values) != channels or not np.isfinite(values).all():
        raise ConfigError(
            f"{name}: expected one number or one for each of {channels} channels; got {value!r}"
        )
    return values
