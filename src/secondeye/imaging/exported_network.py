"""Networks in files, run on the CPU: torch.export's .pt2, and ONNX.

torch.export.load unpickles data and loads native code if a .pt2 contains such parts. A network of plain
tensors has none, so files with anything else are rejected. Shape expressions are still parsed by sympy, which
can execute code: trust a .pt2 like a program. ONNX only holds a graph of known operators.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.system.errors import UserError

_ALLOWED_ENTRIES = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|data/sample_inputs/model\.pt"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|archive_format|archive_version|byteorder|\.format_version|\.data/(version|serialization_id)"
)
_METADATA, _KEY, _VALUE = 14, 1, 2  # field numbers of ONNX's ModelProto and StringStringEntryProto
_TORCH_ERRORS = (RuntimeError, AssertionError, ValueError, KeyError, IndexError, TypeError)


class ExportedNetwork(NamedTuple):
    """A network from a file, ready to run."""

    run: Callable[..., Tensor]  # inputs, each [T, 3, H, W] -> output; raises UserError
    size: tuple[int | None, ...]  # shape of its inputs; None if any size is accepted


def load_network(
    path: Path,  # .pt2 or .onnx
    inputs: int,  # images that the network must take
    help: str,  # where the export is described, for error messages
) -> ExportedNetwork:
    """Load a network with so many inputs and one output. Raises UserError if the file is anything else."""
    if path.suffix == ".pt2":
        return _load_pt2(path, inputs, help)
    return _load_onnx(path, inputs, help)


def runtime_version(path: Path) -> str:
    """Return the name and version of the runtime, on which results depend."""
    runtime = torch if path.suffix == ".pt2" else _onnxruntime(path)
    return f"{runtime.__name__} {runtime.__version__}"


def read_metadata(path: Path, help: str) -> dict[str, str]:
    """Return the custom properties of an ONNX file, {} for a .pt2, without loading the network.

    Raises UserError if an .onnx is not an ONNX file.
    """
    if path.suffix == ".pt2":
        return {}
    try:
        entries = [value for number, value in _protobuf_fields(path.read_bytes()) if number == _METADATA]
        pairs = (dict(_protobuf_fields(entry)) for entry in entries)
        return {str(pair[_KEY], "utf-8"): str(pair.get(_VALUE, b""), "utf-8") for pair in pairs}
    except (ValueError, LookupError) as error:
        raise UserError(f"{path}: not an ONNX file, or damaged; {help}") from error


def _protobuf_fields(content: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields of a message that are texts, bytes or messages."""
    view, position = memoryview(content), 0

    def read_varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = view[position]
            position, value, shift = position + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while position < len(view):
        number, kind = divmod(read_varint(), 8)
        match kind:
            case 0:  # an integer
                read_varint()
            case 1 | 5:  # 64 or 32 bits
                position += 8 if kind == 1 else 4
            case 2:
                size = read_varint()
                yield number, view[position : position + size]
                position += size
            case _:
                raise ValueError(f"wire type {kind}")
        if position > len(view):
            raise ValueError("ends early")


def _load_pt2(path: Path, inputs: int, help: str) -> ExportedNetwork:
    _check_pt2_contents(path, help)
    try:
        program = torch.export.load(path)
    except _TORCH_ERRORS as error:
        raise UserError(f"{path}: cannot be loaded ({_first_line(error)}); {help}") from error
    signature = program.graph_signature
    placeholders = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    shapes = [tuple(getattr(placeholders.get(name), "shape", ())) for name in signature.user_inputs]
    size = _input_size(path, shapes, len(signature.user_outputs), inputs, help)
    module = program.module()

    def run(*images: Tensor) -> Tensor:
        try:
            with torch.inference_mode():
                output = module(*images)
        except _TORCH_ERRORS as error:
            raise UserError(
                f"{path}: fails on {list(images[0].shape)} ({_first_line(error)}); {help}"
            ) from error
        return output[0] if isinstance(output, tuple | list) else output

    return ExportedNetwork(run, size)


def _check_pt2_contents(path: Path, help: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            tables = [
                json.loads(archive.read(name)) for name in names.values() if name.endswith("_config.json")
            ]
            with archive.open(names["data/sample_inputs/model.pt"]) as file:
                torch.load(file, weights_only=True)  # otherwise torch.export.load would unpickle it
    except (zipfile.BadZipFile, KeyError, *_TORCH_ERRORS, UnpicklingError) as error:
        raise UserError(
            f"{path}: not a plain file of torch.export.save ({_first_line(error)}); {help}"
        ) from error
    unexpected = [name for name in names if not _ALLOWED_ENTRIES.fullmatch(name)]
    pickled = any(entry.get("use_pickle", True) for table in tables for entry in table["config"].values())
    if unexpected or pickled or len(names) != len(archive.namelist()):
        content = unexpected[0] if unexpected else "pickled values"
        raise UserError(f"{path}: rejected, contains more than a graph and plain tensors ({content})")


def _load_onnx(path: Path, inputs: int, help: str) -> ExportedNetwork:
    runtime = _onnxruntime(path)
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NoSuchFile NotImplemented RuntimeException"
    errors = tuple(getattr(state, name) for name in names.split())  # they have no common base class
    options = runtime.SessionOptions()
    # One thread: bit-identical results for any number of cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only, which are raised as well
    try:
        # From bytes, so that external weight files, which are not part of the key, cannot be read.
        session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise UserError(f"{path}: cannot be loaded ({_first_line(error)}); {help}") from error
    taken, outputs = session.get_inputs(), session.get_outputs()
    size = _input_size(path, [tuple(value.shape) for value in taken], len(outputs), inputs, help)

    def run(*images: Tensor) -> Tensor:
        named = zip(taken, images, strict=True)
        try:
            (output,) = session.run(None, {value.name: image.numpy() for value, image in named})
        except errors as error:
            raise UserError(
                f"{path}: fails on {list(images[0].shape)} ({_first_line(error)}); {help}"
            ) from error
        return torch.from_numpy(output)

    return ExportedNetwork(run, size)


def _onnxruntime(path: Path) -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: onnxruntime is not installed; pip install 'secondeye[onnx]'") from error
    return onnxruntime


def _input_size(
    path: Path, shapes: list[tuple[object, ...]], outputs: int, inputs: int, help: str
) -> tuple[int | None, ...]:
    if len(shapes) != inputs or outputs != 1:
        raise UserError(
            f"{path}: has {len(shapes)} inputs and {outputs} outputs, must be {inputs} and 1; {help}"
        )
    if any(len(shape) != 4 for shape in shapes):
        raise UserError(
            f"{path}: expects inputs of {len(shapes[0])} dimensions, must be [T, 3, H, W]; {help}"
        )
    return tuple(
        next((side for side in pair if isinstance(side, int)), None) for pair in zip(*shapes, strict=True)
    )


def _first_line(error: Exception) -> str:
    """Return the first line of an error message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
