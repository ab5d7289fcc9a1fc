"""The command line: its verbs, what it says of bad input, and what an interrupt leaves behind."""

import argparse
import ast
import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fsspec.implementations.memory import MemoryFileSystem
from tiny_network import FACTORY, GROUPS, SETTINGS, build
from torch import nn

import rlprune
from rlprune import whole_run
from rlprune.cli import build_parser, main, overrides_of
from rlprune.config_loading import config_to_dict, field_help, load_config
from rlprune.data import DataSplits
from rlprune.errors import ResultsError
from rlprune.job import Job
from rlprune.models import vgg16_bn
from rlprune.pruning.cost import count_cost
from rlprune.pruning_run import PruningRun
from rlprune.results.folder import RunFolder
from rlprune.results.record import TrialRecord
from rlprune.search.interrupt import exclusive
from rlprune.storage import RemoteFolder
from rlprune.training.base import BaseModel
from rlprune.verbs import prune, resume, settings
from rlprune.verbs.whole_run import INTERRUPTED

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlprune"
Refused = Any  # the fixture's function: arguments -> what was said


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command that must be refused, with exit code 2, nothing on stdout and no folder made."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert all(line.startswith(("rlprune: ", "base model ")) for line in said.err.splitlines())
        assert not (tmp_path / "results").exists()
        return said.err

    return run


def write_config(path: Path, **settings: Any) -> Path:
    """A YAML file with the settings of a quick run; ``pruning__b=1`` changes ``pruning.b``."""
    changes = {name.replace("__", "."): value for name, value in settings.items()}
    path.write_text(yaml.safe_dump(config_to_dict(load_config(None, SETTINGS | changes))))
    return path


# ---- bad input


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "search.b_grid: each b is a drop in percentage points above 0 and at most 100; got 0"),
        ("0.5,0", "got 0"),
        ("-1", "got -1"),
        ("-1,2", "got -1"),
        ("101", "got 101"),
        ("nan", "search.b_grid: expected a finite number; got nan"),
        ("inf", "expected a finite number; got inf"),
        ("", "search.b_grid: is empty; give at least one drop bound, for example 0.5,1,2"),
        ("abc", "search.b_grid: expected a number; got 'abc'"),
        ("1;2", "got '1;2'"),
        ("1,1", "holds the same b twice"),
    ],
)
def test_a_bad_grid_of_drop_bounds(text: str, expected: str, refused: Refused) -> None:
    assert expected in refused("search", f"--b-grid={text}")
    assert expected in refused("search", "--b-grid", text)


@pytest.mark.parametrize("text", ["0", "-2", "nan", "", "abc"])
def test_a_bad_drop_bound(text: str, refused: Refused) -> None:
    assert "pruning.b: expected a" in refused("prune", f"--b={text}")
    assert "pruning.b: expected a" in refused("prune", "--b", text)


def test_a_search_on_a_gpu_whose_trials_get_none(refused: Refused) -> None:
    assert "search.gpus_per_trial is 0" in refused("search", "--device", "cuda")


def test_an_unknown_setting_is_answered_by_the_nearest(refused: Refused) -> None:
    said = refused("search", "--set", "agent.iteration=3")
    assert "agent.iteration: unknown setting; did you mean agent.iterations?" in said


def test_all_faults_are_told_at_once(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("agent:\n  masks: 7\n  polic: set\nfinetune:\n  batch_size: many\n")
    said = refused("search", "--config", path, "--b-grid=0,abc", "--gpus-per-trial", "1.5").splitlines()
    assert len(said) == 6
    for fault in (
        "agent.masks: must be even",
        "agent.polic: unknown setting; did you mean agent.policy?",
        "finetune.batch_size: expected a whole number",
        "got 0",
        "got 'abc'",
        "search.gpus_per_trial",
    ):
        assert sum(fault in line for line in said) == 1, fault


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--data", "parquet:~nobody-here/x"), "data.source: ~nobody-here/x is in nobody's home folder"),
        (("--base", "~nobody-here/x.pt"), "base.checkpoint: ~nobody-here/x.pt is in nobody's"),
        (("--storage-path", "~nobody-here/x"), "search.storage_path: ~nobody-here/x is in nobody's"),
        (("--name", "x" * 300), "search.name: expected at most 200 bytes"),
        (("--gpus-per-trial", "0.00005"), "search.gpus_per_trial: Ray shares out no less than 0.0001"),
        (("--cpus-per-trial", "0.00005"), "search.cpus_per_trial"),
    ],
)
def test_what_only_the_machine_would_refuse(
    options: tuple[str, ...], expected: str, refused: Refused
) -> None:
    assert expected in refused("search", *options)


