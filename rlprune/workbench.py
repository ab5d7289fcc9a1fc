"""What a run works with: images and device; how networks are measured, calibrated and fine-tuned in it."""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.config import Config
from rlprune.data import DataSplits, ImageSplit, Preprocess, image_tensor, reward_inputs
from rlprune.errors import ConfigError, ModelError
from rlprune.main_memory import give_back_freed_memory
from rlprune.pruning.cost import Cost, count_cost
from rlprune.pruning.groups import FilterGroup, find_groups, no_group, read_groups
from rlprune.pruning.memory import at_a_time
from rlprune.pruning.prefix_cache import BLOCK_IMAGES
from rlprune.pruning.repair import Moments, collect_moments
from rlprune.pruning.reward_engine import RewardEngine
from rlprune.pruning.surgery import widths
from rlprune.pruning.verification import check_precision, refused_groups
from rlprune.seeding import child_seed, generator
from rlprune.training.device import resolve_device, resolve_precision
from rlprune.training.distillation import Distillation
from rlprune.training.evaluate import accuracy, correct_predictions
from rlprune.training.fit import EpochReport, FitSchedule, fit
from rlprune.training.network_file import NetworkSpec

log = logging.getLogger(__name__)


OnPart = Callable[[dict[str, Any]], None]
"""Takes the part of a work that is done: tensors, numbers, strings, lists and dicts."""

_AT_A_TIME = 100
"""Images that are normalised in one go."""


