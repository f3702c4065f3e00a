"""Ray tracer: one ray per pixel, closed-form intersection with every surface, composited front to back.

A surface is a card or an ellipsoid in its own coordinates, where it is the square [-1, 1] x [-1, 1] at depth
0 or the unit ball. `inverse` maps camera coordinates (x right, y down, z forward, m) to these. Depth is
stored as inverse depth (1 / m), because disparity is focal x baseline x inverse depth. All compiled code is
in this file because numba's cache does not notice changes in other files.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

HALF_OPAQUE = 0.5  # opacity from which a surface defines the pixel's disparity
OCCLUSION_MARGIN_PX = 0.5  # a point is occluded by surfaces whose disparity is larger by more than this
NEAR_PLANE_M = 0.05  # closer surfaces are clipped
MIN_ALPHA = 0.004  # less than one 8-bit level
MAX_TAPS = 6  # texture samples along the long axis of a pixel's footprint


SURFACE = np.dtype(  # appearance of a surface, the same for both views and all frames of a shot
    [
        ("ellipsoid", "?"),  # otherwise a card
        ("infinite", "?"),  # a card without borders: ground, wall, sky
        ("lit", "?"),  # shaded; False for sky and shadows
        ("texture", "i8"),  # index into the textures
        ("silhouette", "i8"),  # index into the silhouettes, -1: solid
        ("tiles", "f8", 2),  # repetitions of the texture over the card
        ("silhouette_tiles", "f8", 2),  # repetitions of the silhouette over the card
        ("tint", "f8", 3),  # multiplies the texture
        ("opacity", "f8"),  # multiplies the silhouette, [0, 1]
        ("gloss", "f8"),  # strength of the highlight
    ],
    align=True,
)
POSE = np.dtype(  # pose of a surface relative to one camera at one moment
    [
        ("inverse", "f8", (3, 3)),  # from camera axes to surface axes
        ("centre", "f8", 3),  # from the camera to the surface's centre, in surface axes
        ("bounds", "f8", 4),  # left, top, right, bottom of its projection, px
        ("max_inverse_depth", "f8"),  # upper bound over its points
    ]
)
LIGHT = np.dtype(  # a distant light, and haze
    [
        ("direction", "f8", 3),  # unit vector from the light to the scene, camera axes
        ("ambient", "f8"),  # ambient share of the light
        ("haze_per_m", "f8"),
        ("haze", "f8", 3),  # RGB
    ]
)


class ViewGeometry(NamedTuple):
    """One camera at one moment, and the poses of all surfaces relative to it."""

    poses: NDArray[np.void]  # [S] POSE
    order: NDArray[np.int64]  # [S] by descending `max_inverse_depth`, so that loops can stop early
    focal_px: float
    column: float  # px, principal point
    row: float  # px


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _intersect_card(pose, dx, dy):  # type: ignore[no-untyped-def]
    """Return the inverse depth at which a ray meets the card's plane; 0 for a miss."""
    a = pose.inverse
    inv_depth = (a[2, 0] * dx + a[2, 1] * dy + a[2, 2]) / pose.centre[2]
    return inv_depth if 1e-7 < inv_depth < 1.0 / NEAR_PLANE_M else 0.0


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _card_coordinates(pose, dx, dy, inv_depth, pixel):  # type: ignore[no-untyped-def]
    """Return the card coordinates (u, v) of the intersection, and their four derivatives per pixel."""
    a = pose.inverse
    c = pose.centre
    depth = 1.0 / inv_depth
    u = (a[0, 0] * dx + a[0, 1] * dy + a[0, 2]) * depth
    v = (a[1, 0] * dx + a[1, 1] * dy + a[1, 2]) * depth
    step = pixel * depth
    slope_x = a[2, 0] / c[2]
    slope_y = a[2, 1] / c[2]
    ux = (a[0, 0] - u * slope_x) * step
    uy = (a[0, 1] - u * slope_y) * step
    vx = (a[1, 0] - v * slope_x) * step
    vy = (a[1, 1] - v * slope_y) * step
    return u - c[0], v - c[1], ux, uy, vx, vy


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _intersect_ellipsoid(pose, dx, dy, pixel):  # type: ignore[no-untyped-def]
    """Return inverse depth (0: miss), point on the unit ball, pixel coverage, footprint in ball units."""
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
    distance = math.sqrt(max(0.0, c0 * c0 + c1 * c1 + c2 * c2 - rc * middle))  # from the ray to the centre
    across = math.sqrt(a[0, 0] ** 2 + a[1, 0] ** 2 + a[2, 0] ** 2)
    footprint = middle * pixel * across
    coverage = min(1.0, (1.0 - distance) / footprint + 0.5)
    if coverage <= 0.0:
        return miss
    z = middle - math.sqrt(max(0.0, 1.0 - distance * distance) / rr)
    if z < NEAR_PLANE_M:
        return miss
    return 1.0 / z, rx * z - c0, ry * z - c1, rz * z - c2, coverage, footprint


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _mirror_repeat(t):  # type: ignore[no-untyped-def]
    """Fold a coordinate onto [0, 1], so that textures continue mirrored without a seam."""
    t -= 2.0 * math.floor(0.5 * t)
    return 2.0 - t if t > 1.0 else t


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _mip_level(pyramids, texels):  # type: ignore[no-untyped-def]
    """Return the fractional pyramid level whose texels are as large as a footprint of `texels` texels."""
    if texels <= 1.0:
        return 0.0
    return min(math.log2(texels), math.log2(float(pyramids.shape[1])) - 1.0)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _bilinear(pyramids, k, level, channel, u, v):  # type: ignore[no-untyped-def]
    """Sample level `level` of pyramid `k` at (u, v) in [0, 1]."""
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
def _trilinear(pyramids, k, mip, channel, u, v):  # type: ignore[no-untyped-def]
    """Sample pyramid `k` between two levels."""
    level = int(mip)
    part = mip - level
    fine = _bilinear(pyramids, k, level, channel, u, v)
    if part == 0.0:
        return fine
    return fine * (1.0 - part) + _bilinear(pyramids, k, level + 1, channel, u, v) * part


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _sample_anisotropic(textures, k, u, v, ux, uy, vx, vy):  # type: ignore[no-untyped-def]
    """Return the RGB average over the pixel's footprint, from samples along its long side."""
    size = textures.shape[1]
    along_x = math.sqrt(ux * ux + vx * vx) * size
    along_y = math.sqrt(uy * uy + vy * vy) * size
    longest = max(along_x, along_y, 1e-9)
    shortest = max(min(along_x, along_y), 1.0)
    taps = int(min(max(math.ceil(longest / shortest - 0.2), 1.0), float(MAX_TAPS)))
    mip = _mip_level(textures, longest / taps)
    du = (ux if along_x > along_y else uy) / taps
    dv = (vx if along_x > along_y else vy) / taps
    red = 0.0
    green = 0.0
    blue = 0.0
    for tap in range(taps):
        offset = tap - 0.5 * (taps - 1)
        mu = _mirror_repeat(u + offset * du)
        mv = _mirror_repeat(v + offset * dv)
        red += _trilinear(textures, k, mip, 0, mu, mv)
        green += _trilinear(textures, k, mip, 1, mu, mv)
        blue += _trilinear(textures, k, mip, 2, mu, mv)
    return red / taps, green / taps, blue / taps


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _card_alpha(surface, silhouettes, u, v, ux, uy, vx, vy):  # type: ignore[no-untyped-def]
    """Return how much of the pixel the card covers: its border in closed form, times its silhouette."""
    alpha = surface.opacity
    wide = abs(ux) + abs(uy)
    high = abs(vx) + abs(vy)
    if not surface.infinite:
        alpha *= min(max((1.0 - abs(u)) / wide + 0.5, 0.0), 1.0)
        alpha *= min(max((1.0 - abs(v)) / high + 0.5, 0.0), 1.0)
    if alpha > 0.0 and surface.silhouette >= 0:
        across = surface.silhouette_tiles[0] * 0.5
        down = surface.silhouette_tiles[1] * 0.5
        texels = math.sqrt(wide * across * high * down) * silhouettes.shape[1]
        mu = _mirror_repeat((u + 1.0) * across)
        mv = _mirror_repeat((v + 1.0) * down)
        alpha *= _trilinear(silhouettes, surface.silhouette, _mip_level(silhouettes, texels), 0, mu, mv)
    return alpha


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _shade(pose, px, py, pz, dx, dy, gloss, light):  # type: ignore[no-untyped-def]
    """Return diffuse factor and highlight at a point with normal (px, py, pz) in surface axes."""
    a = pose.inverse
    nx = a[0, 0] * px + a[1, 0] * py + a[2, 0] * pz
    ny = a[0, 1] * px + a[1, 1] * py + a[2, 1] * pz
    nz = a[0, 2] * px + a[1, 2] * py + a[2, 2] * pz
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if nx * dx + ny * dy + nz < 0.0:  # flip towards the line of sight: cards have two sides
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
def _depth_and_alpha(surface, pose, silhouettes, dx, dy, pixel, limit):  # type: ignore[no-untyped-def]
    """Return inverse depth and opacity of a surface along a ray; (0, 0) unless nearer than `limit`."""
    if surface.ellipsoid:
        inv_depth, _, _, _, coverage, _ = _intersect_ellipsoid(pose, dx, dy, pixel)
        return (inv_depth, coverage * surface.opacity) if inv_depth > limit else (0.0, 0.0)
    inv_depth = _intersect_card(pose, dx, dy)
    if inv_depth <= limit:
        return 0.0, 0.0
    u, v, ux, uy, vx, vy = _card_coordinates(pose, dx, dy, inv_depth, pixel)
    return inv_depth, _card_alpha(surface, silhouettes, u, v, ux, uy, vx, vy)


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _surface_colour(surface, pose, inv_depth, textures, light, dx, dy, pixel):  # type: ignore[no-untyped-def]
    """Return the RGB of a surface along a ray that meets it at inverse depth `inv_depth`."""
    if surface.ellipsoid:
        _, px, py, pz, _, footprint = _intersect_ellipsoid(pose, dx, dy, pixel)
        u = math.asin(min(max(px, -1.0), 1.0)) * (2.0 / math.pi)
        v = math.asin(min(max(py, -1.0), 1.0)) * (2.0 / math.pi)
        ux, uy, vx, vy = footprint, 0.0, 0.0, footprint
    else:
        u, v, ux, uy, vx, vy = _card_coordinates(pose, dx, dy, inv_depth, pixel)
        px, py, pz = 0.0, 0.0, 1.0
    across = surface.tiles[0] * 0.5
    down = surface.tiles[1] * 0.5
    u = (u + 1.0) * across
    v = (v + 1.0) * down
    red, green, blue = _sample_anisotropic(
        textures, surface.texture, u, v, ux * across, uy * across, vx * down, vy * down
    )
    diffuse, highlight = 1.0, 0.0
    if surface.lit:
        diffuse, highlight = _shade(pose, px, py, pz, dx, dy, surface.gloss, light)
    red = red * surface.tint[0] * diffuse + highlight
    green = green * surface.tint[1] * diffuse + highlight
    blue = blue * surface.tint[2] * diffuse + highlight
    return red, green, blue


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _is_occluded(surfaces, poses, silhouettes, rows, count, dx, dy, x, pixel, limit):  # type: ignore[no-untyped-def]
    """Return whether a surface of opacity 0.5 or more with inverse depth above `limit` is on the ray."""
    for k in range(count):
        pose = poses[rows[k]]
        if pose.max_inverse_depth <= limit:
            return False
        if pose.bounds[0] <= x <= pose.bounds[2]:
            surface = surfaces[rows[k]]
            if _depth_and_alpha(surface, pose, silhouettes, dx, dy, pixel, limit)[1] >= HALF_OPAQUE:
                return True
    return False


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _collect_hits(surfaces, poses, silhouettes, rows, count, dx, dy, x, pixel, hits, inv_depths, alphas):  # type: ignore[no-untyped-def]
    """Fill `hits`, `inv_depths`, `alphas` with the surfaces on a ray, nearest first; return their number."""
    hit_count = 0
    limit = 0.0
    for k in range(count):
        pose = poses[rows[k]]
        if pose.max_inverse_depth <= limit:
            break
        if not pose.bounds[0] <= x <= pose.bounds[2]:
            continue
        inv_depth, alpha = _depth_and_alpha(surfaces[rows[k]], pose, silhouettes, dx, dy, pixel, limit)
        if alpha < MIN_ALPHA:
            continue
        if alpha > 1.0 - MIN_ALPHA:
            limit = inv_depth
        place = hit_count
        while place > 0 and inv_depths[place - 1] < inv_depth:
            inv_depths[place], alphas[place], hits[place] = (
                inv_depths[place - 1],
                alphas[place - 1],
                hits[place - 1],
            )
            place -= 1
        inv_depths[place], alphas[place], hits[place] = inv_depth, alpha, rows[k]
        hit_count += 1
    return hit_count


