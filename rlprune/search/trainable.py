"""The Tune trainable: one trial drives one ``PruningRun``, a step a group."""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import tune

from rlprune.config import Config
from rlprune.config_loading import trial_config
from rlprune.config_values import SAMPLED_SECTIONS
from rlprune.errors import ModelError
from rlprune.results.goal import Goal
from rlprune.results.step_report import score
from rlprune.search.checkpoint import read_state, undamaged_at_or_before, write_checkpoint
from rlprune.search.parts import AT_THE_START, part_path, read_part, write_part
from rlprune.search.resources import share_of_this_node
from rlprune.search.space import goal_settings
from rlprune.storage import fetched

if TYPE_CHECKING:
    from torch import nn

    from rlprune.data import DataSplits
    from rlprune.pruning.latency_table import LatencyTable
    from rlprune.pruning_run import PruningRun

Weights = Mapping[str, np.ndarray]
"""The base model's state dict as arrays, which Ray maps into every trial instead of copying them."""

AGENT_HISTORY = "agent_history"
"""What a trial reports of each iteration of a group's agent, beside the metrics of the step."""

BuildRun = Callable[[Config, Weights, "DataSplits"], "PruningRun"]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What a trial is told: the config that Tune keeps for it.

    Attributes:
        trial: Its name, for example ``t0003``.
        b: Drop bound in percentage points; None for a trial with a target.
        seed: Its seed.
        settings: Sampled settings, dotted name -> value.
        checkpoint: Folder of the checkpoint to go on from, a path or a URL; empty to start afresh.
        lineage: What it has taken from other members of its population; see ``TrialRecord.lineage``.
        target_macs: Share of the base model's MACs to come down to; None for a trial with a drop bound.
    """

    trial: str
    b: float | None
    seed: int
    settings: dict[str, Any]
    checkpoint: str = ""
    lineage: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    target_macs: float | None = None

    def for_record(self) -> dict[str, Any]:
        """The fields of the trial's record that the assignment knows."""
        names = ("trial", "b", "target_macs", "seed", "settings", "lineage")
        return {name: getattr(self, name) for name in names}

    @property
    def goal(self) -> Goal:
        """What the trial is after."""
        return Goal(self.b, self.target_macs)

    def to_config(self, config: Config) -> Config:
        """The settings of this trial: those of the run, but for what a search may sample."""
        own = trial_config(config, {**self.settings, **goal_settings(self.goal), "seed": self.seed})
        sampled = {name: getattr(own, name) for name in SAMPLED_SECTIONS}
        return dataclasses.replace(config, seed=own.seed, **sampled)


