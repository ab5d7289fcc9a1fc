"""What a run ran on: the content of ``env.json``."""

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "rlprune",
    "torch",
    "torchvision",
    "torch-pruning",
    "ray",
    "optuna",
    "gymnasium",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "pillow",
    "matplotlib",
)


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """Versions, machine, source revision and command line, as JSON can hold them; None is what is not known.

    Args:
        command: The command line, usually ``sys.argv``.
    """
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "python": sys.version,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "cores_usable": _usable_cores(),
        "memory_bytes": _memory(),
        "git": _git_revision(Path(__file__).resolve().parents[2]),
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def cpu_name() -> str:
    """The processor's model as the system names it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("model name", "hardware"):
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" not in names or "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision(source: Path) -> str | None:
    """The revision that rlprune runs from, ``+changes`` if files differ; None outside its own checkout."""
    if not (source / ".git").exists():
        return None
    revision = _git(source, "rev-parse", "HEAD")
    return f"{revision}+changes" if revision and _git(source, "status", "--porcelain") else revision


def _git(source: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
