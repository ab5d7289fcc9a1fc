"""The Hugging Face layout of image classification: parquet files with an encoded image and a label a row."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlprune.data.decoding import decode_images
from rlprune.data.normalisation import (
    check_same_classes,
    crop_padding_for,
    keeps_class_when_mirrored,
    numbered_classes,
)
from rlprune.data.splits import ImageSplit, RawData
from rlprune.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_LAYOUT = "columns image: struct<bytes: binary, path: string> and label: int64"


def read_parquet(folder: Path) -> RawData:
    """Read ``train.parquet`` and, if present, ``validation.parquet`` and ``test.parquet``."""
    if not folder.is_dir():
        raise DataError(f"parquet:{folder}: no such folder; expected one that holds train.parquet")
    if not (folder / "train.parquet").is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise DataError(f"parquet:{folder}: expected train.parquet in this folder; it holds {found}")
    train, names = _read_file(folder / "train.parquet")
    others = []
    for name in ("validation", "test"):
        path = folder / f"{name}.parquet"
        split, own = _read_file(path) if path.is_file() else (None, ())
        if own and names:
            check_same_classes(str(path), own, names, "name no classes in the schema's metadata of one")
        others.append(split)
    splits = [split for split in (train, *others) if split is not None]
    if not names:
        names = numbered_classes(
            str(folder / "train.parquet"),
            "name the classes in the schema's metadata",
            *(split.labels for split in splits),
        )
    return RawData(
        train=train,
        val=others[0],
        test=others[1],
        class_names=names,
        flip=keeps_class_when_mirrored(names),
        crop_padding=crop_padding_for(*train.images.shape[2:]),
    )


def _read_file(path: Path) -> tuple[ImageSplit, tuple[str, ...]]:
    """The images of one file and its class names (empty where it has none)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as parquet ({reason}); write it again") from error
    _check_columns(path, table.schema)
    if table.num_rows == 0:
        raise DataError(f"{path} holds no rows; expected one image a row")
    labels = _labels(path, table)
    encoded = pa.compute.struct_field(table.column("image"), "bytes").to_pylist()
    images = decode_images(encoded, lambda row: f"{path}, row {row}: image")
    return ImageSplit(images, labels), _class_names(table.schema)


def _check_columns(path: Path, schema: "pa.Schema") -> None:
    import pyarrow as pa

    columns = {field.name: field.type for field in schema}
    shown = ", ".join(f"{name}: {kind}" for name, kind in columns.items())
    image, label = columns.get("image"), columns.get("label")
    if image is None or label is None:
        raise DataError(f"{path}: expected {_LAYOUT}; got {shown}; rename the columns")
    if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise DataError(f"{path}: column image must be a struct with the field bytes; it is {image}")
    content = image.field("bytes").type
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
        raise DataError(f"{path}: the field bytes of column image must be binary; it is {content}")
    if not pa.types.is_integer(label):
        raise DataError(f"{path}: column label must hold integers from 0; it is {label}")


def _labels(path: Path, table: "pa.Table") -> np.ndarray:
    column = table.column("label")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{path}, row {row}: label is missing; give every image a label or leave the row out")
    labels = column.to_numpy().astype(np.int64)
    if labels.min() < 0:
        row = int(np.flatnonzero(labels < 0)[0])
        raise DataError(f"{path}, row {row}: label {labels[row]} is negative; labels count from 0")
    return labels


def _class_names(schema: "pa.Schema") -> tuple[str, ...]:
    """From the metadata: our ``class_names`` (comma separated), or what the ``datasets`` library writes."""
    metadata = schema.metadata or {}
    if b"class_names" in metadata:
        return tuple(name.strip() for name in metadata[b"class_names"].decode().split(","))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return tuple(features.get("label", {}).get("names", ()))
