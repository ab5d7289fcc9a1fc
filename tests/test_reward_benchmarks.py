"""The benchmarks of the reward: rank correlations by hand, tables from records, and interrupted runs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_network
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau, spearmanr
from torch import nn

from rlprune.config_loading import load_config
from rlprune.data import DataSplits
from rlprune.pruning.byte_layers import runs_bytes
from rlprune.pruning.groups import Member, find_groups

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def test_the_tables_of_the_document_are_those_of_the_records() -> None:
    from reward_tables import DOCUMENT, with_tables

    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run python scripts/reward_tables.py"


def test_tau_and_spearman_are_those_of_scipy_on_every_sample() -> None:
    from fidelity_tables import counted, spearman, weighted_tau

    generator = np.random.default_rng(0)
    first, second = generator.integers(6, size=(2, 15)).astype(float)
    drawn = generator.integers(15, size=(20, 15))
    everywhere = np.ones((15, 15), dtype=bool)
    taus = weighted_tau(first, second, everywhere, counted(drawn), within=False)
    np.testing.assert_allclose(taus, [kendalltau(first[row], second[row]).statistic for row in drawn])
    expected = [spearmanr(first[row], second[row]).statistic for row in drawn]
    np.testing.assert_allclose(spearman(first, second, drawn), expected)


def test_tau_within_strata_compares_no_pair_across_them() -> None:
    from fidelity_tables import weighted_tau

    first = np.array([1.0, 2.0, 30.0, 20.0])
    second = np.array([1.0, 2.0, 3.0, 4.0])
    same = np.array([0, 0, 1, 1])[:, None] == np.array([0, 0, 1, 1])
    drawn = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [2.0, 2.0, 1.0, 1.0]])
    taus = weighted_tau(first, second, same, drawn, within=True)
    np.testing.assert_allclose(
        taus, [0, 1, 1 / 3], err_msg="a group that is drawn twice has two pairs, not four"
    )
    everywhere = np.ones((4, 4), dtype=bool)
    assert weighted_tau(first, second, everywhere, drawn[:1], within=False)[0] == pytest.approx(4 / 6)


def test_kinds_are_compared_on_the_groups_that_have_them_all() -> None:
    from fidelity_tables import kind_lines

    drops = (("a", "l1", 3.0), ("a", "agent", 1.0), ("b", "l1", 5.0), ("b", "agent", 2.0))
    rows: list[dict[str, Any]] = [
        {"kind": "mask", "group": group, "mask": kind, "ratio": 0.5, "repaired": drop}
        for group, kind, drop in drops
    ]
    rows.append({"kind": "tuned", "group": "a", "mask": "l1", "ratio": 0.5, "epochs": 1.0, "drop": 1.0})
    rows.append({"kind": "tuned", "group": "a", "mask": "agent", "ratio": 0.5, "epochs": 1.0, "drop": 0.5})
    rows.append({"kind": "tuned", "group": "b", "mask": "l1", "ratio": 0.5, "epochs": 1.0, "drop": 9.0})
    assert kind_lines(rows)[2:] == ["| 0.5 | 0 | 2 | 4.00 | 1.50 |", "| 0.5 | 1 | 1 | 1.00 | 0.50 |"]
    rows += [{"kind": "mask", "group": g, "mask": "taylor", "ratio": 0.5, "repaired": 2.0} for g in "ab"]
    assert kind_lines(rows)[2:] == [
        "| 0.5 | 0 | 2 | 4.00 | 1.50 | 2.00 |",
        "| 0.5 | 1 | 1 | 1.00 | 0.50 |  |",
    ], "a kind that none has been tuned of takes no groups from the others"


def test_what_the_agents_masks_are_ahead_by_hand() -> None:
    from fidelity_tables import group_lines

    drops = (
        ("a", 0.5, 3.0, None, 1.0),
        ("b", 0.5, 5.0, 2.5, 2.0),
        ("b", 0.3, 7.0, 4.0, 3.0),
        ("c", 0.3, 9.0, None, None),
    )
    rows: list[dict[str, Any]] = [
        {"kind": "tuned", "group": group, "mask": kind, "ratio": ratio, "epochs": 1.0, "drop": drop}
        for group, ratio, *several in drops
        for kind, drop in zip(("l1", "random", "agent"), several, strict=True)
        if drop is not None
    ]
    assert group_lines(rows, 1.0) == [
        "| group | keep 0.3: l1 / agent / random | keep 0.5: l1 / agent / random |",
        "|---|---|---|",
        "| a |  /  /  | 3.00 / 1.00 /  |",
        "| b | 7.00 / 3.00 / 4.00 | 5.00 / 2.00 / 2.50 |",
        "| c | 9.00 /  /  |  /  /  |",
        "",
        "The agent's masks are ahead, mean ± standard error (masks): l1 +3.00 ± 0.58 (3), "
        "random +0.75 ± 0.25 (2).",
    ]


def test_shares_of_an_agents_time_by_hand() -> None:
    from reward_tables import agent_report

    run = {"kind": "run", "command": "a", "machine": "b", "revision": 40 * "c" + "+changes", "clock": "wall"}
    times = {"prepare": 5.0, "after": 12.5, "build": 0.5, "whole": [1.0, 1.0], "rest": [0.2, 0.3]}
    row = {"kind": "agent", "group": "g", "filters": 4, "masks": 16, **times}
    text = agent_report([run | {"iterations": 2, "images": 300}, row])
    assert "revision ccccccc+changes; 300 images" in text
    assert text.endswith("| g | 4 | 16 | 1000 [1000, 1000] | 250 [200, 300] | 25 % | 5.0 % |")


def test_channel_wise_repair_of_a_copied_filter_is_exact() -> None:
    from bench_repair import channel_repair

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).eval()
    model.requires_grad_(False)
    model[0].weight[3], model[0].bias[3] = model[0].weight[1], model[0].bias[1]
    images = torch.randn(16, 3, 9, 9)
    inputs = model[1](model[0](images))
    mask = np.array([True, True, True, False])
    member = Member("2", "consumer", np.arange(4)[:, None])
    repair = channel_repair(model, member, images, ridge=1e-6)(mask)
    repaired = F.conv2d(inputs[:, :3], repair.weight, repair.bias)
    torch.testing.assert_close(repaired, model[2](inputs), atol=1e-4, rtol=0)


def test_ways_to_be_timed_are_known_and_have_the_one_that_all_are_compared_with() -> None:
    from bench_reward_engine import LOW_NAME, check_ways

    check_ways("")
    check_ways(f"plain fp32,plain {LOW_NAME}, channels-last,engine raw int8")
    for ways in ("engine raw int8", "plain fp32,engine raw int4"):
        with pytest.raises(SystemExit, match="expected 'plain fp32' and some of"):
            check_ways(ways)


@pytest.mark.skipif(not runs_bytes(torch.device("cpu")), reason="this CPU multiplies no bytes (AVX2)")
def test_a_convolution_is_timed_in_three_ways_on_the_same_images() -> None:
    from bench_convolutions import ways
    from bench_network import LOW, LOW_NAME

    torch.manual_seed(0)
    layer, images = nn.Conv2d(16, 8, 3, padding=1), torch.rand(4, 16, 8, 8)
    with torch.inference_mode():
        found = {name: run() for name, run in ways(layer, images).items()}
    assert list(found) == [LOW_NAME, f"{LOW_NAME}, fused", "bytes"]
    assert all(outputs.shape == (4, 8, 8, 8) for outputs in found.values())
    assert found["bytes"].dtype == torch.uint8
    assert found[LOW_NAME].dtype == LOW
    torch.testing.assert_close(found[f"{LOW_NAME}, fused"].to_dense(), found[LOW_NAME], atol=0.02, rtol=0.02)


def test_repair_is_compared_for_groups_that_one_convolution_reads(capsys: pytest.CaptureFixture[str]) -> None:
    from bench_network import Subject
    from bench_repair import measurable

    model, example = tiny_network.build(num_classes=10).eval(), torch.zeros(1, 3, 8, 8)
    groups = find_groups(model, example)
    subject = Subject(load_config(None, []), None, model, groups, example)  # type: ignore[arg-type]
    linear = groups[-1].name
    assert [group.name for group in measurable(subject)] == [group.name for group in groups[:-1]]
    assert f"left out: {linear}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no group is left"):
        measurable(dataclasses.replace(subject, groups=groups[-1:]))


def test_each_lever_is_timed_on_top_of_those_before(digits_splits: DataSplits) -> None:
    from bench_levers import FOLDED, KEPT, LAST, PLAIN, PRECISIONS, PREFIX, step_times
    from bench_network import Subject, random_masks

    model, example = (
        tiny_network.build(num_classes=10).eval(),
        torch.zeros(1, *digits_splits.info.image_shape),
    )
    group = find_groups(model, example)[0]
    subject = Subject(load_config(None, []), digits_splits.sealed(), model, [group], example)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    times = step_times(subject, group, random_masks(group, 2, seed=0), 32, "cpu")
    assert list(times) == [PLAIN, LAST, FOLDED, PREFIX, KEPT, *PRECISIONS]
    assert all(taken > 0 for taken in times.values())
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_masks_that_are_asked_for_again_are_counted_until_images_are_drawn_anew() -> None:
    from bench_levers import CountingTask

    class Task:
        n_filters, context = 2, None

        def redraw(self, rng: np.random.Generator) -> None:
            pass

        def rewards(self, masks: np.ndarray) -> np.ndarray:
            return masks.sum(1).astype(float)

    task, rng = CountingTask(Task()), np.random.default_rng(0)  # type: ignore[arg-type]
    masks = np.array([[True, False], [True, True], [True, False]])
    assert task.rewards(masks).tolist() == [1, 2, 1]
    assert (task.asked, task.new) == (3, 2)
    task.rewards(masks[:1])
    assert (task.asked, task.new) == (4, 2)
    task.redraw(rng)
    task.rewards(masks[1:])
    assert (task.asked, task.new) == (6, 4)


def test_the_table_of_levers_compares_each_step_with_the_one_above_and_with_the_plain_way() -> None:
    from lever_tables import lever_report

    run = {
        "kind": "run",
        "command": "python scripts/bench_levers.py",
        "machine": "a CPU",
        "revision": "0" * 40,
    }
    rows = [{**run, "images": 10, "masks": 2, "clock": "cpu"}]
    for repeat, slow in enumerate((1.0, 3.0)):
        for group in ("a", "b"):
            times = {"plain fp32": 4 * slow, "folded": 2.0, "kept": 0.5}
            rows.append({"kind": "levers", "repeat": repeat, "group": group, "times": times})
    rows.append({"kind": "equal", "group": "a", "filters": 4, "asked": 20, "new": 15, "iterations": 2})
    rows.append({"kind": "equal", "group": "b", "filters": 8, "asked": 20, "new": 20, "iterations": 2})
    report = lever_report(rows)
    assert "a mask in each of 2 groups" in report
    assert "2 interleaved repeats" in report
    assert "| folded | 4.00 [4.00, 4.00] | 4.00 [2.00, 6.00] | 4.00 [2.00, 6.00] |" in report
    assert "| kept | 1.00 [1.00, 1.00] | 4.00 [4.00, 4.00] | 16.00 [8.00, 24.00] |" in report
    assert "5 of the 40 that 2 agents, one a group, ask for in 2 iterations (12.5 %)" in report
    assert "most in `a` with its 4 filters (25 %)" in report


@pytest.mark.ray
def test_the_fidelity_benchmark_goes_on_with_what_is_missing(
    digits_splits: DataSplits, tiny_base: Path, tmp_path: Path, local_ray: None
) -> None:
    from bench_network import Subject
    from bench_reward_fidelity import Recorder
    from fidelity_tables import fidelity_report
    from records import Records

    overrides = [f"{name}={value}" for name, value in tiny_network.SETTINGS.items() if name[:5] != "model"]
    config = load_config(None, overrides)
    model = tiny_network.build(num_classes=10).eval()
    model.load_state_dict(torch.load(tiny_base, weights_only=True))
    example = torch.zeros(1, *digits_splits.info.image_shape)
    subject = Subject(config, digits_splits.sealed(), model, find_groups(model, example)[1:], example)
    out = tmp_path / "records.jsonl"
    Recorder(subject, Records(out)).run(["l1", "agent"], [0.5], [0.05])
    whole = Records(out).rows
    assert [row["kind"] for row in whole] == ["run", *2 * (["agent"] * 2 + ["mask"] * 2 + ["tuned"] * 2)]
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text("".join(lines[:-1]), encoding="utf-8")
    Recorder(subject, Records(out)).run(["l1", "agent"], [0.5], [0.05])
    again = Records(out).rows
    assert again[: len(whole) - 1] == whole[:-1]
    assert [row["kind"] for row in again[len(whole) - 1 :]] == ["run", "tuned"]
    assert again[-1] == whole[-1], "the same fine-tuning gives the same drop"
    report = fidelity_report(again)
    assert "Against the drop on val after 0.05 epochs: 4 masks of 2 groups" in report
    assert "| fixed | 2 |" in report
    text = out.read_text(encoding="utf-8")
    assert text.count('"precision": "fp32"') == 2, "that of the settings, not of the machine"
    out.write_text(text.replace('"precision": "fp32"', '"precision": "bf16"'), encoding="utf-8")
    with pytest.raises(SystemExit, match="records of\n  precision bf16\nnot of\n  precision fp32"):
        Recorder(subject, Records(out))
