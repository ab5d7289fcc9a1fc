"""A GPU that is made up: its tensors say ``cuda:0`` and are computed on the CPU.

As on a real one, an operation on tensors of both devices is an error. What makes the host wait for the device
is counted. What torch asks of CUDA beside kernels ``made_up_gpu.c`` answers, which a process loads before
torch. This module changes torch for the whole process: it is imported before rlprune, in no test's process.

It says nothing of kernels, numbers, speed or memory of a real GPU.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
MEMORY = 8 * 2**30
aten = torch.ops.aten
waits: Counter[str] = Counter()
"""How often the host waited for the device, by the operation."""

_READ = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
}
_INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
_COPIES = {aten._to_copy.default, aten.copy_.default}


class _NoGrad(torch.no_grad):
    """Inference mode has rules for tensors of its own kind that a wrapped one cannot keep."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__()


torch.inference_mode = _NoGrad  # type: ignore[misc, assignment]


class OnGpu(torch.Tensor):
    """A tensor on the GPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnGpu":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __init__(self, inner: torch.Tensor) -> None:
        pass

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """What makes tensors from none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        gpu = _names_gpu(kwargs.get("device")) or any(
            isinstance(x, OnGpu) for x in tree_leaves((args, kwargs))
        )
        return _computed(func, args, kwargs) if gpu else func(*args, **kwargs)


def _names_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnGpu) else value


def _computed(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The operation's result, on the device where CUDA would leave it."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    on_gpu = [value for value in tensors if isinstance(value, OnGpu)]
    on_cpu = [value for value in tensors if not isinstance(value, OnGpu) and value.dim()]
    places = func.overloadpacket in _INDEXED and isinstance(args[0], OnGpu)  # indices may be on the CPU
    if on_gpu and on_cpu and func not in _COPIES and not places:
        raise RuntimeError(f"{func}: expected all tensors to be on one device, but found cuda:0 and cpu")
    to = kwargs.get("device")
    here = bool(on_gpu) if to is None else _names_gpu(to)
    if func is aten.copy_.default:
        here = isinstance(args[0], OnGpu)
    _count_waits(func, args, reads=bool(on_gpu) and not here, places=places)
    if func in _READ and on_gpu:
        waits[str(func)] += 1
    plain_args, plain_kwargs = tree_map(_inner, (args, dict(kwargs)))
    if _names_gpu(to):
        plain_kwargs["device"] = torch.device("cpu")
    found = func(*plain_args, **plain_kwargs)
    if func is aten.copy_.default:
        return args[0]
    if not here:
        return found
    wrapped = tree_map(lambda x: OnGpu(x) if isinstance(x, torch.Tensor) else x, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if on_gpu else wrapped


def _count_waits(func: Any, args: tuple[Any, ...], *, reads: bool, places: bool) -> None:
    if func in _COPIES and reads:
        waits["copy to the CPU"] += 1
    masks = (torch.bool, torch.uint8)
    if places and any(isinstance(index, torch.Tensor) and index.dtype in masks for index in args[1]):
        waits["index by a mask"] += 1


def _unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


_fork_of_all = torch.random.fork_rng


def _fork_rng(devices: Any, **options: Any) -> Any:
    return _fork_of_all([], **options)


@contextlib.contextmanager
def made_up_gpu() -> Iterator[None]:
    """As long as this lasts, torch finds the GPU."""
    properties = mock.Mock(total_memory=MEMORY, major=8, minor=0)
    answers: dict[str, Any] = {
        "_lazy_init": None,
        "is_available": True,
        "is_initialized": False,  # there is no cache of memory to be emptied
        "is_bf16_supported": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_properties": properties,
        "get_device_name": "made up",
        "mem_get_info": (MEMORY // 2, MEMORY),
        "memory_allocated": 0,
        "memory_reserved": 0,
        "get_per_process_memory_fraction": 1.0,
        "set_per_process_memory_fraction": None,
        "synchronize": None,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": None,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch(f"torch.cuda.{name}", mock.Mock(return_value=answer)))
        stack.enter_context(mock.patch("torch.Tensor.pin_memory", _unchanged))
        stack.enter_context(mock.patch("torch.random.fork_rng", _fork_rng))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(_Factories())
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
