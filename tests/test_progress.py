"""What TensorBoard will show of a run, and how much of its progress a run says."""

import struct
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from rlprune.search.progress import duration
from rlprune.tensorboard import AGENT, TensorBoardFiles
from rlprune.verbs import console

METRICS = {"n_steps": 3, "group": "0", "drop_val": 0.25, "macs_ratio": 0.5, "accuracy_val": 90.0}


def points(folder: Path) -> list[tuple[str, int, float]]:
    """(curve, step, value) of every point in the event files of a folder."""
    found = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return found


def history(reward: float) -> list[dict[str, float]]:
    return [{name: reward + number for name in AGENT} for number in range(2)]


def test_the_agents_curves_go_on_from_group_to_group(tmp_path: Path) -> None:
    curves = TensorBoardFiles(tmp_path)
    curves.add("t0000", {**METRICS, "step": 1}, history(10.0))
    curves.add("t0001", {**METRICS, "step": 1}, history(50.0))
    curves.add("t0000", {**METRICS, "step": 2}, history(20.0))
    curves.add("t0000", {**METRICS, "step": 3, "drop_val": 0.5}, [])
    found = points(tmp_path / "tensorboard" / "t0000")
    for name in AGENT:
        drawn = [(step, value) for tag, step, value in found if tag == f"agent/{name}"]
        assert drawn == [(1, 10.0), (2, 11.0), (3, 20.0), (4, 21.0)]
    drops = [(step, value) for tag, step, value in found if tag == "run/drop_val"]
    assert drops == [(1, 0.25), (2, 0.25), (3, 0.5)]
    curves.close("t0000")
    curves.close("t0000")
    again = TensorBoardFiles(tmp_path)  # as after a kill: the same folder, a further file
    again.add("t0001", {**METRICS, "step": 2}, history(60.0))
    again.close("t0001")
    steps = [step for tag, step, _ in points(tmp_path / "tensorboard" / "t0001") if tag == "agent/entropy"]
    assert sorted(steps) == [1, 2, 3, 4]
    curves.close("t0001")


def test_the_agent_of_an_earlier_sweep_is_not_drawn_again(tmp_path: Path) -> None:
    curves = TensorBoardFiles(tmp_path)
    curves.add("t0000", {**METRICS, "step": 1, "evaluations": 8}, history(10.0))
    curves.add("t0000", {**METRICS, "step": 2, "evaluations": 0}, history(10.0))
    curves.close("t0000")
    found = points(tmp_path / "tensorboard" / "t0000")
    assert [step for tag, step, _ in found if tag == "agent/entropy"] == [1, 2]
    assert [step for tag, step, _ in found if tag == "run/drop_val"] == [1, 2]


def test_agents_of_a_trial_that_differ_in_their_iterations_have_room_for_the_most(tmp_path: Path) -> None:
    curves = TensorBoardFiles(tmp_path, iterations=3)
    for step, length in ((1, 3), (2, 1), (3, 2)):
        entries = [dict.fromkeys(AGENT, 0.0)] * length
        curves.add("t0000", {**METRICS, "step": step}, entries)
    curves.close("t0000")
    steps = [step for tag, step, _ in points(tmp_path / "tensorboard" / "t0000") if tag == "agent/entropy"]
    assert steps == [1, 2, 3, 4, 7, 8]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (6 * 3600, "6.0 h"), (7e5, "8.1 days")],
)
def test_how_long_the_rest_takes_is_said_as_a_person_would(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.fixture(autouse=True)
def usual_loudness() -> Iterator[None]:
    yield
    console.set_loudness(Namespace())


@pytest.mark.parametrize(
    ("options", "terminal", "said"),
    [
        ([], True, ["a trial", "a group"]),
        ([], False, ["a trial"]),
        (["--verbose"], False, ["a trial", "a group"]),
        (["--quiet"], True, []),
        (["--quiet"], False, []),
    ],
)
def test_groups_are_told_to_who_looks_on_and_trials_to_the_log_too(
    options: list[str],
    terminal: bool,
    said: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parser = ArgumentParser()
    console.add_loudness_options(parser)
    console.set_loudness(parser.parse_args(options))
    assert console.is_verbose() == ("--verbose" in options)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    console.say("a trial")
    console.say_detail("a group")
    assert capsys.readouterr().err.splitlines() == said
