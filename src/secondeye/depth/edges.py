"""Sharpen the edges of depth and disparity, which networks blur.

A warp stretches a blurred edge instead of opening a hole, which costs up to 6 dB beside the hole (measured on
synthetic shots and stereo pairs, benchmarks/depth_edges.py). Sharpening has three steps:

1. The blur is measured: its median over all ramps between two wide surfaces.
2. It is undone, above all where it lowered thin objects: what a blur of the snapped map lacks is added,
   several times (Van Cittert's deconvolution, with the snapped map as its estimate).
3. The map is enlarged to the size of the frames, and values on a ramp are snapped to one of its ends, by
   their value and their colour.

The backends `cpu` (numba) and `torch` (for a GPU) are equal to the bit on a CPU; `auto` follows the device.
"""

import math
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.depth import ramps_cpu, ramps_torch
from secondeye.imaging.arrays import frame_size, require_images, require_plane, require_same_size, resize

Backend = Literal["auto", "cpu", "torch"]

MIN_CONTRAST = 0.03  # RGB distance of the two sides below which colour is ignored

# Of the width: one or two pixels, whose colours mix both surfaces. More costs up to 3.8 dB around the holes
# of real films, also above and below objects; less, halos beside them (benchmarks/depth_edges.py).
_DILATE_SHARE = 0.001
_REACH_SHARE = 0.04  # of the width: the longest ramp; longer ones are slopes. A blur of 0.011 at most
_BOUND_SHARE = 0.0035  # of the width: the lowest ramp from which a blur is measured and undone
# Of the width: the lowest ramp that becomes a step, little above the 0.002 from which the warp opens a hole.
# With 0.0035, up to 22 % of the holes' area is missing (benchmarks/depth_edges.py).
_STEP_SHARE = 0.0025
_SPACING_SHARE = 0.001  # of the width

_MIN_SIGMA_PX = 0.75  # below it, snapping alone is as good
_SIGMA_STEP_PX = 0.25  # the blur is rounded to it, so that it does not differ from frame to frame
_SMALL_SIGMA_PX = 1.5  # undoing a blur works on maps that are reduced to about this blur
_REPEATS = 3  # 4 to 6 gain less than 0.1 dB on average, and lose on some frames
_NOISE_MEDIANS = 3.0  # what is added must exceed the median by this factor, or noise would grow


def sharpen(
    disparity: Tensor,  # [T, 1, h, w] px of the frames' width, blurred as by a depth estimator
    left: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]: at least as large
    *,
    backend: Backend = "auto",
) -> Tensor:  # [T, 1, H, W] px
    """Undo the blur of the disparity, enlarge it, snap its edges to the frames' and dilate the foreground.

    All distances are shares of the width, and each frame is sharpened by itself. If a map has no blur, the
    first step is left out. Raises ValueError for wrong shapes.
    """
    require_images(left)
    width = frame_size(left)[1]
    bound_px = _BOUND_SHARE * width
    blur_px = measure_blur(disparity, reach_px=_reach(disparity), bound_px=bound_px, backend=backend)
    clear = disparity.clone()
    for number, sigma in enumerate(blur_px):
        if sigma >= _MIN_SIGMA_PX:
            frame = slice(number, number + 1)
            clear[frame] = _deblur(disparity[frame], left[frame], sigma, bound_px, backend)
    large = upsample(clear, left)
    snapped = snap(large, left, reach_px=_reach(large), bound_px=_STEP_SHARE * width, backend=backend)
    return dilate(snapped, radius_px=round(_DILATE_SHARE * width), backend=backend)


def _reach(disparity: Tensor) -> int:
    return max(4, round(_REACH_SHARE * disparity.shape[-1]))


