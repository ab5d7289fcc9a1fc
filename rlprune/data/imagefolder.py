"""A folder a class: ``DIR/train/CLASS/*`` with optional ``DIR/val`` and ``DIR/test``, or ``DIR/CLASS/*``."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlprune.config import DataConfig
from rlprune.data.decoding import check_memory
from rlprune.data.facts import facts_of, facts_of_files
from rlprune.data.files import IN_MEMORY_HINT, ImageFiles
from rlprune.data.holding import memory_for_images
from rlprune.data.normalisation import crop_padding_for, keeps_class_when_mirrored
from rlprune.data.splits import ImageSplit, RawData
from rlprune.errors import DataError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_ENDINGS = ", ".join(sorted(_SUFFIXES))
_AT_ONCE = 64
"""Decoded images that memory must have room for where they are streamed."""
_VAL_NAMES = ("val", "validation", "valid")
_NAMES_OF_SPLITS = frozenset({"train", "training", *_VAL_NAMES, "test", "testing"})


def read_image_folder(folder: Path, config: DataConfig) -> RawData:
    """The images, resized to ``image_size`` pixels both ways; classes in the order of their names.

    Args:
        folder: The folder.
        config: How images are resized, and whether they are held in memory.

    Raises:
        DataError: The folder is not laid out as expected, or files cannot be decoded: names them.
    """
    if not folder.is_dir():
        raise DataError(f"imagefolder:{folder}: no such folder; expected one folder of images for each class")
    places = _places(folder)
    names = _class_names(places["train"])
    found = {part: _listed(folder, place, names) for part, place in places.items()}
    empty = [names[label] for label in np.setdiff1d(np.arange(len(names)), found["train"][1])]
    if empty:
        raise DataError(
            f"{places['train']}: no images ({_ENDINGS}) of class {', '.join(empty)}; add some, or leave the "
            "class out"
        )
    parts = _read(folder, found, config)
    return RawData(
        train=parts["train"],
        val=parts.get("val"),
        test=parts.get("test"),
        class_names=names,
        flip=keeps_class_when_mirrored(names),
        crop_padding=crop_padding_for(config.image_size),
    )


def _places(folder: Path) -> dict[str, Path]:
    """The folders of train and, where there are any, of val and test."""
    if not (folder / "train").is_dir():
        names = sorted(_folders(folder))
        if names and all(name.lower() in _NAMES_OF_SPLITS for name in names):
            raise DataError(
                f"imagefolder:{folder}: {', '.join(names)}: named like splits, not like classes; expected "
                "DIR/train/CLASS/* with optional DIR/val and DIR/test (so spelt), or DIR/CLASS/*; rename them"
            )
        return {"train": folder}
    places = {"train": folder / "train"}
    for name in (*_VAL_NAMES, "test"):
        part = "test" if name == "test" else "val"
        if (folder / name).is_dir():
            places.setdefault(part, folder / name)
    return places


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(_folders(root)))
    if len(names) < 2:
        raise DataError(
            f"{root}: expected one folder of images for each class, two or more; it holds {len(names)}"
        )
    return names


def _folders(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _listed(folder: Path, root: Path, class_names: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """Paths below the folder of the images of one of its parts, and their labels."""
    unknown = sorted(_folders(root) - set(class_names))
    if unknown:
        raise DataError(f"{root}: train has no class {', '.join(unknown)}; expected {', '.join(class_names)}")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        inside = sorted(_images_below(root / name), key=lambda path: path.split(os.sep))
        files += [os.path.relpath(path, folder) for path in inside]
        labels += [label] * len(inside)
    if not files:
        raise DataError(f"{root}: its class folders hold no images ({_ENDINGS})")
    return files, labels


def _unreadable(error: OSError) -> None:
    """Refuses a folder that cannot be looked into; one that is missing has no images, said later."""
    if not isinstance(error, FileNotFoundError):
        raise DataError(
            f"{error.filename}: {error.strerror}; make the folder readable, or take it away"
        ) from error


def _images_below(place: Path) -> Iterator[str]:
    """Images in a folder and those in it, links included, without hidden ones (``._1.jpg`` of macOS).

    A folder that is reached again is passed over.
    """
    seen = set()
    for folder, inner, names in os.walk(place, followlinks=True, onerror=_unreadable):
        inner.sort()
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        for name in names:
            if os.path.splitext(name)[1].lower() in _SUFFIXES and not name.startswith("."):
                yield os.path.join(folder, name)


def _read(
    folder: Path, found: dict[str, tuple[list[str], list[int]]], config: DataConfig
) -> dict[str, ImageSplit]:
    """The parts, in memory or streamed; both know the same of each image."""
    names = np.array([os.fsencode(name) for files, _ in found.values() for name in files])
    every = ImageFiles(folder.absolute(), names, config.image_size, crop=config.resize == "crop")
    streams = config.stream == "always" or (config.stream == "auto" and every.nbytes > memory_for_images())
    facts = None
    check_memory(
        min(len(every), _AT_ONCE) if streams else len(every),
        config.image_size,
        config.image_size,
        "lower data.image_size" if streams else IN_MEMORY_HINT,
    )
    if streams:
        facts = facts_of_files(every, Path(config.root).expanduser() / "folders")
    parts: dict[str, ImageSplit] = {}
    start, faults = 0, []
    for part, (files, labels) in found.items():
        rows = slice(start, start + len(files))
        start = rows.stop
        images, known = every.take(rows), np.array(labels, dtype=np.int64)
        if facts is not None:
            parts[part] = ImageSplit(images, known, facts.take(rows))
            continue
        try:
            held = images[:]
            parts[part] = ImageSplit(held, known, facts_of(held))
        except DataError as error:  # those of the other parts are told as well
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return parts
