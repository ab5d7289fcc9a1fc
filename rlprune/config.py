"""The settings of a run: frozen dataclasses, and the only home of every default.

Each field's ``help`` is the command line's help. The section ``data`` is in
:mod:`rlprune.config_data`; loading is strict and lives in :mod:`rlprune.config_loading`.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from rlprune.config_data import DataConfig
from rlprune.config_field import setting

FACTORY_ARGUMENTS: dict[str, dict[str, Any]] = {
    "vgg16_bn": {"width": 0.25},
    "resnet20": {"width": 1.0},
    "resnet56": {"width": 1.0},
}
"""Default arguments of each factory; a factory that is not named here gets none."""

POPULATIONS = ("pbt", "pb2", "mo-pbt")
"""The schedulers under which trials copy one another."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    factory: str = setting(
        "vgg16_bn",
        "vgg16_bn | resnet20 | resnet56 | torchvision:NAME | package.module:factory (gets num_classes=)",
    )
    arguments: dict[str, Any] = setting(
        FACTORY_ARGUMENTS["vgg16_bn"],
        "keyword arguments of the factory (another factory starts from its own)",
    )


@dataclass(frozen=True)
class BaseConfig:
    """The base model: where it comes from, or how it is trained."""

    checkpoint: str = setting("", "state dict (.pt) of the trained base model; empty: train one and cache it")
    start: str = setting("", "state dict (.pt) that training a base model starts from; empty: random weights")
    cache: str = setting("~/.cache/rlprune/base", "folder where base models trained by rlprune are kept")
    epochs: int = setting(15, "epochs of the one-cycle schedule", low=1)
    batch_size: int = setting(128, "images a step", low=2)
    learning_rate: float = setting(0.05, "peak of the one-cycle schedule (SGD)", above=0)
    weight_decay: float = setting(5e-4, "L2 penalty of SGD", low=0)
    label_smoothing: float = setting(0.1, "share of the label spread over all classes", low=0, high=0.9)
    floor: float = setting(
        1.5,
        "a base model below this multiple of chance accuracy, or half-way from chance to 100 % where that is "
        "less, is refused (see allow_weak)",
        low=1,
    )
    allow_weak: bool = setting(False, "go on with a base model that is below the floor")


@dataclass(frozen=True)
class PruningConfig:
    """What a mask is worth and how a group is cut."""

    b: float = setting(1.0, "drop bound in percentage points of val accuracy", above=0, high=100)
    target_macs: float = setting(
        math.nan,
        "in the place of b: the share of the MACs to come down to; phi and budget then count for nothing",
    )
    efficiency: str = setting(
        "macs", "what the reward counts", choices=("filters", "macs", "params", "latency")
    )
    latency_batch: int = setting(1, "images of a batch where efficiency is latency: 1 or 256", low=1)
    efficiency_weight: float = setting(
        1.0,
        "exponent of phi in the reward; above 1 the agent gives more accuracy for fewer MACs (with a planned "
        "budget there is no phi)",
        above=0,
    )
    accuracy: str = setting(
        "soft", "hard: 0/1 per image; soft: probability of the true class", choices=("hard", "soft")
    )
    fidelity: str = setting(
        "repair", "how the masked network is measured for the reward", choices=("raw", "bn", "repair")
    )
    recovery: float = setting(
        0.5,
        "share of a mask's loss that fine-tuning is expected to win back; the reward counts the rest",
        low=0,
        high=0.95,
    )
    reward_split: str = setting("reward", "images that rewards are computed on", choices=("reward", "train"))
    reward_images: int = setting(128, "images of each iteration's fresh subset", low=1)
    screening: float = setting(
        1.0,
        "share of the subset on which all masks of an iteration are measured; the better half is measured on "
        "as many images again, and so on (1: all masks on all images)",
        above=0,
        high=1,
    )
    calibration_images: int = setting(
        2000, "train images for Gram matrices, batch-norm statistics, scores", low=8
    )
    int8: bool = setting(
        True,
        "measure masks in 8-bit integers on CPUs that are twice as fast at them (x86), unless precision is "
        "fp32; everything else stays in the precision that is set",
    )
    cache_mib: float = setting(
        0.0,
        "MiB of layer outputs that a reward engine keeps (0: a quarter of what is free, on a CPU up to 128)",
        low=0,
    )
    budget: str = setting(
        "planned",
        "first-come: each group may spend all that is left of b; spread: b grows with the MACs of the groups "
        "done; planned: what each group loses is measured first, and all give up accuracy at the same rate "
        "(milliseconds are not planned: with efficiency latency it means spread)",
        choices=("first-come", "spread", "planned"),
    )
    order: str = setting(
        "output-downward", "order of the groups", choices=("input-upward", "output-downward")
    )
    sweeps: int = setting(
        2,
        "times that all groups are gone through, each with a final fine-tuning (a target: once, fine-tuned "
        "as long as all)",
        low=1,
    )
    candidates: int = setting(4, "masks of the agent that are measured on val", low=1)
    round_to: int = setting(
        1, "each group keeps a multiple of this many filters, or all: odd counts can be slow", low=1
    )
    repair: bool = setting(True, "re-solve the layers that read the cut filters by least squares")
    ridge: float = setting(1e-4, "ridge of the least squares, as a share of the mean diagonal", low=0)
    keep_whole: tuple[str, ...] = setting(
        (), "layers (or parts of the network) whose groups are never cut, comma separated"
    )

    @property
    def has_target(self) -> bool:
        """Whether ``target_macs`` takes the place of ``b``."""
        return not math.isnan(self.target_macs)

    @property
    def is_planned(self) -> bool:
        """Whether what each group loses is measured before the first is cut, to spend ``b`` by it."""
        return self.budget == "planned" and self.efficiency != "latency"

    @property
    def n_sweeps(self) -> int:
        """``sweeps``, but 1 with a target: the first one reaches it."""
        return 1 if self.has_target else self.sweeps


