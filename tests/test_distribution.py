"""The source archive is complete, and the wheel that is built from it runs outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".*_cache", "__pycache__", "*.egg-info", "build", "dist", "site", "results"
)
CONVOLUTIONS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
QUICK = {
    "model.arguments.width": 0.0625,
    "base.epochs": 1,
    "base.allow_weak": "true",
    "pruning.keep_whole": ",".join(f"features.{number}" for number in CONVOLUTIONS[1:]),
    "agent.iterations": 1,
    "finetune.final_epochs": 0,
    "finetune.base_too": "false",
    "search.space": "{}",
}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
        elif path.name not in LEFT_OUT(str(ROOT), [path.name]):
            kept = None if path.name == "rlprune" else LEFT_OUT  # which holds a package called results
            shutil.copytree(path, source / path.name, ignore=kept or shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.ray
def test_the_source_archive_holds_what_the_tests_and_searches_need(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    wanted = [
        path.relative_to(ROOT).as_posix()
        for pattern in ("tests/*.py", "tune_configs/*.yaml", "scripts/*.py", "docs/*.md", "rlprune/**/*.py")
        for path in ROOT.glob(pattern)
    ]
    wanted += ["LICENSE", "README.md", "cluster.yaml", "mkdocs.yml", ".ci/run", "rlprune/py.typed"]
    assert sorted(set(wanted) - names) == []
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.ray
def test_the_wheel_runs_the_search_outside_the_checkout(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    command = [
        sys.executable,
        str(site / "bin" / "rlprune"),
        "search",
        "--b-grid",
        "30",
        "--num-samples",
        "1",
    ]
    command += ["--set", *(f"{name}={value}" for name, value in QUICK.items())]
    command += ["--set", f"base.cache={tmp_path / 'base'}", "--name", "first"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = "import rlprune; print(rlprune.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert where.stdout.startswith(str(site))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / done.stdout.splitlines()[-1]
    (row,) = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert row["status"] == "COMPLETE"
    assert (folder / "report.html").stat().st_size > 30_000, (
        "with the style and script that the package carries"
    )
    assert (folder / row["network"]).is_file()
