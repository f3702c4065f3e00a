"""Rays through every pixel of one eye, met with every surface in closed form, composed front to back.

A surface is a card or an ellipsoid in *its own* coordinates, where it is the square [-1, 1] x [-1, 1] at
depth 0 or the unit ball. `inverse` carries camera coordinates (x right, y down, z forward, m) into those.
Distances are kept as inverse depth (1 / m), because disparity is focal x baseline x inverse depth.
Everything compiled lives in this one file: numba's cache does not notice a change in another one.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

HALF_OPAQUE = 0.5  # a surface this opaque owns the pixel's disparity
HIDDEN_BY_PX = 0.5  # a point is hidden when something this much nearer stands before it
NEAREST_M = 0.05  # nothing closer to the eye is seen
FAINT = 0.004  # less than one step of 8 bits
MOST_TAPS = 6  # texture samples along the long axis of a pixel's footprint on a slanted surface


SURFACE = np.dtype(  # what a surface looks like: the same for both eyes and all frames of a shot
    [
        ("ball", "?"),  # ellipsoid, otherwise card
        ("endless", "?"),  # a card without border: ground, wall, sky
        ("lit", "?"),  # shaded by the light; sky and shadows are not
        ("texture", "i8"),  # index into the textures
        ("silhouette", "i8"),  # index into the silhouettes, -1: solid
        ("tiles", "f8", 2),  # repetitions of the texture over the card
        ("cuts", "f8", 2),  # repetitions of the silhouette over the card
        ("tint", "f8", 3),  # multiplies the texture
        ("opacity", "f8"),  # multiplies the silhouette, [0, 1]
        ("gloss", "f8"),  # strength of the highlight
    ],
    align=True,
)
POSE = np.dtype(  # where a surface stands before one eye at one moment
    [
        ("inverse", "f8", (3, 3)),  # camera axes to surface axes
        ("centre", "f8", 3),  # centre of the surface seen from the eye, in surface axes
        ("box", "f8", 4),  # left, top, right, bottom of its picture, px
        ("reach", "f8"),  # largest inverse depth any of its points can have
    ]
)
LIGHT = np.dtype(  # a distant light and the air between
    [
        ("direction", "f8", 3),  # unit, from the light to the scene, camera axes
        ("ambient", "f8"),  # share of light that comes from everywhere
        ("haze_per_m", "f8"),
        ("haze", "f8", 3),  # RGB
    ]
)


class Eye(NamedTuple):
    """One camera at one moment, and everything before it."""

    poses: NDArray[np.void]  # [S] POSE
    order: NDArray[np.int64]  # [S] by falling `reach`: what comes late can not hide what came early
    focal_px: float
    column: float  # px, where the optical axis meets the sensor
    row: float  # px


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _card_nearness(pose, dx, dy):  # type: ignore[no-untyped-def]
    """Inverse depth at which a ray meets the plane of the card; 0 when it does not."""
    a = pose.inverse
    near = (a[2, 0] * dx + a[2, 1] * dy + a[2, 2]) / pose.centre[2]
    return near if 1e-7 < near < 1.0 / NEAREST_M else 0.0


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _on_card(pose, dx, dy, near, pixel):  # type: ignore[no-untyped-def]
    """Where on the card the ray arrives, (u, v), and the four derivatives of that a pixel."""
    a = pose.inverse
    c = pose.centre
    far = 1.0 / near
    u = (a[0, 0] * dx + a[0, 1] * dy + a[0, 2]) * far
    v = (a[1, 0] * dx + a[1, 1] * dy + a[1, 2]) * far
    step = pixel * far
    bend_x = a[2, 0] / c[2]
    bend_y = a[2, 1] / c[2]
    ux = (a[0, 0] - u * bend_x) * step
    uy = (a[0, 1] - u * bend_y) * step
    vx = (a[1, 0] - v * bend_x) * step
    vy = (a[1, 1] - v * bend_y) * step
    return u - c[0], v - c[1], ux, uy, vx, vy


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _on_ball(pose, dx, dy, pixel):  # type: ignore[no-untyped-def]
    """Inverse depth, 0 for a miss; point on the unit ball; coverage of the pixel; footprint in ball units."""
    miss = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    a = pose.inverse
    c0, c1, c2 = pose.centre[0], pose.centre[1], pose.centre[2]
    rx = a[0, 0] * dx + a[0, 1] * dy + a[0, 2]
    ry = a[1, 0] * dx + a[1, 1] * dy + a[1, 2]
    rz = a[2, 0] * dx + a[2, 1] * dy + a[2, 2]
    rr = rx * rx + ry * ry + rz * rz
    rc = rx * c0 + ry * c1 + rz * c2
    if rc <= 0.0:
        return miss
    middle = rc / rr
    gap = math.sqrt(max(0.0, c0 * c0 + c1 * c1 + c2 * c2 - rc * middle))  # from the ray to the centre
    across = math.sqrt(a[0, 0] ** 2 + a[1, 0] ** 2 + a[2, 0] ** 2)
    foot = middle * pixel * across
    coverage = min(1.0, (1.0 - gap) / foot + 0.5)
    if coverage <= 0.0:
        return miss
    z = middle - math.sqrt(max(0.0, 1.0 - gap * gap) / rr)
    if z < NEAREST_M:
        return miss
    return 1.0 / z, rx * z - c0, ry * z - c1, rz * z - c2, coverage, foot


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _mirrored(t):  # type: ignore[no-untyped-def]
    """Fold the line onto [0, 1] so that every picture continues into its own mirror image without a seam."""
    t -= 2.0 * math.floor(0.5 * t)
    return 2.0 - t if t > 1.0 else t


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _detail(pyramids, texels):  # type: ignore[no-untyped-def]
    """Level of a pyramid, with fraction, whose texels are as large as a footprint of `texels` texels."""
    if texels <= 1.0:
        return 0.0
    return min(math.log2(texels), math.log2(float(pyramids.shape[1])) - 1.0)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _bilinear(pyramids, k, level, channel, u, v):  # type: ignore[no-untyped-def]
    """One value of level `level` of pyramid `k`, at (u, v) in [0, 1]."""
    full = pyramids.shape[1]
    size = full >> level
    start = 2 * full - 2 * size
    x = min(max(u * size - 0.5, 0.0), size - 1.0)
    y = min(max(v * size - 0.5, 0.0), size - 1.0)
    x0 = int(x)
    y0 = int(y)
    x1 = min(x0 + 1, size - 1)
    y1 = min(y0 + 1, size - 1)
    fx = x - x0
    fy = y - y0
    top = pyramids[k, y0, start + x0, channel] * (1.0 - fx) + pyramids[k, y0, start + x1, channel] * fx
    low = pyramids[k, y1, start + x0, channel] * (1.0 - fx) + pyramids[k, y1, start + x1, channel] * fx
    return (top * (1.0 - fy) + low * fy) * (1.0 / 255.0)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _trilinear(pyramids, k, detail, channel, u, v):  # type: ignore[no-untyped-def]
    """One value of pyramid `k` between two levels."""
    level = int(detail)
    part = detail - level
    fine = _bilinear(pyramids, k, level, channel, u, v)
    if part == 0.0:
        return fine
    return fine * (1.0 - part) + _bilinear(pyramids, k, level + 1, channel, u, v) * part


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _colour(textures, k, u, v, ux, uy, vx, vy):  # type: ignore[no-untyped-def]
    """RGB averaged over the pixel's footprint, a parallelogram: samples along its long side."""
    size = textures.shape[1]
    along_x = math.sqrt(ux * ux + vx * vx) * size
    along_y = math.sqrt(uy * uy + vy * vy) * size
    long = max(along_x, along_y, 1e-9)
    short = max(min(along_x, along_y), 1.0)
    taps = int(min(max(math.ceil(long / short - 0.2), 1.0), float(MOST_TAPS)))
    detail = _detail(textures, long / taps)
    du = (ux if along_x > along_y else uy) / taps
    dv = (vx if along_x > along_y else vy) / taps
    red = 0.0
    green = 0.0
    blue = 0.0
    for tap in range(taps):
        offset = tap - 0.5 * (taps - 1)
        mu = _mirrored(u + offset * du)
        mv = _mirrored(v + offset * dv)
        red += _trilinear(textures, k, detail, 0, mu, mv)
        green += _trilinear(textures, k, detail, 1, mu, mv)
        blue += _trilinear(textures, k, detail, 2, mu, mv)
    return red / taps, green / taps, blue / taps


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _card_alpha(surface, silhouettes, u, v, ux, uy, vx, vy):  # type: ignore[no-untyped-def]
    """How much of the pixel the card covers: its border in closed form, times its silhouette."""
    alpha = surface.opacity
    wide = abs(ux) + abs(uy)
    high = abs(vx) + abs(vy)
    if not surface.endless:
        alpha *= min(max((1.0 - abs(u)) / wide + 0.5, 0.0), 1.0)
        alpha *= min(max((1.0 - abs(v)) / high + 0.5, 0.0), 1.0)
    if alpha > 0.0 and surface.silhouette >= 0:
        across = surface.cuts[0] * 0.5
        down = surface.cuts[1] * 0.5
        texels = math.sqrt(wide * across * high * down) * silhouettes.shape[1]
        mu = _mirrored((u + 1.0) * across)
        mv = _mirrored((v + 1.0) * down)
        alpha *= _trilinear(silhouettes, surface.silhouette, _detail(silhouettes, texels), 0, mu, mv)
    return alpha


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _shaded(pose, px, py, pz, dx, dy, gloss, light):  # type: ignore[no-untyped-def]
    """Diffuse factor and highlight at a point whose normal is (px, py, pz) in surface axes."""
    a = pose.inverse
    nx = a[0, 0] * px + a[1, 0] * py + a[2, 0] * pz
    ny = a[0, 1] * px + a[1, 1] * py + a[2, 1] * pz
    nz = a[0, 2] * px + a[1, 2] * py + a[2, 2] * pz
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if nx * dx + ny * dy + nz < 0.0:  # turn it along the line of sight: cards have two sides
        length = -length
    nx /= length
    ny /= length
    nz /= length
    lx, ly, lz = light.direction[0], light.direction[1], light.direction[2]
    diffuse = light.ambient + (1.0 - light.ambient) * max(0.0, nx * lx + ny * ly + nz * lz)
    if gloss == 0.0:
        return diffuse, 0.0
    sight = math.sqrt(dx * dx + dy * dy + 1.0)
    hx = lx + dx / sight
    hy = ly + dy / sight
    hz = lz + 1.0 / sight
    half = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
    return diffuse, gloss * max(0.0, (nx * hx + ny * hy + nz * hz) / half) ** 48


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _near_and_alpha(surface, pose, silhouettes, dx, dy, pixel, limit):  # type: ignore[no-untyped-def]
    """Inverse depth and opacity of a surface along a ray; (0, 0) where not met nearer than `limit`."""
    if surface.ball:
        near, _, _, _, coverage, _ = _on_ball(pose, dx, dy, pixel)
        return (near, coverage * surface.opacity) if near > limit else (0.0, 0.0)
    near = _card_nearness(pose, dx, dy)
    if near <= limit:
        return 0.0, 0.0
    u, v, ux, uy, vx, vy = _on_card(pose, dx, dy, near, pixel)
    return near, _card_alpha(surface, silhouettes, u, v, ux, uy, vx, vy)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _look(surface, pose, near, textures, light, dx, dy, pixel):  # type: ignore[no-untyped-def]
    """RGB of a surface along a ray that meets it at inverse depth `near`."""
    if surface.ball:
        _, px, py, pz, _, foot = _on_ball(pose, dx, dy, pixel)
        u = math.asin(min(max(px, -1.0), 1.0)) * (2.0 / math.pi)
        v = math.asin(min(max(py, -1.0), 1.0)) * (2.0 / math.pi)
        ux, uy, vx, vy = foot, 0.0, 0.0, foot
    else:
        u, v, ux, uy, vx, vy = _on_card(pose, dx, dy, near, pixel)
        px, py, pz = 0.0, 0.0, 1.0
    across = surface.tiles[0] * 0.5
    down = surface.tiles[1] * 0.5
    u = (u + 1.0) * across
    v = (v + 1.0) * down
    red, green, blue = _colour(
        textures, surface.texture, u, v, ux * across, uy * across, vx * down, vy * down
    )
    diffuse, highlight = 1.0, 0.0
    if surface.lit:
        diffuse, highlight = _shaded(pose, px, py, pz, dx, dy, surface.gloss, light)
    red = red * surface.tint[0] * diffuse + highlight
    green = green * surface.tint[1] * diffuse + highlight
    blue = blue * surface.tint[2] * diffuse + highlight
    return red, green, blue


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _hidden(surfaces, poses, silhouettes, rows, count, dx, dy, x, pixel, limit):  # type: ignore[no-untyped-def]
    """Whether something half opaque with inverse depth above `limit` stands on the ray through column `x`."""
    for k in range(count):
        pose = poses[rows[k]]
        if pose.reach <= limit:
            return False
        if pose.box[0] <= x <= pose.box[2]:
            surface = surfaces[rows[k]]
            if _near_and_alpha(surface, pose, silhouettes, dx, dy, pixel, limit)[1] >= HALF_OPAQUE:
                return True
    return False


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _meet(surfaces, poses, silhouettes, rows, count, dx, dy, x, pixel, hits, nears, alphas):  # type: ignore[no-untyped-def]
    """Fill `hits`, `nears`, `alphas` with what a ray meets, nearest first; return how many."""
    met = 0
    limit = 0.0
    for k in range(count):
        pose = poses[rows[k]]
        if pose.reach <= limit:
            break
        if not pose.box[0] <= x <= pose.box[2]:
            continue
        near, alpha = _near_and_alpha(surfaces[rows[k]], pose, silhouettes, dx, dy, pixel, limit)
        if alpha < FAINT:
            continue
        if alpha > 1.0 - FAINT:
            limit = near
        place = met
        while place > 0 and nears[place - 1] < near:
            nears[place], alphas[place], hits[place] = nears[place - 1], alphas[place - 1], hits[place - 1]
            place -= 1
        nears[place], alphas[place], hits[place] = near, alpha, rows[k]
        met += 1
    return met


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _compose(surfaces, poses, textures, light, dx, dy, pixel, met, hits, nears, alphas):  # type: ignore[no-untyped-def]
    """RGB along one ray, and the inverse depth of the nearest half-opaque surface, 0 when there is none."""
    red, green, blue, through, owner = 0.0, 0.0, 0.0, 1.0, -1.0
    for k in range(met):
        near = nears[k]
        if owner < 0.0 and alphas[k] >= HALF_OPAQUE:
            owner = near
        if through > FAINT:
            r, g, b = _look(surfaces[hits[k]], poses[hits[k]], near, textures, light, dx, dy, pixel)
            clear = math.exp(-light.haze_per_m / near) if light.haze_per_m > 0.0 else 1.0
            share = through * alphas[k]
            red += share * (r * clear + light.haze[0] * (1.0 - clear))
            green += share * (g * clear + light.haze[1] * (1.0 - clear))
            blue += share * (b * clear + light.haze[2] * (1.0 - clear))
            through *= 1.0 - alphas[k]
        if owner >= 0.0 and through <= FAINT:
            break
    red += through * light.haze[0]
    green += through * light.haze[1]
    blue += through * light.haze[2]
    return red, green, blue, max(owner, 0.0)