@numba.njit(cache=True, error_model="numpy", forceinline=True)
def _composite(surfaces, poses, textures, light, dx, dy, pixel, hit_count, hits, inv_depths, alphas):  # type: ignore[no-untyped-def]
    """Return RGB along a ray, and inverse depth of the nearest surface of opacity 0.5 or more (0: none)."""
    red, green, blue, transmittance, nearest = 0.0, 0.0, 0.0, 1.0, -1.0
    for k in range(hit_count):
        inv_depth = inv_depths[k]
        if nearest < 0.0 and alphas[k] >= HALF_OPAQUE:
            nearest = inv_depth
        if transmittance > MIN_ALPHA:
            r, g, b = _surface_colour(
                surfaces[hits[k]], poses[hits[k]], inv_depth, textures, light, dx, dy, pixel
            )
            clear = math.exp(-light.haze_per_m / inv_depth) if light.haze_per_m > 0.0 else 1.0
            share = transmittance * alphas[k]
            red += share * (r * clear + light.haze[0] * (1.0 - clear))
            green += share * (g * clear + light.haze[1] * (1.0 - clear))
            blue += share * (b * clear + light.haze[2] * (1.0 - clear))
            transmittance *= 1.0 - alphas[k]
        if nearest >= 0.0 and transmittance <= MIN_ALPHA:
            break
    red += transmittance * light.haze[0]
    green += transmittance * light.haze[1]
    blue += transmittance * light.haze[2]
    return red, green, blue, max(nearest, 0.0)


