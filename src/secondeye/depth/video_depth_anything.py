"""Video Depth Anything (Chen et al., arXiv 2501.12375): depth that is consistent over the shot.

The network sees windows of 32 frames, each 22 frames after the one before. A later window begins with two key
frames that were seen before, one of them the shot's first: its scale and shift are fitted there. The next
eight frames are blended with the window before. Preprocessing, windows and alignment are as released.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.depth.interface import DepthEstimate, DepthState, SmallFrameEstimator
from secondeye.depth.metres import invert_metres
from secondeye.depth.progress import FrameCounter, OnFrames, report_nothing
from secondeye.depth.video_depth_network import PATCH_PX, WINDOW_FRAMES, VideoDepthNetwork
from secondeye.depth.video_depth_weights import load_weights, read_sizes
from secondeye.imaging.arrays import resize, to_float_frames

INPUT_PX = 518  # shorter side of the network's input
MAX_LONG_SIDE_PX = 1280  # of the frames, and so of the estimates
STEP_FRAMES = 22  # from a window to the next
KEY_FRAMES = (0, 12)  # of a window: the first one's maps, and the last one's, are the next one's reference
BLEND_FRAMES = 8
WIDE_ASPECT, FULL_ASPECT = 1.78, 1.777  # frames wider than the first get an input as wide as of the second
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

# Of the small network on the CPU, measured with random weights; others take more in proportion to their head.
_INPUT_PIXEL_BYTES, _MAP_PIXEL_BYTES, _SMALL_FEATURES = 5500, 400, 64

_KEYS = len(KEY_FRAMES)
_BACK = STEP_FRAMES - KEY_FRAMES[1]  # from a window's second key frame to its start
_FINAL = STEP_FRAMES + _KEYS  # frames of a window, from its start, that the next one does not change
_FLAT = 1e-10  # determinant of the fit, relative to its terms, below which the maps are constant


def load_video_depth_anything(
    source: str,  # file of weights, folder with one, or Hugging Face id
    device: str,
) -> SmallFrameEstimator:
    """Load a released relative or metric network. Raises UserError if its weights are missing or do not fit.

    On a GPU it computes in float16 where the released code does, on the CPU in float32.
    """
    network, metric = load_weights(source)
    return VideoDepthAnything(network.to(device), device, INPUT_PX, metric=metric)


def network_bytes(source: str, height: int, width: int) -> int:
    """Return what weights and a window of frames of this size take on the CPU; an upper bound."""
    sizes, weights = read_sizes(source)
    rows, columns = working_size(height, width)
    high, wide = input_size(rows, columns, INPUT_PX)
    pixel_bytes = _INPUT_PIXEL_BYTES * sizes.features // _SMALL_FEATURES
    return weights + pixel_bytes * high * wide + _MAP_PIXEL_BYTES * rows * columns


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width to which frames are reduced: at most MAX_LONG_SIDE_PX."""
    scale = min(1.0, MAX_LONG_SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class VideoDepthAnything:
    """A SmallFrameEstimator and SteppedEstimator: depth at the size of the frames, window by window."""

    def __init__(
        self,
        network: VideoDepthNetwork,
        device: str,
        input_px: int,
        *,
        metric: bool,
        on_frames: OnFrames = report_nothing,  # called as `reporting` says
    ) -> None:
        self._network, self._device, self._input_px, self._metric = network, device, input_px, metric
        self._on_frames = on_frames

    def reporting(self, on_frames: OnFrames) -> "VideoDepthAnything":
        """Return an equal estimator that calls `on_frames` while a window is encoded and decoded."""
        return VideoDepthAnything(
            self._network, self._device, self._input_px, metric=self._metric, on_frames=on_frames
        )

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which frames are reduced: at most MAX_LONG_SIDE_PX."""
        return working_size(height, width)

    def __call__(self, windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
        """Yield the depth of STEP_FRAMES frames at a time, or of a few more or less at the shot's ends."""
        frames = (to_float_frames(frame) for window in windows for frame in window.split(1) if len(frame))
        frame = next(frames, None)
        if frame is None:
            return
        size = working_size(frame.shape[2], frame.shape[3])
        stream = (preprocess(resize(frame, *size)[0], self._input_px) for frame in chain([frame], frames))
        start, carry = (0, None) if state is None else (state.next_frame - _KEYS, _Carry(**state.tensors))
        counter = FrameCounter(self._on_frames, 2 * WINDOW_FRAMES)  # each is encoded and decoded
        held: list[Tensor] = []  # inputs, from the second key frame on; in the first window from its start
        while True:
            back, keys = (0, 0) if carry is None else (_BACK, _KEYS)
            held += islice(stream, back + WINDOW_FRAMES - len(held))
            inputs = held if carry is None else [carry.first_input, held[0], *held[back + keys :]]
            inputs = inputs + [held[-1]] * (WINDOW_FRAMES - len(inputs))
            seen = len(held) - back
            count = min(seen, _FINAL) - keys  # of frames that no later window changes
            maps = self._infer(torch.stack(inputs), size, partial(counter.add_steps, count))
            maps = _align(maps, carry, metric=self._metric)
            final = maps[:count]
            if seen <= _FINAL:  # the shot ends here
                yield self._estimate(final, DepthState(start + seen, start + seen, {}))
                return
            carry = _Carry.after(maps, carry, inputs[0])
            held = held[back + KEY_FRAMES[1] :]
            start += STEP_FRAMES
            yield self._estimate(final, DepthState(start + _KEYS, start - _BACK, carry.tensors()))

    def _infer(
        self,
        inputs: Tensor,  # [T, 3, h, w]
        size: tuple[int, int],
        on_frames: OnFrames,
    ) -> Tensor:  # [T, H, W]
        on_gpu = torch.device(self._device).type == "cuda"
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=on_gpu):
            maps = self._network(inputs.to(self._device), on_frames).float()[:, None]
            return F.interpolate(maps, size, mode="bilinear", align_corners=True)[:, 0].cpu()

    def _estimate(self, maps: Tensor, state: DepthState) -> DepthEstimate:
        depth = invert_metres(maps) if self._metric else maps
        return DepthEstimate(depth[:, None], 1.0, state)