def snap(
    disparity: Tensor,  # [T, 1, H, W] px
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]
    *,
    reach_px: int,
    bound_px: float,
    backend: Backend = "auto",
) -> Tensor:  # [T, 1, H, W] px
    """Move values on the ramp between two surfaces to the end of the ramp that they belong to.

    A ramp is a line of pixels in the steepest of eight directions along which the disparity rises at every
    step, by more than `bound_px` within fewer than `reach_px` steps. It ends where steps become small. A
    pixel's value and its colour vote for an end; if both sides have the same colour, the value decides.
    Everything else is unchanged, including flat maps, slopes and the tops of thin objects. Raises ValueError
    for wrong shapes.
    """
    require_plane(disparity, "disparity")
    require_images(frames)
    require_same_size(frames, disparity, "disparity")
    _require_ramps(reach_px, bound_px)
    bytes_given = frames.dtype == torch.uint8
    images = frames if bytes_given else frames.permute(0, 2, 3, 1)
    spacing_px = max(1, round(_SPACING_SHARE * disparity.shape[-1]))
    min_contrast = MIN_CONTRAST * (255 if bytes_given else 1)
    by_torch = _uses_torch(backend, disparity)
    snapped = torch.empty_like(disparity)
    for plane, image, out in zip(disparity[:, 0], images, snapped[:, 0], strict=True):
        settings = reach_px, bound_px, spacing_px, min_contrast
        if by_torch:
            out.copy_(ramps_torch.snap(plane, image, *settings))
        else:
            ramps_cpu.snap(plane.numpy(), image.numpy(), *settings, out.numpy())
    return snapped


def measure_blur(
    disparity: Tensor,  # [T, 1, H, W] px
    *,
    reach_px: int,
    bound_px: float,
    backend: Backend = "auto",
) -> list[float]:
    """Return the standard deviation of each frame's blur in px, to a quarter; 0 if most edges are sharp.

    A step of height h under a Gaussian blur has the slope h / (sigma * sqrt(2 pi)); the median over the ramps
    (see `snap`) between wide surfaces is within 10 % on shots blurred by 1 to 6 px (measured). Raises
    ValueError for a wrong shape.
    """
    require_plane(disparity, "disparity")
    _require_ramps(reach_px, bound_px)
    by_torch = _uses_torch(backend, disparity)
    blur_px = []
    for plane in disparity[:, 0]:
        if by_torch:
            found = ramps_torch.sigmas(plane, reach_px, bound_px)
        else:
            found = torch.from_numpy(ramps_cpu.sigmas(plane.numpy(), reach_px, bound_px))
        sigma = float(found.median()) if len(found) else 0.0
        blur_px.append(_SIGMA_STEP_PX * round(sigma / _SIGMA_STEP_PX))
    return blur_px


def _deblur(
    disparity: Tensor,  # [1, 1, h, w] px
    left: Tensor,  # [1, 3, H, W] in [0, 1], or uint8 [1, H, W, 3]
    sigma_px: float,
    bound_px: float,
    backend: Backend,
) -> Tensor:  # [1, 1, h, w] px
    """Return the disparity that becomes the given one if it is snapped and blurred, about.

    The difference is smooth, so that a wide blur is undone on a smaller map.
    """
    height, width = disparity.shape[2:]
    factor = min(max(1, round(sigma_px / _SMALL_SIGMA_PX)), height, width)
    given = F.avg_pool2d(disparity, factor) if factor > 1 else disparity
    frames = _nearest_pixels(left, *given.shape[2:])
    sigma = math.sqrt(sigma_px**2 + (factor**2 - 1) / 12) / factor  # reducing blurs, too
    clear = given
    for _ in range(_REPEATS):
        snapped = snap(clear, frames, reach_px=_reach(clear), bound_px=bound_px, backend=backend)
        missing = given - _blur(snapped, sigma)
        noise = _NOISE_MEDIANS * float(missing[..., ::4, ::4].abs().median())
        clear = clear + F.softshrink(missing, noise)
    added = clear - given
    if factor > 1:
        added = F.interpolate(added, scale_factor=factor, mode="bilinear", align_corners=False)
        added = F.pad(added, (0, width - added.shape[3], 0, height - added.shape[2]), mode="replicate")
    return disparity + added


