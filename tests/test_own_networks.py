"""Networks that people write: what is unusual about them is computed right, or refused at once."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from test_pruning import LABELS, make_engine, masked_forward, random_masks, soft
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from rlprune.candidates import cut_copy
from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.errors import ModelError
from rlprune.models.load import own_copy
from rlprune.pruning.cost import layer_macs
from rlprune.pruning.groups import find_groups, read_groups
from rlprune.pruning.importance import filter_statistics
from rlprune.pruning.layer_times import _sites
from rlprune.pruning.partition import trace
from rlprune.pruning.repair import collect_moments
from rlprune.pruning.surgery import resize_to_state
from rlprune.pruning.verification import check_precision, refused_groups
from rlprune.safe_backward import safe_backward
from rlprune.training.base import starting_network
from rlprune.whole_run import prepare
from rlprune.workbench import Workbench

EXAMPLE = torch.zeros(1, 3, 8, 8)
BF16 = torch.bfloat16


def block(inputs: int, filters: int) -> nn.Sequential:
    layers = nn.Conv2d(inputs, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
    return nn.Sequential(*layers)


def head(filters: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, 10))


class Own(nn.Module):
    """Layers by name, and a forward pass over them."""

    def __init__(self, forward: Callable[["Own", torch.Tensor], torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.said = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.said(self, images)


class Derived(nn.Conv2d):
    """A convolution of a class of its own."""


class Doubling(nn.Conv2d):
    """A convolution that does something else."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(inputs)


class OwnNorm(nn.BatchNorm2d):
    """A batch norm that torch.fx looks into."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(
            inputs, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps
        )


def warm(model: nn.Module) -> nn.Module:
    """The network with batch-norm statistics of its own."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(32, 3, 8, 8))
    return model.eval()


def reading_what_it_makes() -> nn.Module:
    """A residual step whose convolution adds to what it reads."""
    return Own(
        lambda n, x: n.head(F.relu((x := n.stem(x)) + n.norm(n.conv(x)))),
        **{"stem": block(3, 6), "conv": nn.Conv2d(6, 6, 3, padding=1), "norm": nn.BatchNorm2d(6)},
        head=head(6),
    )


def called_twice() -> nn.Module:
    """One block for an image and its negative; the second convolution reads both."""
    return Own(
        lambda n, x: n.head(n.second(n.first(x)) + n.second(n.first(-x))),
        **{"first": block(3, 6), "second": block(6, 5), "head": head(5)},
    )


def two_norms() -> nn.Module:
    """One convolution behind two batch norms, called once for each."""
    return Own(
        lambda n, x: n.head(F.relu(n.one(n.conv(n.stem(x)))) + F.relu(n.two(n.conv(-n.stem(x))))),
        **{"stem": block(3, 6), "conv": nn.Conv2d(6, 5, 3), "one": nn.BatchNorm2d(5)},
        **{"two": nn.BatchNorm2d(5), "head": head(5)},
    )


def in_place() -> nn.Module:
    """What is added to is what the reward engine keeps for every mask."""
    return Own(
        lambda n, x: n.head((n.short(n.stem(x))).add_(n.conv(n.stem(x)))),
        **{"stem": block(3, 6), "short": nn.Conv2d(6, 5, 1), "conv": block(6, 5), "head": head(5)},
    )


def written_into() -> nn.Module:
    """What is written into is read before and after it, by its old name."""

    def forward(n: Own, x: torch.Tensor) -> torch.Tensor:
        x = n.stem(x)
        y = n.short(x)
        z = n.conv(x) + y
        y.add_(z).mul_(2.0)
        pooled = y.mean(3, keepdim=True).unsqueeze_(4)
        pooled.squeeze_(4)
        return n.head(y + z) + n.head(pooled)

    layers = {"stem": block(3, 6), "short": nn.Conv2d(6, 5, 1), "conv": block(6, 5)}
    return Own(forward, **layers, head=head(5))


