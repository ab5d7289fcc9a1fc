"""One process with a made-up GPU: what its argument says, as JSON.

``run NAME=VALUE...`` prunes the tiny network with these settings, on the CPU and then on the GPU.
``masks`` asks reward engines on the CPU and on the GPU for the accuracies of some masks, and of more.
"""

import json
import sys
import warnings

import made_up_gpu as gpu  # before rlprune
import numpy as np
import torch
import yaml
from tiny_network import GROUPS, SETTINGS, train

from rlprune.config_loading import load_config
from rlprune.data import DataSplits, load_splits
from rlprune.pruning.groups import find_groups
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.pruning_run import PruningRun

COUNTS = (4, 32)


def pruned(splits: DataSplits, settings: list[str]) -> dict[str, object]:
    """The record and the network's state on each device."""
    changes = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in settings)}
    model = train(splits)
    found: dict[str, object] = {}
    for device in ("cpu", "cuda"):
        config = load_config(None, {**SETTINGS, "seed": 3, **changes, "device": device})
        run = PruningRun(config, model, splits.sealed())
        while not run.done:
            run.step()
        state = run.state_dict()
        record = run.record()
        found[device] = {
            "kept": [report["kept"] for report in state["reports"]],
            "macs": record.macs,
            "accuracy": record.accuracy_val,
            "devices": sorted({str(tensor.device) for tensor in state["network"].values()}),
            "saved": str(run.network().network.state_dict()["0.weight"].device),
        }
    return found


def asked(splits: DataSplits, fidelity: str) -> dict[str, object]:
    """How often the host waits for so many masks, and their accuracies beside those on the CPU."""
    model = train(splits).eval().requires_grad_(False)
    images = torch.from_numpy(splits.reward.images).float() / 255
    labels = torch.from_numpy(splits.reward.labels)
    group = next(group for group in find_groups(model, images[:1]) if group.name == GROUPS[1])
    rng = np.random.default_rng(0)
    masks = rng.random((4 * sum(COUNTS), group.n_filters)) < 0.6
    masks[:, 0] = True
    masks = rng.permutation(np.unique(masks, axis=0))  # equal ones are not computed twice
    waits, accuracies = [], []
    for device in ("cpu", "cuda:0"):
        engine = RewardEngine(
            model.to(device),
            group,
            images.to(device),
            labels.to(device),
            calibration=images[:100].to(device),
            fidelity=fidelity,  # type: ignore[arg-type]
            accuracy="hard",
            ridge=1e-4,
            dtype=torch.float32,
            seed=0,
        )
        begin = 0
        for count in COUNTS:
            gpu.waits.clear()
            accuracies.append(engine.accuracies(masks[begin : begin + count]).tolist())
            waits.append(dict(gpu.waits))
            begin += count
    return {"waits": waits[len(COUNTS) :], "cpu": accuracies[: len(COUNTS)], "gpu": accuracies[len(COUNTS) :]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    images = load_splits(load_config(None, SETTINGS).data)
    with gpu.made_up_gpu():
        if sys.argv[1] == "run":
            what = pruned(images, sys.argv[2:])
        else:
            what = {fidelity: asked(images, fidelity) for fidelity in ("raw", "bn", "repair")}
    print(json.dumps(what))
