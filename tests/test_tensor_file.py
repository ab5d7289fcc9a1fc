"""Files of tensors: whole or not at all, and never used damaged."""

import random
import zipfile
from pathlib import Path

import pytest
import torch

from rlprune.errors import CheckpointError, ResultsError
from rlprune.results.folder import RunFolder
from rlprune.search.interrupt import exclusive
from rlprune.training.tensor_file import read_tensors, write_tensors
from rlprune.verbs.prune import _read_state, _write_state, run_once

CONTENT = {
    "weight": torch.arange(300, dtype=torch.float32),
    "count": 3,
    "name": "abc",
    "rest": {"x": [1, 2.5]},
}


def is_unchanged(content: dict) -> bool:
    weight = content.pop("weight")
    return torch.equal(weight, CONTENT["weight"]) and content == {
        name: value for name, value in CONTENT.items() if name != "weight"
    }


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    """A flip is refused, or is where it does no harm (padding, times of the archive's entries)."""
    write_tensors(tmp_path / "file.pt", CONTENT)
    whole, dice, refused = (tmp_path / "file.pt").read_bytes(), random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        (tmp_path / "file.pt").write_bytes(damaged)
        try:
            assert is_unchanged(read_tensors(tmp_path / "file.pt"))
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_no_flipped_bit_of_the_directory_changes_what_is_read(tmp_path: Path) -> None:
    """It has no check sum of its own: an entry may turn into a folder, or into a packed one."""
    path = tmp_path / "file.pt"
    write_tensors(path, CONTENT)
    whole, refused = path.read_bytes(), 0
    with zipfile.ZipFile(path) as archive:
        begin = archive.start_dir
    for bit in range(8 * begin, 8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert is_unchanged(read_tensors(path)), f"bit {bit % 8} of byte {bit // 8}"
        except CheckpointError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    write_tensors(tmp_path / "file.pt", CONTENT)
    whole = (tmp_path / "file.pt").read_bytes()
    (tmp_path / "file.pt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(tmp_path / "file.pt")


def test_a_damaged_state_is_passed_over_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.pt"
    assert _read_state(path) is None
    for position in range(3):
        _write_state(path, {"position": position})
    assert _read_state(path) == {"position": 2}
    path.write_bytes(path.read_bytes()[:100])
    assert _read_state(path) == {"position": 1}
    assert "is damaged" in capsys.readouterr().err
    assert not path.exists(), "the next state does not put it in the place of the good one"
    _write_state(path, {"position": 2})
    assert _read_state(path) == {"position": 2}
    path.write_bytes(b"")
    assert _read_state(path) == {"position": 1}
    for written in tmp_path.iterdir():
        written.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        _read_state(path)


def test_a_kill_between_the_two_states_loses_one_at_most(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    _write_state(path, {"position": 0})
    path.rename(path.with_name("before-state.pt"))
    assert _read_state(path) == {"position": 0}


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", {}, {})
    with exclusive(folder.path / "prune"), pytest.raises(ResultsError, match="another process"):
        run_once(None, folder, None, None, True)  # type: ignore[arg-type]