@numba.njit(cache=True, error_model="numpy", parallel=True)
def _render(  # type: ignore[no-untyped-def]
    surfaces,
    poses,
    order,
    other_poses,  # poses relative to the other camera
    textures,
    silhouettes,
    lights,
    focal_px,
    column,
    row,
    disparity_scale,  # disparity per inverse depth, negative if the other camera is on the left
    shift_px,  # added to a point's column in the other view
    image,  # output
    inverse_depth,  # output
    occluded,  # output
):
    height, width = inverse_depth.shape
    pixel = 1.0 / focal_px
    total = len(surfaces)
    for j in numba.prange(height):  # one thread per row: bit-identical for any number of threads
        rows = np.empty(total, np.int64)
        hits = np.empty(total, np.int64)
        inv_depths = np.empty(total, np.float64)
        alphas = np.empty(total, np.float64)
        dy = (j - row) * pixel
        count = 0
        for k in range(total):
            if poses[order[k]].bounds[1] <= j <= poses[order[k]].bounds[3]:
                rows[count] = order[k]
                count += 1
        for i in range(width):
            dx = (i - column) * pixel
            hit_count = _collect_hits(
                surfaces, poses, silhouettes, rows, count, dx, dy, i, pixel, hits, inv_depths, alphas
            )
            red, green, blue, nearest = _composite(
                surfaces, poses, textures, lights[0], dx, dy, pixel, hit_count, hits, inv_depths, alphas
            )
            image[j, i, 0] = red
            image[j, i, 1] = green
            image[j, i, 2] = blue
            inverse_depth[j, i] = nearest
            target = i - disparity_scale * nearest + shift_px
            ray = (target - column - shift_px) * pixel
            limit = nearest + OCCLUSION_MARGIN_PX / abs(disparity_scale)
            occluded[j, i] = (
                target < -0.5
                or target >= width - 0.5
                or _is_occluded(
                    surfaces, other_poses, silhouettes, rows, count, ray, dy, target, pixel, limit
                )
            )


