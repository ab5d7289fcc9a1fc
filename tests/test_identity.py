"""A run is only resumed on the images and from the base model that it was started with."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rlprune.config import Config
from rlprune.errors import ResultsError
from rlprune.identity import check_identity, identity, with_kept_base
from rlprune.results.folder import BASE, ENVIRONMENT, RunFolder
from rlprune.training.base import BaseModel


def base_model(model: nn.Module) -> BaseModel:
    return BaseModel(model, torch.ones(3, dtype=torch.bool).numpy(), 100.0, Path("base.pt"))


def test_a_changed_base_model_or_changed_images_are_refused(tmp_path, digits_splits):
    model = nn.Linear(3, 2)
    found = identity(digits_splits, base_model(model))
    folder = RunFolder.create(tmp_path / "run", {}, json.loads(json.dumps(found)))
    check_identity(folder, identity(digits_splits, base_model(copy.deepcopy(model))))
    with torch.no_grad():
        model.weight[0, 0] += 1e-3
    with pytest.raises(ResultsError, match="base model's weights"):
        check_identity(folder, identity(digits_splits, base_model(model)))
    other = dataclasses.replace(digits_splits, fingerprint="0" * 32)
    with pytest.raises(ResultsError, match="images"):
        check_identity(folder, found | identity(other, base_model(nn.Linear(3, 2))))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "is missing, which says what images"), ("{", "Expecting"), ("[1]", "expected a JSON object")],
)
def test_a_folder_that_does_not_say_what_it_was_started_with_is_refused(tmp_path, content, expected):
    found = {"data_fingerprint": "a", "base_fingerprint": "b"}
    folder = RunFolder.create(tmp_path / "run", {}, found)
    check_identity(folder, found)
    (folder.path / ENVIRONMENT).unlink()
    if content is not None:
        (folder.path / ENVIRONMENT).write_text(content)
    with pytest.raises(ResultsError, match=rf"env\.json.*{expected}"):
        check_identity(folder, found)


def test_the_base_model_that_a_folder_keeps_comes_before_the_file_of_the_settings(tmp_path):
    folder, config = RunFolder.create(tmp_path / "run", {}, {}), Config()
    config = dataclasses.replace(config, base=dataclasses.replace(config.base, checkpoint="gone.pt"))
    assert with_kept_base(config, folder) == config
    (folder.path / BASE).touch()
    assert with_kept_base(config, folder).base.checkpoint == str(folder.path / BASE)