class Optional(nn.Module):
    """A forward pass with arguments that only its other users give."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(block(3, 6), block(6, 5), head(5))

    def forward(
        self,
        images: torch.Tensor,
        mask: torch.Tensor | None = None,
        scale: float = 1.0,
        features: bool = False,
    ) -> torch.Tensor:
        if mask is not None:
            images = images * mask
        found = self.layers[:2](images) * scale
        return found if features else self.layers[2](found)


def a_pixel_a_row() -> nn.Module:
    """Its linear layer reads the pixels of all images as rows."""

    def forward(n: Own, x: torch.Tensor) -> torch.Tensor:
        pixels = n.two(n.one(x)).permute(0, 2, 3, 1).reshape(-1, 6)
        return n.linear(pixels).reshape(-1, 64, 10).mean(1)

    return Own(forward, one=block(3, 5), two=block(5, 6), linear=nn.Linear(6, 10))


COMPUTED = (reading_what_it_makes, called_twice, two_norms, in_place, written_into, Optional)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("build", COMPUTED)
def test_folding_batch_norm_changes_no_output(build: Callable[[], nn.Module], images: torch.Tensor) -> None:
    model = warm(build())
    with torch.no_grad():
        torch.testing.assert_close(trace(model, fold_batch_norm=True)(images), model(images))


@pytest.mark.parametrize("build", COMPUTED)
def test_the_engine_equals_the_masked_network(build: Callable[[], nn.Module], images: torch.Tensor) -> None:
    model = warm(build())
    groups, _ = read_groups(model, EXAMPLE, ())
    assert groups
    for group in groups:
        masks = np.concatenate([random_masks(group, 3), np.ones((1, group.n_filters), dtype=bool)])
        measured = make_engine(model, group, images, images, "raw").accuracies(masks)
        expected = [soft(masked_forward(model, group, mask, images)) for mask in masks]
        np.testing.assert_allclose(measured, expected, atol=2e-3)


@pytest.mark.parametrize("build", COMPUTED)
def test_the_engine_equals_the_repaired_network(build: Callable[[], nn.Module], images: torch.Tensor) -> None:
    model = warm(build())
    for group in read_groups(model, EXAMPLE, ())[0]:
        masks = random_masks(group, 2)
        moments = collect_moments(model, group, images, ridge=1e-3, batch_size=500, seed=0)
        smaller = [cut_copy(None, model, group, mask, moments) for mask in masks]
        measured = make_engine(model, group, images, images, "repair").accuracies(masks)
        with torch.no_grad():
            np.testing.assert_allclose(measured, [soft(cut(images)) for cut in smaller], atol=0.05)


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "efficientnet_b1"])
def test_networks_of_torchvision_whose_layers_read_what_they_make(name: str) -> None:
    model, inputs = torchvision.models.get_model(name, num_classes=10).eval(), torch.randn(4, 3, 32, 32)
    groups = find_groups(model, inputs[:1])
    ends = (
        {m.layer for m in g.with_role("producer")} & {m.layer for m in g.with_role("consumer")}
        for g in groups
    )
    group = next(group for group, both in zip(groups, ends, strict=True) if both)
    moments = collect_moments(model, group, inputs, ridge=1e-3, batch_size=4, seed=0)
    with torch.no_grad():
        assert cut_copy(None, model, group, random_masks(group, 1)[0], moments)(inputs).isfinite().all()


def shuffled(step: Callable[[torch.Tensor], torch.Tensor], channels: int) -> nn.Module:
    return Own(
        lambda n, x: n.head(n.last(F.relu(n.second(step(n.first(x)))))),
        **{"first": block(3, 8), "second": nn.Conv2d(channels, 6, 1), "last": block(6, 5), "head": head(5)},
    )


def normed(kind: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(
        kind(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), block(6, 5), head(5)
    )


def gated() -> nn.Module:
    return Own(
        lambda n, x: n.head(n.last((x := n.first(x)) * torch.sigmoid(n.gate(x)))),
        **{"first": block(3, 8), "gate": nn.Conv2d(8, 1, 1), "last": block(8, 5), "head": head(5)},
    )


def derived() -> nn.Module:
    return Own(
        lambda n, x: n.head(n.last((x := n.first(x)) + n.back(n.inner(x)))),
        **{"first": block(3, 8), "inner": Derived(8, 4, 1), "back": nn.Conv2d(4, 8, 1)},
        **{"last": block(8, 5), "head": head(5)},
    )


SEVERAL = "several filters|another number"


class Mixed(nn.Module):
    """Two branches by learned shares: a tensor with as many rows as a small batch has images."""

    def __init__(self) -> None:
        super().__init__()
        self.shares, self.last, self.head = nn.Parameter(torch.zeros(2)), block(6, 5), head(5)
        self.stem, self.one, self.two = block(3, 8), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x, shares = self.stem(images), self.shares.softmax(0).view(2, 1, 1, 1, 1)
        return self.head(self.last((torch.stack([self.one(x), self.two(x)]) * shares).sum(0)))


REFUSED = {
    "pixel shuffle": (
        lambda: shuffled(lambda x: F.pixel_shuffle(x, 2), 2),
        "first.0",
        SEVERAL,
    ),
    "gated halves": (lambda: shuffled(lambda x: F.glu(x, 1), 4), "first.0", SEVERAL),
    "weight norm": (lambda: normed(parametrizations.weight_norm), "0", "parametrization"),
    "spectral norm": (lambda: normed(parametrizations.spectral_norm), "0", "parametrization"),
    "a gate of one channel": (gated, "gate", "first.0 shares its filters with what has another number"),
    "a class of its own": (derived, "first.0", "inner.*must be an nn.Conv2d"),
    "shares of branches": (Mixed, "stem.0", "one tensor row per image"),
    "called by name": (
        lambda: Own(
            lambda n, x: n.head(n.last(input=n.first(x))),
            **{"first": block(3, 8), "last": nn.Conv2d(8, 5, 1), "head": head(5)},
        ),
        "first.0",
        r"called as layer\(x\)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_cut_stays_whole_and_says_why(kind: str, digits_splits: DataSplits) -> None:
    build, name, reason = REFUSED[kind]
    groups, refused = read_groups(model := build().eval(), EXAMPLE, ())
    refused |= refused_groups(model, groups, EXAMPLE, Config().pruning.fidelity)
    assert name in refused
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(refused[name])
    assert any(group.name not in refused for group in groups), "the others can be cut"


def test_writing_into_what_others_hold_is_refused() -> None:
    with pytest.raises(ModelError, match=r"writes into its input .*sub_"):
        trace(Own(lambda n, x: n.head(x.sub_(0.5)), head=head(3)), fold_batch_norm=False)

    def viewed(n: Own, x: torch.Tensor) -> torch.Tensor:
        x = n.first(x)
        rows = x.flatten(1)
        x.add_(1.0)
        return n.head(x) + rows.sum(1, keepdim=True)

    with pytest.raises(ModelError, match=r"another name .*add_"):
        trace(Own(viewed, first=block(3, 8), head=head(8)), fold_batch_norm=False)


def test_a_layer_without_bf16_names_the_precision() -> None:
    model = nn.Sequential(block(3, 8), nn.LocalResponseNorm(2), head(8)).eval()
    check_precision(model, EXAMPLE, torch.float32)
    with pytest.raises(ModelError, match="set precision to fp32"):
        check_precision(model, EXAMPLE, BF16)
    check_precision(nn.Sequential(block(3, 8), head(8)).eval(), EXAMPLE, BF16)
    wide = Own(lambda n, x: n.head(x.double()), head=head(3).double()).eval()
    with pytest.raises(ModelError, match=r"cannot compute in float32 \(.*make it one of float32"):
        check_precision(wide, EXAMPLE, torch.float32)


def test_statistics_that_cannot_be_estimated_again_leave_the_group_whole() -> None:
    model = warm(nn.Sequential(block(3, 8), nn.Conv2d(8, 6, 1), OwnNorm(6), nn.ReLU(), head(6)))
    groups = find_groups(model, EXAMPLE)
    assert len(groups) == 2
    assert refused_groups(model, groups, EXAMPLE, "raw") == {}
    refused = refused_groups(model, groups, EXAMPLE, "bn")
    assert list(refused) == ["0.0"]
    assert "choose pruning.fidelity" in refused["0.0"]


def test_importance_counts_each_call_of_a_layer(images: torch.Tensor) -> None:
    """Taylor's score of a filter is the change of the loss by it: over both calls of what reads it."""
    model = warm(called_twice())
    group = next(group for group in find_groups(model, EXAMPLE) if group.name == "first.0")
    scores = filter_statistics(model, group, images, LABELS).taylor
    layer = model.get_submodule("second.0")
    assert isinstance(layer, nn.Conv2d)
    scale = torch.ones(24, 6, 1, 1, requires_grad=True)
    handle = layer.register_forward_pre_hook(lambda _, given: (given[0] * scale,))
    loss = F.cross_entropy(model(images), LABELS, reduction="sum")
    handle.remove()
    (expected,) = torch.autograd.grad(loss, scale)
    np.testing.assert_allclose(scores, expected.flatten(1).abs().mean(0).numpy(), rtol=1e-3)


