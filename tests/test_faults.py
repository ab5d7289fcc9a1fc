"""What a search and a run survive, tried with real processes; ``scripts/repeat_faults.py`` counts.

The names say which fault: (a) kill -9 of the driver, (b) kill -9 of a trial, (c) a trial that always fails,
(d) Ctrl-C and SIGTERM, (e) damaged files, (f) a full disk, (g) memory that runs out, (h) NaN (here images;
weights are in test_models.py, the loss in test_training.py and test_pruning_run.py), (i) the same seed,
resumed or not. Where the fault is one of the search, its trials are stand-in runs; a run ended within its
steps is in test_pruning_run.py.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stand_in_run import N_PARTS, N_STEPS, run, search_config
from watched_search import PARTS, check_study, kill_at, parts_done, start_script, wait_for_parts

import rlprune
from rlprune.config import DataConfig
from rlprune.data import load_splits
from rlprune.errors import CheckpointError, DataError
from rlprune.results.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_ends")]

Note = Callable[[str, object], None]
ONE_AT_A_TIME = {"cpus_per_trial": float(os.cpu_count() or 1)}


def test_a_driver_killed_at_three_random_moments(tmp_path: Path, record_property: Note) -> None:
    path, log = tmp_path / "run", tmp_path / "log"
    settings = {"b_grid": [0.5, 1.0], "num_samples": 3, "seconds": 0.3, "log": str(log)}
    for parts in sorted(random.sample(range(2, 42), 3)):
        kill_at(settings, path, parts)
    records = run(search_config((0.5, 1.0), 3), path, settings, [])
    assert Counter(record.b for record in records) == {0.5: 3, 1.0: 3}
    assert sorted(record.trial for record in records) == [f"t{number:04d}" for number in range(6)]
    check_study(path, records)
    done = parts_done(log)
    assert set(done) == {(record.seed, *part) for record in records for part in PARTS}
    repeated = sum(done.values()) - len(done)
    record_property("kills", 3)
    record_property("parts of steps repeated", repeated)
    assert repeated <= 3 * (os.cpu_count() or 1), "more than the parts in progress were repeated"


def test_b_c_g_trials_that_are_killed_fail_or_run_out_of_memory(
    tmp_path: Path, record_property: Note
) -> None:
    path, faults = tmp_path / "run", {"0.5": "killed once", "1.0": "killed always", "2.0": "memory"}
    behaviour = {"log": str(tmp_path / "log"), "b_faults": faults}
    records = run(search_config((0.5, 1.0, 2.0, 4.0), 1, max_failures=1), path, behaviour, [])
    by_b = {record.b: record for record in records}
    assert {b: record.status for b, record in by_b.items()} == {
        0.5: "COMPLETE",
        1.0: "FAILED",
        2.0: "FAILED",
        4.0: "COMPLETE",
    }
    assert "died" in by_b[1.0].error.lower()
    assert by_b[2.0].error.startswith("PruningError: memory ran out even with one image at a time")
    kills = {b: len((tmp_path / f"died-{by_b[b].seed}").read_text()) for b in (0.5, 1.0)}
    assert kills == {0.5: 1, 1.0: 2}, "the first attempt and --max-failures more"
    done = parts_done(tmp_path / "log")
    assert set(done.values()) == {1}, "each attempt goes on from the checkpoint and its part"
    check_study(path, records)
    record_property("kills", sum(kills.values()))
    record_property("parts of steps repeated", sum(done.values()) - len(done))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_d_an_interrupt_ends_gracefully_and_can_be_resumed(
    tmp_path: Path, number: signal.Signals, record_property: Note
) -> None:
    path, log = tmp_path / "run", tmp_path / "log"
    settings = {"b_grid": [1.0], "num_samples": 4, "seconds": 0.3, "log": str(log)}
    process = start_script(path, settings)
    wait_for_parts(process, log, N_PARTS * N_STEPS + 1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    before = RunFolder.open(path).records()
    assert len(before) < 4
    records = run(search_config((1.0,), 4), path, settings, [])
    assert records[: len(before)] == before
    assert sorted(record.trial for record in records) == ["t0000", "t0001", "t0002", "t0003"]
    check_study(path, records)
    record_property("interrupts", 1)


def test_e_damaged_files(tmp_path: Path, record_property: Note) -> None:
    """The newest checkpoint of a killed search is damaged in one bit, and a part of a step is cut off."""
    path, log = tmp_path / "run", tmp_path / "log"
    settings = {"b_grid": [1.0], "num_samples": 1, "seconds": 0.6, "log": str(log)}
    kill_at(settings, path, 2 * N_PARTS + 2)
    checkpoints = sorted((path / "tune").glob("*/t0000/checkpoint_*"))
    content = bytearray((checkpoints[-1] / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoints[-1] / "state.pt").write_bytes(content)
    os.truncate(path / "tune" / "parts" / "t0000.pt", 100)
    records = run(search_config((1.0,), 1), path, settings, [])
    assert [record.status for record in records] == ["COMPLETE"]
    check_study(path, records)
    done = parts_done(log)
    assert set(done) == {(records[0].seed, *part) for part in PARTS}
    repeated = sum(done.values()) - len(done)
    record_property("files damaged", 3)
    record_property("parts of steps repeated", repeated)
    assert 0 < repeated <= 2 * N_PARTS, "more than the damaged step and the one in progress were repeated"
    network = path / str(records[0].network)
    os.truncate(network, network.stat().st_size - 1)
    with pytest.raises(CheckpointError, match=r"t0000\.pt is damaged"):
        rlprune.load(network)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_f_a_full_disk(tmp_path: Path, small_disk: Path, record_property: Note) -> None:
    path, log = small_disk / "run", tmp_path / "log"
    settings: dict[str, Any] = {"b_grid": [1.0], "num_samples": 3, "log": str(log), "ballast": 300_000}
    settings["search"] = {"max_failures": 0}
    records = run(search_config((1.0,), 1, max_failures=0), path, settings, [])
    assert [record.status for record in records] == ["COMPLETE"]
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - 200_000))
    process = start_script(path, settings, stderr=subprocess.PIPE)
    said = process.communicate(timeout=120)[1].decode()
    rows = RunFolder.open(path).records()
    assert rows[:1] == records, "what was there stays readable"
    told = said + "".join(row.error for row in rows)
    assert re.search(r"[\w/-]+: No space left on device|\S+ cannot be written", told), told
    assert "Traceback" not in said, said
    (small_disk / "other").unlink()
    again = run(search_config((1.0,), 6), path, settings, [])
    assert again[: len(rows)] == rows
    assert len({record.trial for record in again}) == len(again) == 6
    check_study(path, again)
    record_property("full disks", 1)
    record_property("trials that failed of it", sum(row.status == "FAILED" for row in rows))


ENGINE_IN_LITTLE_MEMORY = """
import resource, numpy, torch
from tiny_network import build
from rlprune.errors import PruningError
from rlprune.pruning.groups import find_groups
from rlprune.pruning.reward_engine import RewardEngine

