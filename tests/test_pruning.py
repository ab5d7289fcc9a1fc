"""Groups, surgery, cost, repair and the reward engine against plain forward passes of several networks."""

import copy
from typing import Any

import numpy as np
import pytest
import tiny_network
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.convnext import CNBlockConfig

from rlprune.candidates import cut_copy
from rlprune.errors import ModelError, PruningError
from rlprune.models import resnet20, resnet56, vgg16_bn
from rlprune.pruning import prefix_cache
from rlprune.pruning.cost import count_cost
from rlprune.pruning.groups import FilterGroup, Member, find_groups
from rlprune.pruning.repair import Gram, Moments, Repairer, apply_repair, collect_moments, repair_for_mask
from rlprune.pruning.reward_engine import STATISTICS_IMAGES, RewardEngine
from rlprune.pruning.surgery import cut, groups_after_cut, resize_to_state
from rlprune.pruning.width_cost import GroupCost

NETWORKS = {
    "vgg16_bn": lambda: vgg16_bn(width=0.125, num_classes=10, in_channels=3),
    "resnet20": lambda: resnet20(width=0.5, num_classes=10, in_channels=3),
    "resnet56": lambda: resnet56(width=0.25, num_classes=10, in_channels=3),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.35, dropout=0.0),
    "convnext": lambda: torchvision.models.convnext.ConvNeXt(
        [CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 1)], layer_scale=0.5, num_classes=10
    ),
    "flattened": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 12),
        nn.ReLU(),
        nn.Linear(12, 10),
    ),
}


