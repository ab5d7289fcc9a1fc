"""From a source's images to the four splits: stratified, disjoint, seeded."""

import numpy as np

from rlprune.config import DataConfig
from rlprune.data.normalisation import augmentation_faults, channel_statistics
from rlprune.data.splits import DataInfo, DataSplits, ImageSplit, RawData, fingerprint
from rlprune.errors import DataError
from rlprune.seeding import generator


def make_splits(raw: RawData, config: DataConfig) -> DataSplits:
    """Split a source's images into train, reward, val and test.

    Equal images never sit in two splits: copies of an image are kept together, and an image that the source
    has in several of its own splits stays only in test, or else in val.

    Raises:
        DataError: The images cannot be split: wrong shape or labels, one class, too few images of a class.
    """
    _check(raw, config.source)
    test, val, pool = raw.test, raw.val, raw.train
    if val is not None:
        pool = _without(pool, val)  # what is held out of the rest leaves val as it is
    if test is not None:
        pool = _without(pool, test)
    else:
        pool, test = _hold_out(pool, config.test_fraction, "test", raw, config)
    if val is not None:
        val = _without(val, test)
        if len(val) == 0:
            raise DataError(f"{config.source}: all validation images are also test images; use other ones")
    else:
        pool, val = _hold_out(pool, config.val_fraction / _share_left(raw, config), "val", raw, config)
    train, reward = _hold_out(pool, config.reward_fraction, "reward", raw, config)
    mean, std = channel_statistics(train, raw.class_names)
    mean = given_per_channel("data.mean", config.mean, mean)
    std = given_per_channel("data.std", config.std, std)
    info = DataInfo(
        class_names=raw.class_names,
        mean=mean,
        std=std,
        flip=raw.flip,
        crop_padding=raw.crop_padding,
        source=config.source,
        image_shape=train.images.shape[1:],
    )
    parts = {"train": train, "reward": reward, "val": val, "test": test}
    return DataSplits(train, reward, val, test, info, fingerprint(parts, info))


def given_per_channel(name: str, given: tuple[float, ...], found: tuple[float, ...]) -> tuple[float, ...]:
    """What the user gave, for each channel; what was found where nothing was given."""
    if not given:
        return found
    values = given * len(found) if len(given) == 1 else given
    if len(values) != len(found):
        raise DataError(f"{name}: expected one number or one for each of {len(found)} channels; got {given}")
    return values


def _share_left(raw: RawData, config: DataConfig) -> float:
    """The share of the source's images left after test, so that both fractions are of the whole."""
    share = 1.0 if raw.test is not None else 1.0 - config.test_fraction
    if config.val_fraction >= share:
        raise DataError(
            f"data.val_fraction {config.val_fraction:g} and data.test_fraction {config.test_fraction:g} "
            "leave nothing to train on; together they must stay below 1"
        )
    return share


def _without(split: ImageSplit, other: ImageSplit) -> ImageSplit:
    """The images of a split that the other does not hold."""
    shared = np.isin(split.hashes(), other.hashes())
    return split.take(~shared) if shared.any() else split


def _hold_out(
    pool: ImageSplit, fraction: float, name: str, raw: RawData, config: DataConfig
) -> tuple[ImageSplit, ImageSplit]:
    """The rest and the held-out part: of every class that share of distinct images, with their copies."""
    _, first, image_of_row = np.unique(pool.hashes(), return_index=True, return_inverse=True)
    labels = pool.labels[first]
    rng = generator(config.split_seed, "split", name)
    held = np.zeros(len(first), dtype=bool)
    for label in range(len(raw.class_names)):
        members = np.flatnonzero(labels == label)
        if len(members) == 0 and not (raw.train.labels == label).any():
            continue
        if len(members) < 2:
            raise DataError(
                f"{config.source}: class {raw.class_names[label]!r} has {len(members)} distinct image(s) "
                f"left for train and {name}, which need one each; add images of this class or leave it out"
            )
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        # Sorted by hash, so that the split does not depend on the order of the rows.
        held[rng.permutation(members)[:count]] = True
    rows = held[image_of_row]
    return pool.take(~rows), pool.take(rows)


def _check(raw: RawData, source: str) -> None:
    """Refuse images and labels that no split can be made of."""
    named = {"train": raw.train, "val": raw.val, "test": raw.test}
    shape = raw.train.images.shape[1:]
    for name, split in named.items():
        if split is None:
            continue
        if len(split) == 0:
            raise DataError(f"{source}: {name} holds no images")
        if split.images.dtype != np.uint8 or split.images.ndim != 4 or split.images.shape[1:] != shape:
            raise DataError(
                f"{source}: {name} must be uint8 images (n, c, h, w) of one shape {shape}; "
                f"got {split.images.dtype} {split.images.shape}"
            )
        if split.labels.shape != (len(split.images),) or split.labels.dtype != np.int64:
            raise DataError(
                f"{source}: {name} needs int64 labels ({len(split.images)},); "
                f"got {split.labels.dtype} {split.labels.shape}"
            )
        if split.labels.min() < 0 or split.labels.max() >= len(raw.class_names):
            row = int(np.flatnonzero((split.labels < 0) | (split.labels >= len(raw.class_names)))[0])
            raise DataError(
                f"{source}: {name}, row {row}: label {split.labels[row]} is not one of the "
                f"{len(raw.class_names)} classes, 0 to {len(raw.class_names) - 1}"
            )
    if faults := augmentation_faults(raw.flip, raw.crop_padding, shape):
        raise DataError(f"{source}: {'; '.join(faults)}")
    found = np.unique(raw.train.labels)
    if len(found) < 2:
        raise DataError(
            f"{source}: all training images are of one class ({raw.class_names[found[0]]!r}); "
            "two or more are needed"
        )
