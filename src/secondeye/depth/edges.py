"""Sharpen the edges of depth and disparity: move values between two surfaces onto one of them.

Networks blur depth across object edges. A warp then stretches the blur instead of opening a hole, which costs
up to 7 dB beside the hole (measured on five stereo pairs).

The backends `cpu` (OpenCV and numba) and `torch` (for a GPU) are equal to the bit; `auto` follows the device.
"""

from typing import Literal

import cv2
import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.imaging.arrays import require_images, require_plane, require_same_size, resize

SIDE_SHARE = 0.25  # of the window's range: values this close to an end belong to that side
SAMPLES = 3  # in each direction from the centre; wider windows are sampled more coarsely
COLOUR_WEIGHT = 0.4  # relative to the value; 0.3 to 0.6 is best for depth edges 0 to 3 px off
MIN_STEEPNESS = 0.5  # of the window's mean slope; a flatter place is a third surface
MIN_CONTRAST = 0.03  # RGB distance of the two sides below which colour is ignored

Backend = Literal["auto", "cpu", "torch"]
PLACES_AT_ONCE = 2**20  # of the backend `torch`: bounds its memory to 0.4 GB beyond the planes (measured)

# Of the width: one or two pixels, whose colours mix both surfaces. More costs up to 3.8 dB around the holes
# of real films, also above and below objects; less, halos beside them (benchmarks/depth_edges.py).
_DILATE_SHARE = 0.001
_SNAP_WINDOW_SHARE = 0.01  # of the width: three standard deviations of the estimators' blur (measured)
_SNAP_BOUND_SHARE = 0.0035  # of the width; a lower bound would damage slopes


def snap(
    disparity: Tensor,  # [T, 1, H, W] px
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]
    *,
    window_px: int,
    bound_px: float,
    backend: Backend = "auto",
) -> Tensor:  # [T, 1, H, W] px
    """Move values on the ramp between two surfaces to the local minimum or maximum.

    A pixel is on a ramp if the values in its window span more than `bound_px`, its own is at neither end and
    the slope is steep. Its value and its colour vote for a side; if both sides have the same colour, the
    value decides. Everything else is unchanged, including flat maps and gentle slopes. `window_px` should be
    about three standard deviations of the blur; much wider windows flatten small objects. Raises ValueError
    for wrong shapes.
    """
    require_plane(disparity, "disparity")
    require_images(frames)
    require_same_size(frames, disparity, "disparity")
    if window_px < 1 or bound_px < 0:
        raise ValueError(f"window_px must be 1 or more and bound_px 0 or more, got {window_px}, {bound_px}")
    reach = window_px // 2
    bytes_given = frames.dtype == torch.uint8
    images = frames if bytes_given else frames.permute(0, 2, 3, 1)
    min_contrast = MIN_CONTRAST * (255 if bytes_given else 1)
    if _uses_torch(backend, disparity):
        return _snap_tensors(disparity, images, reach, bound_px, min_contrast)
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    snapped = np.empty(disparity.shape, np.float32)
    for plane, frame, out in zip(disparity[:, 0].numpy(), images.numpy(), snapped[:, 0], strict=True):
        lowest, highest = cv2.erode(plane, square), cv2.dilate(plane, square)
        _snap(plane, lowest, highest, frame, reach, bound_px, min_contrast, out)
    return torch.from_numpy(snapped)


def sharpen(
    disparity: Tensor,  # [T, 1, H, W] px, blurred as by a depth estimator
    left: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]
    *,
    backend: Backend = "auto",
) -> Tensor:  # [T, 1, H, W] px
    """Snap edges to those of the frames and dilate the foreground, by shares of the width."""
    width = disparity.shape[-1]
    window_px = max(3, round(_SNAP_WINDOW_SHARE * width)) | 1
    bound_px, radius_px = _SNAP_BOUND_SHARE * width, round(_DILATE_SHARE * width)
    disparity = snap(disparity, left, window_px=window_px, bound_px=bound_px, backend=backend)
    return dilate(disparity, radius_px=radius_px, backend=backend)


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
        return _largest(disparity, 1, 2 * radius_px + 1)
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


