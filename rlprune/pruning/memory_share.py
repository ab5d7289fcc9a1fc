"""How much memory this process may take: its share of a device or a machine that trials share."""

from pathlib import Path

import torch

from rlprune.main_memory import available_memory

CUDA_CONTEXT_BYTES = 512 * 2**20
"""What a process takes of a GPU beside its tensors (context, kernels, library workspaces): set aside."""

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
        device: What it computes on, with its index; on a GPU allocating more than the share raises torch's
            out-of-memory error, although the device has room.
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
        taken = torch.cuda.memory_allocated(device)
        kept = torch.cuda.memory_reserved(device) - taken  # by torch, which uses it again
        return min(free + kept, own - taken)
    return int(_machine_share * available_memory(Path("/")))
