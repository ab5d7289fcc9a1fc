"""Which filters of a group are redundant: what the agent believed, and what the base model says.

Rewards are measured on the base model with one group cut and everything else whole. That is the same for
every order of the groups, can be made again from the base model alone, and asks of each filter on its own;
it is not what the agent saw, which judged masks on the network as the groups before had left it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlprune.config import Config
from rlprune.errors import CheckpointError
from rlprune.group_objective import objective_alone
from rlprune.pruning.groups import FilterGroup
from rlprune.pruning.importance import SCORES, filter_statistics, filter_weights
from rlprune.pruning.latency_table import LatencyTable
from rlprune.results.layer_filters import LayerFilters
from rlprune.rl.group_task import GroupTask
from rlprune.rl.task import FilterContext
from rlprune.seeding import generator
from rlprune.workbench import Workbench

SHOWN_SCORES = tuple(kind for kind in SCORES if kind != "random")
"""The importances that are shown: all that measure something."""


def inspect_group(
    config: Config,
    bench: Workbench,
    base: nn.Module,
    group: FilterGroup,
    agent: Mapping[str, Any],
    table: LatencyTable | None = None,
) -> LayerFilters:
    """What is known of each filter of a group.

    Args:
        config: The settings of the trial: ``pruning.b`` is its drop bound (unless it has a target),
            ``pruning.reward_images`` how many images rewards are measured on.
        bench: Its images and device.
        base: The base model.
        group: One of its groups.
        agent: What the trial kept of the group's agent: ``keep_probabilities`` and ``mask``.
        table: The run's times of layers, for ``pruning.efficiency`` latency.

    Raises:
        CheckpointError: The agent belongs to a group of another size.
    """
    keep = agent["keep_probabilities"].double().numpy()
    mask = agent["mask"].bool().numpy()
    if len(mask) != group.n_filters:
        raise CheckpointError(
            f"the agent of {group.name} was trained on {len(mask)} filters, the base model has "
            f"{group.n_filters}: it is not the one that the run began with"
        )
    calibration, classes = bench.calibration(group.name)
    statistics = filter_statistics(base, group, calibration, classes)
    rng = generator(config.seed, "inspect", group.name)
    scores = {kind: SCORES[kind](statistics, rng).astype(np.float32) for kind in SHOWN_SCORES}
    context = FilterContext(statistics.features(), filter_weights(base, group), scores["l1"])
    engine = bench.reward_engine(base, group, calibration)
    objective = objective_alone(config.pruning, base, group, bench.example, table)
    task = GroupTask(engine, context, config.pruning, objective, spent=0.0)
    task.redraw(rng)
    alone = turned_round(np.ones_like(mask))
    return LayerFilters(
        group=group.name,
        keep_probability=keep,
        kept=mask,
        reward_alone=_known(alone, task.rewards),
        reward_flipped=_known(turned_round(mask), task.rewards),
        reward_mask=float(task.rewards(mask[None])[0]),
        lost_alone=_known(alone, lambda masks: engine.whole_accuracy() - engine.accuracies(masks)),
        scores=scores,
        twin=statistics.twin,
        correlation=statistics.correlation,
        weights=_pictures(base, group),
    )


def turned_round(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask ``(f,)`` with each of its filters the other way round in turn: bool ``(f, f)``."""
    return mask[None] ^ np.eye(len(mask), dtype=bool)


def _known(
    masks: NDArray[np.bool_], measure: Callable[[NDArray[np.bool_]], NDArray[np.floating]]
) -> NDArray[np.float64]:
    """What is measured of masks ``(m, f)``; NaN for one that keeps no filter."""
    values = np.full(len(masks), np.nan)
    some = masks.any(1)
    if some.any():
        values[some] = measure(masks[some])
    return values


def _pictures(base: nn.Module, group: FilterGroup) -> NDArray[np.float32] | None:
    """The filters ``(f, c, h, w)`` of the layer that the group is named after, if they are like images."""
    weight = base.get_submodule(group.name).weight
    assert isinstance(weight, nn.Parameter)
    looks_like_images = weight.dim() == 4 and weight.shape[1] in (1, 3) and min(weight.shape[2:]) > 1
    return weight.detach().float().cpu().numpy() if looks_like_images else None
