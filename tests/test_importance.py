"""Filter statistics and importance scores against plain computations on networks small enough to see."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlprune.config import AgentConfig
from rlprune.config_values import all_settings
from rlprune.models import resnet20
from rlprune.pruning.groups import FilterGroup, find_groups
from rlprune.pruning.importance import (
    BATCH_IMAGES,
    SCORES,
    FilterStatistics,
    filter_statistics,
    filter_weights,
    importance_scores,
)

N_IMAGES = 40


class Residual(nn.Module):
    """A stem, a branch around which the features lead, and two layers that read their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 3, 1)
        self.right = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.stem(images))
        total = torch.relu(stem + self.branch(stem))
        return (self.left(total) + self.right(total)).mean((2, 3))


class Added(nn.Module):
    """Two producers with a batch norm each are added; two layers read the sum, the first of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(5) for _ in range(2))
        self.left, self.right = nn.Conv2d(5, 4, 1), nn.Conv2d(5, 4, 1)
        self.head = nn.Linear(4, 3)

    def total(self, images: torch.Tensor) -> torch.Tensor:
        return self.norms[0](self.first(images)) + self.norms[1](self.second(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = self.total(images)
        return self.head((self.left(total) + self.left(total.relu()) + self.right(total)).mean((2, 3)))


def plain() -> nn.Sequential:
    """A group with batch norm that a convolution reads, and one without that a linear layer reads."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 3),
    )
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, -2.0, 1.0, 0.25]))
        model[1].bias.copy_(torch.tensor([0.3, 0.1, -0.2, 0.4]))
        model[1].running_mean.uniform_(-0.5, 0.5)
        model[1].running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(N_IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return torch.arange(N_IMAGES) % 3


def group_of(model: nn.Module, name: str) -> FilterGroup:
    groups = find_groups(model, torch.zeros(1, 3, 8, 8))
    return next(group for group in groups if name in [member.layer for member in group.with_role("producer")])


def statistics_of(
    model: nn.Module, name: str, images: torch.Tensor, labels: torch.Tensor
) -> FilterStatistics:
    return filter_statistics(model, group_of(model, name), images, labels)


def test_weight_norms_by_hand(images, labels):
    model = plain()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]).view(4, 1, 1, 1).expand(4, 3, 3, 3))
        model[0].weight[0, 0, 0, 0] = -3.0
    found = statistics_of(model, "0", images, labels)
    np.testing.assert_allclose(found.l1, [26 + 3, 54, 13.5, 0])
    np.testing.assert_allclose(found.l2, np.sqrt([26 + 9, 27 * 4, 27 / 4, 0]), rtol=1e-6)


def test_batch_norm_scale_and_shift_and_none(images, labels):
    model = plain()
    with_norm = statistics_of(model, "0", images, labels)
    np.testing.assert_allclose(with_norm.bn_scale, [0.5, 2.0, 1.0, 0.25])
    np.testing.assert_allclose(with_norm.bn_shift, [0.3, 0.1, -0.2, 0.4], rtol=1e-6)
    without = statistics_of(model, "3", images, labels)
    np.testing.assert_array_equal(without.bn_scale, np.ones(5))
    np.testing.assert_array_equal(without.bn_shift, np.zeros(5))


def test_what_the_next_layer_reads(images, labels):
    model = plain()
    conv = model[3].weight.detach().numpy().astype(float)
    expected = [np.sqrt((conv[:, index] ** 2).sum()) for index in range(4)]
    np.testing.assert_allclose(statistics_of(model, "0", images, labels).read, expected, rtol=1e-6)
    linear = model[7].weight.detach().numpy().astype(float)
    expected = [np.sqrt((linear[:, 4 * index : 4 * index + 4] ** 2).sum()) for index in range(5)]
    np.testing.assert_allclose(statistics_of(model, "3", images, labels).read, expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "reads_from"), [("0", 3), ("3", 7)])
def test_taylor_scores_against_autograd(name, reads_from, images, labels):
    """The activation that the consumer reads, times the gradient of each image's own loss."""
    model = plain()
    filters = 4 if name == "0" else 5
    expected = np.zeros(filters)
    for image, label in zip(images, labels, strict=True):
        activation = model[:reads_from](image[None]).detach().requires_grad_(True)
        loss = F.cross_entropy(model[reads_from:](activation), label[None])
        (gradient,) = torch.autograd.grad(loss, activation)
        product = (activation.detach() * gradient).reshape(filters, -1).sum(1).abs()
        expected += product.double().numpy() / N_IMAGES
    found = statistics_of(model, name, images, labels).taylor
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)
    assert expected.min() > 0


