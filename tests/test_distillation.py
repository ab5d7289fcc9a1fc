"""Fine-tuning with the base model as teacher."""

import copy
from typing import Any

import pytest
import torch
from tiny_network import SETTINGS
from torch import nn

from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.pruning_run import PruningRun
from rlprune.training.distillation import Distillation
from rlprune.tuned_base import tune_base
from rlprune.workbench import Workbench


def bench_of(splits: DataSplits, teacher: nn.Module | None, **changes: Any) -> Workbench:
    named = {f"finetune.{name}": value for name, value in changes.items()}
    bench = Workbench(load_config(None, SETTINGS | named), splits.sealed())
    bench.teacher = teacher
    return bench


def test_the_loss_by_hand() -> None:
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    loss = torch.tensor(3.0)
    taught = Distillation(nn.Identity(), weight=0.25, temperature=2.0)
    p = torch.tensor([1.0, 0.0]).softmax(0)  # the student's, at temperature 2; the teacher's is its mirror
    divergence = (p[1] * (p[1] / p[0]).log() + p[0] * (p[0] / p[1]).log()).item()
    found = taught.mixed(loss, student, taught.targets(teacher)).item()
    assert found == pytest.approx(0.75 * 3 + 0.25 * 4 * divergence, rel=1e-5)
    assert taught.mixed(loss, teacher, teacher).item() == pytest.approx(0.75 * 3)


def test_the_teacher_alone_is_followed_and_is_left_as_it_is(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    """With the whole weight on a teacher that is wrong, the network unlearns what the labels say."""
    wrong = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in wrong[-1].parameters():
            parameter.copy_(parameter.roll(1, 0))  # each class is taken for the next
    before = {name: value.clone() for name, value in wrong.state_dict().items()}
    student = copy.deepcopy(tiny_model)
    bench = bench_of(digits_splits, wrong, distillation=1.0, learning_rate=0.1)
    start = bench.correct_val(student).mean()
    assert bench.fine_tune(student, 2.0, "here")
    assert bench.correct_val(student).mean() < start - 0.3
    for name, value in wrong.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_without_a_share_the_teacher_changes_nothing(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    torch.set_num_threads(1)
    students = []
    for teacher, share in ((None, 0.0), (tiny_model, 0.0), (tiny_model, 0.5)):
        students.append(copy.deepcopy(tiny_model))
        assert bench_of(digits_splits, teacher, distillation=share).fine_tune(students[-1], 0.2, "here")
    first, second, third = (student.state_dict()["0.weight"] for student in students)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_share_without_a_teacher_is_a_fault_of_ours(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    with pytest.raises(AssertionError, match="teacher"):
        bench_of(digits_splits, None, distillation=0.5).fine_tune(tiny_model, 0.1, "here")


def test_runs_and_the_tuned_base_have_the_base_model_as_teacher(
    tiny_model: nn.Module, digits_splits: DataSplits
) -> None:
    bench = bench_of(digits_splits, None, distillation=0.5)
    tune_base(bench, tiny_model, 0.1)
    assert bench.teacher is tiny_model
    config = load_config(None, SETTINGS | {"finetune.distillation": 0.5})
    run = PruningRun(config, tiny_model, digits_splits.sealed())
    state = run.state_dict()
    empty = [report_of(name) for name in state["order"]]
    run.load_state_dict({**state, "reports": empty})
    assert run.step().group == "final fine-tuning"


def report_of(group: str) -> dict[str, Any]:
    """The report of a group that stayed whole."""
    figures = dict.fromkeys(("filter_keep_ratio", "macs_ratio", "params_ratio"), 1.0)
    counts = dict.fromkeys(("step", "n_steps", "filters", "kept", "candidates_tried", "evaluations"), 1)
    return {"group": group, "accuracy_val": 90.0, "drop_val": 0.0, "seconds": 0.0, **figures, **counts}