def warmed(name: str) -> nn.Module:
    """A network with batch-norm statistics that are neither 0 nor 1, as after training."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.eps = (
                1e-2  # random networks have nearly constant channels; dividing by their spread is chaotic
            )
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(32, 3, 32, 32))
    return model.eval()


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    return warmed(request.param)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def calibration() -> torch.Tensor:
    return torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=["some", pytest.param("every", marks=pytest.mark.slow)])
def groups(network: nn.Module, request: pytest.FixtureRequest) -> list[FilterGroup]:
    """Every group; in the quick tier all of the small networks, some of the large and of the deep ones."""
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))
    if request.param == "every":
        return groups
    step = 4 if sum(p.numel() for p in network.parameters()) > 300_000 else 1 + len(groups) // 15 * 6
    return groups[::step]


LABELS = torch.arange(24) % 10


class Concatenated(nn.Module):
    """Each convolution reads what all before it have made, as in a DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norms = nn.Conv2d(3, 6, 3, padding=1), nn.ModuleList()
        self.layers, self.last, self.head = nn.ModuleList(), nn.BatchNorm2d(18), nn.Linear(18, 10)
        for made in (6, 10, 14):
            self.norms.append(nn.BatchNorm2d(made))
            self.layers.append(nn.Conv2d(made, 4, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.stem(images)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            made = torch.cat([made, layer(norm(made).relu())], 1)
        return self.head(self.last(made).relu().mean((2, 3)))


def plain(groups: list[FilterGroup]) -> dict[str, Any]:
    """What groups say, to be compared."""
    return {
        group.name: (
            group.n_filters,
            {(member.layer, member.role, tuple(map(tuple, member.positions))) for member in group.members},
        )
        for group in groups
    }


def check_groups_follow_the_cuts(model: nn.Module, cuts: int) -> None:
    example, draws = torch.zeros(1, 3, 32, 32), np.random.default_rng(0)
    groups = find_groups(model, example)
    for number in draws.permutation(len(groups))[:cuts]:
        group = groups[number]
        mask = draws.random(group.n_filters) < 0.7
        mask[:2] = True
        cut(model, group, mask)
        groups = groups_after_cut(groups, group, mask)
    assert plain(groups) == plain(find_groups(model, example))
    assert [group.name for group in groups] == [group.name for group in find_groups(model, example)]


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_follow_the_cuts(name: str) -> None:
    check_groups_follow_the_cuts(NETWORKS[name](), 4)


def test_groups_of_concatenated_features_follow_the_cuts() -> None:
    check_groups_follow_the_cuts(Concatenated(), 4)


def random_masks(group: FilterGroup, count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    masks = generator.random((count, group.n_filters)) < generator.uniform(0.3, 0.9, (count, 1))
    masks[:, 0] |= ~masks.any(1)
    return masks


def masked_forward(
    model: nn.Module, group: FilterGroup, mask: np.ndarray, inputs: torch.Tensor
) -> torch.Tensor:
    """The plain way: zeroes on the inputs of every layer that reads the group, whole network, fp32."""

    def zero(member, args):
        values = args[0].clone()
        channels_last = isinstance(model.get_submodule(member.layer), nn.Linear)
        values.movedim(-1 if channels_last else 1, 0)[member.dropped(mask)] = 0
        return (values,)

    handles = [
        model.get_submodule(member.layer).register_forward_pre_hook(
            lambda _, args, member=member: zero(member, args)
        )
        for member in group.with_role("consumer")
    ]
    with torch.no_grad():
        outputs = model(inputs)
    for handle in handles:
        handle.remove()
    return outputs


def soft(outputs: torch.Tensor) -> float:
    return 100 * outputs.softmax(1).gather(1, LABELS[:, None]).mean().item()


def make_engine(model, group, images, calibration, fidelity, accuracy="soft", dtype=torch.float32, **more):
    return RewardEngine(
        model,
        group,
        images,
        LABELS,
        calibration=calibration,
        fidelity=fidelity,
        accuracy=accuracy,
        ridge=1e-3,
        dtype=dtype,
        seed=0,
        **more,
    )


def test_groups_run_from_the_input_upward_and_cover_vgg():
    groups = find_groups(warmed("vgg16_bn"), torch.zeros(1, 3, 32, 32))
    assert [group.n_filters for group in groups] == [8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64]
    assert groups[0].name == "features.0"
    assert [member.layer for member in groups[0].with_role("consumer")] == ["features.3"]
    assert [member.layer for member in groups[-1].with_role("consumer")] == ["classifier"]


def test_groups_of_a_residual_network_are_blocks_and_streams():
    model = warmed("resnet20")
    groups = find_groups(model, torch.zeros(1, 3, 32, 32))
    inner = [group for group in groups if len(group.with_role("producer")) == 1]
    streams = [group for group in groups if len(group.with_role("producer")) > 1]
    assert (len(inner), len(streams)) == (9, 3)
    assert [len(stream.with_role("producer")) for stream in streams] == [4, 4, 4]


def test_masked_equals_cut_on_every_group(network, groups, images):
    for group in groups:
        for mask in random_masks(group, 2):
            expected = masked_forward(network, group, mask, images)
            smaller = copy.deepcopy(network)
            cut(smaller, group, mask)
            with torch.no_grad():
                torch.testing.assert_close(smaller(images), expected, atol=1e-5, rtol=1e-5)
            assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())


def test_cost_of_cut_networks_is_what_the_flop_counter_and_the_group_cost_say(network, groups, images):
    for group in groups:
        mask = random_masks(group, 1)[0]
        predicted = GroupCost(network, group, images[:1])
        smaller = copy.deepcopy(network)
        cut(smaller, group, mask)
        cost = count_cost(smaller, images[:1])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            smaller(images[:1])
        assert cost.macs == counter.get_total_flops() / 2
        assert predicted.macs(mask.sum()) == pytest.approx(cost.macs, rel=1e-9)
        assert predicted.params(mask.sum()) == pytest.approx(cost.params, rel=1e-9)


def test_macs_of_one_convolution_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 16, 7))
    cost = count_cost(model, torch.zeros(2, 3, 4, 4))
    assert cost.macs == 5 * 3 * 9 * 16 + 80 * 7
    assert cost.params == 5 * 27 + 5 + 80 * 7 + 7


def test_engine_equals_plain_forward_raw(network, groups, images, calibration):
    for group in groups:
        masks = random_masks(group, 2)
        measured = make_engine(network, group, images, calibration, "raw").accuracies(masks)
        expected = [soft(masked_forward(network, group, mask, images)) for mask in masks]
        np.testing.assert_allclose(measured, expected, atol=2e-3)