class RenderedView(NamedTuple):
    """One view at one moment."""

    image: NDArray[np.float32]  # [H, W, 3] linear light, >= 0
    inverse_depth: NDArray[np.float64]  # [H, W] 1 / m, of the nearest surface of opacity 0.5 or more
    occluded: NDArray[np.bool_]  # [H, W] not visible in the other view


def render_view(
    surfaces: NDArray[np.void],  # [S] SURFACE
    geometry: ViewGeometry,
    other: ViewGeometry,
    textures: NDArray[np.uint8],  # [K, N, 2N, 3] pyramids
    silhouettes: NDArray[np.uint8],  # [M, N, 2N, 1] pyramids
    light: NDArray[np.void],  # [1] LIGHT
    disparity_scale: float,  # focal x baseline, px m; negative if `other` is on the left
    height: int,
    width: int,
) -> RenderedView:
    """Render one view, with the occlusion of its points in the other view."""
    view = RenderedView(
        np.empty((height, width, 3), np.float32),
        np.empty((height, width), np.float64),
        np.empty((height, width), np.bool_),
    )
    poses, order, focal_px, column, row = geometry
    scene = (surfaces, poses, order, other.poses, textures, silhouettes, light)
    _render(*scene, focal_px, column, row, disparity_scale, other.column - column, *view)
    return view