torch.set_num_threads(1)
torch.manual_seed(0)
images, labels = torch.randn(500, 3, 64, 64), torch.arange(500) % 10
model = build(num_classes=10).eval()
group = find_groups(model, images[:1])[0]

def engine():
    return RewardEngine(model, group, images, labels, calibration=images[:8], fidelity="raw", accuracy="soft",
        ridge=1e-4, dtype=torch.float32, seed=0, cache_bytes=0)

masks = numpy.ones((2, 8), dtype=bool)
masks[1, :4] = False
usual = engine()
expected = usual.accuracies(masks)
taken = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (taken + 6 * 2**20, resource.RLIM_INFINITY))
small = engine()
found = small.accuracies(masks)
assert numpy.allclose(found, expected, atol=1e-3), (found, expected)
print(small._images.block_images, usual._images.block_images)
"""


def test_g_memory_that_runs_out(record_property: Note) -> None:
    """A process that may take 6 MiB more; a block of 250 images needs 32 MiB at the least."""
    command = [sys.executable, "-c", ENGINE_IN_LITTLE_MEMORY]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    halved, usual = map(int, done.stdout.split())
    assert halved < usual
    record_property("images in a block", halved)
    record_property("images in a block where memory lasts", usual)


def test_h_nan_in_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images_of_a_user.py").write_text(
        "import numpy as np\n"
        "from rlprune.data import ImageSplit, RawData\n"
        "def build():\n"
        "    images = np.full((40, 1, 12, 12), np.nan, dtype=np.float32)\n"
        "    return RawData(ImageSplit(images, np.arange(40) % 4), None, None, tuple('abcd'), True, 1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=r"images_of_a_user:build: .*must be uint8 images.*float32"):
        load_splits(DataConfig(source="images_of_a_user:build"))


def test_i_one_trial_at_a_time_gives_the_same_rows_resumed_or_not(
    tmp_path: Path, record_property: Note
) -> None:
    """Fourteen trials: Optuna's sampler leaves its start-up behind and depends on what it was told."""
    settings: dict[str, Any] = {"b_grid": [0.5, 1.0], "num_samples": 7, "search": ONE_AT_A_TIME}
    config = search_config((0.5, 1.0), 7, **ONE_AT_A_TIME)
    whole = run(config, tmp_path / "whole", {}, [])
    again = run(config, tmp_path / "again", {}, [])
    assert again == whole
    settings |= {"seconds": 0.05, "log": str(tmp_path / "log")}
    moments = sorted(random.sample(range(10, 14 * N_STEPS * N_PARTS - 10), 2))
    for parts in moments:
        kill_at(settings, tmp_path / "resumed", parts)
    resumed = run(config, tmp_path / "resumed", settings, [])
    record_property("kills", len(moments))
    differing = [one.trial for one, other in zip(whole, resumed, strict=True) if one != other]
    record_property("rows that differ", len(differing))
    assert resumed == whole, (moments, differing)
