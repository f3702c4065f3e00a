"""Networks in files: torch.export's .pt2 and ONNX, both on the CPU.

torch.export.load unpickles and loads native code where a .pt2 holds such parts. A network of plain tensors
has none, so a file that holds anything else is not loaded. Its formulas of sizes are still read by sympy,
which can run code: a .pt2 is to be trusted like a program. ONNX holds a graph of known operators.
"""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.system.errors import UserError

HELP = "docs/matchers.md says how to export one"

_PLAIN = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|data/sample_inputs/model\.pt"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|archive_format|archive_version|byteorder|\.format_version|\.data/(version|serialization_id)"
)
_TORCH_ERRORS = (RuntimeError, AssertionError, ValueError, KeyError, IndexError, TypeError)


class Network(NamedTuple):
    """What a file holds, ready to run."""

    run: Callable[[Tensor, Tensor], Tensor]  # left, right -> answer; raises Refusal
    size: tuple[int | None, ...]  # of its inputs; None where any will do


def open_network(path: Path) -> Network:
    """The network of two inputs and one output in this file; raises Refusal where it holds no such thing."""
    return _open_pt2(path) if path.suffix == ".pt2" else _open_onnx(path)


def runtime_of(path: Path) -> str:
    """What runs this file and its version, which results depend on."""
    runtime = torch if path.suffix == ".pt2" else _onnxruntime(path)
    return f"{runtime.__name__} {runtime.__version__}"


def _open_pt2(path: Path) -> Network:
    _require_plain(path)
    try:
        program = torch.export.load(path)
    except _TORCH_ERRORS as error:
        raise UserError(f"{path}: does not load ({_line(error)}); {HELP}") from error
    signature = program.graph_signature
    places = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    shapes = [tuple(getattr(places.get(name), "shape", ())) for name in signature.user_inputs]
    size = _common_size(path, shapes, len(signature.user_outputs))
    module = program.module()

    def run(left: Tensor, right: Tensor) -> Tensor:
        try:
            with torch.inference_mode():
                answer = module(left, right)
        except _TORCH_ERRORS as error:
            raise UserError(f"{path}: fails on {list(left.shape)} ({_line(error)}); {HELP}") from error
        return answer[0] if isinstance(answer, tuple | list) else answer

    return Network(run, size)


def _require_plain(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            tables = [
                json.loads(archive.read(name)) for name in names.values() if name.endswith("_config.json")
            ]
            with archive.open(names["data/sample_inputs/model.pt"]) as file:
                torch.load(file, weights_only=True)  # where this fails, torch.export.load would unpickle
    except (zipfile.BadZipFile, KeyError, *_TORCH_ERRORS, UnpicklingError) as error:
        raise UserError(f"{path}: is no plain file of torch.export.save ({_line(error)}); {HELP}") from error
    strange = [name for name in names if not _PLAIN.fullmatch(name)]
    pickled = any(entry.get("use_pickle", True) for table in tables for entry in table["config"].values())
    if strange or pickled or len(names) != len(archive.namelist()):
        what = strange[0] if strange else "pickled values"
        raise UserError(f"{path}: holds more than a graph and plain tensors ({what}), so it is not loaded")


def _open_onnx(path: Path) -> Network:
    runtime = _onnxruntime(path)
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NoSuchFile NotImplemented RuntimeException"
    errors = tuple(getattr(state, name) for name in names.split())  # they share no class
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same bits for any number of cores
    options.log_severity_level = 3  # errors only: they are raised as well
    try:
        # From its bytes, so that no other file has a part in it: weights beside it would be in no key.
        session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise UserError(f"{path}: does not load ({_line(error)}); {HELP}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    size = _common_size(path, [tuple(value.shape) for value in inputs], len(outputs))

    def run(left: Tensor, right: Tensor) -> Tensor:
        pair = zip(inputs, (left, right), strict=True)
        try:
            (answer,) = session.run(None, {value.name: eye.numpy() for value, eye in pair})
        except errors as error:
            raise UserError(f"{path}: fails on {list(left.shape)} ({_line(error)}); {HELP}") from error
        return torch.from_numpy(answer)

    return Network(run, size)


def _onnxruntime(path: Path) -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: needs onnxruntime; pip install 'secondeye[onnx]'") from error
    return onnxruntime


def _common_size(path: Path, shapes: list[tuple[object, ...]], outputs: int) -> tuple[int | None, ...]:
    if len(shapes) != 2 or outputs != 1:
        raise UserError(f"{path}: has {len(shapes)} inputs and {outputs} outputs, not 2 and 1; {HELP}")
    if any(len(shape) != 4 for shape in shapes):
        raise UserError(f"{path}: takes inputs of {len(shapes[0])} dimensions, not [T, 3, H, W]; {HELP}")
    return tuple(
        next((side for side in pair if isinstance(side, int)), None) for pair in zip(*shapes, strict=True)
    )


def _line(error: Exception) -> str:
    """Its first line, cut short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