@numba.njit(parallel=True, cache=True, nogil=True)
def _snap(
    plane: np.ndarray,  # [H, W] px
    lowest: np.ndarray,  # [H, W] px, of each pixel's window
    highest: np.ndarray,  # [H, W] px
    frame: np.ndarray,  # [H, W, 3]
    reach: int,
    bound_px: float,
    min_contrast: float,  # in the frame's levels
    snapped: np.ndarray,  # [H, W] px, written
) -> None:
    height, width = plane.shape
    # Each row is written by one thread and only inputs are read: the same bits for any number of threads.
    for row in numba.prange(height):
        for column in range(width):
            value, low, high = plane[row, column], lowest[row, column], highest[row, column]
            snapped[row, column] = value
            if high - low <= bound_px or value in (low, high):
                continue
            if (2 * reach + 1) * _slope(plane, row, column) < MIN_STEEPNESS * (high - low):
                continue
            colour = _colour_side(plane, frame, row, column, reach, low, high, min_contrast)
            vote = (value - low) / (high - low) - 0.5 + COLOUR_WEIGHT * (colour - 0.5)
            snapped[row, column] = high if vote > 0 else low


@numba.njit(cache=True, nogil=True)
def _slope(plane: np.ndarray, row: int, column: int) -> float:
    """Return the larger of the two central differences, per px."""
    height, width = plane.shape
    down = plane[min(row + 1, height - 1), column] - plane[max(row - 1, 0), column]
    right = plane[row, min(column + 1, width - 1)] - plane[row, max(column - 1, 0)]
    return max(abs(down), abs(right)) / 2


@numba.njit(cache=True, nogil=True)
def _colour_side(
    plane: np.ndarray,  # [H, W] px
    frame: np.ndarray,  # [H, W, 3]
    row: int,
    column: int,
    reach: int,
    low: float,
    high: float,
    min_contrast: float,
) -> float:
    """Return the pixel's colour between the mean of the far side (0) and the near side (1); 0.5 if equal."""
    height, width = plane.shape
    margin = SIDE_SHARE * (high - low)
    stride = (reach + SAMPLES - 1) // SAMPLES
    near_red = near_green = near_blue = far_red = far_green = far_blue = 0.0
    near_count = far_count = 0
    for r in range(row - reach, row + reach + 1, stride):
        for c in range(column - reach, column + reach + 1, stride):
            if not (0 <= r < height and 0 <= c < width):
                continue
            if plane[r, c] >= high - margin:
                near_red += frame[r, c, 0]
                near_green += frame[r, c, 1]
                near_blue += frame[r, c, 2]
                near_count += 1
            elif plane[r, c] <= low + margin:
                far_red += frame[r, c, 0]
                far_green += frame[r, c, 1]
                far_blue += frame[r, c, 2]
                far_count += 1
    if near_count == 0 or far_count == 0:
        return 0.5
    near = (near_red / near_count, near_green / near_count, near_blue / near_count)
    far = (far_red / far_count, far_green / far_count, far_blue / far_count)
    along, contrast = 0.0, 0.0
    for channel in range(3):
        along += (near[channel] - far[channel]) * (frame[row, column, channel] - far[channel])
        contrast += (near[channel] - far[channel]) ** 2
    return min(max(along / contrast, 0.0), 1.0) if contrast > min_contrast**2 else 0.5