def test_a_dilated_consumer_is_dilated_in_the_engine(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, dilation=2, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    ).eval()
    with torch.no_grad():
        model[-1].weight.mul_(20)
    group = find_groups(model, images[:1])[0]
    masks = random_masks(group, 6)
    expected = [soft(masked_forward(model, group, mask, images)) for mask in masks]
    assert np.ptp(expected) > 0.1
    measured = make_engine(model, group, images, images, "raw").accuracies(masks)
    np.testing.assert_allclose(measured, expected, rtol=1e-4)


def test_engine_equals_plain_forward_bn(network, groups, images, calibration):
    for group in groups:
        masks = random_masks(group, 2)
        measured = make_engine(network, group, images, calibration, "bn").accuracies(masks)
        expected = [soft(re_estimated_forward(network, group, mask, images, calibration)) for mask in masks]
        np.testing.assert_allclose(measured, expected, atol=5e-3)


def test_statistics_are_of_all_kinds_of_images_where_these_are_listed_one_after_the_other(images):
    network = warmed("vgg16_bn")
    group = find_groups(network, images[:1])[0]
    noise = torch.randn(STATISTICS_IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    bright, dark = noise + 2.0, noise - 2.0
    masks = np.ones((1, group.n_filters), dtype=bool)

    def whole(*kinds):
        return make_engine(network, group, images, torch.cat(kinds), "bn").accuracies(masks)[0]

    both = [whole(bright, dark), whole(dark, bright)]
    assert abs(both[0] - both[1]) < 0.5 * min(abs(one - both[0]) for one in (whole(bright), whole(dark)))


def re_estimated_forward(model, group, mask, images, calibration):
    """Plain way for fidelity bn: every batch norm that runs after the first consumer sees one train batch."""
    model = copy.deepcopy(model)
    order: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: order.append(name) or None)
        for name, module in model.named_modules()
    ]
    with torch.no_grad():
        model(images[:1])
    for handle in handles:
        handle.remove()
    behind = layers_behind(model, group)
    for name in order:
        module = model.get_submodule(name)
        if isinstance(module, nn.BatchNorm2d) and name in behind:
            module.momentum = 1.0
            module.train()
    masked_forward(model, group, mask, calibration)
    return masked_forward(model.eval(), group, mask, images)


def layers_behind(model, group):
    """Layers whose inputs change when the consumers' outputs change: found by trying."""
    example = torch.randn(2, 3, 32, 32)
    seen: dict[str, torch.Tensor] = {}
    changed: set[str] = set()

    def note(name, value, first):
        if first:
            seen[name] = value.clone()
        elif not torch.equal(seen[name], value):
            changed.add(name)

    for first in (True, False):
        handles = [
            module.register_forward_pre_hook(
                lambda _, args, name=name, first=first: note(name, args[0], first)
            )
            for name, module in model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
        ]
        if not first:
            handles += [
                model.get_submodule(member.layer).register_forward_hook(lambda *args: args[2] + 1.0)
                for member in group.with_role("consumer")
            ]
        with torch.no_grad():
            model(example)
        for handle in handles:
            handle.remove()
    return changed


def test_engine_equals_plain_forward_of_the_repaired_cut_network(network, groups, images, calibration):
    for group in groups:
        masks = random_masks(group, 2)
        moments = collect_moments(network, group, calibration, ridge=1e-3, batch_size=500, seed=0)
        expected = []
        for mask in masks:
            repairs = repair_for_mask(network, group, mask, moments)
            smaller = copy.deepcopy(network)
            cut(smaller, group, mask)
            for layer, repair in repairs.items():
                apply_repair(smaller.get_submodule(layer), repair)
            with torch.no_grad():
                expected.append(soft(smaller(images)))
        measured = make_engine(network, group, images, calibration, "repair").accuracies(masks)
        np.testing.assert_allclose(measured, expected, atol=0.05)


