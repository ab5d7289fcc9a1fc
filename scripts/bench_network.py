"""What the benchmarks run on: a trained network, real images, and a line that names the machine."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from records import command
from records import spread as spread
from torch import nn

from rlprune.config import Config
from rlprune.config_loading import load_config
from rlprune.data import DataSplits, Preprocess, image_tensor
from rlprune.pruning.groups import FilterGroup, find_groups
from rlprune.results.environment import cpu_name, describe_environment
from rlprune.training.base import obtain_base
from rlprune.training.device import resolve_precision

LOW = resolve_precision("auto", torch.device("cpu"))
"""What `precision: auto` computes in on this machine: bf16 where the processor has it, else fp32."""
PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
LOW_NAME = PRECISION_NAMES[LOW]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def add_clock_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says which time is measured."""
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: CPU seconds, where others use the machine too"
    )


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which settings, images and trained network."""
    parser.add_argument("--config", default="tune_configs/cifar10_vgg16_w025.yaml", metavar="YAML")
    parser.add_argument(
        "--data", metavar="SOURCE", help="data.source, for example parquet:../shared/data/cifar10"
    )
    parser.add_argument("--base", metavar="FILE", help="state dict of the trained network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which network, which of its groups, and which images."""
    add_source_options(parser)
    parser.add_argument("--width", type=float, metavar="W", help="width of a vgg16_bn")
    parser.add_argument("--groups", metavar="I,J", help="positions of the groups to use (default: all)")


@dataclass(frozen=True)
class Subject:
    """A trained network with its images and groups."""

    config: Config
    splits: DataSplits
    model: nn.Module
    groups: list[FilterGroup]
    example: torch.Tensor

    def normalised(self, split: str, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Some images of a split, normalised ``(n, c, h, w)``, and their classes ``(n,)``."""
        chosen = self.splits.split(split)
        drawn = np.random.default_rng(seed).choice(len(chosen), min(count, len(chosen)), replace=False)
        images, labels = image_tensor(chosen.take(np.sort(drawn)), torch.device("cpu"))
        return Preprocess(self.splits.info)(images), labels


def load_subject(arguments: argparse.Namespace) -> Subject:
    """The network and images that the options name; the test split stays sealed."""
    from rlprune.data import load_splits

    torch.set_num_threads(arguments.threads)
    overrides = ["device=cpu"]
    overrides += [f"data.source={arguments.data}"] if arguments.data else []
    overrides += [f"base.checkpoint={arguments.base}"] if arguments.base else []
    overrides += [f"model.arguments.width={arguments.width}"] if arguments.width else []
    config = load_config(arguments.config, overrides)
    splits = load_splits(config.data).sealed()
    model = obtain_base(config, splits, progress=print).model
    example = torch.zeros(1, *splits.info.image_shape)
    groups = find_groups(model, example)
    if arguments.groups:
        groups = [groups[int(position)] for position in arguments.groups.split(",")]
    return Subject(config, splits, model, groups, example)


def machine() -> str:
    """The processor, the threads and the versions that figures are for."""
    return f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def revision() -> str:
    """The source revision that figures are of."""
    return describe_environment([])["git"] or "unknown"


def provenance() -> dict[str, str]:
    """What a record must say of a start of a benchmark: command, machine, source revision."""
    return {"command": command(), "machine": machine(), "revision": revision()}


def seconds(run: Callable[[], object]) -> float:
    """The time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def random_masks(group: FilterGroup, count: int, seed: int) -> np.ndarray:
    """Masks bool ``(count, f)`` with keep ratios drawn evenly from 0.3 to 0.9; none is empty."""
    generator = np.random.default_rng(seed)
    ratios = generator.uniform(0.3, 0.9, count)
    masks = np.zeros((count, group.n_filters), dtype=bool)
    for mask, ratio in zip(masks, ratios, strict=True):
        kept = max(1, round(ratio * group.n_filters))
        mask[generator.choice(group.n_filters, kept, replace=False)] = True
    return masks