def _snap_tensors(
    disparity: Tensor,  # [T, 1, H, W] px
    images: Tensor,  # [T, H, W, 3]
    reach: int,
    bound_px: float,
    min_contrast: float,
) -> Tensor:  # [T, 1, H, W] px
    """Do what `snap` does. Few pixels are on a ramp: they are collected, and only their windows are read."""
    side = 2 * reach + 1
    lowest, highest = -_largest(-disparity, side, side), _largest(disparity, side, side)
    # The largest float32 up to the bound decides as the bound itself would among float32 numbers.
    bound = np.float32(bound_px)
    bound = np.nextafter(bound, np.float32(-1)) if bound > bound_px else bound
    plane, lowest, highest = (planes[:, 0] for planes in (disparity, lowest, highest))
    between = (plane != lowest) & (plane != highest) & (highest - lowest > float(bound))
    snapped = plane.clone()
    for places in between.nonzero().split(PLACES_AT_ONCE):
        steepness = side * _slopes(plane, places)
        on_ramp = steepness >= MIN_STEEPNESS * _at(highest - lowest, places).double()
        places = places[on_ramp]
        low, high, value = (_at(values, places) for values in (lowest, highest, plane))
        colour = _colour_sides(plane, images, places, reach, low.double(), high.double(), min_contrast)
        vote = ((value - low) / (high - low)).double() - 0.5 + COLOUR_WEIGHT * (colour - 0.5)
        snapped[places.unbind(1)] = torch.where(vote > 0, high, low)
    return snapped[:, None]


def _largest(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Return the largest value in a window of odd sides around each pixel, clipped to the plane."""
    across = F.max_pool2d(planes, (1, columns), stride=1, padding=(0, columns // 2))
    return F.max_pool2d(across, (rows, 1), stride=1, padding=(rows // 2, 0))


def _at(
    planes: Tensor,  # [T, H, W, ...]
    places: Tensor,  # int64 [N, 3]: frame, row, column
    down: int = 0,  # px
    right: int = 0,  # px
) -> Tensor:  # [N, ...]
    """Return the values at places, or beside them; the plane's border pixels are repeated outside of it."""
    height, width = planes.shape[1:3]
    frame, row, column = places.unbind(1)
    return planes[frame, (row + down).clamp(0, height - 1), (column + right).clamp(0, width - 1)]


def _slopes(
    disparity: Tensor,  # [T, H, W] px
    places: Tensor,  # int64 [N, 3]: frame, row, column
) -> Tensor:  # float64 [N]
    """Return what `_slope` does, at every place."""
    down = _at(disparity, places, down=1) - _at(disparity, places, down=-1)
    right = _at(disparity, places, right=1) - _at(disparity, places, right=-1)
    return torch.maximum(down.abs(), right.abs()).double() / 2


def _colour_sides(
    disparity: Tensor,  # [T, H, W] px
    images: Tensor,  # [T, H, W, 3]
    places: Tensor,  # int64 [N, 3]: frame, row, column
    reach: int,
    low: Tensor,  # float64 [N] px
    high: Tensor,  # float64 [N] px
    min_contrast: float,
) -> Tensor:  # float64 [N]
    """Return what `_colour_side` does, at every place; sums are made in the same order."""
    (height, width), margin = disparity.shape[1:], SIDE_SHARE * (high - low)
    sums = low.new_zeros(2, len(places), 3)  # of the near side and the far side
    counts = low.new_zeros(2, len(places), 1)
    _, row, column = places.unbind(1)
    offsets = range(-reach, reach + 1, max(1, (reach + SAMPLES - 1) // SAMPLES))
    for down in offsets:
        for right in offsets:
            inside = (row + down >= 0) & (row + down < height)
            inside &= (column + right >= 0) & (column + right < width)
            value = _at(disparity, places, down, right).double()
            near = inside & (value >= high - margin)
            far = inside & ~near & (value <= low + margin)
            sides = torch.stack([near, far])[..., None]
            sums += torch.where(sides, _at(images, places, down, right).double(), 0.0)
            counts += sides
    near_mean, far_mean = sums / counts
    products = (near_mean - far_mean) * (_at(images, places).double() - far_mean)
    squares = (near_mean - far_mean) ** 2
    along, contrast = (part[:, 0] + part[:, 1] + part[:, 2] for part in (products, squares))
    known = (counts > 0).all(0)[:, 0] & (contrast > min_contrast**2)
    return torch.where(known, (along / contrast).clamp(0, 1), 0.5)