@pytest.mark.parametrize("mask", [[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 1]], ids=["most stay", "most go"])
@pytest.mark.parametrize("kind", ["conv", "strided", "linear", "pixels"])
def test_repair_is_the_least_squares_solution(kind, mask):
    torch.manual_seed(0)
    layer = {
        "conv": lambda: nn.Conv2d(6, 4, 3, padding=1),
        "strided": lambda: nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=False),
        "linear": lambda: nn.Linear(6 * 4, 4),
        "pixels": lambda: nn.Linear(6, 4),
    }[kind]()
    mixing = torch.randn(6, 6)
    inputs = torch.einsum("dc,nchw->ndhw", mixing, torch.rand(40, 6, 5, 5))
    if kind == "linear":
        inputs = inputs[:, :, :2, :2].reshape(40, -1)
    if kind == "pixels":
        inputs = inputs.movedim(1, -1)
    repeat = 4 if kind == "linear" else 1
    positions = np.arange(6 * repeat).reshape(6, repeat)
    gram = Gram(layer, 1, 0)
    gram.add(inputs)
    mask = np.array(mask, dtype=bool)
    repair = Repairer(layer, Member("layer", "consumer", positions), gram.moments(ridge=0.0)).solve(mask)
    rows = torch.cat(list(gram._rows_of(inputs))).double()
    kept = np.repeat(mask, rows.shape[1] // 6)
    target = rows @ layer.weight.detach().double().reshape(4, -1).T
    if layer.bias is not None:
        target = target + layer.bias.detach().double()
    design = torch.cat([rows[:, kept], torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(design, target).solution
    torch.testing.assert_close(
        repair.weight.detach().reshape(4, -1).double(), solution[:-1].T, atol=2e-3, rtol=2e-3
    )
    torch.testing.assert_close(repair.bias.detach().double(), solution[-1], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", ["conv", "pixels"])
def test_patches_that_come_a_few_at_a_time_are_the_same(kind, monkeypatch):
    torch.manual_seed(0)
    inputs = torch.rand(40, 6, 5, 5)
    layer: nn.Conv2d | nn.Linear = nn.Conv2d(6, 4, 3)
    if kind == "pixels":
        layer, inputs = nn.Linear(6, 4), inputs.movedim(1, -1)

    def moments_and_parts():
        gram = Gram(layer, 100, 0)  # not every position is taken: the same ones in all images
        before, parts = inputs.clone(), len(list(Gram(layer, 100, 0)._rows_of(inputs)))
        gram.add(inputs)
        assert torch.equal(inputs, before)
        return gram.moments(ridge=0.0), parts

    whole, parts = moments_and_parts()
    assert parts == 1
    monkeypatch.setattr("rlprune.pruning.repair.PATCH_BYTES", 1)
    single, parts = moments_and_parts()
    assert parts == 40
    torch.testing.assert_close(single.mean, whole.mean)
    torch.testing.assert_close(single.covariance, whole.covariance)


def few_samples(layer: nn.Conv2d) -> Gram:
    """Fewer samples than unknowns, nearly along one direction: rounding outweighs a small ridge."""
    torch.manual_seed(0)
    inputs = 100 * torch.randn(4, 1, 3, 3) * torch.ones(1, 32, 1, 1) + torch.randn(4, 32, 3, 3) / 1000
    gram = Gram(layer, 4, 0)
    gram.add(inputs)
    return gram


@pytest.mark.parametrize("kept", [4, 28])
@pytest.mark.parametrize("ridge", [0.0, 1e-9])
def test_fewer_samples_than_unknowns_raise_the_ridge(ridge, kept):
    layer = nn.Conv2d(32, 4, 3)
    covariance = few_samples(layer).moments(ridge=1e-2).covariance.clone()  # large enough already
    mean_variance = float(covariance.diagonal().mean()) / 1.01
    covariance.diagonal().sub_(1e-2 * mean_variance)
    assert torch.linalg.cholesky_ex(covariance.double() + ridge * torch.eye(288))[1] > 0
    moments = few_samples(layer).moments(ridge)
    raised = float((moments.covariance - covariance).diagonal().mean()) / mean_variance
    assert 1e-7 < raised < 1e-3
    member = Member("layer", "consumer", np.arange(32).reshape(32, 1))
    mask = np.arange(32) < kept
    repair = Repairer(layer, member, moments).solve(mask)
    assert repair.weight.isfinite().all()
    assert repair.bias.isfinite().all()
    assert repair.weight.abs().max() < 100 * layer.weight.abs().max()


def test_values_that_are_not_finite_are_no_matter_of_the_ridge():
    layer = nn.Conv2d(2, 4, 3)
    gram = Gram(layer, 1, 0)
    gram.add(torch.full((1, 2, 3, 3), torch.nan))
    moments = gram.moments(ridge=1e-4)
    with pytest.raises(PruningError, match=r"pruning\.ridge"):
        Repairer(layer, Member("layer", "consumer", np.arange(2).reshape(2, 1)), moments).solve(
            np.array([True, False])
        )


@pytest.mark.parametrize(
    "settings", [{"padding": 1}, {"stride": 2, "padding": (2, 1)}, {"dilation": (2, 1), "padding": "same"}]
)
def test_patches_are_those_that_the_convolution_reads(settings):
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, (3, 2), **settings)
    inputs = torch.randn(4, 3, 9, 8)
    rows = torch.cat(list(Gram(layer, 1, 0)._rows_of(inputs)))
    with torch.no_grad():
        outputs = rows @ layer.weight.reshape(5, -1).T + layer.bias
        expected = layer(inputs).permute(0, 2, 3, 1).reshape(-1, 5)
    assert rows.shape == (len(expected), 18)
    torch.testing.assert_close(outputs.sort(dim=0).values, expected.sort(dim=0).values, atol=1e-5, rtol=1e-5)


def test_repair_of_a_copied_filter_is_exact(images):
    model = warmed("vgg16_bn")
    conv, norm = model.features[0], model.features[1]
    with torch.no_grad():
        for tensor in (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor[5] = tensor[2]
    group = find_groups(model, images[:1])[0]
    mask = np.ones(8, dtype=bool)
    mask[5] = False
    moments = collect_moments(model, group, images, ridge=1e-6, batch_size=24, seed=0)
    repairs = repair_for_mask(model, group, mask, moments)
    smaller = copy.deepcopy(model)
    cut(smaller, group, mask)
    apply_repair(smaller.features[3], repairs["features.3"])
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), model(images), atol=2e-3, rtol=2e-3)


def test_engine_leaves_the_network_as_it_was(network, images, calibration):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    group = find_groups(network, images[:1])[0]
    for fidelity in ("raw", "bn", "repair"):
        make_engine(network, group, images, calibration, fidelity).accuracies(random_masks(group, 2))
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_engine_subsets_duplicates_and_hard_accuracy(images, calibration):
    model = warmed("resnet20")
    group = find_groups(model, images[:1])[3]
    engine = make_engine(model, group, images, calibration, "raw", accuracy="hard")
    masks = random_masks(group, 3)
    calls = []
    measure = engine._measure
    engine._measure = lambda fresh: calls.append(len(fresh)) or measure(fresh)
    whole = engine.accuracies(np.concatenate([masks, masks]))
    assert calls == [3]
    np.testing.assert_array_equal(whole[:3], whole[3:])
    parts = []
    for chosen in (np.arange(0, 12), np.arange(12, 24)):
        engine.use_images(chosen)
        parts.append(engine.accuracies(masks))
    np.testing.assert_allclose(np.mean(parts, 0), whole[:3])
    engine.use_images(None)
    expected = [
        100 * (masked_forward(model, group, mask, images).argmax(1) == LABELS).double().mean().item()
        for mask in masks
    ]
    np.testing.assert_allclose(engine.accuracies(masks), expected)


@pytest.mark.parametrize("fidelity", ["raw", "bn", "repair"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_small_cache_changes_no_reward(images, calibration, monkeypatch, fidelity, share):
    monkeypatch.setattr(prefix_cache, "BLOCK_IMAGES", 5)
    model = warmed("resnet20")
    group = find_groups(model, images[:1])[4]
    masks = random_masks(group, 20)
    free = make_engine(model, group, images, calibration, fidelity)
    budget = int(share * free._images.cached_bytes)
    assert free._images.cached_bytes == free._images.image_bytes * 24
    tight = make_engine(model, group, images, calibration, fidelity, cache_bytes=budget)
    for chosen in (None, np.array([3, 1, 8, 20, 21, 22, 23, 5])):
        free.use_images(chosen)
        tight.use_images(chosen)
        assert tight._images.cached_bytes <= budget
        np.testing.assert_allclose(tight.accuracies(masks), free.accuracies(masks), atol=1e-4)


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize(
    ("fidelity", "cache_bytes", "error"), [("raw", None, OUT_OF_MEMORY[0]), ("repair", 0, OUT_OF_MEMORY[1])]
)
def test_blocks_are_halved_where_memory_runs_out(
    images, calibration, monkeypatch, fidelity, cache_bytes, error
):
    model = tiny_network.build(num_classes=10).eval()
    group = find_groups(model, images[:1])[1]
    masks = random_masks(group, 3)
    expected = make_engine(model, group, images, calibration, fidelity).accuracies(masks)
    small_enough, convolve = [12], torch.nn.functional.conv2d

    def limited(inputs, *rest):
        if len(inputs) > small_enough[0]:
            raise error
        return convolve(inputs, *rest)

    monkeypatch.setattr(torch.nn.functional, "conv2d", limited)
    monkeypatch.setattr(prefix_cache, "BLOCK_IMAGES", 64)
    engine = make_engine(model, group, images, calibration, fidelity, cache_bytes=cache_bytes)
    small_enough[0] = 5
    # the repair's sample of patches is drawn block by block
    tolerance = 0.05 if fidelity == "repair" else 1e-4
    np.testing.assert_allclose(engine.accuracies(masks), expected, atol=tolerance)
    assert engine._images.block_images == 4
    small_enough[0] = 0
    with pytest.raises(PruningError, match=r"one image at a time: .*memory"):
        engine.accuracies(~masks)


def test_other_errors_are_not_taken_for_a_lack_of_memory(images, calibration, monkeypatch):
    model = tiny_network.build(num_classes=10).eval()
    group = find_groups(model, images[:1])[1]
    engine = make_engine(model, group, images, calibration, "raw")
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *rest: torch.zeros(1) @ torch.zeros(2))
    with pytest.raises(RuntimeError, match="size"):
        engine.accuracies(random_masks(group, 1))


def test_engine_in_bf16_is_close(images, calibration):
    model = warmed("vgg16_bn")
    group = find_groups(model, images[:1])[4]
    masks = random_masks(group, 4)
    exact = make_engine(model, group, images, calibration, "raw").accuracies(masks)
    fast = make_engine(model, group, images, calibration, "raw", dtype=torch.bfloat16).accuracies(masks)
    assert np.abs(fast - exact).max() < 1.0


@pytest.mark.parametrize("accuracy", ["hard", "soft"])
def test_outputs_that_are_not_finite_are_no_accuracy(images, calibration, accuracy):
    model = warmed("vgg16_bn")
    group = find_groups(model, images[:1])[2]
    broken = images.clone()
    broken[3, 0, 5, 5] = torch.nan
    engine = make_engine(model, group, broken, calibration, "raw", accuracy=accuracy)
    with pytest.raises(PruningError, match=r"2 masks of the group of features\.7"):
        engine.accuracies(random_masks(group, 2))


def test_cut_networks_are_rebuilt_from_their_state(network, images):
    smaller = copy.deepcopy(network)
    for group in find_groups(network, images[:1]):
        cut(smaller, group, random_masks(group, 1)[0])
    fresh = copy.deepcopy(network)
    resize_to_state(fresh, smaller.state_dict())
    fresh.load_state_dict(smaller.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fresh(images), smaller(images))


def test_looking_at_a_network_leaves_every_mode_as_it_was(images):
    model = warmed("resnet20").train()
    frozen = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    groups = find_groups(model, images[:1])
    count_cost(model, images[:1])
    collect_moments(model, groups[0], images, ridge=1e-3, batch_size=24, seed=0)
    assert all(module.training != (module is frozen) for module in model.modules())


def test_a_state_of_another_network_is_refused():
    with pytest.raises(ModelError, match="another architecture"):
        resize_to_state(NETWORKS["resnet20"](), NETWORKS["resnet18"]().state_dict())


def test_empty_and_misshapen_masks_are_refused(images, calibration):
    model = warmed("vgg16_bn")
    group = find_groups(model, images[:1])[0]
    engine = make_engine(model, group, images, calibration, "raw")
    with pytest.raises(PruningError, match="keeps no filter"):
        engine.accuracies(np.zeros((1, 8), dtype=bool))
    with pytest.raises(PruningError, match="has 8 filters"):
        cut(model, group, np.ones(7, dtype=bool))


def test_layers_named_to_stay_whole_and_networks_without_groups():
    model = warmed("vgg16_bn")
    example = torch.zeros(1, 3, 32, 32)
    names = [group.name for group in find_groups(model, example, keep_whole=["features.3"])]
    assert "features.3" not in names
    assert "features.0" in names
    assert len(names) == 12
    assert names == [group.name for group in find_groups(model, example, keep_whole=["features.4"])]
    assert len(find_groups(model, example, keep_whole=["classifier"])) == 13
    for without_filters in ("avgpool", "features.2"):
        with pytest.raises(ModelError, match=f"{without_filters} holds no filters"):
            find_groups(model, example, keep_whole=[without_filters])
    with pytest.raises(ModelError, match=r"features\.999"):
        find_groups(model, example, keep_whole=["features.999"])
    with pytest.raises(ModelError, match="no prunable group"):
        find_groups(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), example)


def test_layers_that_are_not_cut_keep_their_shape_when_rebuilt():
    """A depthwise convolution with a multiplier has fewer groups than filters."""
    model = nn.Sequential(nn.Conv2d(8, 16, 3, groups=8))
    resize_to_state(model, model.state_dict())
    assert (model[0].groups, model[0].in_channels) == (8, 8)
    assert model(torch.zeros(1, 8, 4, 4)).shape == (1, 16, 2, 2)


def test_cost_with_layers_that_have_no_weights_to_cut():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8, affine=False),
        nn.PReLU(),
        nn.Conv2d(8, 10, 1),
        nn.Flatten(),
    ).eval()
    example = torch.zeros(1, 3, 3, 3)
    (group,) = find_groups(model, example)
    smaller, mask = copy.deepcopy(model), np.arange(8) < 5
    cost = GroupCost(model, group, example)
    cut(smaller, group, mask)
    found = count_cost(smaller, example)
    assert (cost.macs(np.array(5)), cost.params(np.array(5))) == pytest.approx((found.macs, found.params))


