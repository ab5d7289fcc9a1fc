"""Exported files decide as PyTorch does, say what they are, and are not left behind where they do not."""

import copy
import dataclasses
import importlib.util
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import SETTINGS
from torch import nn

import rlprune
from rlprune.cli import main
from rlprune.config_loading import config_to_dict, load_config
from rlprune.data import DataSplits
from rlprune.deploy import export as export_module
from rlprune.deploy import timing
from rlprune.deploy.formats import FORMATS
from rlprune.deploy.parity import check_parity, compare
from rlprune.errors import CheckpointError, ConfigError, ModelError
from rlprune.final_table import PASSES
from rlprune.pruning.groups import find_groups
from rlprune.pruning.latency import measure_latency
from rlprune.pruning.surgery import cut
from rlprune.pruning_run import PruningRun
from rlprune.results.environment import describe_environment
from rlprune.results.folder import RunFolder
from rlprune.results.latency_note import latency_notes
from rlprune.results.record import TrialRecord
from rlprune.results.table import frontier_markdown, frontier_table

TRIALS = {"t0000": 0.25, "t0001": 0.5}
"""Trials and the share of every group that each keeps."""


@pytest.fixture
def run(tiny_model: nn.Module, digits_splits: DataSplits, tmp_path: Path) -> Path:
    """A run folder with two finished trials, the first the smaller and the worse."""
    config = load_config(None, SETTINGS)
    command = ["rlprune", "search", "--name", "my run"]
    folder = RunFolder.create(tmp_path / "run", config_to_dict(config), describe_environment(command))
    example = torch.zeros(1, 3, 32, 32)
    for trial, share in TRIALS.items():
        pruning = PruningRun(config, tiny_model, digits_splits.sealed())
        model = pruning._model
        for group in find_groups(model, example):
            cut(model, group, np.arange(group.n_filters) < share * group.n_filters)
        pruning._correct = pruning._bench.correct_val(model)
        path = folder.network_path(trial)
        pruning.save_network(path)
        network = path.relative_to(folder.path).as_posix()
        folder.append(
            dataclasses.replace(pruning.record(), trial=trial, status="COMPLETE", network=network, b=5.0)
        )
    return folder.path


def exported(run: Path, form: str, *options: str) -> list[Path]:
    """The files that the verb wrote into a folder of its own."""
    out = run / f"out-{form}"
    command = ["export", str(run), "--format", form, "--out", str(out), "--trust-code", *options]
    assert main(command) == 0
    return sorted(out.iterdir())


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("onnx", ["t0001.onnx", "t0001.onnx.md"]),
        ("torch-export", ["t0001.pt2", "t0001.pt2.md"]),
        ("state-dict", ["t0001.json", "t0001.safetensors", "t0001.safetensors.md"]),
    ],
)
def test_every_format_agrees_with_the_network_file(
    form: str, names: list[str], run: Path, digits_splits: DataSplits, capsys: pytest.CaptureFixture[str]
) -> None:
    files = exported(run, form, "--trial", "t0001")
    said = capsys.readouterr()
    assert [path.name for path in files] == names
    assert said.out.splitlines()[-1] == str(
        next(path for path in files if path.suffix == FORMATS[form].suffix)
    )
    assert "256 of 256 decisions equal" in said.err
    assert all(stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(files[0].stat().st_mode) for path in files)
    for count in (1, 7):  # neither is the batch that was traced
        images = torch.from_numpy(digits_splits.val.images[:count])
        network = rlprune.load(run / "models" / "t0001.pt", trust_code=True)
        found = FORMATS[form].open(Path(said.out.splitlines()[-1]), network)(images)
        torch.testing.assert_close(found, network(images), atol=1e-4, rtol=1e-4)
    if form == "onnx":
        check_onnx_description(files[0])


def check_onnx_description(path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    assert isinstance(given.shape[0], str), "any number of images"
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["class_names"]) == [str(digit) for digit in range(10)]


