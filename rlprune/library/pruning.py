"""``rlprune.prune``: one run of the method on a network of this program."""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from rlprune.data import DataSplits
from rlprune.final_table import measure_network
from rlprune.library.inputs import read_inputs
from rlprune.library.progress import Display, Progress, display_for
from rlprune.pruning_run import PruningRun
from rlprune.run_latency import measured_table
from rlprune.search.ray_session import ray_session
from rlprune.training.network_file import PrunedNetwork
from rlprune.whole_run import checked, prepare


def prune(
    model: nn.Module | str,
    data: DataSplits | str,
    *,
    b: float | None = None,
    target_macs: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = True,
) -> PrunedNetwork:
    """Removes filters from a trained network, within a bound on what its accuracy may lose.

        splits = rlprune.splits((images, labels), mean=0.5, std=0.25)
        pruned = rlprune.prune(model, splits, b=1.0)
        print(pruned.summary())
        pruned.save("pruned.pt")

    What ``rlprune prune`` does, in memory: no file is written, and what is interrupted is lost. A run that
    can be resumed is ``rlprune.search(model, data, b_grid=[b], num_samples=1)``. A Ray of this process
    (loopback only, with a token) holds the agents' settings while the function runs, unless one runs already.

    Args:
        model: The trained network, a convolutional classifier that ``torch.fx`` can trace: normalised images
            float32 ``(n, c, h, w)`` to logits ``(n, classes)``. It is copied and stays as it is. Or a name as
            in ``model.factory``; then ``settings["base.checkpoint"]`` names its weights, or one is trained.
        data: The images: what ``rlprune.splits`` makes, or a name as in ``data.source``. The split
            test is read once, when the network is finished; sealed splits do without.
        b: Drop bound: percentage points of accuracy on val that the pruned network may lose (default: the
            setting ``pruning.b``).
        target_macs: Share of the MACs to come down to, whatever the drop, in the place of ``b`` (default: the
            setting ``pruning.target_macs``).
        seed: Seed of everything that is drawn (default: the setting ``seed``).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` (default: the setting ``device``).
        settings: Any other settings by their dotted names, for example
            ``{"agent.iterations": 20, "pruning.keep_whole": ["features.0"]}``; all of them are in
            docs/configuration.md.
        progress: True shows a line a step, in a notebook as one block; False nothing; a function gets the
            lines.

    Returns:
        The smaller network, on the CPU, in evaluation mode. It takes uint8 images ``(n, c, h, w)`` and
        normalises them itself; ``record`` and ``summary()`` have what was measured, ``history`` the steps.

    Raises:
        ConfigError: The settings cannot work; all faults at once, before any work.
        DataError: The images cannot be read or split.
        ModelError: The network cannot be traced, has no group that can be cut, does not fit the images, or
            is hardly better than chance on val.
    """
    goal = {"pruning__b": b, "pruning__target_macs": target_macs}
    inputs = read_inputs(model, data, settings, **goal, seed=seed, device=device)
    config = checked(inputs.config, "prune")
    display = display_for(progress)
    with ray_session(config):
        config, base = prepare(config, inputs.splits, display.line, inputs.model)
        table = measured_table(config, inputs.splits, base.model)
        run = PruningRun(config, base.model, inputs.splits.sealed(), table)
        _drive(run, config.agent.iterations, display)
    network = run.network()
    record = measure_network(config, inputs.splits, base.model, network, run.record(), display.line)
    network.record = json.loads(record.to_json())
    return network


def _drive(run: PruningRun, iterations: int, display: Display) -> None:
    """All steps of a run, shown."""

    def show(part: dict[str, Any]) -> None:
        agent = part.get("agent")
        if agent is not None:
            done = len(agent["history"])
            display.detail(
                f"[{run.position + 1}/{run.n_steps}] {part['step']}: iteration {done} of {iterations}"
            )

    while not run.done:
        display.line(run.step(show).line())