@numba.njit(cache=True, error_model="numpy", parallel=True)
def _cast(  # type: ignore[no-untyped-def]
    surfaces,
    poses,
    order,
    others,  # poses before the other eye
    textures,
    silhouettes,
    lights,
    focal_px,
    column,
    row,
    reach_px,  # disparity per inverse depth, negative when the other eye is on the left
    shift_px,  # added to a point's column in the other eye
    picture,  # written
    nearness,  # written
    hidden,  # written
):
    height, width = nearness.shape
    pixel = 1.0 / focal_px
    total = len(surfaces)
    for j in numba.prange(height):  # a row belongs to one thread, so their number changes no bit
        rows = np.empty(total, np.int64)
        hits = np.empty(total, np.int64)
        nears = np.empty(total, np.float64)
        alphas = np.empty(total, np.float64)
        dy = (j - row) * pixel
        count = 0
        for k in range(total):
            if poses[order[k]].box[1] <= j <= poses[order[k]].box[3]:
                rows[count] = order[k]
                count += 1
        for i in range(width):
            dx = (i - column) * pixel
            met = _meet(surfaces, poses, silhouettes, rows, count, dx, dy, i, pixel, hits, nears, alphas)
            red, green, blue, owner = _compose(
                surfaces, poses, textures, lights[0], dx, dy, pixel, met, hits, nears, alphas
            )
            picture[j, i, 0] = red
            picture[j, i, 1] = green
            picture[j, i, 2] = blue
            nearness[j, i] = owner
            there = i - reach_px * owner + shift_px
            ray = (there - column - shift_px) * pixel
            limit = owner + HIDDEN_BY_PX / abs(reach_px)
            hidden[j, i] = (
                there < -0.5
                or there >= width - 0.5
                or _hidden(surfaces, others, silhouettes, rows, count, ray, dy, there, pixel, limit)
            )


class View(NamedTuple):
    """What one eye sees at one moment."""

    picture: NDArray[np.float32]  # [H, W, 3] light, from 0 up
    nearness: NDArray[np.float64]  # [H, W] inverse depth of the nearest half-opaque surface, 1 / m
    hidden: NDArray[np.bool_]  # [H, W] the other eye does not see that point


def cast(
    surfaces: NDArray[np.void],  # [S] SURFACE
    eye: Eye,
    other: Eye,
    textures: NDArray[np.uint8],  # [K, N, 2N, 3] pyramids
    silhouettes: NDArray[np.uint8],  # [M, N, 2N, 1] pyramids
    light: NDArray[np.void],  # [1] LIGHT
    reach_px: float,  # focal x baseline, px m; negative when `other` is on the left
    height: int,
    width: int,
) -> View:
    """Look through `eye`; `other` is asked what it sees of that."""
    view = View(
        np.empty((height, width, 3), np.float32),
        np.empty((height, width), np.float64),
        np.empty((height, width), np.bool_),
    )
    poses, order, focal_px, column, row = eye
    scene = (surfaces, poses, order, other.poses, textures, silhouettes, light)
    _cast(*scene, focal_px, column, row, reach_px, other.column - column, *view)
    return view