@dataclass(frozen=True)
class AgentConfig:
    """The policy-gradient agent of one group."""

    algorithm: str = setting("reinforce", "reinforce | ppo (as RLlib ships it)", choices=("reinforce", "ppo"))
    policy: str = setting(
        "set", "what maps filters to keep probabilities", choices=("set", "paper", "logits")
    )
    iterations: int = setting(8, "training iterations a group", low=1)
    masks: int = setting(16, "masks sampled an iteration (even: antithetic pairs)", low=4)
    checkpoint_every: int = setting(
        5, "iterations after which a run is saved within a group (0: after whole groups only)", low=0
    )
    learning_rate: float = setting(0.3, "Adam's rate for the policy", above=0)
    entropy_coefficient: float = setting(0.03, "weight of the policy's mean entropy per filter", low=0)
    grad_clip: float = setting(10.0, "largest global norm of the gradient", above=0)
    start: str = setting(
        "measured",
        "mean keep probability at the start; fixed: keep_probability; measured: the keep ratio of the best "
        "of a few masks chosen by importance alone",
        choices=("fixed", "measured"),
    )
    warm_start: bool = setting(
        False,
        "begin with the network of the agent before (set policy only): one policy learns from all groups",
    )
    keep_probability: float = setting(0.75, "mean keep probability at the start", above=0.02, high=0.98)
    importance: str = setting(
        "taylor",
        "score that the starting logits come from",
        choices=("l1", "l2", "bn_scale", "fpgm", "taylor", "activation", "redundancy", "random"),
    )


@dataclass(frozen=True)
class FineTuneConfig:
    """Fine-tuning after each group, if any, and at the end of each sweep."""

    group_epochs: float = setting(0.0, "epochs over train after each group", low=0)
    final_epochs: float = setting(2.0, "epochs over train after the last group of each sweep", low=0)
    batch_size: int = setting(128, "images a step", low=2)
    learning_rate: float = setting(0.005, "peak rate of SGD; falls to zero in each fine-tuning", above=0)
    weight_decay: float = setting(5e-4, "L2 penalty of SGD", low=0)
    label_smoothing: float = setting(0.1, "share of the label spread over all classes", low=0, high=0.9)
    distillation: float = setting(
        0.0, "share of the base model's class probabilities in the loss (0: the labels alone)", low=0, high=1
    )
    temperature: float = setting(2.0, "divides the logits of both networks in distillation", above=0)
    base_too: bool = setting(
        True,
        "at the end of a run, fine-tune a copy of the base model as long as a pruned network, to compare",
    )
    base_gain: float = setting(
        0.3, "points on val; a base model that gains more by that fine-tuning is warned of", low=0
    )