def arrays_of(model: "nn.Module") -> Weights:
    """A model's state dict as arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def architecture_of(model: "nn.Module") -> "nn.Module":
    """A network without its weights, small enough to be sent along with them as arrays.

    Raises:
        ModelError: It cannot be sent to another process.
    """
    from ray import cloudpickle

    bare = copy.deepcopy(model).cpu()  # with the buffers that its state leaves out
    bare.load_state_dict({name: value.to("meta") for name, value in bare.state_dict().items()}, assign=True)
    try:
        cloudpickle.dumps(bare)
    except Exception as error:  # whatever the network's own attributes raise
        raise ModelError(
            f"{type(model).__name__} cannot be sent to the processes of the trials: {error}; "
            "name a package.module:factory instead of handing over the network"
        ) from error
    return bare


def build_run(
    config: Config,
    weights: Weights,
    splits: "DataSplits",
    architecture: "nn.Module | None" = None,
    table: "LatencyTable | None" = None,
) -> "PruningRun":
    """A run on the base model, whose weights stay where Ray has mapped them.

    Args:
        config: The settings of the trial.
        weights: The base model's weights.
        splits: The images.
        architecture: What :func:`architecture_of` gave, for a network that no factory can build.
        table: The times of the base model's layers, where rewards count them.
    """
    import torch

    from rlprune.models import build_model
    from rlprune.pruning_run import PruningRun

    info, model = splits.info, copy.deepcopy(architecture)
    if model is None:
        model = build_model(
            config.model.factory, config.model.arguments, info.num_classes, info.image_shape[0]
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        state = {name: torch.from_numpy(np.asarray(array)) for name, array in weights.items()}
    model.load_state_dict(state, assign=True)
    return PruningRun(config, model.eval(), splits, table)


class PruningTrainable(tune.Trainable):
    """Runs one trial and saves it after each step."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        run_config: Config,
        weights: Weights,
        splits: "DataSplits",
        build: BuildRun,
        tune_folder: str,
    ) -> None:
        """Build the run.

        Args:
            config: The fields of an :class:`Assignment`.
            run_config: The settings of the whole search.
            weights: The base model's weights.
            splits: The images; test is sealed.
            build: Makes the run: :func:`build_run`, or a stand-in in tests of the search itself.
            tune_folder: Where parts of steps are kept; for a run on an object store a folder of each node.
        """
        self._run_config, self._weights, self._splits, self._build = run_config, weights, splits, build
        self._tune_folder = Path(tune_folder)
        self._run: PruningRun | None = None
        self._next: dict[str, Any] | None = config
        self._begin()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process, which saves its start-up time.

        The next task builds it: Tune gives up a trial whose reset fails, and retries one that was running.
        """
        self._run, self._next = None, new_config  # frees the last trial's network before the next is built
        return True

    def _begin(self) -> None:
        """Builds the trial that was taken on, unless that is done."""
        config, self._next = self._next, None
        if config is not None:
            self._start(config)

    def _start(self, config: dict[str, Any]) -> None:
        import torch

        from rlprune.pruning.memory_share import claim_share
        from rlprune.training.device import given_device, resolve_device

        assignment = self._assignment = Assignment(**config)
        search = self._run_config.search
        torch.set_num_threads(max(1, int(search.cpus_per_trial)))
        settings = assignment.to_config(self._run_config)
        device = given_device(settings.device, search.gpus_per_trial, torch.cuda.is_available())
        machine = share_of_this_node(search.cpus_per_trial)
        claim_share(resolve_device(device), gpus=search.gpus_per_trial, machine=machine)
        self._run = self._build(dataclasses.replace(settings, device=device), self._weights, self._splits)
        self._part_path = part_path(self._tune_folder, assignment.trial)
        if assignment.checkpoint:
            with fetched(assignment.checkpoint) as checkpoint:
                self.load_checkpoint(str(checkpoint))
        else:
            self._go_on(self._the_run.state_dict(), AT_THE_START)
        self._again = bool(assignment.checkpoint)

    def step(self) -> dict[str, Any]:
        """Do one group, or the final fine-tune.

        A trial that goes on from an earlier process's checkpoint begins with the report of its newest step:
        the scheduler of this process does not know it, and may have to decide on it.
        """
        self._begin()
        run = self._the_run
        if self._again and run.position:
            metrics: dict[str, Any] = dict(run.record().groups[-1])
        else:
            metrics = dict(run.step(lambda part: write_part(self._part_path, self._state, part)).to_metrics())
        self._again = False
        metrics["score"] = score(metrics["drop_val"], metrics["macs_ratio"])
        history = run.histories().get(str(metrics["group"]), [])
        return {**metrics, "done": run.done, AGENT_HISTORY: history}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write everything that the next step needs, and at the end the record and the network."""
        self._state = write_checkpoint(Path(checkpoint_dir), self._the_run, self._assignment.for_record())

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on from a checkpoint, or from the one before it if it is damaged, and from the part after it."""
        self._begin()
        self._go_on(*read_state(undamaged_at_or_before(Path(checkpoint))))

    def _go_on(self, state: dict[str, Any], state_hash: str) -> None:
        self._state, self._again = state_hash, False
        part = read_part(self._part_path, state_hash)
        if part is not None or state_hash != AT_THE_START:
            self._the_run.load_state_dict({**state, "part": part})

    @property
    def _the_run(self) -> "PruningRun":
        assert self._run is not None
        return self._run
