"""Moving bodies and a moving camera, and their geometry relative to both views at a given time.

World axes are the camera's axes at rest: x right, y down, z forward, in metres. Every motion is a slow sine,
so that a shot of any length stays in bounds and a short one moves almost evenly.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secondeye.synthetic.raytrace import LIGHT, NEAR_PLANE_M, POSE, SURFACE, ViewGeometry

Vector = NDArray[np.float64]  # [3]
Array = NDArray[np.float64]


def _zero_vector() -> Vector:
    return np.zeros(3)


@dataclass(frozen=True)
class Body:
    """One card or ellipsoid: position, motion and appearance."""

    centre: Vector  # m
    axes: Array  # [3, 3] columns: half width, half height, half depth (ellipsoids) or normal (cards), m
    texture: int
    silhouette: int = -1
    tiles: tuple[float, float] = (1.0, 1.0)
    silhouette_tiles: tuple[float, float] = (1.0, 1.0)
    tint: Vector = field(default_factory=lambda: np.ones(3))
    opacity: float = 1.0
    gloss: float = 0.0
    ellipsoid: bool = False
    infinite: bool = False
    lit: bool = True
    casts_shadow: bool = False  # on the scene's shadow plane
    sway: Vector = field(default_factory=_zero_vector)  # m, amplitude of the centre
    turn: float = 0.0  # rad, amplitude of the rotation about the vertical axis
    roll: float = 0.0  # rad, amplitude of the rotation in the image plane
    rate: float = 0.0  # rad / s
    phase: float = 0.0  # rad


@dataclass(frozen=True)
class Camera:
    """A camera on a tripod, dolly or shoulder: slow sines, plus small fast ones for hand shake."""

    focal: float  # focal length / sensor width
    pitch: float  # rad, positive looks up
    roll: float  # rad
    travel: Vector  # m, amplitude along x, y, z
    swing: float  # rad, amplitude of the pan
    tilt: float  # rad, amplitude of the tilt
    rate: float  # rad / s
    phase: float  # rad
    hand: (
        Array  # [5, 4] of the trembling in x, y (m), yaw, pitch (rad): amplitude; two sines: rates and phases
    )

    def pose(
        self,
        seconds: float,
    ) -> tuple[Vector, Array]:  # position, [3, 3] camera axes as columns
        """Return the camera's position and orientation."""
        wave = np.sin(self.rate * seconds + self.phase)
        amplitude, rates, phases = self.hand[0], self.hand[1:3], self.hand[3:5]
        shake = amplitude * np.sin(rates * seconds + phases).sum(0)
        position = self.travel * wave + np.array([shake[0], shake[1], 0])
        yaw = self.swing * wave + shake[2]
        pitch = self.pitch + self.tilt * wave + shake[3]
        return position, _about_y(yaw) @ _about_x(pitch) @ _about_z(self.roll)


@dataclass(frozen=True)
class Scene:
    """All bodies, the camera and the light of a shot."""

    bodies: list[Body]
    camera: Camera
    light: Vector  # unit vector from the light to the scene
    ambient: float
    haze_per_m: float
    haze: Vector  # RGB
    shadow_plane: tuple[Vector, float]  # unit normal n and offset e of the plane n . x = e
    shadow_opacity: float  # below 0.5, so that shadows never define the disparity


def _about_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def make_surfaces(
    scene: Scene,
    white: int,  # texture index for shadows
    disc: int,  # silhouette index for shadows of ellipsoids
) -> NDArray[np.void]:  # [S] SURFACE
    """Return the appearance of all bodies, followed by that of their shadows."""
    casts_shadow = _shadow_casters(scene)
    surfaces = np.empty(len(scene.bodies) + len(casts_shadow), SURFACE)
    for name in SURFACE.names or ():
        own = np.array([getattr(body, name) for body in scene.bodies])
        surfaces[name] = np.concatenate([own, own[casts_shadow]])
    shadows = surfaces[len(scene.bodies) :]
    shadows["silhouette"] = np.where(shadows["ellipsoid"], disc, shadows["silhouette"])
    for name in ("ellipsoid", "infinite", "lit", "tint", "gloss"):
        shadows[name] = 0
    shadows["texture"], shadows["opacity"] = white, scene.shadow_opacity
    return surfaces


def _shadow_casters(scene: Scene) -> NDArray[np.int64]:
    return np.flatnonzero([body.casts_shadow for body in scene.bodies])