def test_a_run_in_nobodys_home(refused: Refused) -> None:
    assert "~nobody-here/x is in nobody's home folder" in refused("resume", "~nobody-here/x")


@pytest.mark.parametrize("verb", ["prune", "base"])
@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
def test_a_missing_data_folder_is_named(verb: str, kind: str, refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(verb, "--data", f"{kind}:{tmp_path / 'nowhere'}")


def test_a_misspelt_source_is_answered_by_the_nearest(refused: Refused) -> None:
    assert "did you mean 'digits'?" in refused("prune", "--data", "digit")


def test_a_state_dict_that_does_not_fit_shows_both_shapes(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "wide.pt"
    torch.save(vgg16_bn(width=0.125, num_classes=10, in_channels=3).state_dict(), path)
    said = refused("prune", "--base", path, "--set", "model.arguments.width=0.0625")
    assert f"{path} does not fit the model" in said
    assert "features.0.weight: the model has (4, 3, 3, 3), the file (8, 3, 3, 3)" in said
    assert "model.arguments" in said


def test_a_weak_base_model_is_refused_unless_allowed(
    refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "untrained.pt"
    torch.manual_seed(0)
    torch.save(build(num_classes=10).state_dict(), path)
    command = ["--config", str(write_config(tmp_path / "run.yaml")), "--base", str(path)]
    for verb in ("base", "prune"):
        said = refused(verb, *command)
        assert "hardly better than chance" in said
        assert "on 359 val images, chance 10.00 %, needed 15.00 %" in said
        assert "--allow-weak-base" in said
    copied = tmp_path / "copies" / "base.pt"
    assert main(["base", *command, "--allow-weak-base", "--out", str(copied)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(copied)]
    build(num_classes=10).load_state_dict(torch.load(copied, weights_only=True))


def test_a_folder_that_holds_another_run_is_left_alone(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "notes.txt").write_text("mine")
    for verb in ("search", "prune"):
        said = refused(verb, "--storage-path", tmp_path / "runs", "--name", "first", "--data", "nowhere")
        assert "holds something already" in said
        assert "--resume" in said
        assert "--name" in said
    assert [path.name for path in (tmp_path / "runs" / "first").iterdir()] == ["notes.txt"]


def test_a_run_folder_that_cannot_be_made_is_refused_first(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused("prune", "--storage-path", tmp_path / "file", "--name", "run", "--data", "nowhere")
    assert f"{tmp_path / 'file'} is no folder that can be written to" in said
    for name in ("a/b", "..", "/absolute"):
        assert "search.name: expected the name of one folder" in refused("search", "--name", name)
    for out in (tmp_path, tmp_path / "file" / "base.pt"):
        assert f"--out: {out} cannot be written" in refused("base", "--out", out, "--data", "nowhere")


def test_what_cannot_be_pruned_is_refused_before_a_base_model_is_trained(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
    from torch import nn

    class Sized(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, num_classes, 30)

        def forward(self, images):
            n = images.size(0)
            return self.second(self.first(images)).view(n, -1)
    """
    (tmp_path / "networks_of_a_user.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    cache = f"base.cache={tmp_path / 'cache'}"
    narrow = "model.arguments.width=0.0625"
    assert "x.flatten(1)" in refused("prune", "--set", cache, "--model", "networks_of_a_user:Sized")
    assert "features.99" in refused("prune", "--set", cache, "pruning.keep_whole=features.99", narrow)
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_resumed(refused: Refused, tmp_path: Path) -> None:
    assert "--resume needs the run's name" in refused("search", "--resume")
    assert "is not a folder" in refused("search", "--resume", "--name", "unknown")
    assert "holds no trials.jsonl" in refused("resume", tmp_path)
    folder = RunFolder.create(tmp_path / "pruned", config_to_dict(load_config(None, [])), {})
    (folder.path / "prune").mkdir()
    said = refused("search", "--resume", "--storage-path", tmp_path, "--name", "pruned")
    assert f"was made by rlprune prune; use rlprune resume {folder.path}" in said
    (folder.path / "env.json").write_text('{"verb": "search"')
    assert "env.json" in refused("resume", folder.path)


def test_a_run_that_cannot_be_written_is_refused_before_its_images_are_read(
    refused: Refused, tmp_path: Path
) -> None:
    config = config_to_dict(load_config(None, {"data.source": "imagefolder:nowhere"}))
    folder = RunFolder.create(tmp_path / "run", config, {"verb": "prune"})
    assert "nowhere" in refused("resume", folder.path)
    (folder.path / ".lock").unlink()
    (folder.path / ".lock").mkdir()  # what root may not write either
    assert f"{folder.path}: cannot be locked: Is a directory" in refused("resume", folder.path)


def test_a_device_that_is_not_there(refused: Refused) -> None:
    assert "device: expected auto, cpu, cuda or cuda:N; got 'gpu'" in refused("prune", "--device", "gpu")
    assert "cuda:99 was asked for" in refused("prune", "--device", "cuda:99")


def test_no_verb_or_an_unknown_one_shows_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["serach"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: rlprune" in capsys.readouterr().err


@pytest.mark.ray
def test_more_gpus_than_any_machine_has_are_refused_at_once(
    refused: Refused, tiny_base: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "run.yaml")
    said = refused("search", "--config", config, "--base", tiny_base, "--gpus-per-trial", "512")
    assert "search.gpus_per_trial: a trial asks for 512 GPUs, but the node with the most has" in said


# ---- verbs that only look


def test_validate_tells_every_fault_of_every_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good, bad, broken = (tmp_path / f"{name}.yaml" for name in ("good", "bad", "broken"))
    write_config(good)
    bad.write_text("seed: -1\nagents: {}\n")
    broken.write_text("agent: [\n")
    assert main(["validate", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: ok\n"
    assert main(["validate", str(good), str(bad), str(broken)]) == 2
    said = capsys.readouterr()
    assert said.out == f"{good}: ok\n"
    assert len(said.err.splitlines()) == 3
    assert f"{bad}: seed: expected a whole number of at least 0; got -1" in said.err
    assert f"{bad}: agents: unknown setting; did you mean agent?" in said.err
    assert str(broken) in said.err.splitlines()[-1]


def test_the_configs_of_the_repository_are_valid() -> None:
    assert main(["validate", *map(str, sorted((ROOT / "tune_configs").glob("*.yaml")))]) == 0


def test_settings_lists_every_setting_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    said = capsys.readouterr().out
    for entry in field_help():
        assert f"{entry.name} = {entry.default!r}" in said
        assert entry.help in said


def test_help_of_every_verb_is_narrow_and_its_examples_are_valid(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(ROOT)
    choices = next(action.choices for action in build_parser()._actions if action.dest == "verb")
    assert choices
    for verb in ["", *choices]:
        with pytest.raises(SystemExit) as ended:
            main([*verb.split(), "--help"])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert f"usage: rlprune {verb}".strip() in said
        assert max(map(len, said.splitlines())) <= 100
        assert ("\nexamples:" in said) == (verb in ("search", "prune", "base"))
        assert "more settings:" not in said, "every option has its group"
        for line in said.partition("examples:\n")[2].splitlines():
            parsed = build_parser().parse_args(line.split()[1:])
            load_config(getattr(parsed, "config", None), overrides_of(parsed))


def test_a_copied_run_can_be_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_to_dict(load_config(None, [])), {})
    for number, (drop, macs) in enumerate([(0.5, 0.8), (1.5, 0.5), (2.0, 0.6)]):
        record = TrialRecord(
            status="COMPLETE", trial=f"t{number:04}", b=2.0, seed=number, drop_val=drop, macs_ratio=macs
        )
        folder.append(record)
    copied = shutil.copytree(folder.path, tmp_path / "elsewhere" / "copy")
    texts = []
    for path in (folder.path, copied):
        assert main(["report", str(path), "--max-drop", "1"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    with (copied / "frontier.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["t0000", "t0001"]
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no trials.jsonl" in capsys.readouterr().err


# ---- evaluate


@pytest.fixture
def network_file(tiny_model: nn.Module, digits_splits: DataSplits, tmp_path: Path) -> Path:
    """The network file of a run that has not begun: the base model."""
    path = tmp_path / "network.pt"
    PruningRun(load_config(None, SETTINGS), tiny_model, digits_splits.sealed()).save_network(path)
    return path


@pytest.mark.parametrize("split", ["train", "reward", "val", "test"])
def test_evaluate_measures_any_split(
    split: str, network_file: Path, digits_splits: DataSplits, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(network_file), "--split", split, "--trust-code"]) == 0
    found = json.loads(capsys.readouterr().out)
    network = rlprune.load(network_file, trust_code=True)
    images = digits_splits.split(split)
    correct = network(torch.from_numpy(images.images)).argmax(1) == torch.from_numpy(images.labels)
    cost = count_cost(network.network, torch.zeros(1, 3, 32, 32))
    assert found.pop("accuracy") == pytest.approx(100 * correct.double().mean().item())
    assert found == {
        "network": str(network_file),
        "data": "digits",
        "split": split,
        "n": len(images),
        "macs": cost.macs,
        "params": cost.params,
    }
    if split == "val":
        assert 100 * correct.double().mean().item() == pytest.approx(network.record["accuracy_val"])


def test_networks_that_cannot_be_evaluated(network_file: Path, refused: Refused, tmp_path: Path) -> None:
    assert f"built by '{FACTORY}', code outside rlprune" in refused("evaluate", network_file)
    assert "no such file" in refused("evaluate", tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("no network")
    assert "text.pt is damaged" in refused("evaluate", tmp_path / "text.pt")
    assert f"{tmp_path} is a folder; name a file" in refused("evaluate", tmp_path)
    assert "rlprune report s3://b/run --to FOLDER" in refused("export", "s3://b/run")


def test_what_the_system_refuses_names_the_file(refused: Refused) -> None:
    name = "n" * 300
    assert f"{name}: File name too long" in refused("prune", "--data", f"imagefolder:{name}")


def test_settings_of_another_version_name_their_file(refused: Refused, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", {"pruning": {"brand_new": 1}}, {"verb": "prune"})
    said = refused("resume", folder.path)
    assert f"(in {folder.path / 'config.yaml'}, maybe of another version of rlprune)" in said


def test_images_that_a_network_was_not_made_for_are_refused(
    network_file: Path, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fewer_classes.py").write_text(
        "import dataclasses\n"
        "from rlprune.data.digits import read_digits\n"
        "def build():\n"
        "    raw = read_digits()\n"
        "    train = raw.train.take(raw.train.labels < 4)\n"
        "    return dataclasses.replace(raw, train=train, class_names=raw.class_names[:4])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    said = refused("evaluate", network_file, "--trust-code", "--data", "fewer_classes:build")
    assert "was made for 3 channel(s) and 10 classes; fewer_classes:build has 3 and 4" in said


def test_images_of_another_size_are_measured_or_refused(
    digits_splits: DataSplits,
    network_file: Path,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "other_sizes.py").write_text(
        "import dataclasses\n"
        "from rlprune.data import ImageSplit\n"
        "from rlprune.data.digits import read_digits\n"
        "def cropped(size):\n"
        "    raw = read_digits()\n"
        "    images = raw.train.images[:, :, :size, :size].copy()\n"
        "    return dataclasses.replace(raw, train=ImageSplit(images, raw.train.labels))\n"
        "def smaller():\n"
        "    return cropped(24)\n"
        "def strip():\n"
        "    return cropped(30)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["evaluate", str(network_file), "--trust-code", "--data", "other_sizes:smaller"]) == 0
    said = capsys.readouterr()
    assert "was made for images of 32 x 32 pixels, not 24 x 24" in said.err
    assert json.loads(said.out)["n"] > 300
    sized = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
    (tmp_path / "sized_network.py").write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, num_classes))\n"
    )
    path = tmp_path / "sized.pt"
    config = load_config(None, {**SETTINGS, "model.factory": "sized_network:build"})
    PruningRun(config, sized, digits_splits.sealed()).save_network(path)
    assert main(["evaluate", str(path), "--trust-code", "--data", "other_sizes:strip"]) == 2
    assert "made for images of 32 x 32 pixels and cannot read 30 x 30" in capsys.readouterr().err


# ---- one run without Tune


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]


@pytest.mark.ray
def test_prune_from_beginning_to_end(
    local_ray: None,
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed = []
    start = PruningRun.__init__

    def watched(run: PruningRun, config: Any, model: nn.Module, splits: DataSplits, *table: Any) -> None:
        sealed.append(splits.test is None)
        start(run, config, model, splits, *table)

    monkeypatch.setattr(PruningRun, "__init__", watched)
    config = write_config(tmp_path / "run.yaml", pruning__keep_whole=["3"])
    command = ["--config", str(config), "--storage-path", str(tmp_path), "--name", "first"]
    assert main(["prune", *command, "--base", str(tiny_base), "--b", "4"]) == 0
    said = capsys.readouterr()
    path = tmp_path / "first"
    assert said.out.splitlines()[-1] == str(path)
    for line in ("[1/3] 0: ", "[2/3] 6: ", "[3/3] final fine-tuning", f"run folder {path}"):
        assert line in said.err
    assert sealed == [True]
    (row,) = rows_of(path)
    assert (row["status"], row["b"], row["network"]) == ("COMPLETE", 4.0, "models/t0000.pt")
    assert row["drop_val"] <= 4
    assert row["accuracy_test"] is None, "trials know nothing of test"
    (record,) = RunFolder.open(path).records()
    assert record.images_test == 359

    assert main(["evaluate", str(path / row["network"]), "--split", "val", "--trust-code"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(row["accuracy_val"])
    assert main(["evaluate", str(path / row["network"]), "--split", "test", "--trust-code"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(record.accuracy_test)

    (curves,) = (path / "tensorboard" / "t0000").iterdir()
    assert b"agent/reward_mean" in curves.read_bytes()

    files = {file: file.read_bytes() for file in path.glob("*.json*")}
    assert main(["prune", *command]) == 2
    assert main(["resume", str(path), "--trust-code"]) == 0, "a run that is done is only shown again"
    assert {file: file.read_bytes() for file in path.glob("*.json*")} == files


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a process that finds this package and the network of the tests."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


@pytest.fixture
def interrupted(tiny_base: Path, tmp_path: Path, environment: dict[str, str]) -> tuple[Path, str]:
    """A run folder whose run got a Ctrl-C after its first group, and what the run said on stdout."""
    config = write_config(tmp_path / "run.yaml")
    command = [sys.executable, "-m", "rlprune", "prune", "--config", str(config), "--base", str(tiny_base)]
    process = subprocess.Popen(
        [*command, "--storage-path", str(tmp_path), "--name", "stopped"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = ""
    try:
        while "[1/" not in said:
            line = process.stderr.readline()
            assert line, f"the run ended before its first group was done:\n{said}"
            said += line
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert process.returncode == 130, said + err
    assert "Traceback" not in said + err
    assert "interrupted; go on with: rlprune resume" in err
    return tmp_path / "stopped", out


@pytest.mark.ray
def test_an_interrupted_run_can_be_read_and_resumed(
    interrupted: tuple[Path, str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = interrupted
    assert out.splitlines()[-1] == str(path)
    assert "no finished trial yet" in out
    assert rows_of(path) == []
    assert main(["report", str(path)]) == 0
    capsys.readouterr()
    command = [sys.executable, "-m", "rlprune", "resume", str(path), "--trust-code"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"going on after step 1 of {len(GROUPS) + 1}" in done.stderr
    assert "[1/" not in done.stderr
    assert done.stdout.splitlines()[-1] == str(path)
    (row,) = rows_of(path)
    assert [group["step"] for group in row["groups"]] == [1, 2, 3, 4]
    assert row["drop_val"] <= SETTINGS["pruning.b"]


@pytest.fixture
def prune_with(
    local_ray: None, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any], list[str]]:
    """Gives ``prune`` and ``resume`` another job, and the command of a run in the folder ``a place``."""
    config = write_config(tmp_path / "run.yaml")
    place = ["--storage-path", str(tmp_path / "a place"), "--name", "run"]

    def use(job: Any) -> list[str]:
        for verb in (prune, resume):
            monkeypatch.setattr(verb, "PRUNE_JOB", Job("prune", job))
        return ["prune", "--config", str(config), "--base", str(tiny_base), *place]

    return use


def interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.ray
@pytest.mark.parametrize("moment", ["keep_table", "measure_frontier"])
def test_an_interrupt_before_and_after_the_job_names_the_way_to_go_on(
    moment: str,
    prune_with: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(whole_run, moment, interrupt)
    assert main(prune_with(lambda *_: [])) == INTERRUPTED
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(tmp_path / "a place" / "run")
    (command,) = [line.partition(": ")[2] for line in said.err.splitlines() if line.startswith("interrupted")]
    assert shlex.split(command) == ["rlprune", "resume", str(tmp_path / "a place" / "run"), "--trust-code"]


@pytest.mark.ray
def test_a_single_run_that_was_killed_at_once_stays_one_and_gets_its_base_model(
    prune_with: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(prune_with(interrupt)) == INTERRUPTED
    path, given = tmp_path / "a place" / "run", []
    base = (path / "base.pt").read_bytes()
    (path / "base.pt").unlink()  # as if the kill had come before
    assert not (path / "prune").exists()
    place = ["--storage-path", str(tmp_path / "a place"), "--name", "run"]
    assert main(["search", "--resume", *place]) == 2
    assert f"was made by rlprune prune; use rlprune resume '{path}'" in capsys.readouterr().err

    def job(config: Any, folder: RunFolder, splits: Any, base: Any, resuming: bool) -> Any:
        given.append((config.pruning.b, resuming, (folder.path / "base.pt").exists()))
        return []

    prune_with(job)
    assert main(["resume", str(path), "--trust-code"]) == 0
    assert main(["prune", "--resume", *place, "--trust-code"]) == 0
    assert given == [(SETTINGS["pruning.b"], True, True)] * 2
    assert (path / "base.pt").read_bytes() == base


@pytest.mark.ray
def test_a_run_is_locked_from_its_job_to_the_end_of_the_final_table(
    prune_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a place" / "run", []

    def look(*_: Any) -> Any:
        with pytest.raises(ResultsError, match="another process is working on this run"), exclusive(path):
            pass
        seen.append(len(seen))
        return []

    monkeypatch.setattr(whole_run, "measure_frontier", look)
    assert main(prune_with(look)) == 0
    assert main(["resume", str(path), "--trust-code"]) == 0
    assert seen == [0, 1, 2, 3]
    with exclusive(path):
        assert main(["resume", str(path), "--trust-code"]) == 2
    assert seen == [0, 1, 2, 3]


@pytest.mark.ray
def test_only_a_run_that_is_gone_on_with_changes_its_driver(
    prune_with: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    remote = RemoteFolder("memory://bucket/run")
    assert main([*prune_with(interrupt), "--storage-path", "memory://bucket"]) == INTERRUPTED
    driver = remote.read("driver.json")
    assert main(["resume", remote.url]) == 2
    other_images = {"data_fingerprint": "other", "base_fingerprint": "other"}
    with monkeypatch.context() as patch:
        patch.setattr(whole_run, "identity", lambda *_: other_images)
        assert main(["resume", remote.url, "--trust-code"]) == 2
    assert "are not those that the run was started with" in capsys.readouterr().err
    assert remote.read("driver.json") == driver
    remote.delete("base.pt")
    assert main(["resume", remote.url, "--trust-code"]) == INTERRUPTED
    assert remote.read("driver.json") != driver
    assert remote.read("base.pt")


@pytest.mark.ray
def test_what_looks_at_a_run_needs_no_base_model_but_that_of_the_run(
    local_ray: None, tiny_base: Path, tmp_path: Path
) -> None:
    base, path = shutil.copy(tiny_base, tmp_path / "base.pt"), str(tmp_path / "run")
    command = ["prune", "--config", str(write_config(tmp_path / "run.yaml")), "--base", str(base)]
    assert main([*command, "--storage-path", str(tmp_path), "--name", "run"]) == 0
    Path(base).unlink()
    assert main(["inspect", path, "t0000", "--group", "0", "--trust-code"]) == 0
    assert main(["inspect", path, "t0000", "--group", "0", "--trust-code", "--base", str(base)]) == 2
    methods = ["--methods", "l1-uniform", "--epochs", "0"]
    assert main(["compare", path, "--trust-code", *methods]) == 0


# ---- the test split


READERS_OF_TEST = {
    ("baselines.final", "measure_on_test"),
    ("final_table", "measure_frontier"),
    ("final_table", "measure_network"),
    ("final_table", "_measured"),
    ("workbench", "__init__"),  # refuses splits that are not sealed
}
TAKERS_OF_ANY_SPLIT = {
    ("verbs.evaluate", "evaluate"),  # the user's own question
    ("workbench", "reward_split"),  # reward or train: the only choices of pruning.reward_split
}


def functions_with(wanted: Any) -> set[tuple[str, str]]:
    """(module, function) of every node outside data/ that ``wanted`` finds in the package's syntax trees."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module.startswith("data."):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in ast.walk(tree):
            if wanted(node):
                around = [function.name for function in functions if node in list(ast.walk(function))]
                found.add((module, around[-1] if around else ""))
    return found


def reads_test(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "test"


def names_test(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == "test"


def takes_a_split(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "split"
        and "splits" in ast.unparse(node.func.value)
    )


def calls(name: str) -> Any:
    return lambda node: isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name


def test_only_the_final_table_reads_the_test_split() -> None:
    assert functions_with(reads_test) == READERS_OF_TEST
    assert functions_with(takes_a_split) == TAKERS_OF_ANY_SPLIT
    named = {
        found
        for found in functions_with(names_test)
        if not found[0].startswith(("results.", "deploy.model_card"))
    }
    only_columns = {("training.network_file", "summary")}  # as do results and cards
    assert named == {("verbs.evaluate", "register"), *only_columns}
    choices = next(entry.choices for entry in field_help() if entry.name == "pruning.reward_split")
    assert set(choices) == {"reward", "train"}
    assert functions_with(calls("measure_frontier")) == {("whole_run", "run_whole")}
    assert functions_with(calls("measure_network")) == {("library.pruning", "prune")}
    assert functions_with(calls("measure_on_test")) == {("verbs.compare", "compare")}
    assert functions_with(calls("sealed")) >= {
        ("whole_run", "run_whole"),
        ("whole_run", "prepare"),
        ("library.pruning", "prune"),
        ("search.runner", "run_search"),
        ("verbs.compare", "compare"),
    }


def test_a_comparison_has_made_all_its_networks_when_it_reads_test() -> None:
    """Only ``measure_on_test`` gets splits with test, and everything that makes networks stands before it."""
    tree = ast.parse((PACKAGE / "verbs" / "compare.py").read_text(encoding="utf-8"))
    (verb,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "compare"]
    statements = [ast.unparse(statement) for statement in verb.body[1:]]  # but for the docstring
    assert not [node for node in verb.body if isinstance(node, ast.For | ast.While)], "nothing goes back"
    (reads,) = [index for index, text in enumerate(statements) if "measure_on_test(" in text]
    whole = re.compile(r"\bsplits\b(?!\.sealed\(\))")
    uses = [text for text in statements[:reads] if whole.search(text)]
    expected = ("load_splits(", "obtain_base(", "check_identity(")  # of which none may read test: see above
    assert [next(name for name in expected if name in text) for text in uses] == list(expected)
    assert sum("BaselineRunner(" in text and "splits.sealed()" in text for text in statements[:reads]) == 1
    for name in ("BaselineRunner(", "frontier_rows(", "default_methods(", "jobs_of("):
        assert not any(name in text for text in statements[reads:])


def test_a_run_only_asks_whether_test_is_there() -> None:
    tree = ast.parse((PACKAGE / "workbench.py").read_text(encoding="utf-8"))
    compared = [node.left for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    found = [node for node in ast.walk(tree) if reads_test(node)]
    assert found
    assert all(node in compared for node in found)


def test_the_job_of_a_verb_gets_sealed_splits(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Path, tmp_path: Path
) -> None:
    """Whatever a run or a search would do, it is handed no test images."""
    given = []

    def job(config: Any, folder: RunFolder, splits: DataSplits, base: BaseModel, resuming: bool) -> Any:
        given.append(splits)
        raise KeyboardInterrupt

    monkeypatch.setattr(prune, "PRUNE_JOB", Job("prune", job))
    config = write_config(tmp_path / "run.yaml")
    command = ["prune", "--config", str(config), "--base", str(tiny_base), "--storage-path", str(tmp_path)]
    assert main(command) == INTERRUPTED
    assert [splits.test for splits in given] == [None]


@pytest.mark.parametrize("words", [["completion", "zsh"], ["settings"]])
def test_a_reader_who_leaves_ends_a_verb_without_a_traceback(words: list[str]) -> None:
    command = [sys.executable, "-m", "rlprune", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141


def test_a_pipe_that_breaks_elsewhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(arguments: argparse.Namespace) -> int:
        raise BrokenPipeError("a socket")

    monkeypatch.setattr(settings, "settings", breaks)
    with pytest.raises(BrokenPipeError, match="a socket"):
        main(["settings"])
