"""How much memory this process may take: its share of a device or a machine that trials share."""

from collections.abc import Iterator
from pathlib import Path

import torch

CUDA_CONTEXT_BYTES = 512 * 2**20
"""What a process takes of a GPU beside its tensors (context, kernels, library workspaces): set aside."""

_UNLIMITED = 1 << 60  # what version 1 of cgroups says where there is no limit is about 2**63

_machine_share = 1.0


def allocator_share(gpus: float, total: int) -> float:
    """The fraction of a GPU's memory that tensors of one trial may take.

    Args:
        gpus: GPUs of the trial: a fraction, or a whole number of devices that it has alone.
        total: Bytes of the device.

    Returns:
        The trial's fraction less what its process takes beside tensors, but at least half the fraction, so
        that all trials of a device fit together.
    """
    fraction = min(gpus, 1.0)
    return max(fraction - CUDA_CONTEXT_BYTES / total, fraction / 2)


def claim_share(device: torch.device, *, gpus: float, machine: float) -> None:
    """Holds this process to its share of the memory, from now on.

    Args:
        device: What it computes on; on a GPU allocating more than the share raises torch's out-of-memory
            error, although the device has room.
        gpus: GPUs given to it, above 0 where the device is one.
        machine: Its share of the machine, above 0 and at most 1: what caches in main memory go by.
    """
    global _machine_share
    _machine_share = machine
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(allocator_share(gpus, total), device)


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device, by its share (see :func:`claim_share`)."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = int(torch.cuda.get_per_process_memory_fraction(device) * total)
        return min(free, own - torch.cuda.memory_reserved(device))
    return int(_machine_share * available_memory(Path("/")))


def available_memory(root: Path) -> int:
    """Bytes of main memory that can be had: what the machine has left, or a container's limit leaves.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    return min([_machine_available(root), *_left_by_limits(root)])


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