def preprocess(
    frame: Tensor,  # [3, H, W] in [0, 1]
    input_px: int,
) -> Tensor:  # [3, h, w]
    """Resize a frame to the network's size and normalise its colours.

    OpenCV's bicubic filter without anti-aliasing, as released: it may leave [0, 1].
    """
    height, width = input_size(frame.shape[1], frame.shape[2], input_px)
    image = frame.permute(1, 2, 0).contiguous().numpy()
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    normalised = ((resized - MEAN) / STD).astype(np.float32)
    return torch.from_numpy(normalised.transpose(2, 0, 1).copy())


def input_size(height: int, width: int, input_px: int) -> tuple[int, int]:
    """Return the size of the network's input: whole patches, the shorter side about `input_px`.

    The aspect is kept up to the size of a patch. Very wide or tall frames have a smaller shorter side.
    """
    aspect = max(height, width) / min(height, width)
    if aspect > WIDE_ASPECT:
        input_px = max(1, round(int(input_px * FULL_ASPECT / aspect) / PATCH_PX)) * PATCH_PX
    scale = max(input_px / height, input_px / width)

    def whole_patches(side: int) -> int:
        nearest = round(scale * side / PATCH_PX) * PATCH_PX
        return nearest if nearest >= input_px else -int(-scale * side // PATCH_PX) * PATCH_PX

    return whole_patches(height), whole_patches(width)


class _Carry(NamedTuple):
    """What a window leaves to the next one."""

    first_input: Tensor  # [3, h, w], of the shot's first frame
    reference: Tensor  # [2, H, W], the key frames' maps
    tail: Tensor  # [8, H, W], the maps to blend with

    @classmethod
    def after(cls, maps: Tensor, carry: "_Carry | None", first_input: Tensor) -> "_Carry":
        """Return what the window leaves whose aligned maps these are."""
        tail = maps[-BLEND_FRAMES:]
        if carry is None:
            return cls(first_input, maps[list(KEY_FRAMES)], tail)
        return cls(first_input, torch.stack([carry.reference[0], maps[KEY_FRAMES[1] - _KEYS]]), tail)

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._asdict().items()}


def _align(maps: Tensor, carry: _Carry | None, *, metric: bool) -> Tensor:
    """Bring a window to the scale of the one before; the maps of its key frames are dropped."""
    if carry is None:
        return maps
    scale, shift = (1.0, 0.0) if metric else fit_scale_shift(maps[:_KEYS], carry.reference)
    aligned = (maps[_KEYS:] * scale + shift).clamp_min(0)
    weight = torch.linspace(0, 1, BLEND_FRAMES)[:, None, None]
    aligned[:BLEND_FRAMES] = carry.tail * (1 - weight) + aligned[:BLEND_FRAMES] * weight
    return aligned


def fit_scale_shift(
    depth: Tensor,  # of any shape
    target: Tensor,  # of the same shape
) -> tuple[float, float]:
    """Return the scale and shift that take `depth` to `target`, by least squares over all pixels.

    They are 1 and 0 if `depth` is constant.
    """
    x, y = (values.numpy().ravel().astype(np.float64) for values in (depth, target))
    sum_x, sum_y, sum_xx = x.sum(), y.sum(), np.square(x).sum()
    determinant = x.size * sum_xx - sum_x**2
    if determinant <= _FLAT * x.size * sum_xx:
        return 1.0, 0.0
    sum_xy = (x * y).sum()
    scale = (x.size * sum_xy - sum_x * sum_y) / determinant
    return float(scale), float((sum_y - scale * sum_x) / x.size)