@dataclass(frozen=True)
class SearchConfig:
    """How many trials, where they run, and what Optuna samples."""

    b_grid: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0),
        "drop bounds, comma separated; num_samples trials for each (none where only target_macs is given)",
    )
    target_macs: tuple[float, ...] = setting(
        (), "targets, as shares of the base model's MACs, comma separated; num_samples trials for each"
    )
    num_samples: int = setting(2, "finished trials for each b and each target", low=1)
    sampler: str = setting("tpe", "Optuna's sampler", choices=("tpe", "nsga2", "nsga3", "gp", "random"))
    study_storage: str = setting(
        "",
        "database of the Optuna study: sqlite:///studies.db, postgresql://user:${PASSWORD}@host/name, ...; "
        "empty: study.db in the run folder",
    )
    space: dict[str, Any] = setting(
        {
            "agent.learning_rate": {"low": 0.1, "high": 0.6, "log": True},
            "agent.entropy_coefficient": {"low": 3e-3, "high": 6e-2, "log": True},
            "agent.iterations": {"low": 4, "high": 8},
            "finetune.learning_rate": {"low": 0.002, "high": 0.01, "log": True},
            "pruning.recovery": {"low": 0.1, "high": 0.6},
        },
        "sampled settings: name -> {low, high, log} or {choices}; a population explores all of them",
    )
    scheduler: str = setting(
        "none",
        "none: independent trials; asha: stops trials that fall behind; pbt, pb2: one population for each b; "
        "mo-pbt: one population for the whole front, which explores b too",
        choices=("none", "asha", *POPULATIONS),
    )
    perturbation_interval: int = setting(
        2, "populations: groups between two moments at which the worst members copy the best", low=1
    )
    grace_period: int = setting(2, "asha: groups before a trial may be stopped", low=1)
    reduction_factor: float = setting(
        2.0,
        "asha: one in so many of the trials goes on, until so many times as many groups are done",
        above=1,
    )
    cpus_per_trial: float = setting(1.0, "CPUs (and torch threads) of a trial", low=0.0001)
    gpus_per_trial: float = setting(0.0, "fraction of a GPU, or a whole number of GPUs, of a trial", low=0)
    env_runners_per_trial: int = setting(
        0, "further processes of a trial that judge a part of every step's masks", low=0
    )
    cpus_per_env_runner: float = setting(1.0, "CPUs (and torch threads) of an env runner", low=0.0001)
    gpus_per_env_runner: float = setting(0.0, "fraction of a GPU, or whole GPUs, of an env runner", low=0)
    max_failures: int = setting(3, "times a failed trial is retried from its checkpoint", low=0)
    address: str = setting("local", "Ray cluster: local | auto | HOST:PORT")
    storage_path: str = setting(
        "results",
        "folder that holds the run folders: a path, on a cluster one that all machines share, "
        "or an address such as s3://BUCKET/PREFIX",
    )
    name: str = setting("", "name of the run folder; empty: command and time")

    @property
    def n_trials(self) -> int:
        """Finished trials of the whole search."""
        return (len(self.b_grid) + len(self.target_macs)) * self.num_samples

    @property
    def is_population(self) -> bool:
        """Whether trials copy one another."""
        return self.scheduler in POPULATIONS


@dataclass(frozen=True)
class Config:
    """All settings of one run."""

    seed: int = setting(0, "seed of the run", low=0)
    device: str = setting("auto", "auto | cpu | cuda | cuda:N")
    precision: str = setting(
        "auto", "auto: bf16 where the device computes it natively", choices=("auto", "fp32", "bf16")
    )
    max_drop: float = setting(
        math.nan, "marks the row to deploy: the fewest MACs within this drop on val, in points (nan: no row)"
    )
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    finetune: FineTuneConfig = field(default_factory=FineTuneConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