def _nearest_pixels(
    frames: Tensor,  # [1, 3, H, W], or uint8 [1, H, W, 3]
    height: int,
    width: int,
) -> Tensor:  # [1, 3, height, width], or uint8 [1, height, width, 3]
    """Reduce frames without a filter: colours only vote, and many pixels are read for a vote."""
    if frame_size(frames) == (height, width):
        return frames
    rows, columns = (
        torch.arange(reduced, device=frames.device) * size // reduced + size // (2 * reduced)
        for reduced, size in zip((height, width), frame_size(frames), strict=True)
    )
    if frames.dtype == torch.uint8:
        return frames[:, rows[:, None], columns]
    return frames[:, :, rows[:, None], columns]


def _blur(
    planes: Tensor,  # [1, 1, H, W]
    sigma: float,  # px
) -> Tensor:  # [1, 1, H, W]
    """Blur by a Gaussian, cut off at three standard deviations; borders are repeated."""
    radius = math.ceil(3 * sigma)
    if planes.device.type == "cpu":  # 15 times as fast as torch
        size, border = (2 * radius + 1, 2 * radius + 1), cv2.BORDER_REPLICATE
        return torch.from_numpy(cv2.GaussianBlur(planes[0, 0].numpy(), size, sigma, borderType=border))[
            None, None
        ]
    distances = torch.arange(-radius, radius + 1, device=planes.device) / sigma
    weights = torch.exp(-0.5 * distances**2)
    kernel = weights / weights.sum()
    padded = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])


def dilate(
    disparity: Tensor,  # [T, 1, H, W] px
    *,
    radius_px: int,
    backend: Backend = "auto",
) -> Tensor:  # [T, 1, H, W] px
    """Grow nearer surfaces by `radius_px` to the left and right, where holes open; 0 changes nothing."""
    require_plane(disparity, "disparity")
    if radius_px < 0:
        raise ValueError(f"radius_px must be 0 or more, got {radius_px}")
    if _uses_torch(backend, disparity):
        return F.max_pool2d(disparity, (1, 2 * radius_px + 1), stride=1, padding=(0, radius_px))
    row = np.ones((1, 2 * radius_px + 1), np.uint8)
    grown = [cv2.dilate(plane, row) for plane in disparity[:, 0].numpy()]
    return torch.from_numpy(np.stack(grown)[:, None])


def upsample(
    depth: Tensor,  # [T, 1, h, w]
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]: at least as large
) -> Tensor:  # [T, 1, H, W]
    """Resize `depth` to the size of `frames`, bilinearly; `snap` then sharpens the edges.

    Guided upsampling was worse at every setting on Middlebury's motorcycle (mean error at edges 1.35 to
    3.85 px instead of 0.96 at half size): texture leaks into the depth.
    """
    height, width = frames.shape[1:3] if frames.dtype == torch.uint8 else frames.shape[2:]
    if depth.device.type != "cpu" or height < depth.shape[2] or width < depth.shape[3]:
        return resize(depth, height, width)
    large = torch.empty(len(depth), 1, height, width)
    for plane, out in zip(depth[:, 0].numpy(), large[:, 0].numpy(), strict=True):
        cv2.resize(plane, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    return large


def _uses_torch(backend: Backend, disparity: Tensor) -> bool:
    if backend not in ("auto", "cpu", "torch"):
        raise ValueError(f"backend must be auto, cpu or torch, got {backend!r}")
    on_cpu = disparity.device.type == "cpu"
    if backend == "cpu" and not on_cpu:
        raise ValueError(f"backend cpu needs arrays on the CPU, but these are on {disparity.device}")
    return backend == "torch" or not on_cpu


def _require_ramps(reach_px: int, bound_px: float) -> None:
    if reach_px < 1 or bound_px < 0:
        raise ValueError(f"reach_px must be 1 or more and bound_px 0 or more, got {reach_px}, {bound_px}")
