"""What is handed over runs no code here, and the Ray that is started answers nobody else."""

import ast
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlprune
from rlprune.cli import main
from rlprune.config_loading import config_to_dict, load_config
from rlprune.data import DataInfo
from rlprune.errors import CheckpointError, ConfigError
from rlprune.models import build_model, load_state
from rlprune.results.folder import RunFolder
from rlprune.search.checkpoint import read_state
from rlprune.training.network_file import NetworkSpec, save_network
from rlprune.training.tensor_file import read_tensors
from rlprune.trust import check_trusted, foreign_code

PACKAGE = Path(__file__).parents[1] / "rlprune"
SAFE_WITH = {
    "torch.load": ("weights_only", "True"),
    "np.load": ("allow_pickle", "False"),
    "yaml.load": ("Loader", "_StrictLoader"),  # a yaml.SafeLoader
}
LOADERS = {"load", "loads", "Unpickler", "read_pickle", "unsafe_load", "full_load", "load_all"}
SAFE = {"json.loads", "json.load", "network_file.load"}
READS_ITS_OWN = {("search/recording.py", "cloudpickle.load"), ("deploy/formats.py", "torch.export.load")}
"""What this process has written a moment before: the error of a trial (by Tune), an exported network."""


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def unsafe_reads(source: str) -> Iterator[str]:
    """Calls that may run code found in a file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = dotted(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in SAFE_WITH:
            keyword, value = SAFE_WITH[name]
            if keywords.get(keyword) != value:
                yield name
        elif "allow_pickle" in keywords or name in ("eval", "exec", "runpy.run_path", "joblib.load"):
            yield name
        elif "." in name and name.rpartition(".")[2] in LOADERS and name not in SAFE:
            yield name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_reads_files_in_a_way_that_runs_code(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    found = [call for call in unsafe_reads(path.read_text("utf-8")) if (place, call) not in READS_ITS_OWN]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.load(file)",
        "cloudpickle.loads(text)",
        "pickle.Unpickler(file).load()",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "pandas.read_pickle(path)",
        "exec(text)",
    ],
)
def test_the_check_finds_what_runs_code(source: str) -> None:
    assert list(unsafe_reads(source))


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_in_the_place_of_a_file_is_refused_unread(tmp_path: Path) -> None:
    target, file = tmp_path / "exploded", tmp_path / "file.pt"
    file.write_bytes(pickle.dumps({"format": "rlprune-network-1", "header": Bomb(target)}, protocol=2))
    with pytest.raises(CheckpointError, match="damaged or not one of rlprune's files"):
        rlprune.load(file)
    with pytest.raises(CheckpointError):
        read_tensors(file)
    with pytest.raises(Exception, match=r"file\.pt"):
        load_state(build_model("resnet20", {"width": 0.25}, 10, 3), file)
    assert not target.exists()
    pickle.loads(file.read_bytes())
    assert target.exists(), "the bomb is real"


def test_a_checkpoint_with_a_pickle_and_the_right_hashes_is_refused(tmp_path: Path) -> None:
    from rlprune.search.checkpoint import MANIFEST, STATE, _hash

    target, state = tmp_path / "exploded", tmp_path / STATE
    state.write_bytes(pickle.dumps({"order": Bomb(target)}, protocol=2))
    (tmp_path / MANIFEST).write_text(f'{{"{STATE}": "{_hash(state)}"}}')
    with pytest.raises(CheckpointError):
        read_state(tmp_path)
    assert not target.exists()


def test_yaml_tags_build_no_objects(tmp_path: Path) -> None:
    text = f"seed: !!python/object/apply:os.mkdir ['{tmp_path / 'exploded'}']\n"
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(tmp_path / "run.yaml", [])
    folder = RunFolder.create(tmp_path / "run", {}, {})
    (folder.path / "config.yaml").write_text(text)
    assert main(["resume", str(folder.path)]) == 2
    assert not (tmp_path / "exploded").exists()


# ---- factories


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that importing ``trap_of_others`` makes."""
    sprung = tmp_path / "sprung"
    code = tmp_path / "code"
    code.mkdir()
    (code / "trap_of_others.py").write_text(f"open({str(sprung)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(code)
    yield sprung
    sys.modules.pop("trap_of_others", None)


def folder_naming(path: Path, **changes: Any) -> Path:
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    config = load_config(None, {"search.storage_path": str(path.parent), **settings})
    return RunFolder.create(path, config_to_dict(config), {}).path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.factory", "trap_of_others:build"),
        ("data.source", "trap_of_others:images"),
        ("search.address", "192.0.2.1:6379"),
    ],
)
def test_a_run_folder_that_names_code_is_not_resumed_unless_trusted(
    name: str, value: str, trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder_naming(tmp_path / "theirs", **{name: value})
    again = ["search", "--resume", "--storage-path", str(tmp_path), "--name", "theirs"]
    for command in (["resume", str(path)], again):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"{name} = {value}" in said
        assert "--trust-code" in said
    assert main(["report", str(path)]) == 0
    assert not trap.exists()
    if name == "data.source":  # the first of them to be read
        assert main(["resume", str(path), "--trust-code"]) == 2, "it has no such function"
        assert trap.exists()


def test_what_is_rlprunes_own_needs_no_trust() -> None:
    for settings in (
        {},
        {"model.factory": "torchvision:resnet18", "data.source": "parquet:/data", "search.address": "auto"},
        {"data.source": "imagefolder:/data", "model.factory": "resnet56"},
    ):
        config = load_config(None, settings)
        assert foreign_code(config) == []
        check_trusted(config, "run", trusted=False)


def test_a_network_that_names_a_source_does_not_have_it_imported(
    trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_to_dict(load_config(None, {"data.source": "trap_of_others:images"}))
    info = DataInfo(
        tuple("0123456789"), (0.5,) * 3, (0.5,) * 3, False, 4, "trap_of_others:images", (3, 32, 32)
    )
    spec = NetworkSpec("resnet20", {"width": 0.25}, 10, 3, info, {})
    model = build_model(spec.factory, spec.arguments, 10, 3)
    file = tmp_path / "network.pt"
    record = {"trial": "t0000", "status": "COMPLETE"}
    save_network(file, model, spec=spec, record=record, config=config, versions={})
    for command in (["evaluate", str(file)], ["export", str(file), "--format", "state-dict"]):
        assert main(command) == 2
        assert "data.source = trap_of_others:images" in capsys.readouterr().err
        assert not trap.exists()
    assert main(["evaluate", str(file), "--trust-code"]) == 2, "it has no such function"
    assert trap.exists()


# ---- Ray


def descendants(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
            if parent == process:
                yield from descendants(int(entry.name))


def listening(process: int) -> set[str]:
    """The addresses, in the hexadecimal form of /proc, that a process and its descendants listen on."""
    sockets = set()
    for number in descendants(process):
        for file in Path(f"/proc/{number}/fd").iterdir():
            try:
                kind, _, inode = os.readlink(file).partition(":")
            except OSError:
                continue
            if kind == "socket":
                sockets.add(inode.strip("[]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").open()]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
CONNECT = "import sys\nfrom ray._raylet import GcsClient\nGcsClient(address=sys.argv[1])"


@pytest.mark.ray
def test_ray_listens_on_loopback_only_and_asks_for_its_token(local_ray: None) -> None:
    import ray

    addresses = listening(os.getpid())
    assert addresses
    assert addresses <= LOOPBACK
    token = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}
    outside = {name: value for name, value in os.environ.items() if name not in token}
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    command = [sys.executable, "-c", CONNECT, ray.get_runtime_context().gcs_address]
    for extra, admitted in ((token, True), (wrong, False), ({"RAY_AUTH_MODE": "disabled"}, False)):
        done = subprocess.run(command, env=outside | extra, capture_output=True, text=True)
        assert (done.returncode == 0) == admitted, done.stderr
        assert ("AuthenticationError" in done.stderr) != admitted
