"""Files of tensors, numbers and strings: written whole or not at all, read without running any code."""

import os
import pickle
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlprune.errors import CheckpointError

_SIGNS_OF_DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, zlib.error)


def write_tensors(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts; readers see the old file or the new, never a part.

    Raises:
        CheckpointError: The folder cannot be made or written to.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # not tempfile: its files can be read by their owner only, and the rename would keep that
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        with temporary.open("xb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error}); choose another folder or free space"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_tensors` wrote, onto the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or holds other things than tensors and plain values.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name a file, such as models/t0000.pt of a run")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load reads past the check sums
            damaged = archive.testzip()
            marked = [entry.filename for entry in archive.infolist() if entry.external_attr]
        if damaged is not None:
            raise ValueError(f"{damaged} does not fit its check sum")
        if marked:  # as a folder, say: torch.load would leave such a tensor's memory as it found it
            raise ValueError(f"{marked[0]} has attributes, which torch.save gives to none")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*_SIGNS_OF_DAMAGE, OSError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is damaged or not one of rlprune's files ({reason}); delete it or restore a copy"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not one of rlprune's files: it holds a {type(content).__name__}")
    return content
