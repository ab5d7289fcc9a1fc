"""Network files as safetensors beside JSON: for those who want no pickle at all, or no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import CheckpointError, ConfigError

SUFFIX = ".safetensors"


def header_path(path: Path) -> Path:
    """The JSON file that belongs to a file of tensors."""
    return path.with_suffix(".json")


def write_safetensors(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes ``NAME.safetensors`` and ``NAME.json``.

    Args:
        path: ``NAME.safetensors`` in a folder that is there.
        state: Tensors by name.
        header: What the JSON holds.

    Raises:
        CheckpointError: The files cannot be written.
        ConfigError: The package safetensors is missing.
    """
    # contiguous copies of their own: safetensors refuses tensors that share memory
    own = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    try:
        _safetensors().torch.save_file(own, path)
        header_path(path).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        path.chmod(header_path(path).stat().st_mode)  # safetensors lets nobody but the owner read it
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error}); choose another folder or free space"
        ) from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header that :func:`write_safetensors` wrote.

    Raises:
        CheckpointError: One of the two files is missing or damaged.
        ConfigError: The package safetensors is missing.
    """
    library = _safetensors()
    for file in (path, header_path(path)):
        if not file.is_file():
            raise CheckpointError(
                f"{file}: no such file; {path.name} and {header_path(path).name} go together"
            )
    try:
        header = json.loads(header_path(path).read_text(encoding="utf-8"))
        if not isinstance(header, dict):
            raise ValueError(f"expected an object; got {type(header).__name__}")
    except ValueError as error:
        raise CheckpointError(f"{header_path(path)} is damaged: {error}") from error
    try:
        return library.torch.load_file(path), header
    except (library.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error})") from error


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ConfigError(
            "files of safetensors need a package that is not installed: pip install 'rlprune[export]'"
        ) from error
    return safetensors
