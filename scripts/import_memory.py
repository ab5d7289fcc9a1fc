"""What the libraries that a trial loads cost each process of its own: bytes after one import and the next."""

import subprocess
import sys
from pathlib import Path
from typing import Any

_LIBRARY = """
import ctypes, importlib.util, pathlib
path = pathlib.Path(importlib.util.find_spec("torch").origin).with_name("lib") / "{}"
if path.exists():
    ctypes.CDLL(str(path))
"""
IMPORTS = {
    "Python, numpy": "import numpy",
    "torch: library": _LIBRARY.format("libtorch_cpu.so"),
    "torch: libraries of CUDA, where the build has them": _LIBRARY.format("libtorch_cuda.so"),
    "torch: modules": "import torch",
    "torch._dynamo, which any torch.optim imports": "import torch._dynamo",
    "Ray": "import ray",
    "Ray Tune, pandas": "import ray.tune",
    "RLlib, gymnasium": "import ray.rllib.algorithms.ppo",
    "torch-pruning, rlprune": "import torch_pruning, rlprune.pruning_run, rlprune.search.trainable",
}
"""What a trial's process loads, in this order, and how."""


def private_bytes() -> int:
    """What is private to this process, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return 1024 * (sizes["Private_Clean"] + sizes["Private_Dirty"])


def private_bytes_of_imports() -> list[dict[str, float]]:
    """What two processes keep for themselves after each of :data:`IMPORTS`, in bytes.

    Two, side by side: of what only one process maps nothing counts as shared.
    """
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "from import_memory import private_bytes\n"
    for statement in IMPORTS.values():
        code += f"{statement}\nprint(private_bytes(), flush=True)\ninput()\n"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    sizes: list[dict[str, float]] = [{}, {}]
    for name in IMPORTS:
        for process, found in zip(processes, sizes, strict=True):
            found[name] = float(process.stdout.readline())
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    return sizes