def test_auxiliary_heads_are_refused(digits_splits: DataSplits) -> None:
    def forward(n: Own, x: torch.Tensor) -> torch.Tensor:
        x = n.first(x)
        return (n.head(x), n.other(x)) if n.training else n.head(x)

    model = Own(forward, first=block(3, 8), head=head(8), other=head(8))
    with pytest.raises(ModelError, match=r"gives tuple, not logits.*training mode"):
        starting_network(Config(), digits_splits, model)
    untrained = load_config(None, ["finetune.group_epochs=0", "finetune.final_epochs=0"])
    starting_network(untrained, digits_splits, model)
    plain = warm(nn.Sequential(block(3, 8), head(8)))
    before = copy.deepcopy(plain.state_dict())
    tried = starting_network(Config(), digits_splits, plain)
    assert all(torch.equal(value, before[name]) for name, value in tried.state_dict().items())


def test_what_trains_on_a_whole_batch_only_is_accepted(digits_splits: DataSplits) -> None:
    def forward(n: Own, x: torch.Tensor) -> torch.Tensor:
        x = n.first(x)
        if n.training:
            x = torch.cat(x.chunk(x.size(0) // 16)).add_(torch.randn_like(x))
        return n.head(x)

    starting_network(Config(), digits_splits, Own(forward, first=block(3, 8), head=head(8)))

    def broken(n: Own, x: torch.Tensor) -> torch.Tensor:
        assert not n.training, "not made to be trained"
        return n.head(x)

    with pytest.raises(ModelError, match=r"in training mode: AssertionError: not made to be trained"):
        starting_network(Config(), digits_splits, Own(broken, head=head(3)))


def test_a_network_that_was_loaded_to_be_used_can_be_pruned_again() -> None:
    frozen = nn.Sequential(block(3, 8), head(8)).requires_grad_(False)
    assert all(parameter.requires_grad for parameter in own_copy(frozen).parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_program_that_wants_no_gradients_can_train(digits_splits: DataSplits) -> None:
    model = nn.Sequential(block(3, 8), head(8))
    before = copy.deepcopy(model.state_dict())
    bench = Workbench(load_config(None, ["device=cpu"]), digits_splits.sealed())
    with torch.no_grad():
        assert bench.fine_tune(model, 0.1, "here")
    assert not torch.equal(model[0][0].weight, before["0.0.weight"])


def test_what_is_not_fine_tuned_is_said(digits_splits: DataSplits) -> None:
    model, said = nn.Sequential(block(3, 8), block(8, 6), head(6)), list[str]()
    config = load_config(None, ["base.allow_weak=true", "device=cpu"])
    prepare(config, digits_splits, said.append, model)
    assert not any("gradients" in line for line in said)
    model[0].requires_grad_(False)
    prepare(config, digits_splits, said.append, model)
    assert "3 tensors (0.0.weight, ...) take no gradients and are left out of fine-tuning" in said


def test_what_is_frozen_stays_so_in_a_network_that_is_rebuilt() -> None:
    model = nn.Sequential(block(3, 8), block(8, 6), head(6)).eval()
    model[0].requires_grad_(False)
    group = find_groups(model, EXAMPLE)[0]
    moments = collect_moments(model, group, torch.randn(8, 3, 8, 8), ridge=1e-3, batch_size=8, seed=0)
    smaller = cut_copy(None, model, group, np.arange(8) < 5, moments)
    rebuilt = copy.deepcopy(model)
    resize_to_state(rebuilt, smaller.state_dict())
    flags = {name: parameter.requires_grad for name, parameter in smaller.named_parameters()}
    assert flags == {name: parameter.requires_grad for name, parameter in rebuilt.named_parameters()}
    assert not flags["0.0.weight"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_a_compiled_network_is_refused() -> None:
    with pytest.raises(ModelError, match="hand over the"):
        own_copy(torch.jit.script(nn.Sequential(block(3, 8), head(8))))


def test_more_than_tensors_in_a_state_is_refused() -> None:
    class Remembering(nn.Sequential):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    with pytest.raises(ModelError, match="_extra_state beside its tensors"):
        own_copy(Remembering(block(3, 8), head(8)))


def test_macs_are_those_of_an_image_where_pixels_are_rows() -> None:
    macs = layer_macs(a_pixel_a_row().eval(), torch.zeros(2, 3, 8, 8))
    assert macs == {"one.0": 64 * 27 * 5, "two.0": 64 * 45 * 6, "linear": 64 * 6 * 10}


@pytest.mark.parametrize(
    "made",
    [
        lambda layer: nn.utils.spectral_norm(layer),
        lambda layer: nn.utils.weight_norm(layer),
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    ],
    ids=["spectral_norm", "weight_norm", "prune"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_a_hook_makes_are_refused(made: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(block(3, 8), head(8)).eval()
    made(model[0][0])
    with torch.no_grad():
        model(EXAMPLE)
    with pytest.raises(ModelError, match=r"^0\.0\.weight: made of other parameters"):
        own_copy(model)


def test_a_last_layer_that_is_called_by_name_leaves_the_others_to_be_cut_and_timed() -> None:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers = {"one": block(3, 6), "two": block(6, 5), "pool": pool, "linear": nn.Linear(5, 10)}
    model = Own(lambda n, x: n.linear(input=n.pool(n.two(n.one(x)))), **layers).eval()
    groups, refused = read_groups(model, EXAMPLE, ())
    refused |= refused_groups(model, groups, EXAMPLE, Config().pruning.fidelity)
    assert [group.name for group in groups if group.name not in refused] == ["one.0"]
    assert "linear" in _sites(model, EXAMPLE, torch.float32)


def test_a_convolution_that_does_something_else_keeps_doing_it() -> None:
    layer, inputs = Doubling(3, 4, 1, stride=2), torch.randn(2, 3, 8, 8)
    expected = layer(inputs)
    with safe_backward(layer, inputs.device):
        torch.testing.assert_close(layer(inputs), expected)
