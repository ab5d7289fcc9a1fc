"""How much memory a trial may take: its share of a GPU, of a machine and of a container."""

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlprune.errors import PruningError
from rlprune.main_memory import available_memory, give_back_freed_memory
from rlprune.pruning import memory_share
from rlprune.pruning.memory import retried
from rlprune.pruning.memory_share import allocator_share, claim_share, free_memory
from rlprune.pruning.prefix_cache import MOST_ON_A_CPU, usual_budget
from rlprune.training.device import resolve_device

GIB = 2**30
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("gpus", "total", "expected"),
    [
        (1.0, 16 * GIB, 1 - 1 / 32),
        (2.0, 16 * GIB, 1 - 1 / 32),
        (0.25, 16 * GIB, 0.25 - 1 / 32),
        (0.25, 80 * GIB, 0.25 - 1 / 160),
        (0.01, 16 * GIB, 0.005),
    ],
)
def test_the_tensors_of_a_trial_get_its_fraction_less_what_its_process_takes(
    gpus: float, total: int, expected: float
) -> None:
    assert allocator_share(gpus, total) == pytest.approx(expected)


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 8])
def test_all_trials_of_a_device_fit_together(trials: int) -> None:
    total = 8 * GIB
    taken = allocator_share(1 / trials, total) * total + memory_share.CUDA_CONTEXT_BYTES
    assert trials * taken == pytest.approx(total)


def test_caches_go_by_the_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_share, "_machine_share", 1.0)
    whole = free_memory(CPU)
    claim_share(CPU, gpus=0.0, machine=0.25)
    assert 0.2 * whole < free_memory(CPU) < 0.3 * whole


def test_a_gpu_is_asked_by_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own functions, which refuse a device without one, over a driver that is made up."""
    fractions: dict[int, float] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16 * GIB)
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    monkeypatch.setattr(
        torch._C,
        "_cuda_setMemoryFraction",
        lambda share, index: fractions.update({index: share}),
        raising=False,
    )
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", fractions.__getitem__, raising=False)
    for name, index in (("cuda", 0), ("auto", 0), ("cuda:1", 1)):
        device = resolve_device(name)
        assert device == torch.device("cuda", index)
        claim_share(device, gpus=0.25, machine=1.0)
        assert fractions[index] == pytest.approx(0.25 - 1 / 32)
        own = (0.25 - 1 / 32) * 16 * GIB
        assert free_memory(device) == pytest.approx(own - GIB, abs=1), "what torch keeps is used again"
        fractions[index] = 1.0
        assert free_memory(device) == 4 * GIB


def test_a_reward_engine_keeps_little_on_a_cpu_and_less_where_little_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_share, "_machine_share", 1.0)
    assert 0 < usual_budget(CPU) <= MOST_ON_A_CPU
    claim_share(CPU, gpus=0.0, machine=1e-6)
    assert usual_budget(CPU) < MOST_ON_A_CPU


def machine(root: Path, cgroup: str, groups: dict[str, dict[str, str]]) -> Path:
    """A folder with the files of a machine that has 8,000 KiB left."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:  16000 kB\nMemAvailable:    8000 kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for folder, files in groups.items():
        (root / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (root / "sys/fs/cgroup" / folder / name).write_text(text)
    return root


def second(limit: str, used: int, droppable: int) -> dict[str, str]:
    stat = f"anon 5\ninactive_file {droppable}\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def first(limit: int, used: int, droppable: int) -> dict[str, str]:
    stat = f"rss 5\ntotal_inactive_file {droppable}\n"
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": stat,
    }


ALL = 8000 * 1024


@pytest.mark.parametrize(
    ("cgroup", "groups", "expected"),
    [
        ("", {}, ALL),
        ("0::/\n", {}, ALL),
        ("0::/a/b\n", {"a/b": second("max", 10, 0)}, ALL),
        ("0::/a/b\n", {"a/b": second("5000", 3000, 500)}, 2500),
        ("0::/a/b\n", {"a/b": second("max", 0, 0), "a": second("4000", 3900, 0)}, 100),
        ("0::/a\n", {"a": second("4000", 4200, 0)}, 0),
        ("0::/host/path\n", {"": second("6000", 1000, 0)}, 5000),
        ("4:memory:/a\n9:cpu:/\n", {"memory/a": first(5000, 3000, 500)}, 2500),
        ("4:memory:/a\n", {"memory/a": first(9223372036854771712, 3000, 0)}, ALL),
    ],
)
def test_a_containers_limit_counts(
    cgroup: str, groups: dict[str, dict[str, str]], expected: int, tmp_path: Path
) -> None:
    assert available_memory(machine(tmp_path, cgroup, groups)) == expected


def test_this_machine_has_memory() -> None:
    assert 0 < available_memory(Path("/")) < 2**50


def test_work_is_done_again_in_smaller_blocks_until_it_fits() -> None:
    wanted = [2**60]

    def shrink() -> bool:
        wanted[0] //= 2**10
        return True

    held = retried(lambda: torch.empty(wanted[0], dtype=torch.uint8), shrink)
    assert len(held) == wanted[0] < 2**60


def test_memory_that_runs_out_in_the_smallest_block_is_named_and_other_errors_stay() -> None:
    with pytest.raises(PruningError, match=r"memory ran out .*fewer trials .*pruning\.cache_mib"):
        retried(lambda: torch.empty(2**60, dtype=torch.uint8), lambda: False)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        retried(lambda: torch.ones(2, 3) @ torch.ones(2, 3), lambda: True)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc"
)
def test_freed_memory_below_something_in_use_goes_back_to_the_machine() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    size = 64 * 1024  # small enough to be taken from the heap, which only shrinks from its end
    blocks = [torch.ones(size // 4) for _ in range(4096)]
    last = blocks[-1]
    before = resident()
    del blocks
    freed = 4095 * size
    assert resident() > before - freed // 4, "the C library has given it back by itself: nothing is tested"
    give_back_freed_memory()
    assert resident() < before - freed // 2
    assert last.sum() == size // 4
