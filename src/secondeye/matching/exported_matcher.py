"""A matcher that was exported to a file: by torch.export (.pt2) or to ONNX. docs/matchers.md says how.

It takes left and right float32 [T, 3, H, W] in [0, 1] and answers float [T, 1, H, W] or [T, H, W]; then
disparity = sign * scale * answer. It sees windows of a fixed number of frames, padded to a size it can take.
"""

from pathlib import Path

from torch import Tensor

from secondeye.matching import Matcher
from secondeye.matching.exported_network import HELP, Network, open_network, runtime_of
from secondeye.matching.sliding_windows import blend, fit_size, pad_frames, window_starts
from secondeye.params import Exported
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file


def identity(exported: Exported) -> list[str]:
    """What a result depends on besides the params: the file's content, and what runs it."""
    path = _existing(exported)
    return [hash_file(path), runtime_of(path)]


def make_exported_matcher(exported: Exported) -> Matcher:
    """Raises Refusal, here or when it runs, where the file is not what this module's docstring says."""
    path = _existing(exported)
    network = open_network(path)
    window, (frames, channels, *_) = exported.window_frames, network.size
    if channels not in (3, None):
        raise UserError(f"{path}: takes pictures of {channels} channels, not 3; {HELP}")
    if frames not in (window, None):
        raise UserError(f"{path}: takes {frames} frames at once; set match.exported.window_frames to that")

    def match_windows(left: Tensor, right: Tensor) -> Tensor:
        height, width = left.shape[-2:]
        size = fit_size(height, width, network.size[2:], multiple=exported.multiple, least=exported.min_size)
        if size[0] < height or size[1] < width:
            raise UserError(
                f"{path}: takes pictures of {size[1]}x{size[0]}, smaller than a clip's {width}x{height}"
            )
        eyes = [pad_frames(eye, *size, at_least=window) for eye in (left, right)]
        starts = window_starts(len(eyes[0]), window, exported.overlap_frames)
        windows = ([eye[start : start + window].contiguous() for eye in eyes] for start in starts)
        answers = (_answer(path, network, *pair)[..., :height, :width] for pair in windows)
        blended = blend(answers, starts, len(eyes[0]), exported.overlap_frames)
        return blended[: len(left)] * (exported.sign * exported.scale)

    return match_windows


def _existing(exported: Exported) -> Path:
    path = Path(exported.path)
    if not exported.path:
        raise UserError(f"match.exported.path: is empty, and match.matcher is exported; {HELP}")
    if path.suffix not in (".pt2", ".onnx"):
        raise UserError(f"{path}: is no exported matcher; its name must end in .pt2 or .onnx")
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file; match.exported.path counts from the project's folder"
        )
    return path


def _answer(path: Path, network: Network, left: Tensor, right: Tensor) -> Tensor:
    """One window's answer as it comes, [T, 1, H, W]."""
    answer = network.run(left, right)
    frames, _, height, width = left.shape
    if tuple(answer.shape) not in ((frames, 1, height, width), (frames, height, width)):
        shapes = f"{list(answer.shape)} to inputs of {list(left.shape)}"
        raise UserError(f"{path}: answers {shapes}, not [T, 1, H, W] or [T, H, W]; {HELP}")
    if not answer.is_floating_point() or not bool(answer.isfinite().all()):
        raise UserError(f"{path}: answers with values that are no finite numbers ({answer.dtype}); {HELP}")
    return answer.reshape(frames, 1, height, width)