def test_taylor_of_a_filter_predicts_what_its_loss_changes_by(images, labels):
    """A first-order estimate: scaling one filter's activation down a little changes the loss by that much."""
    model = plain()
    scores = statistics_of(model, "0", images[:1], labels[:1]).taylor
    activation = model[:3](images[:1]).detach().double()
    behind = model[3:].double()
    whole = F.cross_entropy(behind(activation), labels[:1]).item()
    for index, score in enumerate(scores):
        smaller = activation.clone()
        smaller[:, index] *= 1 - 1e-4
        change = abs(F.cross_entropy(behind(smaller), labels[:1]).item() - whole)
        assert change == pytest.approx(1e-4 * score, rel=0.02)


def test_activation_moments_and_correlation_against_numpy(images, labels):
    model = plain()
    for name, reads_from in (("0", 3), ("3", 7)):
        found = statistics_of(model, name, images, labels)
        with torch.no_grad():
            read = model[:reads_from](images).double()
        rows = read.reshape(N_IMAGES, len(found.l1), -1).transpose(0, 1).flatten(1).numpy()
        np.testing.assert_allclose(found.activation_mean, rows.mean(1), rtol=1e-5)
        np.testing.assert_allclose(found.activation_spread, rows.std(1), rtol=1e-4)
        correlation = np.abs(np.corrcoef(rows))
        np.fill_diagonal(correlation, 0)
        np.testing.assert_allclose(found.correlation, correlation.max(1), rtol=1e-4)
        assert found.twin.tolist() == correlation.argmax(1).tolist()


def test_a_copied_filter_correlates_fully_and_is_redundant(images, labels):
    model = plain()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, *model[1].state_dict().values()):
            if tensor.dim():
                tensor[2] = tensor[1]
    found = statistics_of(model, "0", images, labels)
    np.testing.assert_allclose(found.correlation[[1, 2]], 1, atol=1e-6)
    assert found.twin[[1, 2]].tolist() == [2, 1]
    assert found.correlation[[0, 3]].max() < 0.99
    scores = importance_scores("redundancy", found, np.random.default_rng(0))
    assert scores[[1, 2]].max() < 1e-5 < scores[[0, 3]].min()


def test_fpgm_by_brute_force(images, labels):
    model = plain()
    weights = filter_weights(model, group_of(model, "3"))
    assert weights.shape == (5, 36)
    expected = [sum(np.linalg.norm(one - other) for other in weights) for one in weights]
    np.testing.assert_allclose(statistics_of(model, "3", images, labels).median_distance, expected, rtol=1e-4)


def test_a_single_filter_has_statistics(images, labels):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 1, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)
    )
    found = statistics_of(model, "0", images, labels)
    assert found.correlation.tolist() == [0]
    assert found.twin.tolist() == [0]
    assert found.median_distance.tolist() == [0]
    np.testing.assert_array_equal(found.features(), np.zeros((1, 9), dtype=np.float32))


def test_batches_change_nothing(labels):
    many = torch.randn(BATCH_IMAGES + 20, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    truth = torch.arange(len(many)) % 3
    model = plain()
    together = statistics_of(model, "0", many, truth)
    parts = [
        (statistics_of(model, "0", many[part], truth[part]), len(many[part]))
        for part in (slice(0, 30), slice(30, None))
    ]
    for name in ("taylor", "activation_mean"):
        joined = sum(getattr(found, name) * count for found, count in parts) / len(many)
        np.testing.assert_allclose(getattr(together, name), joined, rtol=1e-4)


def test_features_are_standardised(images, labels):
    features = statistics_of(plain(), "0", images, labels).features()
    assert features.shape == (4, 9)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-5)
    without_norm = statistics_of(plain(), "3", images, labels).features()
    np.testing.assert_array_equal(without_norm[:, [2, 5]], 0)


def test_dead_filters_have_finite_features_and_scores(images, labels):
    model = plain()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 0
        model[1].weight[1] = 0
        model[1].bias[1] = 0
    found = statistics_of(model, "0", images, labels)
    assert np.isfinite(found.features()).all()
    for kind in SCORES:
        scores = importance_scores(kind, found, np.random.default_rng(0))
        assert np.isfinite(scores).all(), kind
    assert found.taylor[1] == found.activation_spread[1] == 0


