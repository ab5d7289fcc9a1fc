"""A folder a class: ``DIR/train/CLASS/*`` with optional ``DIR/val`` and ``DIR/test``, or ``DIR/CLASS/*``."""

from pathlib import Path

import numpy as np

from rlprune.data.decoding import decode_images
from rlprune.data.normalisation import crop_padding_for, keeps_class_when_mirrored
from rlprune.data.splits import ImageSplit, RawData
from rlprune.errors import DataError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_VAL_NAMES = ("val", "validation", "valid")


def read_image_folder(folder: Path, image_size: int) -> RawData:
    """Read the images, resized to ``image_size`` pixels both ways; classes in the order of their names."""
    if not folder.is_dir():
        raise DataError(f"imagefolder:{folder}: no such folder; expected one folder of images for each class")
    root = folder / "train" if (folder / "train").is_dir() else folder
    names = _class_names(root)
    parts: dict[str, ImageSplit] = {"train": _read(root, names, image_size)}
    if root != folder:
        for name in (*_VAL_NAMES, "test"):
            part = "test" if name == "test" else "val"
            if (folder / name).is_dir() and part not in parts:
                parts[part] = _read(folder / name, names, image_size)
    return RawData(
        train=parts["train"],
        val=parts.get("val"),
        test=parts.get("test"),
        class_names=names,
        flip=keeps_class_when_mirrored(names),
        crop_padding=crop_padding_for(image_size),
    )


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(
        sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    )
    if len(names) < 2:
        raise DataError(
            f"{root}: expected one folder of images for each class, two or more; it holds {len(names)}"
        )
    return names


def _read(root: Path, class_names: tuple[str, ...], image_size: int) -> ImageSplit:
    found = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
    unknown = sorted(found - set(class_names))
    if unknown:
        raise DataError(f"{root}: train has no class {', '.join(unknown)}; expected {', '.join(class_names)}")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        inside = sorted(path for path in (root / name).glob("**/*") if path.suffix.lower() in _SUFFIXES)
        files += inside
        labels += [label] * len(inside)
    if not files:
        raise DataError(f"{root}: its class folders hold no images ({', '.join(sorted(_SUFFIXES))})")
    images = decode_images(files, lambda index: str(files[index]), size=image_size)
    return ImageSplit(images, np.array(labels, dtype=np.int64))
