"""The layers whose outputs are called filters."""

import torch
from torch import nn

from rlprune.pruning.modes import evaluating


def pixel_layers(model: nn.Module, example: torch.Tensor) -> set[str]:
    """The names of all convolutions, and of linear layers that each pixel goes through by itself.

    Such a linear layer, which reads ``(n, h, w, c)``, is a 1 x 1 convolution by another name (each block of
    ConvNeXt has two). Linear layers that read one vector an image are none: their outputs are no filters.

    Args:
        model: The network; it is left as it was.
        example: One normalised input batch ``(n, c, h, w)`` on the network's device.
    """
    found = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}

    def note(name: str, given: tuple[torch.Tensor, ...]) -> None:
        if given and given[0].dim() == 4:  # nothing is given where it is called by keyword
            found.add(name)

    handles = [
        module.register_forward_pre_hook(lambda _, given, name=name: note(name, given))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with evaluating(model), torch.inference_mode():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found
