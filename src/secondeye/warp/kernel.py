"""The sharp warp as two Triton kernels: source pixels claim target pixels, which then gather their colours.

A claim is a source column plus 1; 0 means no claim. The largest claim wins in any order of execution, and
coverage is counted in integer units, so the result is bit-reproducible.

Rows are independent, so the kernels process one band of rows at a time whose claims fit the GPU's cache.

Estimates, not measurements. Memory traffic: 22 bytes per pixel for uint8 images and 40 for float32
(disparity for each kernel, image in; image, coverage and disparity out). Claims and coverage changes, in the
cache: 28 bytes per pixel. 32-bit atomics: one per pixel inside a surface, up to six more at each run's end.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from secondeye.imaging.backends import Configuration, make_configuration
from secondeye.warp.reference import COVERAGE_UNIT

_UNIT = tl.constexpr(COVERAGE_UNIT)
_BLOCK = tl.constexpr(128)  # columns per program: two per thread (our choice, not measured)
BAND_BYTES = 32 << 20  # of claims and changes (our choice, not measured); an H100's L2 cache has 50 MB
_SIZES = ["first_row", "height", "width"]  # specializing on sizes divisible by 16 gains nothing


@triton.jit(do_not_specialize=_SIZES)
def _claim(
    disparity: tl.tensor,  # [rows, W] px
    segments: tl.tensor,  # [band rows, W] int32, 0, written
    caps: tl.tensor,  # [band rows, W] int32, 0, written
    change: tl.tensor,  # [band rows, W] int32, 0, written: coverage change from the previous column
    first_row: tl.tensor,  # of the band
    width: tl.tensor,
    jump_px: tl.tensor,
) -> None:
    band_row = tl.program_id(0).to(tl.int64)
    row = disparity + (first_row + band_row) * width
    segments += band_row * width
    caps += band_row * width
    change += band_row * width
    x = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    inside = x < width
    left = tl.load(row + x - 1, mask=inside & (x > 0), other=0.0)
    own_px = tl.load(row + x, mask=inside, other=0.0)
    right = tl.load(row + x + 1, mask=x + 1 < width, other=0.0)
    connected_left = inside & (x > 0) & (tl.abs(own_px - left) <= jump_px)
    connected_right = (x + 1 < width) & (tl.abs(right - own_px) <= jump_px)
    before = (x - 1).to(tl.float32) - left
    here = x.to(tl.float32) - own_px
    after = (x + 1).to(tl.float32) - right

    # Pixel centres between this position and that of the next source pixel.
    first = _to_column(tl.ceil(here), width)
    beyond = tl.where(connected_right, _to_column(tl.ceil(after), width), first)
    for step in range(tl.max(beyond - first, axis=0)):
        column = first + step
        tl.atomic_max(segments + column, x + 1, mask=column < beyond, sem="relaxed")

    begins = inside & ~(connected_left & (here > before))
    ends = inside & ~(connected_right & (after > here))
    if tl.max((begins | ends).to(tl.int32), axis=0) > 0:  # true in few programs
        _claim_cap(caps, tl.floor(here), x, inside & ~connected_left, width)
        _claim_cap(caps, tl.ceil(here), x, inside & ~connected_right, width)
        _add_coverage_edge(change, tl.where(connected_left, here, here - 0.5), 1, begins, width)
        _add_coverage_edge(change, tl.where(connected_right, here, here + 0.5), -1, ends, width)


@triton.jit
def _to_column(
    position: tl.tensor,  # whole numbers
    width: tl.tensor,
) -> tl.tensor:  # int32, 0 to W
    # Clamp before the conversion: positions outside may exceed the integer range.
    return tl.clamp(position, 0.0, width.to(tl.float32)).to(tl.int32)


@triton.jit
def _claim_cap(
    caps: tl.tensor,
    pixel: tl.tensor,  # whole numbers: the target column of the cap
    x: tl.tensor,  # source column of the cap
    exists: tl.tensor,  # whether there is such a cap
    width: tl.tensor,
) -> None:
    mask = exists & (pixel >= 0) & (pixel < width.to(tl.float32))
    tl.atomic_max(caps + tl.where(mask, pixel, 0.0).to(tl.int32), x + 1, mask=mask, sem="relaxed")


@triton.jit
def _add_coverage_edge(
    change: tl.tensor,
    edge: tl.tensor,  # target position where the coverage of a run starts (SIGN 1) or stops (SIGN -1)
    SIGN: tl.constexpr,
    exists: tl.tensor,  # whether there is such an edge
    width: tl.tensor,
) -> None:
    edge = tl.clamp(edge, -0.5, width.to(tl.float32) - 0.5)
    whole = tl.floor(edge + 0.5)
    before = tl.floor((edge - (whole - 0.5)) * _UNIT + 0.5).to(tl.int32)
    column = whole.to(tl.int32)
    tl.atomic_add(change + column, SIGN * (-before + _UNIT), mask=exists & (column < width), sem="relaxed")
    mask = exists & (column + 1 < width) & (before > 0)
    tl.atomic_add(change + column + 1, SIGN * before, mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=_SIZES)
def _gather(
    frames: tl.tensor,  # float32 [T, 3, H, W] or uint8 [T, H, W, 3]
    disparity: tl.tensor,  # [rows, W] px
    segments: tl.tensor,  # [band rows, W] int32
    caps: tl.tensor,  # [band rows, W] int32
    change: tl.tensor,  # [band rows, W] int32
    warped: tl.tensor,  # shaped like the frames, written
    coverage: tl.tensor,  # [rows, W], written
    own_disparity: tl.tensor,  # [rows, W], written
    first_row: tl.tensor,  # of the band
    height: tl.tensor,
    width: tl.tensor,
    jump_px: tl.tensor,
    SHARP: tl.constexpr,
    PLANAR: tl.constexpr,
) -> None:
    band_row = tl.program_id(0).to(tl.int64)
    row = first_row + band_row
    segments += band_row * width
    caps += band_row * width
    change += band_row * width
    disparity += row * width
    coverage += row * width
    own_disparity += row * width
    if PLANAR:
        stride, plane = 1, height.to(tl.int64) * width
        pixels = (row // height * 3 * height + row % height) * width
    else:
        stride, plane = 3, 1
        pixels = row * width * 3
    frames += pixels
    warped += pixels
    units_before = 0
    for begin in range(0, width, _BLOCK):
        target = begin + tl.arange(0, _BLOCK)
        inside = target < width
        segment = tl.load(segments + target, mask=inside, other=0) - 1
        cap = tl.load(caps + target, mask=inside, other=0) - 1
        step = tl.load(change + target, mask=inside, other=0)
        units = units_before + tl.cumsum(step, axis=0)
        units_before += tl.sum(step, axis=0)
        segment = tl.where(units > 0, segment, -1)
        cap = tl.where(units > 0, cap, -1)
        share = tl.minimum(units, _UNIT).to(tl.float32) * (1 / _UNIT)
        share = tl.where((segment >= 0) | (cap >= 0), share, 0.0)
        tl.store(coverage + target, share, mask=inside)

        shown = _gather_segment(frames, disparity, target, segment, width, jump_px, stride, plane, SHARP)
        if tl.max((cap > segment).to(tl.int32), axis=0) > 0:  # true in few blocks
            shown = _composite_cap(
                shown, frames, disparity, target, segment, cap, width, jump_px, stride, plane, SHARP
            )
        red, green, blue, own_px = shown
        tl.store(own_disparity + target, own_px, mask=inside)
        if not PLANAR:
            red, green, blue = red + 0.5, green + 0.5, blue + 0.5
        written = warped + stride * target
        kind = warped.dtype.element_ty
        tl.store(written, red.to(kind), mask=inside)
        tl.store(written + plane, green.to(kind), mask=inside)
        tl.store(written + 2 * plane, blue.to(kind), mask=inside)


@triton.jit
def _gather_segment(
    frames: tl.tensor,  # pointer to the red of a row
    disparity: tl.tensor,  # pointer to [W] px
    target: tl.tensor,  # [BLOCK] columns
    segment: tl.tensor,  # [BLOCK] source column of the visible segment, -1 if none
    width: tl.tensor,
    jump_px: tl.tensor,
    stride: tl.tensor,  # step from pixel to pixel
    plane: tl.tensor,  # step from colour to colour
    SHARP: tl.constexpr,
) -> tl.tensor:  # red, green, blue and disparity in px, 0 where no segment is visible; [BLOCK] each
    reached = segment >= 0
    # Without a segment column 0 is read instead: inside the row, so it needs no mask, and never used.
    x = tl.where(reached, segment, 0)
    row_disparity = disparity + x
    d2 = tl.load(row_disparity)
    d3 = tl.load(row_disparity + 1, mask=reached, other=0.0)
    here = x.to(tl.float32) - d2
    following = (x + 1).to(tl.float32) - d3
    share = tl.where(reached, target.to(tl.float32) - here, 0.0) / tl.where(reached, following - here, 1.0)
    own_px = tl.where(reached, d2 + share * (d3 - d2), 0.0)
    # Distances to the outer taps, clamped to the ends of the surface.
    behind, behind2, ahead = 0, 0, tl.where(reached, 1, 0)
    ahead2, ahead3 = ahead, ahead
    if SHARP:
        d0 = tl.load(row_disparity - 2, mask=x >= 2, other=0.0)
        d1 = tl.load(row_disparity - 1, mask=x >= 1, other=0.0)
        d4 = tl.load(row_disparity + 2, mask=x + 2 < width, other=0.0)
        d5 = tl.load(row_disparity + 3, mask=x + 3 < width, other=0.0)
        connected_left = (x >= 1) & (tl.abs(d2 - d1) <= jump_px)
        connected_left2 = connected_left & (x >= 2) & (tl.abs(d1 - d0) <= jump_px)
        connected_right = (x + 2 < width) & (tl.abs(d4 - d3) <= jump_px)
        connected_right2 = connected_right & (x + 3 < width) & (tl.abs(d5 - d4) <= jump_px)
        behind = connected_left.to(tl.int32)
        behind2 = behind + connected_left2.to(tl.int32)
        ahead2 = ahead + connected_right.to(tl.int32)
        ahead3 = ahead2 + connected_right2.to(tl.int32)
    c0 = frames + stride * (x - behind2)
    c1 = frames + stride * (x - behind)
    c2 = frames + stride * x
    c3 = frames + stride * (x + ahead)
    c4 = frames + stride * (x + ahead2)
    c5 = frames + stride * (x + ahead3)
    red = _filter(c0, c1, c2, c3, c4, c5, share, SHARP)
    green = _filter(c0 + plane, c1 + plane, c2 + plane, c3 + plane, c4 + plane, c5 + plane, share, SHARP)
    plane *= 2
    blue = _filter(c0 + plane, c1 + plane, c2 + plane, c3 + plane, c4 + plane, c5 + plane, share, SHARP)
    return tl.where(reached, red, 0.0), tl.where(reached, green, 0.0), tl.where(reached, blue, 0.0), own_px


@triton.jit
def _filter(
    c0: tl.tensor,  # pointers to the colours of the columns -2 to 3
    c1: tl.tensor,
    c2: tl.tensor,
    c3: tl.tensor,
    c4: tl.tensor,
    c5: tl.tensor,
    share: tl.tensor,  # position between columns 0 and 1, [0, 1]
    SHARP: tl.constexpr,
) -> tl.tensor:  # [BLOCK]
    c2 = tl.load(c2).to(tl.float32)
    c3 = tl.load(c3).to(tl.float32)
    if not SHARP:
        return (1 - share) * c2 + share * c3
    c0 = tl.load(c0).to(tl.float32)
    c1 = tl.load(c1).to(tl.float32)
    c4 = tl.load(c4).to(tl.float32)
    c5 = tl.load(c5).to(tl.float32)
    w0, w1, w2, w3, w4, w5 = _lanczos3(share)
    colour = c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3 + c4 * w4 + c5 * w5
    darkest = tl.minimum(tl.minimum(c1, c2), tl.minimum(c3, c4))
    brightest = tl.maximum(tl.maximum(c1, c2), tl.maximum(c3, c4))
    return tl.minimum(tl.maximum(colour, darkest), brightest)


@triton.jit
def _composite_cap(
    shown: tl.tensor,  # red, green, blue and disparity in px; [BLOCK] each
    frames: tl.tensor,  # as in `_gather_segment`
    disparity: tl.tensor,
    target: tl.tensor,
    segment: tl.tensor,
    cap: tl.tensor,  # [BLOCK] source column of the cap, -1 if none
    width: tl.tensor,
    jump_px: tl.tensor,
    stride: tl.tensor,
    plane: tl.tensor,
    SHARP: tl.constexpr,
) -> tl.tensor:  # `shown` with caps composited where they are nearer than the segment
    red, green, blue, own_px = shown
    laid = cap > segment
    x = tl.where(laid, cap, 0)
    row_disparity = disparity + x
    d0 = tl.load(row_disparity)
    away = target.to(tl.float32) - (x.to(tl.float32) - d0)
    share = tl.where(laid, tl.where(segment < 0, 1.0, 1 - tl.abs(away)), 0.0)
    own_px = tl.where(share >= 0.5, d0, own_px)
    # The surface ends at x, so all taps beyond x are x itself.
    inward = tl.where(away > 0, -1, 1)
    one, two = x, x
    if SHARP:
        has_one = (x + inward >= 0) & (x + inward < width)
        has_two = (x + 2 * inward >= 0) & (x + 2 * inward < width)
        d1 = tl.load(row_disparity + inward, mask=has_one, other=0.0)
        d2 = tl.load(row_disparity + 2 * inward, mask=has_two, other=0.0)
        connected = has_one & (tl.abs(d1 - d0) <= jump_px)
        connected2 = connected & has_two & (tl.abs(d2 - d1) <= jump_px)
        one = x + inward * connected.to(tl.int32)
        two = one + inward * connected2.to(tl.int32)
    c0 = frames + stride * x
    c1 = frames + stride * one
    c2 = frames + stride * two
    away = tl.minimum(tl.abs(away), 0.5)
    red = _blend(red, c0, c1, c2, away, share, SHARP)
    green = _blend(green, c0 + plane, c1 + plane, c2 + plane, away, share, SHARP)
    blue = _blend(blue, c0 + 2 * plane, c1 + 2 * plane, c2 + 2 * plane, away, share, SHARP)
    return red, green, blue, own_px


@triton.jit
def _blend(
    below: tl.tensor,  # [BLOCK]
    c0: tl.tensor,  # pointers to the colours of a surface's last column and its two inner neighbours
    c1: tl.tensor,
    c2: tl.tensor,
    away: tl.tensor,  # px outwards from the last column, [0, 0.5]
    share: tl.tensor,
    SHARP: tl.constexpr,
) -> tl.tensor:  # [BLOCK]
    colour = tl.load(c0).to(tl.float32)
    if SHARP:
        c0 = colour
        c1 = tl.load(c1).to(tl.float32)
        c2 = tl.load(c2).to(tl.float32)
        w2, w1, _, _, _, _ = _lanczos3(away)
        colour = w2 * c2 + w1 * c1 + (1 - w2 - w1) * c0
        colour = tl.minimum(tl.maximum(colour, tl.minimum(c0, c1)), tl.maximum(c0, c1))
    return (1 - share) * below + share * colour


@triton.jit
def _lanczos3(
    share: tl.tensor,  # u, [0, 1]
) -> tl.tensor:  # six weights, summing to 1, of the columns -2 to 3
    """Approximate normalized Lanczos-3 weights to 5e-7; exactly 0 and 1 at the columns themselves.

    Linear interpolation plus u (1 - u) times a polynomial, fitted to the normalized window by least squares
    in v = u - 1/2 (ours). Negating v mirrors the weights. The even parts sum to 0, because linear
    interpolation already sums to 1.
    """
    v = share - 0.5
    square = v * v
    bump = 0.25 - square
    even2 = 0.445651191 + square * (-0.147860475 + square * (0.0906710986 - square * 0.0548665753))
    even1 = -0.543477626 + square * (0.109085356 + square * (-0.0188397857 + square * 0.0328674347))
    even0 = -even1 - even2
    odd2 = v * (-1.34668184 + square * (0.794024702 + square * (-0.455466054 + square * 0.23295421)))
    odd1 = v * (0.724635269 + square * (-0.467304973 + square * (0.228726003 - square * 0.119148064)))
    odd0 = v * (-0.255696741 + square * (0.217085607 + square * (-0.0971352628 + square * 0.0479315454)))
    w0, w5 = bump * (even0 + odd0), bump * (even0 - odd0)
    w1, w4 = bump * (even1 + odd1), bump * (even1 - odd1)
    w2, w3 = 1 - share + bump * (even2 + odd2), share + bump * (even2 - odd2)
    return w0, w1, w2, w3, w4, w5


_TYPES = {
    "disparity": "*fp32",
    "segments": "*i32",
    "caps": "*i32",
    "change": "*i32",
    "coverage": "*fp32",
    "own_disparity": "*fp32",
    "first_row": "i32",
    "height": "i32",
    "width": "i32",
    "jump_px": "fp32",
}


def configure(
    kernel: Any,
    planar: bool,  # float32 [T, 3, H, W], else uint8 [T, H, W, 3]
    sharp: bool,  # Lanczos-3, otherwise bilinear
) -> Configuration:
    """Return the configuration that a kernel is compiled with."""
    images = "*fp32" if planar else "*u8"
    types = _TYPES | {"frames": images, "warped": images}
    constants = {"SHARP": sharp, "PLANAR": planar}
    # Positions must round exactly as in the reference (no fused multiply-add); colours need not.
    return make_configuration(
        kernel, types, constants, {"num_warps": _BLOCK.value // 64, "enable_fp_fusion": kernel is _gather}
    )


CONFIGURATIONS = [
    configure(_claim, planar=True, sharp=True),
    *(configure(_gather, planar, sharp) for planar in (True, False) for sharp in (True, False)),
]


def warp_triton(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    sharp: bool,  # Lanczos-3, otherwise bilinear
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames in the form given, coverage and disparity [T, 1, H, W]
    """Warp CUDA tensors, or CPU tensors in Triton's interpreter, like `warp_reference`."""
    planar = frames.dtype == torch.float32
    frames, disparity = frames.contiguous(), disparity.contiguous()
    count, _, height, width = disparity.shape
    rows = count * height
    band = min(rows, max(1, BAND_BYTES // (12 * width)))
    segments, caps, change = scratch = disparity.new_empty(3, band, width, dtype=torch.int32)
    arguments: dict[str, Any] = {
        "frames": frames,
        "disparity": disparity,
        "segments": segments,
        "caps": caps,
        "change": change,
        "warped": torch.empty_like(frames),
        "coverage": torch.empty_like(disparity),
        "own_disparity": torch.empty_like(disparity),
        "height": height,
        "width": width,
        "jump_px": float(jump_px),
    }
    claim, gather = (configure(kernel, planar, sharp) for kernel in (_claim, _gather))
    with torch.cuda.device_of(frames):
        for first_row in range(0, rows, band):
            scratch.zero_()
            arguments["first_row"] = first_row
            band_rows = min(band, rows - first_row)
            for (kernel, types, constants, options), grid in [
                (claim, (band_rows, triton.cdiv(width, _BLOCK.value))),
                (gather, (band_rows,)),
            ]:
                kernel[grid](*(arguments[name] for name in types), **constants, **options)
    return arguments["warped"], arguments["coverage"], arguments["own_disparity"]