def test_an_inverse_made_in_place_is_that_of_numpy():
    covariance = torch.from_numpy(np.cov(np.random.default_rng(0).normal(size=(9, 50)))).float()
    before = covariance.clone()
    precision = Moments(torch.zeros(9), covariance).precision
    expected = np.linalg.inv(before.double().numpy())
    np.testing.assert_allclose(precision.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(covariance, before)


@pytest.mark.parametrize("cache_bytes", [None, 0])
def test_images_prepared_a_few_at_a_time_give_the_same_rewards(images, calibration, monkeypatch, cache_bytes):
    monkeypatch.setattr(prefix_cache, "BLOCK_IMAGES_OF_A_CPU", 5)
    model = warmed("resnet20")
    group = find_groups(model, images[:1])[2]
    masks = random_masks(group, 3)
    expected = make_engine(model, group, images, calibration, "raw").accuracies(masks)
    halves, seen = images / 2, []

    def doubled(some: torch.Tensor) -> torch.Tensor:
        seen.append(len(some))
        return some * 2

    engine = make_engine(model, group, halves, calibration, "raw", cache_bytes=cache_bytes, prepare=doubled)
    np.testing.assert_allclose(engine.accuracies(masks), expected, atol=1e-4)
    assert max(seen) == 5


def test_candidates_that_share_weights_equal_copies_and_leave_the_network_alone(images, calibration):
    model = warmed("resnet20")
    group = find_groups(model, images[:1])[2]
    before = copy.deepcopy(model.state_dict())
    moments = collect_moments(model, group, calibration, ridge=1e-3, batch_size=32, seed=0)
    for mask in (*random_masks(group, 2), np.ones(group.n_filters, dtype=bool)):
        plain = cut_copy(None, model, group, mask, moments)
        sharing = cut_copy(None, model, group, mask, moments, sharing=True)
        assert all(
            torch.equal(value, plain.state_dict()[name]) for name, value in sharing.state_dict().items()
        )
        places = {value.data_ptr() for value in model.state_dict().values()}
        shared = [name for name, value in sharing.state_dict().items() if value.data_ptr() in places]
        assert shared, "layers that the group does not touch"
        touched = tuple(f"{member.layer}." for member in group.members)
        assert not [name for name in shared if name.startswith(touched)]
        assert not {value.data_ptr() for value in plain.state_dict().values()} & places
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