class Workbench:
    """The images, the device and the settings of one run; every random draw comes from the run's seed.

    Attributes:
        device: Where everything is computed.
        example: One blank image ``(1, c, h, w)``, for tracing and counting.
        splits: The images, without test.
        teacher: Teaches in fine-tuning where ``finetune.distillation`` is above 0: the base model.
        undone: Fine-tunings so far whose loss was not finite.
    """

    def __init__(self, config: Config, splits: DataSplits) -> None:
        """Resolves the device.

        Raises:
            ConfigError: The splits hold test images, or there is no such device.
        """
        if splits.test is not None:
            raise ConfigError("a pruning run must not be able to reach the test split: pass splits.sealed()")
        self._config = config
        self.splits = splits
        self.teacher: nn.Module | None = None
        self.undone = 0
        self.device = resolve_device(config.device)
        self._dtype = resolve_precision(config.precision, self.device)
        self.example = torch.zeros(1, *splits.info.image_shape, device=self.device)

    def seed(self, *purpose: str | int) -> int:
        """The seed of one purpose in this run."""
        return child_seed(self._config.seed, *purpose)

    def placed(self, model: nn.Module) -> nn.Module:
        """A copy of a network on the device; one that is there already has its weights shared, not copied.

        A node's trials map the base model's weights from one place, so nobody may write to them.
        """
        tensors = [*model.parameters(), *model.buffers()]
        if any(tensor.device != self.device for tensor in tensors):
            return copy.deepcopy(model).to(self.device)
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})

    def groups(self, model: nn.Module) -> list[FilterGroup]:
        """The groups of a network that may be cut, from the input upward."""
        return find_groups(model, self.example, self._config.pruning.keep_whole)

    def prunable(self, model: nn.Module) -> tuple[list[FilterGroup], dict[str, str]]:
        """The groups of a network that a run can prune from beginning to end, and why others stay whole.

        Returns:
            The groups from the input upward, and reasons by the name of the group's first layer.

        Raises:
            ModelError: There is no such group, or the network cannot be traced, or not run in the precision.
        """
        model = model.to(self.device).eval()
        whole = self._config.pruning.keep_whole
        groups, refused = read_groups(model, self.example, whole)
        refused |= refused_groups(model, groups, self.example, self._config.pruning.fidelity)
        check_precision(model, self.example, self._dtype)
        groups = [group for group in groups if group.name not in refused]
        if not groups:
            raise ModelError(no_group(refused, whole))
        return groups, refused

    def cost(self, model: nn.Module) -> Cost:
        """MACs for one image and parameters of a network."""
        return count_cost(model, self.example)

    def widths(self, model: nn.Module) -> dict[str, int]:
        """How many filters each layer of a network has, by its name, wherever the network is."""
        return widths(model, self.example.to(next(model.parameters()).device))

    def correct_val(self, model: nn.Module) -> np.ndarray:
        """Which images of val a network classifies correctly: bool ``(n,)``."""
        split, info = self.splits.val, self.splits.info
        return correct_predictions(model, split, info, device=self.device, dtype=self._dtype)

    def calibration(self, purpose: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Train images drawn for one purpose, normalised ``(n, c, h, w)``, and their classes ``(n,)``."""
        train = self.splits.train
        count = min(self._config.pruning.calibration_images, len(train))
        drawn = generator(self._config.seed, "calibration", purpose).choice(len(train), count, replace=False)
        images, labels = image_tensor(train.take(np.sort(drawn)), self.device)
        return self._normalised(images), labels

    @property
    def reward_split(self) -> ImageSplit:
        """The images that rewards are computed on."""
        return self.splits.split(self._config.pruning.reward_split)

    def reward_engine(self, model: nn.Module, group: FilterGroup, calibration: torch.Tensor) -> RewardEngine:
        """The engine for one group of a network, on the images that rewards are computed on."""
        pruning = self._config.pruning
        give_back_freed_memory()
        inputs, labels, prepare = reward_inputs(self.reward_split, self.splits.info, self.device)
        return RewardEngine(
            model,
            group,
            inputs,
            labels,
            calibration=calibration,
            fidelity=pruning.fidelity,  # type: ignore[arg-type]
            accuracy=pruning.accuracy,  # type: ignore[arg-type]
            ridge=pruning.ridge,
            dtype=self._dtype,
            seed=self.seed("patches", group.name),
            int8=pruning.int8 and self._config.precision != "fp32",
            cache_bytes=round(pruning.cache_mib * 2**20) or None,
            prepare=prepare,
        )

    def moments(self, model: nn.Module, group: FilterGroup, calibration: torch.Tensor) -> dict[str, Moments]:
        """What the repair of a group needs, by consumer."""
        return collect_moments(
            model,
            group,
            calibration,
            ridge=self._config.pruning.ridge,
            batch_size=at_a_time(BLOCK_IMAGES, calibration.shape),
            seed=self.seed("patches", group.name),
        )

    def fine_tune(
        self,
        model: nn.Module,
        epochs: float,
        *purpose: str | int,
        on_epoch: Callable[[EpochReport], None] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> bool:
        """Fine-tunes a network in place on train; the purpose gives the seed, ``state`` where it goes on.

        Returns:
            Whether it went well; where the loss was not finite (logged), the network's weights are of no use.
        """
        settings = self._config.finetune
        schedule = FitSchedule(
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            label_smoothing=settings.label_smoothing,
            warmup_share=0.0,
        )
        give_back_freed_memory()  # what was freed before is too scattered for the values of a batch
        try:
            fit(
                model,
                self.splits.train,
                self.splits.info,
                schedule,
                device=self.device,
                dtype=self._dtype,
                seed=self.seed("fine-tune", *purpose),
                on_epoch=on_epoch,
                state=state,
                distillation=self._distillation(),
            )
        except ModelError as error:
            self.undone += 1
            log.warning("fine-tuning for %s is undone: %s", ", ".join(str(part) for part in purpose), error)
            return False
        return True

    def _distillation(self) -> Distillation | None:
        settings = self._config.finetune
        if not settings.distillation:
            return None
        assert self.teacher is not None, "who makes the workbench names the teacher"
        return Distillation(self.teacher, settings.distillation, settings.temperature)

    @property
    def final_epochs(self) -> float:
        """Passes over train at the end of a sweep; the one sweep of a target has those of all ``sweeps``."""
        pruning = self._config.pruning
        return self._config.finetune.final_epochs * pruning.sweeps / pruning.n_sweeps

    def fine_tune_to_best(
        self,
        model: nn.Module,
        epochs: float,
        *purpose: str | int,
        correct: np.ndarray,
        part: Mapping[str, Any] | None = None,
        on_part: OnPart | None = None,
    ) -> np.ndarray:
        """Fine-tunes a network in place; of its states after each epoch and at the end the best on val stays.

        Args:
            model: The network; it is one of the states compared.
            epochs: Passes over train.
            purpose: Gives the seed.
            correct: Which images of val it classifies correctly now: bool ``(n,)``.
            part: Where to go on: what an interrupted fine-tuning of the same network gave to ``on_part``.
            on_part: Called after each whole epoch with what going on needs: store it before returning.

        Returns:
            The same of the state that stays.
        """
        best, weights = correct, copy.deepcopy(model.state_dict())
        if part is not None:
            best, weights = part["correct"].numpy(), part["best"]

        def look(report: EpochReport | None = None) -> None:
            nonlocal best, weights
            seen = self.correct_val(model)
            if accuracy(seen) > accuracy(best):
                best, weights = seen, copy.deepcopy(model.state_dict())
            if report is not None and on_part is not None:
                on_part({"fit": report.state, "best": weights, "correct": torch.from_numpy(best)})

        if self.fine_tune(model, epochs, *purpose, on_epoch=look, state=part and part["fit"]):
            look()
        model.load_state_dict(weights)
        return best

    def network_spec(self, model: nn.Module) -> NetworkSpec:
        """How a cut network is built again."""
        info = self.splits.info
        return NetworkSpec(
            factory=self._config.model.factory,
            arguments=dict(self._config.model.arguments),
            num_classes=info.num_classes,
            in_channels=info.image_shape[0],
            info=info,
            widths=self.widths(model),
        )

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Some at a time: what is between would take as much memory again, twice."""
        preprocess = Preprocess(self.splits.info).to(self.device)
        normalised = torch.empty(
            images.shape, dtype=torch.float32, device=self.device, memory_format=torch.channels_last
        )
        for part, block in zip(normalised.split(_AT_A_TIME), images.split(_AT_A_TIME), strict=True):
            part.copy_(preprocess(block))
        return normalised
