"""Main memory: how much of it can be had, in a container too, and giving back what is free."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60  # what version 1 of cgroups says where there is no limit is about 2**63


def available_memory(root: Path) -> int:
    """Bytes of main memory that can be had: what the machine has left, or a container's limit leaves.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    return min([_machine_available(root), *_left_by_limits(root)])


def give_back_freed_memory() -> None:
    """Hands freed memory that the C library keeps for later back to the machine.

    glibc keeps freed blocks of less than 32 MiB where something later is still in use behind them.
    Where the C library has no ``malloc_trim`` nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _machine_available(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not tell MemAvailable; state pruning.cache_mib instead of 0")


def _left_by_limits(root: Path) -> Iterator[int]:
    """What each control group that limits this process leaves, both versions of control groups."""
    cgroups = root / "proc/self/cgroup"
    for line in cgroups.read_text().splitlines() if cgroups.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = mount / path.lstrip("/")
        while group.is_relative_to(mount):  # in a container the path is the host's: the mount itself counts
            yield from _left_in(group, *names)
            group = group.parent


def _left_in(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """The limit of one control group less what is used and cannot be dropped; nothing without a limit."""
    try:
        text = (group / limit).read_text().strip()
        if text == "max" or int(text) >= _UNLIMITED:
            return
        used = int((group / usage).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return
    yield max(0, int(text) - used + int(statistics.get(reclaimable, 0)))
