"""Depth networks in files (.onnx, .pt2), frame by frame on the CPU; docs/depth.md has the contract.

A network maps float32 [1, 3, h, w] to float [1, 1, h', w'] or [1, h', w']. What it cannot say itself is in a
JSON file beside it, NETWORK.onnx.json, or in the metadata of an ONNX file.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from secondeye.depth.frame_by_frame import frame_by_frame, map_size, one_frame
from secondeye.depth.interface import DepthEstimator
from secondeye.depth.metres import invert_metres
from secondeye.imaging.arrays import resize
from secondeye.imaging.exported_network import load_network, read_metadata, runtime_version
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

HELP = "docs/depth.md describes the export"
SUFFIXES = (".onnx", ".pt2")
MAX_SIDE_PX = 8192  # of short_side and multiple
# Ours, generous: FastDepth, a file of 5 MB, took 0.11 GiB at 224 x 384 px (measured).
FILE_COPIES, NETWORK_BYTES = 3, 2**30
NEARER, FARTHER = "nearer", "farther"


@dataclass(frozen=True)
class ExportedDepth:
    """What the file beside a network says. Raises ValueError or TypeError for values that cannot be."""

    larger_is: str  # nearer or farther
    metric: bool = False  # with larger_is farther: metres, which are inverted; else negated
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)  # subtracted from RGB in [0, 1]
    std: tuple[float, ...] = (1.0, 1.0, 1.0)  # divided by
    short_side: int = 384  # px that frames are reduced or enlarged to, for networks of any size
    multiple: int = 32  # px: both sides are rounded to multiples of it
    licence: str = "not stated"  # of the weights, for the record of a film

    def __post_init__(self) -> None:
        if self.larger_is not in (NEARER, FARTHER):
            raise ValueError(f'larger_is must be "{NEARER}" or "{FARTHER}", got {self.larger_is!r}')
        if self.metric and self.larger_is == NEARER:
            raise ValueError(f'metric depth in metres has larger_is "{FARTHER}"')
        if type(self.metric) is not bool or not isinstance(self.licence, str):
            raise TypeError("metric must be true or false, and licence a text")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if type(values) is not tuple or not all(type(value) in (int, float) for value in values):
                raise TypeError(f"{name} must be three numbers, got {values}")
            if len(values) != 3:
                raise ValueError(f"{name} must be three numbers, got {list(values)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")
        for name, count in (("short_side", self.short_side), ("multiple", self.multiple)):
            if type(count) is not int or not 1 <= count <= MAX_SIDE_PX:
                raise ValueError(f"{name} must be a whole number, 1 to {MAX_SIDE_PX}, got {count!r}")


def load_exported(path: Path) -> DepthEstimator:
    """Load the estimator in a file. Raises UserError, now or when it runs, if it breaks the contract."""
    require_network(path)
    network = load_network(path, 1, HELP)
    described = _describe(path)
    frames, channels, height, width = network.size
    if channels not in (3, None) or frames not in (1, None):
        raise UserError(f"{path}: expects {list(network.size)}, must take [1, 3, h, w]; {HELP}")

    def infer(images: Tensor) -> Tensor:  # [1, 3, H, W] -> [1, 1, h, w]
        size = images.shape[2:]
        output = _run(path, network.run, _prepare(images, described, (height, width)))
        return resize(_orient(output, described), *map_size(*output.shape[2:], *size))

    return frame_by_frame(infer, one_frame)


def require_network(path: Path) -> None:
    """Raise UserError unless `path` is a file with a name that an exported network has."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: not an exported network: the name must end in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; --depth exported:FILE names an exported depth network")


def network_bytes(path: Path) -> int:
    """Return what a network in a file takes, by the size of its file and of its input; an upper bound."""
    require_network(path)
    return FILE_COPIES * path.stat().st_size + NETWORK_BYTES


def identify(path: Path) -> tuple[str, str]:
    """Return the hash of all that results depend on, and the licence of the weights."""
    require_network(path)
    described = _describe(path)
    text = json.dumps([hash_file(path), runtime_version(path), repr(described)])
    return sha256(text.encode()).hexdigest(), described.licence


def _describe(path: Path) -> ExportedDepth:
    """Read what the file beside the network says; what it does not say, from the metadata."""
    beside, known = path.with_name(f"{path.name}.json"), {field.name for field in fields(ExportedDepth)}
    metadata = read_metadata(path, HELP)
    try:
        given = {name: _parse(value) for name, value in metadata.items() if name in known}
        if beside.is_file():
            said = json.loads(beside.read_bytes())
            if not isinstance(said, dict):
                raise TypeError("must be a JSON object")
            given |= said
        if unknown := sorted(given.keys() - known):
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if "larger_is" not in given:
            raise UserError(
                f"{path}: does not say whether larger values are nearer; write "
                f'{{"larger_is": "{NEARER}"}} or {{"larger_is": "{FARTHER}"}} into {beside}; {HELP}'
            )
        for name in ("mean", "std"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        return ExportedDepth(**given)
    except (ValueError, TypeError) as error:
        raise UserError(f"{beside if beside.is_file() else path}: {error}; {HELP}") from error


def _parse(value: str) -> Any:
    """Return a value of ONNX metadata, which are texts: JSON, or the text itself."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _prepare(images: Tensor, described: ExportedDepth, fixed: tuple[int | None, ...]) -> Tensor:
    height, width = images.shape[2:]
    scale = described.short_side / min(height, width)
    sides = [
        max(1, round(side * scale / described.multiple)) * described.multiple for side in (height, width)
    ]
    size = [given or side for given, side in zip(fixed, sides, strict=True)]
    small = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (small.new_tensor(values)[:, None, None] for values in (described.mean, described.std))
    return ((small - mean) / std).contiguous()


def _run(path: Path, run: Callable[..., Tensor], images: Tensor) -> Tensor:  # [1, 1, h, w]
    output = run(images)
    shape = list(output.shape)
    if len(shape) not in (3, 4) or shape[0] != 1 or (len(shape) == 4 and shape[1] != 1) or 0 in shape:
        raise UserError(f"{path}: returns {shape}, must be [1, 1, h, w] or [1, h, w]; {HELP}")
    if not output.is_floating_point():
        raise UserError(f"{path}: output must be floats, got {output.dtype}; {HELP}")
    if not bool(output.isfinite().all()):
        raise UserError(f"{path}: returned NaN or inf; {HELP}")
    return output.float().reshape(1, 1, *shape[-2:])


def _orient(output: Tensor, described: ExportedDepth) -> Tensor:
    """Return relative inverse depth: as it is, the inverse of metres, or negated."""
    if described.larger_is == NEARER:
        return output
    return invert_metres(output) if described.metric else -output
