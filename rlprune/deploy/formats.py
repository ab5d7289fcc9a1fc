"""The formats that a network can be exported to: how each is written, and how it is run again."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlprune.errors import ConfigError, ModelError
from rlprune.models.build import is_in_memory
from rlprune.training.network_file import PrunedNetwork, load, save_safetensors

Runner = Callable[[Tensor], Tensor]
"""uint8 images ``(n, c, h, w)`` on the CPU to logits ``(n, classes)``."""

_TRACED_IMAGES = 2
"""A batch of one would be taken for a constant."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: As in ``--format``.
        suffix: Of the file that holds the network.
        engine: What runs it here.
        packages: Importable names of what it needs besides torch.
        write: Writes a network to a path (and, for some, files beside it).
        open: The file that a network was written to, as a function that runs on the CPU, in fp32.
        imports: What the Python lines of ``example`` import.
        example: Python lines that run the file ``{file}`` on ``images``.
    """

    name: str
    suffix: str
    engine: str
    packages: tuple[str, ...]
    write: Callable[[PrunedNetwork, Path], None]
    open: Callable[[Path, PrunedNetwork], Runner]
    imports: tuple[str, ...]
    example: str

    def check_packages(self) -> None:
        """Raises ConfigError if a package that the format needs is not installed."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"--format {self.name} needs {', '.join(missing)}: pip install 'rlprune[export]'"
            )


def _write_onnx(network: PrunedNetwork, path: Path) -> None:
    with _traceable(network):
        program = torch.onnx.export(
            network,
            (_images(network),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(_metadata(network))
    program.save(path, external_data=False)


def _open_onnx(path: Path, network: PrunedNetwork) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _write_torch_export(network: PrunedNetwork, path: Path) -> None:
    with _traceable(network):
        program = torch.export.export(
            network,
            (_images(network),),
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        )
        torch.export.save(program, path, extra_files={"rlprune.json": json.dumps(_metadata(network))})


def _open_torch_export(path: Path, network: PrunedNetwork) -> Runner:
    return _inference(torch.export.load(path).module())


def _open_state_dict(path: Path, network: PrunedNetwork) -> Runner:
    model = network.base_architecture() if is_in_memory(network.spec.factory) else None
    return _inference(load(path, trust_code=True, model=model))  # what was just written by this process


FORMATS = {
    form.name: form
    for form in (
        Format(
            "onnx",
            ".onnx",
            "onnxruntime",
            ("onnx", "onnxscript", "onnxruntime"),
            _write_onnx,
            _open_onnx,
            ("onnxruntime", "torch"),
            "session = onnxruntime.InferenceSession({file!r})\n"
            'logits = session.run(None, {{"images": images.numpy()}})[0]',
        ),
        Format(
            "torch-export",
            ".pt2",
            "torch.export's program, run eagerly",
            (),
            _write_torch_export,
            _open_torch_export,
            ("torch",),
            "network = torch.export.load({file!r}).module()\nlogits = network(images)",
        ),
        Format(
            "state-dict",
            ".safetensors",
            "PyTorch, eager",
            ("safetensors",),
            lambda network, path: save_safetensors(path, network),
            _open_state_dict,
            ("rlprune", "torch"),
            "network = rlprune.load({file!r}{trust})\nlogits = network(images)",
        ),
    )
}
"""Every format by the name that ``--format`` takes."""


def _images(network: PrunedNetwork) -> Tensor:
    return torch.zeros(_TRACED_IMAGES, *network.info.image_shape, dtype=torch.uint8)


def _metadata(network: PrunedNetwork) -> dict[str, str]:
    """What a file says of itself to whoever runs it: texts by name."""
    info = network.info
    return {
        "producer": "rlprune",
        "class_names": json.dumps(info.class_names),
        "image_shape": json.dumps(info.image_shape),
        "data": info.source.encode(errors="backslashreplace").decode(),  # a path may be no UTF-8
        "factory": network.spec.factory,
    }


def _inference(module: Any) -> Runner:
    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return module(images)

    return run


@contextmanager
def _traceable(network: PrunedNetwork) -> Iterator[None]:
    """Quiet tracing whose failure names the network instead of showing the tracer's inside."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # the tracer lets through whatever the network's own code raises
        cause: BaseException = error
        while cause.__cause__ is not None:  # what torch.onnx wraps around it is advice to its developers
            cause = cause.__cause__
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise ModelError(
            f"{network.spec.factory!r} cannot be exported by torch.export: {reason}; "
            "--format state-dict needs no tracing"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