def test_the_card_says_what_was_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = exported(run, "state-dict", "--max-drop", "100")
    (record,) = [row for row in RunFolder.open(run).records() if row.trial == "t0000"]
    card = files[-1].read_text()
    assert record.drop_val is not None
    for part in (
        f"drop {record.drop_val:.2f} [{record.drop_val_low:.2f}, {record.drop_val_high:.2f}]",
        f"| MACs | {record.base_macs:,} | {record.macs:,} |",
        f"| parameters | {record.base_params:,} | {record.params:,} |",
        "uint8 `(n, 3, 32, 32)`",
        "Data: `digits`",
        "rlprune search --name 'my run'",
        "| accuracy on test | not measured | not measured | |",
        "Median of a batch with its quartiles",
        f"{torch.get_num_threads()} thread(s), fp32",
        "256 of 256 decisions equal",
    ):
        assert part in card
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    found: dict = {}
    exec(example.replace("t0000.safetensors", str(files[1])), found)
    assert found["logits"].shape == (8, 10)


def test_a_batch_that_memory_cannot_hold_costs_only_its_own_times(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    def measure(models: Any, example: torch.Tensor, **options: Any) -> Any:
        if len(example) == 256:
            raise Fail("bfc_arena.cc: Failed to allocate memory for requested buffer of size 268435456")
        return measure_latency(models, example, **options)

    monkeypatch.setattr(timing, "measure_latency", measure)
    files = exported(run, "onnx", "--trial", "t0001")
    said = capsys.readouterr().err
    assert "no latency at batch 256: memory ran out (bfc_arena.cc" in said
    assert re.findall(r"latency at batch (\d+): [0-9]", said) == ["1"]
    assert re.findall(r"^\| (1|256) \|", files[-1].read_text(), re.MULTILINE) == ["1"]


def test_an_export_fails_with_another_fault_while_it_is_timed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(models: Any, example: torch.Tensor, **options: Any) -> Any:
        raise ArithmeticError("not about memory")

    monkeypatch.setattr(timing, "measure_latency", measure)
    with pytest.raises(ArithmeticError, match="not about memory"):
        exported(run, "onnx", "--trial", "t0001")


def test_a_file_that_disagrees_is_not_left_behind(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    form = FORMATS["state-dict"]

    def write_wrong(network: nn.Module, path: Path) -> None:
        network.network[-1].bias[3] += 0.1
        form.write(network, path)
        network.network[-1].bias[3] -= 0.1

    monkeypatch.setitem(FORMATS, "state-dict", dataclasses.replace(form, write=write_wrong))
    command = ["export", str(run), "--format", "state-dict", "--trust-code", "--trial", "t0001"]
    assert main(command) == 2
    assert (
        "does not agree with PyTorch on 256 real images: largest difference 1.0e-01"
        in capsys.readouterr().err
    )
    assert list((run / "export").iterdir()) == []


def test_the_row_must_be_named(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["export", str(run), "--format", "state-dict", "--trust-code"]
    for options, expected in (
        ([], "it is not said which row; give --max-drop X or --trial TRIAL, of: t0001, drop on val"),
        (["--max-drop", "-200"], "no row keeps the drop within -200 points"),
        (["--trial", "t0007"], "has no finished trial 't0007'; it has t0000, t0001"),
        (["--max-drop", "100", "--data", "imagefolder:nowhere"], "no such folder"),
    ):
        assert main([*command, *options]) == 2
        assert expected in capsys.readouterr().err
    assert main(["export", str(run), "--format", "state-dict", "--max-drop", "100"]) == 2
    assert "if you trust it, add --trust-code" in capsys.readouterr().err
    empty = RunFolder.create(tmp_path / "empty", config_to_dict(load_config(None, SETTINGS)), {}).path
    assert main(["export", str(empty)]) == 2
    assert "no trial has finished yet" in capsys.readouterr().err


def test_a_network_file_can_be_exported_by_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "models" / "t0001.pt"
    assert main(["export", str(path), "--format", "state-dict", "--trust-code"]) == 0
    written = Path(capsys.readouterr().out.splitlines()[-1])
    assert written == run / "models" / "export" / "t0001.safetensors"
    again = rlprune.load(written, trust_code=True)
    assert again.record["drop_val"] == rlprune.load(path, trust_code=True).record["drop_val"]
    json.loads(written.with_suffix(".json").read_text(), parse_constant=pytest.fail)


def test_safetensors_and_json_go_together(run: Path) -> None:
    header, tensors, _ = exported(run, "state-dict", "--trial", "t0001")
    with pytest.raises(CheckpointError, match=r"code outside rlprune"):
        rlprune.load(tensors)
    content = header.read_text()
    header.write_text(content[:100])
    with pytest.raises(CheckpointError, match=r"t0001\.json is damaged"):
        rlprune.load(tensors)
    header.write_text("{}")
    with pytest.raises(CheckpointError, match=r"not a network file of this version"):
        rlprune.load(tensors)
    header.unlink()
    with pytest.raises(CheckpointError, match=r"t0001\.json: no such file; .* go together"):
        rlprune.load(tensors)
    header.write_text(content)
    tensors.write_bytes(tensors.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"is damaged or no safetensors file"):
        rlprune.load(tensors)


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    assert main(["export", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "--format onnx needs onnx, onnxscript, onnxruntime: pip install 'rlprune[export]'" in said


def test_parity_is_a_share_of_the_largest_logit() -> None:
    expected = torch.tensor([[0.0, 10.0], [4.0, 3.0]])
    found = compare(expected, expected + torch.tensor([[0.0, 0.009], [0.0, 0.0]]))
    assert (found.images, found.equal, found.scale) == (2, 2, 10)
    assert found.largest == pytest.approx(0.009, rel=1e-3)
    assert found.holds
    swapped = compare(expected, expected.flip(1))
    assert (swapped.equal, swapped.holds) == (0, False)
    assert not compare(expected, expected * float("nan")).holds
    with pytest.raises(ModelError, match=r"gives \(2, 1\), PyTorch \(2, 2\)"):
        check_parity(lambda images: expected, lambda images: expected[:, :1], expected)


def timed(trial: str, macs: float, b1: float, b256: float) -> TrialRecord:
    return TrialRecord(
        status="COMPLETE",
        trial=trial,
        drop_val=1.0,
        macs_ratio=macs,
        latency_ms_base_b1=2.0,
        latency_ms_b1=b1,
        latency_ms_base_b256=100.0,
        latency_ms_b256=b256,
    )


def test_fewer_macs_without_less_time_is_said_plainly() -> None:
    rows = [timed("t0", 0.5, 1.0, 50.0), timed("t1", 0.7, 1.97, 70.0), timed("t2", 0.9, 2.4, 99.5)]
    assert latency_notes(rows) == [
        "t1: MACs fell to 70.0 %, latency did not at batch 1 (2 -> 1.97 ms)",
        "t2: MACs fell to 90.0 %, latency did not at batch 1 (2 -> 2.4 ms) and batch 256 (100 -> 99.5 ms)",
    ]
    unknown = dataclasses.replace(rows[1], latency_ms_b1=None, latency_ms_b256=None)
    assert latency_notes([unknown, timed("whole", 1.0, 2.0, 100.0)]) == []
    for text in (frontier_table(rows[1:2], None, 120), frontier_markdown(rows[1:2], None)):
        assert "t1: MACs fell to 70.0 %, latency did not at batch 1" in text


# ---- rlprune.export


@pytest.fixture
def network(run: Path, monkeypatch: pytest.MonkeyPatch) -> rlprune.PrunedNetwork:
    """A network of this program; exporting it takes few passes to time it."""
    monkeypatch.setitem(PASSES, 1, 2)
    monkeypatch.setitem(PASSES, 256, 1)
    return rlprune.load(run / "models" / "t0001.pt", trust_code=True)


def test_a_network_in_training_mode_stays_as_it_is_and_is_exported_for_evaluation(
    network: rlprune.PrunedNetwork, digits_splits: DataSplits, tmp_path: Path
) -> None:
    images = torch.from_numpy(digits_splits.val.images[:8])
    expected = network(images)
    state, record = copy.deepcopy(network.state_dict()), copy.deepcopy(network.record)
    network.train()
    for form in FORMATS:
        path, *_ = rlprune.export(network, digits_splits, tmp_path, format=form, progress=False)
        found = FORMATS[form].open(path, network)(images)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert network.training
    assert network.record == record
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"network": nn.Linear(2, 3)}, r"network: expected what rlprune\.prune, .* gave; got Linear"),
        ({"network": "network.pt"}, r"network: .*rlprune\.load\(path\).* gave; got str"),
        ({"splits": (1, 2)}, r"splits: expected the splits that rlprune\.splits\(...\) makes; got tuple"),
        ({"format": ["onnx"]}, r"format: expected onnx \| torch-export \| state-dict; got \['onnx'\]"),
        *(
            ({"name": name}, "name: expected the name of a file")
            for name in ("", ".", "..", ".net", "a/b", 3)
        ),
        *(({"name": name}, "name: expected the name of a file") for name in ("../x", "a\\b", "a\nb", "a\0")),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(
    network: rlprune.PrunedNetwork,
    digits_splits: DataSplits,
    tmp_path: Path,
    arguments: dict[str, Any],
    expected: str,
) -> None:
    given = {"network": network, "splits": digits_splits, "format": "state-dict"} | arguments
    with pytest.raises(ConfigError, match=expected):
        rlprune.export(**given, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_any_names_of_classes_files_and_sources_can_be_exported(
    form: str,
    network: rlprune.PrunedNetwork,
    digits_splits: DataSplits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latin = os.fsdecode(b"caf\xe9")  # what the name of a folder that is not UTF-8 comes as
    names = (
        latin,
        "<script>alert(1)</script>",
        "a|b & c",
        "`d`",
        "*e*",
        "_f_",
        "[g](h)",
        "i\n\n# j",
        "8",
        "9",
    )
    info = dataclasses.replace(network.info, class_names=names, source=f"imagefolder:{latin}/``k")
    network.spec = dataclasses.replace(network.spec, info=info)
    network.versions["command"] = ["rlprune", "search", "--name", "\n```\n<script>"]
    name = "we\"i{r}'d_<b>"
    monkeypatch.chdir(tmp_path)
    files = rlprune.export(network, digits_splits, ".", format=form, name=name, progress=False)
    card = files[-1].read_text(encoding="utf-8")
    shown = r"caf\udce9, &lt;script&gt;alert(1)&lt;/script&gt;, a\|b &amp; c, \`d\`, \*e\*, \_f\_, \[g\](h)"
    assert f"classes: {shown}, i # j, 8, 9.\n" in card
    assert card.startswith(f"# we\"i{{r}}'d\\_&lt;b&gt;{FORMATS[form].suffix}\n")
    assert "- Data: ``` imagefolder:caf\\udce9/``k ```.\n" in card
    assert "\n````sh\nrlprune search --name '\n```\n<script>'" in card
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    found: dict = {}
    exec(example, found)
    assert found["logits"].shape == (8, 10)
    if form == "state-dict":
        assert rlprune.load(files[0], trust_code=True).info == info


def test_the_same_images_are_drawn_each_time(digits_splits: DataSplits) -> None:
    first, second = (export_module._real_images(digits_splits.val) for _ in range(2))
    assert len(first) == 256
    assert torch.equal(first, second)
