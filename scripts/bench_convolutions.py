"""How fast is each convolution of a network with its ReLU: in bf16, fused and laid out once, and in bytes?

Three ways: bf16 and channels-last, the ReLU apart (what an engine runs that has no bytes); the same in one
oneDNN call with the weight laid out beforehand; and 8-bit integers in one call. Each layer of the network
runs on random inputs of its shape, for several numbers of images at a time. One line of ``--out`` a layer.

    python scripts/bench_convolutions.py --threads 1 --width 0.25 --out convolutions.jsonl
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from bench_network import CLOCKS, LOW, LOW_NAME, add_clock_option, provenance
from records import Records, read_rows
from reward_tables import convolution_report
from torch import nn

from rlprune.models import vgg16_bn
from rlprune.pruning.byte_layers import ByteFormat, ByteWeights

BLOCKS = (32, 125, 500)
RUNS = 5


def ways(layer: nn.Conv2d, inputs: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """The layer and its ReLU on images ``(n, c, h, w)``, by the way's name."""
    low = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1).to(LOW)
    low = low.to(memory_format=torch.channels_last).requires_grad_(False)
    floats = inputs.to(LOW).contiguous(memory_format=torch.channels_last)
    places = ([1, 1], [1, 1], [1, 1], 1)
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(low.weight.to_mkldnn(), *places)
    form = ByteFormat(torch.ones(layer.in_channels), step_out=1.0, relu=True, dtype=LOW)
    in_bytes = ByteWeights(layer, layer.weight.detach(), layer.bias, form)
    given = (255 * inputs).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    fused = torch.ops.mkldnn._convolution_pointwise
    return {
        LOW_NAME: lambda: low(floats).relu_(),
        f"{LOW_NAME}, fused": lambda: fused(floats, packed, low.bias, *places, "relu", [], ""),
        "bytes": lambda: in_bytes(given),
    }


def main() -> None:
    """Times every layer, then prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_clock_option(parser)
    parser.add_argument("--out", required=True, metavar="JSONL")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    records, clock = Records(Path(arguments.out)), CLOCKS[arguments.clock]

    def best(run: Callable[[], object]) -> float:
        taken = []
        for _ in range(1 + RUNS):
            began = clock()
            run()
            taken.append(clock() - began)
        return min(taken[1:])

    a = torch.randn(2048, 2048).to(LOW)
    peak = 2048**3 / best(lambda: a @ a)
    records.begin(**provenance(), clock=arguments.clock, peak=peak, peak_dtype=LOW_NAME, runs=RUNS)
    size = 32
    with torch.inference_mode():
        for name, layer in vgg16_bn(width=arguments.width, num_classes=10, in_channels=3).named_modules():
            if isinstance(layer, nn.MaxPool2d):
                size //= 2
            if isinstance(layer, nn.Conv2d):
                macs = layer.weight.numel() * size**2
                times = {}
                for block in BLOCKS:
                    inputs = torch.rand(block, layer.in_channels, size, size)
                    times[str(block)] = {way: best(run) for way, run in ways(layer, inputs).items()}
                shape = [layer.in_channels, layer.out_channels, size]
                records.add("layer", layer=name, shape=shape, macs=macs, times=times)
    print(convolution_report(read_rows(Path(arguments.out))))


if __name__ == "__main__":
    main()
