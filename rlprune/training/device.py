"""Which device computes, and in which precision."""

import functools
import re
from pathlib import Path

import torch

from rlprune.errors import ConfigError

_CPU_INFO = Path("/proc/cpuinfo")
_NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"))
"""What Linux has where there is an NVIDIA driver, or a GPU that a container was given."""
_NATIVE_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags in Linux' /proc/cpuinfo of processors that multiply bfloat16 numbers (x86, x86, Arm)."""


def resolve_device(name: str) -> torch.device:
    """The device of ``auto | cpu | cuda | cuda:N``, with its index; auto is CUDA where there is any.

    Tensors say ``cuda:0`` and never ``cuda``, and what asks for a device's memory wants the index.

    Raises:
        ConfigError: The name is another one, or this machine has no such device.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N; got {name!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(
            f"device: {name} was asked for, but torch finds {count} CUDA device(s) here; use auto or cpu"
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def given_device(device: str, gpus: float, cuda_available: bool) -> str:
    """The device of a process that Ray starts: a GPU only if it is given one and torch can use it.

    Ray names its GPUs in ``CUDA_VISIBLE_DEVICES``, so that its own GPU is always ``cuda``. GPUs that Ray only
    counts, on machines without any, are computed for on the CPU.

    Raises:
        ConfigError: It is given a share of a GPU that is there, and torch cannot use it.
    """
    if device == "cpu" or gpus == 0:
        return "cpu"
    if not cuda_available and any(path.exists() for path in _NVIDIA):
        raise ConfigError(
            "device: a share of a GPU was asked for and an NVIDIA driver is there, but torch, built for CUDA "
            f"{torch.version.cuda}, cannot use it; most often the driver is too old: use a newer driver or "
            "machine image, or device: cpu"
        )
    return "cuda" if cuda_available else "cpu"


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of ``auto | fp32 | bf16``; auto is bf16 where the device computes it natively."""
    if name not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"precision: expected auto, fp32 or bf16; got {name!r}")
    if name == "auto":
        name = "bf16" if _has_native_bf16(device) else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_NATIVE_BF16 & _cpu_flags())


def has_matrix_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16 matrices (Intel's AMX)."""
    return "amx_bf16" in _cpu_flags()


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """The processor's features; none where the system does not list them."""
    if not _CPU_INFO.is_file():
        return frozenset()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", _CPU_INFO.read_text(), re.MULTILINE)
    return frozenset(flags.group(1).split()) if flags else frozenset()
