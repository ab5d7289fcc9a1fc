"""From ``data.source`` to the splits of a run."""

import difflib
import importlib
from pathlib import Path

from rlprune.config import DataConfig
from rlprune.data.holding import with_held
from rlprune.data.splits import DataSplits, RawData
from rlprune.data.splitting import make_splits
from rlprune.data.torchvision_sets import SETS, read_torchvision
from rlprune.errors import DataError

IN_MEMORY = "memory"
"""What stands for ``data.source`` where a Python program handed over the images."""

_KINDS = ("digits", *SETS, "parquet", "imagefolder")
_KNOWN = ("digits", *SETS, "parquet:DIR", "imagefolder:DIR", "package.module:factory")


def load_splits(config: DataConfig) -> DataSplits:
    """Read the images of ``config.source`` and split them.

    Raises:
        DataError: The source is unknown, missing or damaged, or cannot be split; says where and what to do.
    """
    check_streaming(config)
    splits = make_splits(_read(config), config)
    return with_held(splits) if config.stream == "auto" else splits


def check_streaming(config: DataConfig) -> None:
    """Refuses ``stream: always`` for a source that has no files to stream."""
    if config.stream == "always" and config.source.partition(":")[0] != "imagefolder":
        raise DataError(
            f"data.stream always: only the files of imagefolder:DIR can be streamed; got {config.source!r}; "
            "write the images into one folder for each class (docs/large_folders.md), or leave it at auto"
        )


def anchored(source: str) -> str:
    """The same source with its folder as a full path, so that it can be found from any working directory."""
    kind, _, rest = source.partition(":")
    if kind in ("parquet", "imagefolder") and rest:
        return f"{kind}:{Path(rest).expanduser().resolve()}"
    return source


def names_factory(source: str) -> bool:
    """Whether a source is a ``package.module:factory``, which is imported and called."""
    kind, _, rest = source.partition(":")
    return bool(rest) and kind not in _KINDS


def _read(config: DataConfig) -> RawData:
    kind, _, rest = config.source.partition(":")
    if config.source == "digits":
        from rlprune.data.digits import read_digits

        return read_digits()
    if config.source in SETS:
        return read_torchvision(config.source, Path(config.root).expanduser())
    if kind == "parquet" and rest:
        from rlprune.data.parquet import read_parquet

        return read_parquet(Path(rest).expanduser())
    if kind == "imagefolder" and rest:
        from rlprune.data.imagefolder import read_image_folder

        return read_image_folder(Path(rest).expanduser(), config)
    if names_factory(config.source):
        return _call_factory(config.source, kind, rest)
    if config.source == IN_MEMORY:
        raise DataError(
            "data.source 'memory': the images were handed over by a Python program; name images with "
            "--data where the command has it, or go on in such a program"
        )
    names = [name.removesuffix("DIR") for name in _KNOWN]
    close = difflib.get_close_matches(config.source, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close and close[0] != config.source else ""
    raise DataError(f"data.source: expected {' | '.join(_KNOWN)}; got {config.source!r}{hint}")


def _call_factory(source: str, module_name: str, attribute: str) -> RawData:
    """The data of the user's own function, which is called without arguments."""
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError, TypeError, ValueError) as error:
        raise DataError(
            f"data.source {source!r}: cannot import {module_name!r} ({error}); "
            f"expected {' | '.join(_KNOWN)}; install the package or put its folder on PYTHONPATH"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise DataError(f"data.source {source!r}: {module_name} has no function {attribute!r}")
    raw = factory()
    if not isinstance(raw, RawData):
        raise DataError(
            f"data.source {source!r} must return rlprune.data.RawData; it returned {type(raw).__name__}"
        )
    return raw
