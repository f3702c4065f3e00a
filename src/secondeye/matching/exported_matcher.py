"""A matcher exported to a file by torch.export (.pt2) or to ONNX; docs/matchers.md describes how.

It maps left and right float32 [T, 3, H, W] in [0, 1] to float [T, 1, H, W] or [T, H, W]; disparity is sign *
scale * output. It runs on windows of a fixed number of frames, padded to a size it accepts.
"""

from functools import lru_cache
from pathlib import Path

from torch import Tensor

from secondeye.imaging.exported_network import ExportedNetwork, load_network, runtime_version
from secondeye.matching.interface import Matcher
from secondeye.matching.sliding_windows import blend, fit_size, pad_frames, window_starts
from secondeye.params import Exported
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

HELP = "docs/matchers.md describes the export"


def file_identity(exported: Exported) -> list[str]:
    """Return what results depend on besides the params: hash of the file, name and version of its runtime."""
    path = _checked_path(exported)
    return [hash_file(path), runtime_version(path)]


def make_exported_matcher(exported: Exported) -> Matcher:
    """Load the matcher. Raises UserError, now or when it runs, if the file breaks the contract above.

    A process keeps the last one, since a stage asks for it with every clip; a changed file is loaded again.
    """
    path = _checked_path(exported)
    return _load(exported, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(exported: Exported, path: Path, modified_ns: int) -> Matcher:
    network = load_network(path, 2, HELP)
    window, (frames, channels, *_) = exported.window_frames, network.size
    if channels not in (3, None):
        raise UserError(f"{path}: expects {channels} channels, must be 3; {HELP}")
    if frames not in (window, None):
        raise UserError(f"{path}: expects {frames} frames; set match.exported.window_frames to {frames}")

    def match_windows(left: Tensor, right: Tensor) -> Tensor:
        height, width = left.shape[-2:]
        size = fit_size(
            height, width, network.size[2:], multiple=exported.multiple, min_size=exported.min_size
        )
        if size[0] < height or size[1] < width:
            raise UserError(
                f"{path}: expects {size[1]}x{size[0]} px, smaller than a clip of {width}x{height}; "
                "export it for a larger size, or lower split.height and split.width"
            )
        views = [pad_frames(view, *size, at_least=window) for view in (left, right)]
        starts = window_starts(len(views[0]), window, exported.overlap_frames)
        windows = ([view[start : start + window].contiguous() for view in views] for start in starts)
        outputs = (_run_window(path, network, *pair)[..., :height, :width] for pair in windows)
        blended = blend(outputs, starts, len(views[0]), exported.overlap_frames)
        return blended[: len(left)] * (exported.sign * exported.scale)

    return match_windows


def _checked_path(exported: Exported) -> Path:
    path = Path(exported.path)
    if not exported.path:
        raise UserError(f"match.exported.path: must be set when match.matcher is exported; {HELP}")
    if path.suffix not in (".pt2", ".onnx"):
        raise UserError(f"{path}: not an exported matcher: the name must end in .pt2 or .onnx")
    if not path.is_file():
        raise UserError(f"{path}: no such file; match.exported.path is relative to the project's folder")
    return path


def _run_window(path: Path, network: ExportedNetwork, left: Tensor, right: Tensor) -> Tensor:
    """Return the raw output for one window, [T, 1, H, W]."""
    output = network.run(left, right)
    frames, _, height, width = left.shape
    if tuple(output.shape) not in ((frames, 1, height, width), (frames, height, width)):
        shapes = f"{list(output.shape)} for inputs of shape {list(left.shape)}"
        raise UserError(f"{path}: returns {shapes}, must be [T, 1, H, W] or [T, H, W]; {HELP}")
    if not output.is_floating_point() or not bool(output.isfinite().all()):
        raise UserError(f"{path}: output must be finite floats, got {output.dtype}; {HELP}")
    return output.reshape(frames, 1, height, width)
