"""Splatting as Triton kernels: scatter into sums, then normalize the sums into images.

Float sums depend on the order of their terms, and atomics execute in any order. The default variant therefore
adds integers: one pass finds the largest share * weight that lands on each target pixel, a second pass adds
all contributions as fixed-point fractions of it, and division by the weight sum cancels the scale. The fast
variant adds float32 with unscaled weights: fewer and wider atomics, but not bit-reproducible.

Rows are independent, so the kernels process one band of rows at a time whose sums fit the GPU's cache.

Estimates, not measurements. Memory traffic: 40 bytes per pixel for float32 images and 22 for uint8
(disparity for the row maximum and for each scatter, image in, image and coverage out); fast variant 36 and
18. Sums, in the cache: 180 bytes per pixel; fast variant 80. Atomics per pixel: 10 of 64 bits and 2 of 32
bits, to adjacent addresses where the disparity is smooth; fast variant 2 of 4 x 32 bits and 2 of 32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from secondeye.imaging.backends import Configuration, make_configuration
from secondeye.splat.reference import MIN_EXPONENT, WEIGHT_FLOOR

# Why 40 bits: each contribution is scaled to [0, 2), the largest to at least 1, and truncated at 2 ** -40. So
# the sum of n pixels on one target is off by at most n * 2 ** -40 of itself, 1.5e-8 for n = 2 ** 14, however
# small their shares and weights. Their sum times the brightest colour is below
# n * 2 ** 41 * 255 < 2 ** 63: no overflow for 2 ** 14 pixels of 255, or of any colour up to 2 ** 22 / n.
# A pixel of weight 1 that lands alone and whole keeps every bit of a colour above 2 ** -17.
_UNIT = tl.constexpr(2.0**40)
_MIN_EXPONENT = tl.constexpr(MIN_EXPONENT)
_FLOOR = tl.constexpr(WEIGHT_FLOOR)
_LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
_BLOCK = tl.constexpr(256)  # columns per program: two per thread (our choice, not measured)
SUMS_BYTES = 44 << 20  # per band (our choice, not measured); an H100's L2 cache has 50 MB

# Do not specialize on these: for sizes divisible by 16 a kernel would load four pixels per thread and then
# exchange every atomic through shared memory, and a size of 1 would become a constant.
_SIZES = ["first_row", "height", "width", "plane"]


@triton.jit
def _landing_columns(
    disparity: tl.tensor,  # pointer to [rows, W] px
    nearest: tl.tensor,  # pointer to [rows] px, the maximum of each row
    row: tl.tensor,  # index over all frames
    x: tl.tensor,  # [BLOCK] source columns
    height: tl.tensor,
    width: tl.tensor,
    exponent_per_px: tl.tensor,
    RELEASED: tl.constexpr,  # the released border rule, see `splat`
) -> tl.tensor:  # left column, left share, right share (0: do not write), weight
    inside = x < width
    nearest_px = tl.load(nearest + row)
    disparity_px = tl.load(disparity + row.to(tl.int64) * width + x, mask=inside, other=nearest_px)
    landing = x.to(tl.float32) - disparity_px
    left = tl.floor(landing)
    if RELEASED:
        lands = inside & (left >= 0) & (left <= width - 2) & (row % height < height - 1)
    else:
        lands = inside & (left >= -1) & (left <= width - 1)
    # Masked before the conversion: positions outside may exceed the integer range.
    column = tl.where(lands, left, 0.0).to(tl.int32)
    left_share = tl.where(lands & (column >= 0), left + 1 - landing, 0.0)
    right_share = tl.where(lands & (column + 1 < width), landing - left, 0.0)
    nearness = exponent_per_px * tl.maximum(disparity_px - nearest_px, _LOWEST)  # 0 * -inf would be NaN
    return column, left_share, right_share, tl.exp2(tl.maximum(nearness, _MIN_EXPONENT))


@triton.jit(do_not_specialize=_SIZES)
def _find_largest(
    disparity: tl.tensor,  # [rows, W] px
    nearest: tl.tensor,  # [rows] px
    largest: tl.tensor,  # [band rows, W] int32, 0, written: the bits of the largest share * weight
    first_row: tl.tensor,  # of the band
    height: tl.tensor,
    width: tl.tensor,
    exponent_per_px: tl.tensor,
    RELEASED: tl.constexpr,
) -> None:
    band_row = tl.program_id(0)
    x = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    column, left_share, right_share, weight = _landing_columns(
        disparity, nearest, first_row + band_row, x, height, width, exponent_per_px, RELEASED
    )
    target = largest + band_row.to(tl.int64) * width + column
    # Non-negative floats compare like their bit patterns.
    left_bits = (left_share * weight).to(tl.int32, bitcast=True)
    right_bits = (right_share * weight).to(tl.int32, bitcast=True)
    tl.atomic_max(target, left_bits, mask=left_share > 0, sem="relaxed")
    tl.atomic_max(target + 1, right_bits, mask=right_share > 0, sem="relaxed")


@triton.jit
def _add_side(
    red: tl.tensor,  # [BLOCK]
    green: tl.tensor,
    blue: tl.tensor,
    share: tl.tensor,
    weight: tl.tensor,
    target: tl.tensor,  # [BLOCK] index into the band
    largest: tl.tensor,
    sums: tl.tensor,
    reached: tl.tensor,
    plane: tl.tensor,  # pixels per plane of `sums`
) -> None:
    lands = share > 0
    power = tl.load(largest + target, mask=lands, other=0) >> 23
    # Scales share * weight from [2 ** (power - 127), 2 ** (power - 126)) to [1, 2), exactly.
    amount = share * weight * ((254 - power) << 23).to(tl.float32, bitcast=True) * _UNIT
    tl.atomic_add(sums + target, (amount * red).to(tl.int64), mask=lands, sem="relaxed")
    tl.atomic_add(sums + plane + target, (amount * green).to(tl.int64), mask=lands, sem="relaxed")
    tl.atomic_add(sums + 2 * plane + target, (amount * blue).to(tl.int64), mask=lands, sem="relaxed")
    tl.atomic_add(sums + 3 * plane + target, amount.to(tl.int64), mask=lands, sem="relaxed")
    tl.atomic_add(reached + target, (share * _UNIT).to(tl.int64), mask=lands, sem="relaxed")


@triton.jit(do_not_specialize=_SIZES)
def _add_integers(
    frames: tl.tensor,  # float32 [T, 3, H, W] or uint8 [T, H, W, 3]
    disparity: tl.tensor,  # [rows, W] px
    nearest: tl.tensor,  # [rows] px
    largest: tl.tensor,  # [band rows, W] int32
    sums: tl.tensor,  # int64 [4, plane], 0, written: red, green, blue, weight
    reached: tl.tensor,  # int64 [plane], 0, written
    first_row: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    plane: tl.tensor,
    exponent_per_px: tl.tensor,
    RELEASED: tl.constexpr,
    PLANAR: tl.constexpr,
) -> None:
    band_row = tl.program_id(0)
    row = first_row + band_row
    x = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    column, left_share, right_share, weight = _landing_columns(
        disparity, nearest, row, x, height, width, exponent_per_px, RELEASED
    )
    offset, step = _pixel_offsets(row, x, height, width, PLANAR)
    inside = x < width
    red = tl.load(frames + offset, mask=inside, other=0).to(tl.float32)
    green = tl.load(frames + offset + step, mask=inside, other=0).to(tl.float32)
    blue = tl.load(frames + offset + 2 * step, mask=inside, other=0).to(tl.float32)
    target = band_row.to(tl.int64) * width + column
    _add_side(red, green, blue, left_share, weight, target, largest, sums, reached, plane)
    _add_side(red, green, blue, right_share, weight, target + 1, largest, sums, reached, plane)


@triton.jit
def _pixel_offsets(
    row: tl.tensor,  # index over all frames
    x: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    PLANAR: tl.constexpr,
) -> tl.tensor:  # offsets of the red values, and the step from red to green to blue
    if PLANAR:
        step = height.to(tl.int64) * width
        offset = ((row // height).to(tl.int64) * 3 * height + row % height) * width + x
    else:
        step = 1
        offset = (row.to(tl.int64) * width + x) * 3
    return offset, step


@triton.jit(do_not_specialize=_SIZES)
def _add_floats(
    frames: tl.tensor,  # as in `_add_integers`
    disparity: tl.tensor,
    nearest: tl.tensor,
    quads: tl.tensor,  # float32 [plane, 4], 0, written: interleaved red, green, blue, weight
    shares: tl.tensor,  # float32 [plane], 0, written
    first_row: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    exponent_per_px: tl.tensor,
    RELEASED: tl.constexpr,
    PLANAR: tl.constexpr,
) -> None:
    band_row = tl.program_id(0)
    row = first_row + band_row
    x = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    column, left_share, right_share, weight = _landing_columns(
        disparity, nearest, row, x, height, width, exponent_per_px, RELEASED
    )
    offset, step = _pixel_offsets(row, x, height, width, PLANAR)
    channel = tl.arange(0, 4)[None, :]
    is_colour = (x < width)[:, None] & (channel < 3)
    # The fourth channel is 1, for the weight sum. Four adjacent atomics are one instruction on sm_90.
    colour = tl.load(frames + offset[:, None] + step * channel, mask=is_colour, other=1).to(tl.float32)
    target = band_row.to(tl.int64) * width + column
    quad = quads + (4 * target)[:, None] + channel
    left, right = left_share > 0, right_share > 0
    weight *= _UNIT  # float atomics flush subnormals (below 2 ** -126) to 0
    tl.atomic_add(quad, colour * (left_share * weight)[:, None], mask=left[:, None], sem="relaxed")
    tl.atomic_add(quad + 4, colour * (right_share * weight)[:, None], mask=right[:, None], sem="relaxed")
    tl.atomic_add(shares + target, left_share, mask=left, sem="relaxed")
    tl.atomic_add(shares + target + 1, right_share, mask=right, sem="relaxed")


@triton.jit
def _write_pixels(
    red: tl.tensor,  # [BLOCK] sums
    green: tl.tensor,
    blue: tl.tensor,
    weight: tl.tensor,
    share: tl.tensor,
    warped: tl.tensor,  # shaped like the frames, written
    coverage: tl.tensor,  # [rows, W], written
    row: tl.tensor,
    x: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    PLANAR: tl.constexpr,
) -> None:
    inside = x < width
    offset, step = _pixel_offsets(row, x, height, width, PLANAR)
    weight = tl.maximum(weight, _FLOOR)
    # IEEE rounding, so that a colour divided by its own weight comes back unchanged.
    red, green, blue = tl.div_rn(red, weight), tl.div_rn(green, weight), tl.div_rn(blue, weight)
    if not PLANAR:
        red = tl.clamp(red + 0.5, 0.0, 255.0).to(tl.uint8)
        green = tl.clamp(green + 0.5, 0.0, 255.0).to(tl.uint8)
        blue = tl.clamp(blue + 0.5, 0.0, 255.0).to(tl.uint8)
    tl.store(warped + offset, red, mask=inside)
    tl.store(warped + offset + step, green, mask=inside)
    tl.store(warped + offset + 2 * step, blue, mask=inside)
    tl.store(coverage + row.to(tl.int64) * width + x, tl.minimum(share, 1.0), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def _normalize_integers(
    largest: tl.tensor,  # [plane], reset to 0, like the sums
    sums: tl.tensor,  # int64 [4, plane]
    reached: tl.tensor,  # int64 [plane]
    warped: tl.tensor,
    coverage: tl.tensor,
    first_row: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    plane: tl.tensor,
    PLANAR: tl.constexpr,
) -> None:
    band_row = tl.program_id(0)
    x = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    inside = x < width
    target = band_row.to(tl.int64) * width + x
    red = tl.load(sums + target, mask=inside, other=0).to(tl.float32)
    green = tl.load(sums + plane + target, mask=inside, other=0).to(tl.float32)
    blue = tl.load(sums + 2 * plane + target, mask=inside, other=0).to(tl.float32)
    weight = tl.load(sums + 3 * plane + target, mask=inside, other=0).to(tl.float32)
    share = tl.load(reached + target, mask=inside, other=0).to(tl.float32) * (1 / _UNIT)
    row = first_row + band_row
    _write_pixels(red, green, blue, weight, share, warped, coverage, row, x, height, width, PLANAR)
    zeros = tl.zeros([_BLOCK], tl.int64)
    tl.store(largest + target, zeros.to(tl.int32), mask=inside)
    tl.store(reached + target, zeros, mask=inside)
    for channel in tl.static_range(4):
        tl.store(sums + channel * plane + target, zeros, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def _normalize_floats(
    quads: tl.tensor,  # float32 [plane, 4]; reset to 0, like the shares
    shares: tl.tensor,  # float32 [plane]
    warped: tl.tensor,
    coverage: tl.tensor,
    first_row: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    PLANAR: tl.constexpr,
) -> None:
    band_row = tl.program_id(0)
    x = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    inside = x < width
    target = band_row.to(tl.int64) * width + x
    quad = quads + (4 * target)[:, None] + tl.arange(0, 4)[None, :]
    sums = tl.load(quad, mask=inside[:, None], other=0)
    even, odd = tl.split(sums.reshape([_BLOCK, 2, 2]))
    red, blue = tl.split(even)
    green, weight = tl.split(odd)
    share = tl.load(shares + target, mask=inside, other=0)
    row = first_row + band_row
    _write_pixels(red, green, blue, weight, share, warped, coverage, row, x, height, width, PLANAR)
    tl.store(quad, tl.zeros_like(sums), mask=inside[:, None])
    tl.store(shares + target, tl.zeros_like(share), mask=inside)


_TYPES = {
    "disparity": "*fp32",
    "nearest": "*fp32",
    "largest": "*i32",
    "sums": "*i64",
    "reached": "*i64",
    "quads": "*fp32",
    "shares": "*fp32",
    "coverage": "*fp32",
    "first_row": "i32",
    "height": "i32",
    "width": "i32",
    "plane": "i32",
    "exponent_per_px": "fp32",
}


def configure(
    kernel: Any,
    planar: bool,  # float32 [T, 3, H, W], else uint8 [T, H, W, 3]
    released: bool,  # the released border rule, see `splat`
) -> Configuration:
    """Return the configuration that a kernel is compiled with."""
    images = "*fp32" if planar else "*u8"
    types = _TYPES | {"frames": images, "warped": images}
    constants = {"RELEASED": released, "PLANAR": planar}
    return make_configuration(kernel, types, constants, {"num_warps": 4})


_DETERMINISTIC = (_find_largest, _add_integers, _normalize_integers)
_DETERMINISTIC_SUMS = {"largest": (1, torch.int32), "sums": (4, torch.int64), "reached": (1, torch.int64)}
_FAST = (_add_floats, _normalize_floats)
_FAST_SUMS = {"quads": (4, torch.float32), "shares": (1, torch.float32)}
CONFIGURATIONS = [
    configure(kernel, planar, released=False)
    for kernel in _DETERMINISTIC + _FAST
    for planar in (True, False)
    if planar or "PLANAR" in kernel.arg_names
]


def splat_triton(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    exponent_per_px: float,
    released: bool,  # the released border rule, see `splat`
    deterministic: bool,  # bit-reproducible; otherwise faster
) -> tuple[Tensor, Tensor]:  # warped in the form of the frames, coverage [T, 1, H, W] in [0, 1]
    """Splat CUDA tensors (or CPU tensors, interpreted) like `splat_reference`, without gradients."""
    planar = frames.dtype == torch.float32
    frames, disparity = frames.contiguous(), disparity.contiguous()
    count, _, height, width = disparity.shape
    rows = count * height
    arguments: dict[str, Any] = {
        "frames": frames,
        "disparity": disparity,
        "nearest": disparity.amax(-1),
        "warped": torch.empty_like(frames),
        "coverage": torch.empty_like(disparity),
        "height": height,
        "width": width,
        "exponent_per_px": float(exponent_per_px),
    }
    kernels, sums = (_DETERMINISTIC, _DETERMINISTIC_SUMS) if deterministic else (_FAST, _FAST_SUMS)
    bytes_per_row = width * sum(number * dtype.itemsize for number, dtype in sums.values())
    band = min(rows, max(1, SUMS_BYTES // bytes_per_row))
    arguments["plane"] = band * width
    for name, (number, dtype) in sums.items():
        arguments[name] = disparity.new_zeros(number * band * width, dtype=dtype)
    configurations = [configure(kernel, planar, released) for kernel in kernels]
    with torch.cuda.device_of(frames):
        for first_row in range(0, rows, band):
            arguments["first_row"] = first_row
            grid = (min(band, rows - first_row), triton.cdiv(width, _BLOCK.value))
            for kernel, types, constants, options in configurations:
                kernel[grid](*(arguments[name] for name in types), **constants, **options)
    return arguments["warped"], arguments["coverage"]