def _transforms(scene: Scene, seconds: float) -> tuple[Array, Array]:
    """Return centres [S, 3] and axes [S, 3, 3] in world coordinates, shadows last."""
    centres, axes = [], []
    for body in scene.bodies:
        wave = np.sin(body.rate * seconds + body.phase) if body.rate else 0.0
        centres.append(body.centre + body.sway * wave)
        turned = _about_y(body.turn * wave) @ _about_z(body.roll * wave) if body.rate else np.eye(3)
        axes.append(turned @ body.axes)
    centre, axis = np.stack(centres), np.stack(axes)
    casts_shadow = _shadow_casters(scene)
    shadow_centre, shadow_axes = _project_shadows(scene, centre[casts_shadow], axis[casts_shadow])
    return np.concatenate([centre, shadow_centre]), np.concatenate([axis, shadow_axes])


def _project_shadows(scene: Scene, centres: Array, axes: Array) -> tuple[Array, Array]:
    """Project cards along the light onto the shadow plane; those edge-on to the light shrink to a dot."""
    normal, offset = scene.shadow_plane
    slant = normal @ scene.light
    reach = (offset * 0.999 - centres @ normal) / slant
    shadow_centres = centres + reach[:, None] * scene.light
    across, up = axes[:, :, 0], axes[:, :, 1]
    across = across - (across @ normal / slant)[:, None] * scene.light
    up = up - (up @ normal / slant)[:, None] * scene.light
    area = np.abs(np.cross(across, up) @ normal)
    edge_on = area < 1e-3 * np.linalg.norm(across, axis=1) * np.linalg.norm(up, axis=1)
    shadow_axes = np.stack([across, up, np.broadcast_to(normal, across.shape)], -1)
    return shadow_centres, np.where(edge_on[:, None, None], np.eye(3) * 1e-3, shadow_axes)


def stereo_geometry(
    scene: Scene,
    surfaces: NDArray[np.void],  # [S] SURFACE, from `make_surfaces`
    seconds: float,
    baseline_m: float,
    screen_px: float,
    height: int,
    width: int,
    jitter: tuple[float, float],  # px, sub-pixel offset of the rays: x, y
) -> tuple[ViewGeometry, ViewGeometry, NDArray[np.void]]:  # left, right, [1] LIGHT
    """Return the geometry of the left view and of the right view, `baseline_m` to its right."""
    position, turn = scene.camera.pose(seconds)
    centres, axes = _transforms(scene, seconds)
    centres, axes = (centres - position) @ turn, turn.T @ axes
    light = np.array([(scene.light @ turn, scene.ambient, scene.haze_per_m, scene.haze)], LIGHT)
    focal_px = scene.camera.focal * width
    column, row = (width - 1) / 2 - jitter[0], (height - 1) / 2 - jitter[1]

    def geometry(shift_m: float, column: float) -> ViewGeometry:
        poses = _poses(surfaces, centres - np.array([shift_m, 0, 0]), axes, focal_px, column, row)
        order = np.argsort(-poses["max_inverse_depth"], kind="stable")
        return ViewGeometry(poses, order, focal_px, column, row)

    return geometry(0, column), geometry(baseline_m, column + screen_px), light


def _poses(
    surfaces: NDArray[np.void], centres: Array, axes: Array, focal_px: float, column: float, row: float
) -> NDArray[np.void]:  # [S] POSE
    """Return poses; bounds are infinite for surfaces partly behind the camera, empty for those behind it."""
    poses = np.empty(len(centres), POSE)
    poses["inverse"] = np.linalg.inv(axes)
    poses["centre"] = np.einsum("sij,sj->si", poses["inverse"], centres)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    signs = np.where(surfaces["ellipsoid"][:, None, None], signs, signs * [1, 1, 0])  # [S, 8, 3]
    corners = centres[:, None] + signs @ axes.transpose(0, 2, 1)
    depth = corners[..., 2]
    clipped_depth = np.maximum(depth, NEAR_PLANE_M)
    x = corners[..., 0] / clipped_depth * focal_px + column
    y = corners[..., 1] / clipped_depth * focal_px + row
    unbounded = (depth.min(1) < NEAR_PLANE_M) | surfaces["infinite"]
    invisible = (depth.max(1) < NEAR_PLANE_M) & ~surfaces["infinite"]
    poses["bounds"] = np.stack([x.min(1) - 1, y.min(1) - 1, x.max(1) + 1, y.max(1) + 1], -1)
    poses["bounds"][unbounded] = [-np.inf, -np.inf, np.inf, np.inf]
    poses["bounds"][invisible] = [np.inf, np.inf, -np.inf, -np.inf]
    poses["max_inverse_depth"] = np.where(unbounded, np.inf, 1 / clipped_depth.min(1))
    return poses
