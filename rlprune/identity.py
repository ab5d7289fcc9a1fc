"""What a run must find unchanged when it is resumed."""

import dataclasses
import hashlib

from rlprune.config import Config
from rlprune.data import DataSplits
from rlprune.errors import ResultsError
from rlprune.results.folder import BASE, ENVIRONMENT, RunFolder
from rlprune.training.base import BaseModel


def identity(splits: DataSplits, base: BaseModel) -> dict[str, str]:
    """Hashes of the images and of the base model's weights: what a resumed run must find unchanged."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in base.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {"data_fingerprint": splits.fingerprint, "base_fingerprint": digest.hexdigest()}


def with_base(config: Config, checkpoint: str) -> Config:
    """The settings with the file of the base model."""
    return dataclasses.replace(config, base=dataclasses.replace(config.base, checkpoint=checkpoint))


def with_kept_base(config: Config, folder: RunFolder) -> Config:
    """The settings with the base model that the run folder keeps: the file that it came from may be gone."""
    kept = folder.path / BASE
    return with_base(config, str(kept)) if kept.is_file() else config


def check_identity(folder: RunFolder, found: dict[str, str]) -> None:
    """Refuses to go on with a run on other images or from another base model.

    Raises:
        ResultsError: One of the two has changed since the run was started, or the folder does not say.
    """
    if not (folder.path / ENVIRONMENT).is_file():
        raise ResultsError(
            f"{folder.path / ENVIRONMENT} is missing, which says what images and base model the run was "
            "started with; put it back, or start a new run with another --name"
        )
    known = folder.environment()
    for name, what in (("data_fingerprint", "images"), ("base_fingerprint", "base model's weights")):
        if known.get(name, found[name]) != found[name]:
            raise ResultsError(
                f"{folder.path}: the {what} are not those that the run was started with; bring them back, "
                "or start a new run with another --name"
            )
