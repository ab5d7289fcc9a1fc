"""On a GPU that is made up: tensors are where the others are, and the host does not wait for single masks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("on_made_up_gpu.py")


@pytest.fixture(scope="module")
def with_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the GPU."""
    compiler = shutil.which("cc")
    if torch.version.cuda is None or compiler is None:
        pytest.skip("needs a build of torch for CUDA, and a C compiler")
    library = tmp_path_factory.mktemp("gpu") / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run([compiler, *options, str(SCRIPT.with_name("made_up_gpu.c"))], check=True)
    return {**os.environ, "LD_PRELOAD": str(library), "LD_LIBRARY_PATH": str(library.parent)}


def said(with_gpu: dict[str, str], *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, env=with_gpu, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_tensors_of_two_devices_do_not_meet(with_gpu: dict[str, str]) -> None:
    code = (
        "import torch, made_up_gpu as gpu\n"
        "with gpu.made_up_gpu():\n"
        "    there = torch.ones(2, device='cuda:0')\n"
        "    print((there + 1).device, (there * 2).cpu().tolist(), gpu.waits)\n"
        "    there + torch.ones(2)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=with_gpu, cwd=SCRIPT.parent, capture_output=True, text=True, check=False
    )
    assert "cuda:0 [2.0, 2.0] Counter({'copy to the CPU': 1})" in done.stdout
    assert "found cuda:0 and cpu" in done.stderr


def test_the_host_waits_once_for_any_number_of_masks(with_gpu: dict[str, str]) -> None:
    fidelities = said(with_gpu, "masks")
    assert len(fidelities) == 3
    for found in fidelities.values():
        assert found["waits"] == 2 * [{"copy to the CPU": 1}]
        assert found["gpu"] == found["cpu"]
        assert [len(accuracies) for accuracies in found["gpu"]] == [4, 32]


@pytest.mark.ray
@pytest.mark.parametrize(
    "settings",
    [
        ["finetune.distillation=0.5", "pruning.sweeps=2", "agent.warm_start=true"],
        ["pruning.fidelity=bn", "precision=bf16", "pruning.order=output-downward", "pruning.cache_mib=0.2"],
        [
            "pruning.screening=0.5",
            "pruning.accuracy=hard",
            "agent.importance=fpgm",
            "pruning.target_macs=0.5",
        ],
    ],
    ids=" ".join,
)
def test_a_run_is_the_same_on_either_device(with_gpu: dict[str, str], settings: list[str]) -> None:
    found = said(with_gpu, "run", *settings)
    gpu, cpu = found["cuda"], found["cpu"]
    assert (gpu.pop("devices"), cpu.pop("devices")) == (["cuda:0"], ["cpu"])
    assert gpu.pop("saved") == cpu.pop("saved") == "cpu"
    assert gpu == cpu
    assert min(gpu["kept"][:3]) < 16
