"""``rlprune evaluate NETWORK``: measures a network file on any split of any data."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from rlprune.config import Config
from rlprune.config_loading import config_from_dict, load_config
from rlprune.errors import ResultsError
from rlprune.trust import check_source_trusted
from rlprune.verbs.console import say
from rlprune.verbs.options import Subparsers, add_trust_option, setting_help

if TYPE_CHECKING:
    from rlprune.pruning.cost import Cost
    from rlprune.training.network_file import PrunedNetwork


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    text = "measure a network file on any split of any data (prints JSON)"
    verb = subparsers.add_parser("evaluate", help=text, description=text)
    verb.add_argument(
        "network", metavar="NETWORK", help="network file, for example results/NAME/models/t0000.pt"
    )
    verb.add_argument("--data", metavar="SOURCE", help="images (default: those of the network's run)")
    verb.add_argument(
        "--split",
        choices=("train", "reward", "val", "test"),
        default="test",
        help="which images (default: test)",
    )
    verb.add_argument("--device", metavar="DEVICE", help=setting_help("device"))
    verb.add_argument(
        "--set",
        dest="settings",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the data, or the precision, by its dotted name (see: rlprune settings)",
    )
    add_trust_option(verb)
    verb.set_defaults(run_verb=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Prints JSON with accuracy, n, MACs and parameters."""
    from rlprune.data import load_splits
    from rlprune.training.device import resolve_device, resolve_precision
    from rlprune.training.evaluate import accuracy, correct_predictions
    from rlprune.training.network_file import load

    network = load(arguments.network, trust_code=arguments.trust_code)
    stored = config_from_dict(network.config)
    texts = [f"data.source={arguments.data}"] if arguments.data else []
    texts += [f"device={arguments.device}"] if arguments.device else []
    texts += arguments.settings
    config = load_config(None, [*_texts_of(stored), *texts])
    if not any(text.partition("=")[0].strip() == "data.source" for text in texts):
        check_source_trusted(config.data, arguments.network, arguments.trust_code)
    splits = load_splits(config.data)
    if (
        splits.info.image_shape[0] != network.spec.in_channels
        or splits.info.num_classes != network.spec.num_classes
    ):
        raise ResultsError(
            f"{arguments.network} was made for {network.spec.in_channels} channel(s) and "
            f"{network.spec.num_classes} classes; {config.data.source} has {splits.info.image_shape[0]} and "
            f"{splits.info.num_classes}"
        )
    if splits.info.class_names != network.info.class_names:
        here, own = ", ".join(splits.info.class_names), ", ".join(network.info.class_names)
        say(
            f"note: {config.data.source} has the classes {here}, and the network was made for {own}: "
            "accuracy says nothing where these differ"
        )
    cost = _cost(network, arguments.network, splits.info.image_shape)
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    correct = correct_predictions(
        network.network, splits.split(arguments.split), network.info, device=device, dtype=dtype
    )
    found = {"network": arguments.network, "data": config.data.source, "split": arguments.split}
    print(
        json.dumps(
            {
                **found,
                "n": len(correct),
                "accuracy": accuracy(correct),
                "macs": cost.macs,
                "params": cost.params,
            }
        )
    )
    return 0


def _cost(network: "PrunedNetwork", path: str, shape: tuple[int, int, int]) -> "Cost":
    """What the network costs on images ``(c, h, w)``, which may be of another size than it was made for."""
    import torch

    from rlprune.pruning.cost import count_cost

    made_for = network.info.image_shape
    if shape != made_for:
        say(
            f"note: {path} was made for images of {made_for[1]} x {made_for[2]} pixels, "
            f"not {shape[1]} x {shape[2]}"
        )
    try:
        return count_cost(network.network, torch.zeros(1, *shape))
    except (RuntimeError, ValueError) as error:
        raise ResultsError(
            f"{path} was made for images of {made_for[1]} x {made_for[2]} pixels and cannot read "
            f"{shape[1]} x {shape[2]}: {error}; for an imagefolder set data.image_size={made_for[1]}"
        ) from error


def _texts_of(config: Config) -> list[str]:
    """The data and the precision of a stored configuration as overrides."""
    data = [
        f"data.{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in dataclasses.asdict(config.data).items()
    ]
    return [*data, f"precision={config.precision}"]
