"""What the camera does between two frames: whether it stands, and how far each pixel moves by its parallax.

A camera stands if textured parts of the picture stay where they are. They are compared after local
normalisation, so that a shadow that passes over them is no motion (ours). A moving camera's direction of
travel and its rotation are fitted to the flow by searching over directions: for each one, the part of the
flow across it is linear in the rotation (after Heeger and Jepson, IJCV 1992).
"""

from typing import NamedTuple

import cv2
import numba
import numpy as np

GRID_STEP = 16  # px: one flow vector in 16 x 16 is used for the fit
DIRECTIONS = 48  # of travel, tried first; then FINER x FINER around the best
FINER, FINER_REACH = 5, 0.15
FOCAL = 1.0  # assumed focal length in units of the width; a field of view of 53 degrees
ERROR_PX = 0.4  # error of the flow at which a vector has a quarter of the weight
NORMALISE_RADIUS_PX, COMPARE_RADIUS_PX = 4, 3  # of box filters
MIN_TEXTURE = 5.0  # levels: standard deviation around a pixel below which it shows no motion
NOISE = 4.0  # levels, added to the standard deviation
SAME = 0.25  # mean difference of normalised pictures, of their mean, up to which a place is the same
MIN_TEXTURED_SHARE = 0.01  # of the frame; below, there is no evidence that the camera moves


class Detail(NamedTuple):
    """A picture without local brightness and contrast."""

    plane: np.ndarray  # float32 [h, w], about mean 0 and deviation 1
    texture: np.ndarray  # bool [h, w]: where it shows more than noise


class CameraMotion(NamedTuple):
    """Direction of travel and rotation between two frames."""

    travel: np.ndarray  # [3] unit vector: x right, y down, z forward; its sign is a guess
    rotation: np.ndarray  # [3] rad about x, y, z


def detail(
    gray: np.ndarray,  # uint8 [h, w]
) -> Detail:
    """Normalise a picture locally."""
    plane = cv2.blur(gray.astype(np.float32), (3, 3))
    side = (2 * NORMALISE_RADIUS_PX + 1,) * 2
    mean = cv2.blur(plane, side)
    deviation = np.sqrt(np.maximum(cv2.blur(plane * plane, side) - mean * mean, 0))
    return Detail((plane - mean) / (deviation + np.float32(NOISE)), deviation > MIN_TEXTURE)


def still_share(now: Detail, other: Detail) -> float:
    """Return the share of textured pixels, [0, 1], that are the same in both frames; 1 without texture."""
    side = (2 * COMPARE_RADIUS_PX + 1,) * 2
    difference = cv2.blur(cv2.absdiff(now.plane, other.plane), side)
    return textured_share(difference < SAME * cv2.blur(np.abs(now.plane), side), now)


def textured_share(
    chosen: np.ndarray,  # bool [h, w]
    now: Detail,
) -> float:
    """Return the share of textured pixels that are chosen, [0, 1]; 1 without texture."""
    count = np.count_nonzero(now.texture)
    if count < MIN_TEXTURED_SHARE * now.texture.size:
        return 1.0
    return np.count_nonzero(chosen & now.texture) / count


def moves_against(
    flow: np.ndarray,  # [h, w, 2] px
    reliable: np.ndarray,  # bool [h, w]
    min_px: float,
) -> float:
    """Return the share of the grid, [0, 0.5], that moves at least `min_px` against the main direction."""
    vectors = flow[::GRID_STEP, ::GRID_STEP][reliable[::GRID_STEP, ::GRID_STEP]]
    if not len(vectors):
        return 0.0
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    along = vectors @ axes[:, -1]
    return float(min((along > min_px).mean(), (along < -min_px).mean()))


