"""Training by stochastic gradient descent: the host waits rarely for the device."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data import DataInfo, ImageSplit, Preprocess, augment, feed
from rlprune.errors import ModelError
from rlprune.safe_backward import safe_backward
from rlprune.training.distillation import Distillation
from rlprune.training.small_maps import products_for_small_maps

_MOMENTUM = 0.9
_CHECK_STEPS = 50
"""Steps between two looks at whether the loss is still finite: each look waits for the device."""


@dataclass(frozen=True)
class FitSchedule:
    """How long and how fast to train.

    Attributes:
        epochs: Passes over the images; fractions count in steps.
        batch_size: Images a step.
        learning_rate: Peak rate of SGD with Nesterov momentum.
        weight_decay: L2 penalty of SGD.
        label_smoothing: Share of the label spread over all classes.
        warmup_share: Share of the steps in which the rate rises to its peak; 0 starts at the peak.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    warmup_share: float

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step (from 0) of so many: linearly up, then linearly down towards zero."""
        warmup = round(self.warmup_share * steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (steps - step) / (steps - warmup)


@dataclass(frozen=True)
class EpochReport:
    """What a caller is told after each whole epoch.

    Attributes:
        epoch: Whole epochs done.
        epochs: Epochs in all.
        loss: Mean training loss of this epoch.
        state: Everything that continuing needs. It refers to the live tensors: store it before returning.
    """

    epoch: int
    epochs: float
    loss: float
    state: dict[str, Any]


@dataclass(frozen=True)
class FitReport:
    """What a training did: its steps, and the mean loss of the last epoch begun (nan without any step)."""

    steps: int
    loss: float


def fit(
    model: nn.Module,
    split: ImageSplit,
    info: DataInfo,
    schedule: FitSchedule,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    state: Mapping[str, Any] | None = None,
    distillation: Distillation | None = None,
) -> FitReport:
    """Train a network in place; it is left on the device, channels last in memory, in evaluation mode.

    On a CPU the same arguments and number of threads give the same weights. torch's global generators do not
    move.

    Args:
        model: Takes normalised images (n, c, h, w) and gives logits (n, classes).
        split: The images to train on.
        info: Their normalisation and augmentation.
        schedule: How long and how fast.
        device: Where to compute.
        dtype: bfloat16 computes under autocast, with float32 weights; float32 does not.
        seed: Of the order of the images, the augmentation and dropout.
        on_step: Called with (steps done, steps in all) after each step; must not read the network.
        on_epoch: Called after each whole epoch; may measure the network, and copy its weights but not itself.
        state: The state of an earlier :class:`EpochReport`; continues as if there had been no break.
        distillation: A teacher on the same device; None trains on the labels alone.

    Raises:
        ModelError: The loss became NaN or infinite.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(seed)
        training = _Training(model, split, info, schedule, device, dtype, seed, distillation)
        if state is not None:
            training.load_state_dict(state)
        model.train()
        with (
            torch.enable_grad(),
            safe_backward(model, device),
            products_for_small_maps(model, device, dtype),
        ):
            while training.step < training.steps:
                training.run_step()
                if on_step is not None:
                    on_step(training.step, training.steps)
                if training.step % training.epoch_steps == 0:
                    training.close_epoch(on_epoch)
        training.optimizer.zero_grad(set_to_none=True)  # as large as the network, and copied with it
        model.eval()
        return FitReport(training.steps, training.mean_loss())


class _Training:
    """One training between two steps."""

    def __init__(
        self,
        model: nn.Module,
        split: ImageSplit,
        info: DataInfo,
        schedule: FitSchedule,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
        distillation: Distillation | None,
    ) -> None:
        self.distillation = distillation
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schedule, self.info, self.device = schedule, info, device
        self.feed, self.images = feed(split, device), len(split)
        self.preprocess = Preprocess(info).to(device)
        self.batch_size = min(schedule.batch_size, len(split))
        self.epoch_steps = len(split) // self.batch_size
        self.steps = max(1, round(schedule.epochs * self.epoch_steps)) if schedule.epochs > 0 else 0
        self.step = 0
        self.batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=schedule.learning_rate,
            momentum=_MOMENTUM,
            weight_decay=schedule.weight_decay,
            nesterov=True,
            fused=True,
        )
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
        self.loss_sum = torch.zeros((), device=device)

    def run_step(self) -> None:
        """One batch: forward, backward, update."""
        position = self.step % self.epoch_steps
        if position == 0:
            order = torch.randperm(self.images, generator=self.generator)
            steps = min(self.epoch_steps, self.steps - self.step)
            self.batches = self.feed.shuffled(order[: steps * self.batch_size], self.batch_size)
            self.loss_sum.zero_()
        images, labels = next(self.batches)
        batch = augment(images, self.info.crop_padding, self.info.flip, self.generator)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.schedule.rate(self.step, self.steps)
        loss = self._loss(batch, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.step += 1
        if self.step % _CHECK_STEPS == 0 or self.step == self.steps:
            self.mean_loss()

    def _loss(self, batch: Tensor, labels: Tensor) -> Tensor:
        images = self.preprocess(batch)
        with self.autocast:
            logits = self.model(images).float()
            targets = self.distillation.targets(images) if self.distillation else None
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.schedule.label_smoothing)
        if self.distillation is None or targets is None:
            return loss
        return self.distillation.mixed(loss, logits, targets)

    def mean_loss(self) -> float:
        """Mean loss of the steps since the last whole epoch, or of that epoch; waits for the device."""
        if self.step == 0:
            return float("nan")
        loss = float(self.loss_sum) / ((self.step - 1) % self.epoch_steps + 1)
        if not torch.isfinite(self.loss_sum):
            raise ModelError(
                f"training diverged: the loss was {loss} by step {self.step} of {self.steps}; "
                f"lower the learning rate ({self.schedule.learning_rate:g})"
            )
        return loss

    def close_epoch(self, on_epoch: Callable[[EpochReport], None] | None) -> None:
        """Tell the caller that an epoch is over; the network may be evaluated meanwhile."""
        if on_epoch is None:
            return
        report = EpochReport(
            self.step // self.epoch_steps, self.schedule.epochs, self.mean_loss(), self.state_dict()
        )
        on_epoch(report)
        self.model.train()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that continuing after a whole epoch needs."""
        state = {
            "step": self.step,
            "loss_sum": self.loss_sum,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "cpu_generator": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_generator"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.step = state["step"]
        self.loss_sum.copy_(state["loss_sum"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["cpu_generator"].cpu())
        if self.device.type == "cuda" and "cuda_generator" in state:  # else a CPU has begun
            torch.cuda.set_rng_state(state["cuda_generator"].cpu(), self.device)
