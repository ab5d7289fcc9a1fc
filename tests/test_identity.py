"""A run is only resumed on the images and from the base model that it was started with."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rlprune.errors import ResultsError
from rlprune.identity import check_identity, identity
from rlprune.results.folder import RunFolder
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