def fit_camera_motion(
    flow: np.ndarray,  # [h, w, 2] px
    weight: np.ndarray,  # [h, w] in [0, 1]
) -> CameraMotion:
    """Fit travel and rotation of a camera to flow, robust against a minority that moves by itself."""
    height, width = flow.shape[:2]
    sample = (slice(GRID_STEP // 2, None, GRID_STEP),) * 2
    rows, columns = np.mgrid[:height, :width][(slice(None), *sample)].reshape(2, -1)
    points = np.stack([columns - (width - 1) / 2, rows - (height - 1) / 2], axis=-1) / (FOCAL * width)
    vectors = flow[sample].reshape(-1, 2).astype(np.float64) / (FOCAL * width)
    data = points, vectors, weight[sample].ravel().astype(np.float64), ERROR_PX / (FOCAL * width)
    travel = _hemisphere(DIRECTIONS)
    costs, _ = _fit_rotations(*data, travel, 2)
    travel = _around(travel[costs.argmin()])
    costs, rotations = _fit_rotations(*data, travel, 2)
    best = int(costs.argmin())
    return CameraMotion(travel[best], rotations[best])


@numba.njit(cache=True, nogil=True)
def parallax(
    flow: np.ndarray,  # [h, w, 2] px
    travel: np.ndarray,  # [3], of CameraMotion
    rotation: np.ndarray,  # [3]
) -> np.ndarray:  # float32 [h, w] px
    """Return the part of the flow along the direction of travel, without the rotation's.

    Nearer points have larger values, or smaller ones if the sign of the travel is wrong. Where travel and
    rotation look alike, as sideways, the zero is arbitrary.
    """
    height, width = flow.shape[:2]
    focal = FOCAL * width
    a, b, c = rotation
    along = np.empty((height, width), np.float32)
    for row in range(height):
        y = (row - (height - 1) / 2) / focal
        for column in range(width):
            x = (column - (width - 1) / 2) / focal
            right, down = x * travel[2] - travel[0], y * travel[2] - travel[1]
            length = np.sqrt(right * right + down * down) + 1e-6
            left_right = flow[row, column, 0] - focal * (x * y * a - (1 + x * x) * b + y * c)
            up_down = flow[row, column, 1] - focal * ((1 + y * y) * a - x * y * b - x * c)
            along[row, column] = (left_right * right + up_down * down) / length
    return along


def _hemisphere(count: int) -> np.ndarray:  # [count, 3]
    """Return unit vectors with z > 0, evenly spread (a Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z, angle = index / count, index * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=-1)


def _around(travel: np.ndarray) -> np.ndarray:  # [3] -> [FINER ** 2, 3]
    """Return unit vectors on a grid around one."""
    side = np.cross(travel, [0.3, 0.5, 0.8])
    side /= np.linalg.norm(side)
    steps = np.linspace(-FINER_REACH, FINER_REACH, FINER)
    offsets = steps[:, None, None] * side + steps[None, :, None] * np.cross(travel, side)
    vectors = (travel + offsets).reshape(-1, 3)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@numba.njit(cache=True, nogil=True)
def _fit_rotations(
    points: np.ndarray,  # [N, 2] x / z, y / z
    vectors: np.ndarray,  # [N, 2] flow in the same unit
    weights: np.ndarray,  # [N]
    error: float,  # of the flow, in the same unit
    travels: np.ndarray,  # [C, 3]
    passes: int,  # of least squares, reweighted after the first
) -> tuple[np.ndarray, np.ndarray]:  # [C] robust cost, [C, 3] rotation
    """Fit a rotation to the flow across each direction of travel."""
    costs, rotations = np.zeros(len(travels)), np.zeros((len(travels), 3))
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for choice in range(len(travels)):
        tx, ty, tz = travels[choice]
        for step in range(passes + 1):
            normal[:], right[:], cost = 0, 0, 0.0
            r0, r1, r2 = rotations[choice]
            for i in range(len(points)):
                x, y = points[i, 0], points[i, 1]
                nx, ny = ty - y * tz, x * tz - tx
                length = np.sqrt(nx * nx + ny * ny) + 1e-6
                nx, ny = nx / length, ny / length
                a = nx * x * y + ny * (1 + y * y)
                b = -nx * (1 + x * x) - ny * x * y
                c = nx * y - ny * x
                value, weight = nx * vectors[i, 0] + ny * vectors[i, 1], weights[i]
                if step > 0:
                    squared = ((value - a * r0 - b * r1 - c * r2) / error) ** 2
                    robust = 1 / (1 + squared)
                    cost += weight * squared * robust
                    weight *= robust * robust
                right[0] += weight * a * value
                right[1] += weight * b * value
                right[2] += weight * c * value
                normal[0, 0] += weight * a * a
                normal[0, 1] += weight * a * b
                normal[0, 2] += weight * a * c
                normal[1, 1] += weight * b * b
                normal[1, 2] += weight * b * c
                normal[2, 2] += weight * c * c
            costs[choice] = cost
            if step < passes:
                normal[1, 0], normal[2, 0], normal[2, 1] = normal[0, 1], normal[0, 2], normal[1, 2]
                for j in range(3):
                    normal[j, j] += 1e-9
                rotations[choice] = np.linalg.solve(normal, right)
    return costs, rotations
