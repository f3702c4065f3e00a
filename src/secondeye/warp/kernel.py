"""The sharp warp as two Triton kernels: source pixels claim target pixels, which then gather their colours.

A claim is the number of a source column plus 1, so that 0 is no claim. The largest wins in whatever order
they come, and coverage is counted in whole units: the bits are the same every time.

Rows do not see each other, so a band of rows is done at a time, with claims that fit the GPU's cache.

Estimates, not measurements. Memory: 22 bytes a pixel for uint8 pictures and 40 for float32 (disparity for
each kernel, picture in; picture, coverage and disparity out). Claims and changes of coverage, in the cache:
28 bytes a pixel. Atomics of 32 bits: one a pixel inside a surface, and up to six more where a run ends.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from secondeye.imaging.backends import Configuration, configuration_of
from secondeye.warp.reference import COVERAGE_UNIT

_UNIT = tl.constexpr(COVERAGE_UNIT)
_BLOCK = tl.constexpr(128)  # columns of a program: two a thread (ours, not measured)
BAND_BYTES = 32 << 20  # of claims and changes (ours, not measured): an H100's cache has 50 MB
_SIZES = ["first_row", "height", "width"]  # a variant for a size that 16 divides would gain nothing


@triton.jit(do_not_specialize=_SIZES)
def _claim(
    disparity: tl.tensor,  # [rows, W] px
    ways: tl.tensor,  # [band rows, W] int32, 0, written
    caps: tl.tensor,  # [band rows, W] int32, 0, written
    change: tl.tensor,  # [band rows, W] int32, 0, written: of the coverage, from the column before
    first_row: tl.tensor,  # of the band
    width: tl.tensor,
    jump_px: tl.tensor,
) -> None:
    band_row = tl.program_id(0).to(tl.int64)
    row = disparity + (first_row + band_row) * width
    ways += band_row * width
    caps += band_row * width
    change += band_row * width
    x = tl.program_id(1) * _BLOCK + tl.arange(0, _BLOCK)
    inside = x < width
    left = tl.load(row + x - 1, mask=inside & (x > 0), other=0.0)
    own = tl.load(row + x, mask=inside, other=0.0)
    right = tl.load(row + x + 1, mask=x + 1 < width, other=0.0)
    joined_left = inside & (x > 0) & (tl.abs(own - left) <= jump_px)
    joined_right = (x + 1 < width) & (tl.abs(right - own) <= jump_px)
    before = (x - 1).to(tl.float32) - left
    here = x.to(tl.float32) - own
    after = (x + 1).to(tl.float32) - right

    # The centres on the way to the next pixel.
    first = _column(tl.ceil(here), width)
    beyond = tl.where(joined_right, _column(tl.ceil(after), width), first)
    for step in range(tl.max(beyond - first, axis=0)):
        column = first + step
        tl.atomic_max(ways + column, x + 1, mask=column < beyond, sem="relaxed")

    begins = inside & ~(joined_left & (here > before))
    ends = inside & ~(joined_right & (after > here))
    if tl.max((begins | ends).to(tl.int32), axis=0) > 0:  # in few programs
        _stand(caps, tl.floor(here), x, inside & ~joined_left, width)
        _stand(caps, tl.ceil(here), x, inside & ~joined_right, width)
        _cover(change, tl.where(joined_left, here, here - 0.5), 1, begins, width)
        _cover(change, tl.where(joined_right, here, here + 0.5), -1, ends, width)


@triton.jit
def _column(
    position: tl.tensor,  # whole
    width: tl.tensor,
) -> tl.tensor:  # int32, 0 to W
    # Before it becomes an integer: what lands outside may be beyond any.
    return tl.clamp(position, 0.0, width.to(tl.float32)).to(tl.int32)


@triton.jit
def _stand(
    caps: tl.tensor,
    pixel: tl.tensor,  # whole: the target column in which a cap stands
    x: tl.tensor,  # to which it belongs
    there: tl.tensor,  # whether there is such a cap
    width: tl.tensor,
) -> None:
    mask = there & (pixel >= 0) & (pixel < width.to(tl.float32))
    tl.atomic_max(caps + tl.where(mask, pixel, 0.0).to(tl.int32), x + 1, mask=mask, sem="relaxed")


@triton.jit
def _cover(
    change: tl.tensor,
    edge: tl.tensor,  # target position from which on a run covers, or no longer does
    SIGN: tl.constexpr,
    there: tl.tensor,  # whether there is such an edge
    width: tl.tensor,
) -> None:
    edge = tl.clamp(edge, -0.5, width.to(tl.float32) - 0.5)
    whole = tl.floor(edge + 0.5)
    before = tl.floor((edge - (whole - 0.5)) * _UNIT + 0.5).to(tl.int32)
    column = whole.to(tl.int32)
    tl.atomic_add(change + column, SIGN * (-before + _UNIT), mask=there & (column < width), sem="relaxed")
    mask = there & (column + 1 < width) & (before > 0)
    tl.atomic_add(change + column + 1, SIGN * before, mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=_SIZES)
def _gather(
    frames: tl.tensor,  # float32 [T, 3, H, W] or uint8 [T, H, W, 3]
    disparity: tl.tensor,  # [rows, W] px
    ways: tl.tensor,  # [band rows, W] int32
    caps: tl.tensor,  # [band rows, W] int32
    change: tl.tensor,  # [band rows, W] int32
    warped: tl.tensor,  # as the frames, written
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
    ways += band_row * width
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
        way = tl.load(ways + target, mask=inside, other=0) - 1
        cap = tl.load(caps + target, mask=inside, other=0) - 1
        step = tl.load(change + target, mask=inside, other=0)
        units = units_before + tl.cumsum(step, axis=0)
        units_before += tl.sum(step, axis=0)
        way = tl.where(units > 0, way, -1)
        cap = tl.where(units > 0, cap, -1)
        share = tl.where((way >= 0) | (cap >= 0), tl.minimum(units, _UNIT).to(tl.float32) * (1 / _UNIT), 0.0)
        tl.store(coverage + target, share, mask=inside)

        shown = _follow_way(frames, disparity, target, way, width, jump_px, stride, plane, SHARP)
        if tl.max((cap > way).to(tl.int32), axis=0) > 0:  # in few blocks
            shown = _lay_cap(shown, frames, disparity, target, way, cap, width, jump_px, stride, plane, SHARP)
        red, green, blue, own = shown
        tl.store(own_disparity + target, own, mask=inside)
        if not PLANAR:
            red, green, blue = red + 0.5, green + 0.5, blue + 0.5
        written = warped + stride * target
        kind = warped.dtype.element_ty
        tl.store(written, red.to(kind), mask=inside)
        tl.store(written + plane, green.to(kind), mask=inside)
        tl.store(written + 2 * plane, blue.to(kind), mask=inside)


@triton.jit
def _follow_way(
    frames: tl.tensor,  # pointer to the red of a row
    disparity: tl.tensor,  # pointer to [W] px
    target: tl.tensor,  # [BLOCK] columns
    way: tl.tensor,  # [BLOCK] source column, or -1 for none
    width: tl.tensor,
    jump_px: tl.tensor,
    stride: tl.tensor,  # from pixel to pixel
    plane: tl.tensor,  # from colour to colour
    SHARP: tl.constexpr,
) -> tl.tensor:  # red, green, blue and px of disparity, 0 where there is no way; [BLOCK] each
    reached = way >= 0
    # Where there is none all that is read lies in the row, needs no mask, and is not used.
    x = tl.where(reached, way, 0)
    near = disparity + x
    d2 = tl.load(near)
    d3 = tl.load(near + 1, mask=reached, other=0.0)
    here = x.to(tl.float32) - d2
    following = (x + 1).to(tl.float32) - d3
    share = tl.where(reached, target.to(tl.float32) - here, 0.0) / tl.where(reached, following - here, 1.0)
    own = tl.where(reached, d2 + share * (d3 - d2), 0.0)
    # How far the columns beside the two are, where they are of their surface, else its last.
    behind, behind2, ahead = 0, 0, tl.where(reached, 1, 0)
    ahead2, ahead3 = ahead, ahead
    if SHARP:
        d0 = tl.load(near - 2, mask=x >= 2, other=0.0)
        d1 = tl.load(near - 1, mask=x >= 1, other=0.0)
        d4 = tl.load(near + 2, mask=x + 2 < width, other=0.0)
        d5 = tl.load(near + 3, mask=x + 3 < width, other=0.0)
        joined_left = (x >= 1) & (tl.abs(d2 - d1) <= jump_px)
        joined_left2 = joined_left & (x >= 2) & (tl.abs(d1 - d0) <= jump_px)
        joined_right = (x + 2 < width) & (tl.abs(d4 - d3) <= jump_px)
        joined_right2 = joined_right & (x + 3 < width) & (tl.abs(d5 - d4) <= jump_px)
        behind = joined_left.to(tl.int32)
        behind2 = behind + joined_left2.to(tl.int32)
        ahead2 = ahead + joined_right.to(tl.int32)
        ahead3 = ahead2 + joined_right2.to(tl.int32)
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
    return tl.where(reached, red, 0.0), tl.where(reached, green, 0.0), tl.where(reached, blue, 0.0), own


@triton.jit
def _filter(
    c0: tl.tensor,  # pointers to the colours of the columns -2 to 3
    c1: tl.tensor,
    c2: tl.tensor,
    c3: tl.tensor,
    c4: tl.tensor,
    c5: tl.tensor,
    share: tl.tensor,  # of the way from column 0 to column 1
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
def _lay_cap(
    shown: tl.tensor,  # red, green, blue and px of disparity; [BLOCK] each
    frames: tl.tensor,  # as above
    disparity: tl.tensor,
    target: tl.tensor,
    way: tl.tensor,
    cap: tl.tensor,  # [BLOCK] source column, or -1 for none
    width: tl.tensor,
    jump_px: tl.tensor,
    stride: tl.tensor,
    plane: tl.tensor,
    SHARP: tl.constexpr,
) -> tl.tensor:  # the same, changed where the cap is nearer than the way
    red, green, blue, own = shown
    laid = cap > way
    x = tl.where(laid, cap, 0)
    near = disparity + x
    d0 = tl.load(near)
    away = target.to(tl.float32) - (x.to(tl.float32) - d0)
    share = tl.where(laid, tl.where(way < 0, 1.0, 1 - tl.abs(away)), 0.0)
    own = tl.where(share >= 0.5, d0, own)
    # On the far side of x the surface has ended, and so all columns there are x.
    inward = tl.where(away > 0, -1, 1)
    one, two = x, x
    if SHARP:
        has_one = (x + inward >= 0) & (x + inward < width)
        has_two = (x + 2 * inward >= 0) & (x + 2 * inward < width)
        d1 = tl.load(near + inward, mask=has_one, other=0.0)
        d2 = tl.load(near + 2 * inward, mask=has_two, other=0.0)
        joined = has_one & (tl.abs(d1 - d0) <= jump_px)
        joined2 = joined & has_two & (tl.abs(d2 - d1) <= jump_px)
        one = x + inward * joined.to(tl.int32)
        two = one + inward * joined2.to(tl.int32)
    c0 = frames + stride * x
    c1 = frames + stride * one
    c2 = frames + stride * two
    away = tl.minimum(tl.abs(away), 0.5)
    red = _blend(red, c0, c1, c2, away, share, SHARP)
    green = _blend(green, c0 + plane, c1 + plane, c2 + plane, away, share, SHARP)
    blue = _blend(blue, c0 + 2 * plane, c1 + 2 * plane, c2 + 2 * plane, away, share, SHARP)
    return red, green, blue, own


@triton.jit
def _blend(
    below: tl.tensor,  # [BLOCK]
    c0: tl.tensor,  # pointers to the colours of a surface's last column and the two before
    c1: tl.tensor,
    c2: tl.tensor,
    away: tl.tensor,  # px from the last column outwards, [0, 0.5]
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
    """Linear interpolation plus u (1 - u) times a polynomial: exactly 0 and 1 on the columns themselves.

    Fitted to the window divided by its sum, to 5e-7, by least squares in v = u - 1/2 (ours): turning v round
    mirrors the weights. The even parts cancel each other, for linear interpolation has the sum 1 already.
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
    "ways": "*i32",
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
    sharp: bool,  # Lanczos-3, else bilinear
) -> Configuration:
    """Choose what a kernel is compiled with. Its arguments' names decide what it needs."""
    pictures = "*fp32" if planar else "*u8"
    types = _TYPES | {"frames": pictures, "warped": pictures}
    constants = {"SHARP": sharp, "PLANAR": planar}
    # Where a surface lies must be computed as the reference does; its colours may contract.
    return configuration_of(
        kernel, types, constants, {"num_warps": _BLOCK.value // 64, "enable_fp_fusion": kernel is _gather}
    )


CONFIGURATIONS = [
    configure(_claim, planar=True, sharp=True),
    *(configure(_gather, planar, sharp) for planar in (True, False) for sharp in (True, False)),
]


def warp_triton(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    sharp: bool,  # Lanczos-3, else bilinear
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames in the form given, coverage and disparity [T, 1, H, W]
    """Warp CUDA tensors, or CPU tensors in Triton's interpreter; as `warp_reference`."""
    planar = frames.dtype == torch.float32
    frames, disparity = frames.contiguous(), disparity.contiguous()
    count, _, height, width = disparity.shape
    rows = count * height
    band = min(rows, max(1, BAND_BYTES // (12 * width)))
    ways, caps, change = scratch = disparity.new_empty(3, band, width, dtype=torch.int32)
    arguments: dict[str, Any] = {
        "frames": frames,
        "disparity": disparity,
        "ways": ways,
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