def test_every_kind_reads_its_statistic_and_every_choice_is_a_kind():
    found = FilterStatistics(
        **{
            item.name: np.arange(3) + 10.0 * position
            for position, item in enumerate(fields(FilterStatistics))
        }
    )
    found = replace(found, correlation=np.array([0.0, 0.5, 1.0]))
    rng = np.random.default_rng(0)
    read_off = {"l1": "l1", "l2": "l2", "bn_scale": "bn_scale", "fpgm": "median_distance"}
    read_off |= {"taylor": "taylor", "activation": "activation_mean"}
    for kind, name in read_off.items():
        scores = importance_scores(kind, found, rng)
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, getattr(found, name))
    redundancy = found.activation_spread * [1.0, 0.5, 0.0]
    np.testing.assert_array_equal(importance_scores("redundancy", found, rng), redundancy.astype(np.float32))
    first, second, other = (importance_scores("random", found, np.random.default_rng(n)) for n in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    assert set(SCORES) == set(all_settings()["agent.importance"].choices)
    assert AgentConfig().importance in SCORES


def test_the_network_is_left_as_it_was(images, labels):
    model = plain()
    group = group_of(model, "0")
    model.train()[1].eval()
    model[3].requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():
        filter_statistics(model, group, images, labels)
    with pytest.raises(ValueError, match="batch_size"):
        filter_statistics(model, group, images, labels[:-1])
    assert modes == [module.training for module in model.modules()]
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_frozen_network_has_the_same_statistics(images, labels):
    for model, name in ((plain(), "0"), (Residual(), "stem")):
        trained = statistics_of(model, name, images, labels)
        frozen = statistics_of(model.requires_grad_(False), name, images, labels)
        for item in fields(FilterStatistics):
            np.testing.assert_allclose(
                getattr(frozen, item.name), getattr(trained, item.name), rtol=1e-5, err_msg=item.name
            )


def test_residual_taylor_sums_over_the_layers_that_read_the_group(images, labels):
    """Each reader counts once, with the gradient of what it alone reads."""
    torch.manual_seed(0)
    model = Residual()
    group = group_of(model, "branch")
    assert [member.layer for member in group.with_role("producer")] == ["stem", "branch"]
    assert {member.layer for member in group.with_role("consumer")} == {"branch", "left", "right"}
    expected = np.zeros(4)
    for image, label in zip(images, labels, strict=True):
        stem = torch.relu(model.stem(image[None])).detach()
        to_branch = stem.clone().requires_grad_(True)
        total = torch.relu(stem + model.branch(to_branch))
        to_left, to_right = total.view_as(total), total.view_as(total)
        logits = (model.left(to_left) + model.right(to_right)).mean((2, 3))
        read = (to_branch, to_left, to_right)
        gradients = torch.autograd.grad(F.cross_entropy(logits, label[None]), read)
        for values, gradient in zip(read, gradients, strict=True):
            product = (values.detach() * gradient).sum((0, 2, 3)).abs()
            expected += product.double().numpy() / N_IMAGES
    found = filter_statistics(model, group, images, labels)
    np.testing.assert_allclose(found.taylor, expected, rtol=1e-4)
    both = [model.stem.weight.detach().flatten(1), model.branch.weight.detach().flatten(1)]
    np.testing.assert_allclose(found.l1, torch.cat(both, 1).abs().sum(1).numpy(), rtol=1e-5)


def test_every_group_of_a_residual_network_has_statistics(images, labels):
    torch.manual_seed(0)
    model = resnet20(width=0.25, num_classes=3, in_channels=3)
    for group in find_groups(model, torch.zeros(1, 3, 8, 8)):
        found = filter_statistics(model, group, images, labels)
        for item in fields(FilterStatistics):
            values = getattr(found, item.name)
            assert values.shape == (group.n_filters,), item.name
            assert np.isfinite(values).all(), item.name
        assert found.features().shape == (group.n_filters, 9)
        assert len(filter_weights(model, group)) == group.n_filters


def test_statistics_are_of_all_layers_and_calls(images: torch.Tensor, labels: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = Added().eval()
    with torch.no_grad():
        for norm in model.norms:
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
        total = model.total(images)
    found = statistics_of(model, "first", images, labels)
    scales, shifts = (
        np.mean([norm.state_dict()[name].numpy() for norm in model.norms], 0) for name in ("weight", "bias")
    )
    np.testing.assert_allclose(found.bn_scale, scales, rtol=1e-6)
    np.testing.assert_allclose(found.bn_shift, shifts, rtol=1e-6)
    read = torch.cat([model.left.weight, model.right.weight]).detach().square().sum((0, 2, 3)).sqrt()
    np.testing.assert_allclose(found.read, read, rtol=1e-6)
    calls = torch.cat([total, total.relu()])
    np.testing.assert_allclose(found.activation_mean, calls.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.activation_spread, calls.std((0, 2, 3), correction=0), rtol=1e-4)
