"""Bodies and a camera that move, and where they stand before each eye at a given time.

World axes at rest are the camera's: x right, y down, z forward, metres. Every motion is a slow sine, so a
shot of any length stays in bounds and a short one moves almost evenly.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secondeye.synthetic.raytrace import LIGHT, NEAREST_M, POSE, SURFACE, Eye

Vector = NDArray[np.float64]  # [3]
Array = NDArray[np.float64]


def _still() -> Vector:
    return np.zeros(3)


@dataclass(frozen=True)
class Body:
    """One card or ellipsoid: where it is, how it moves, what it looks like."""

    centre: Vector  # m
    axes: Array  # [3, 3] columns: half width, half height, half depth (balls) or normal (cards), m
    texture: int
    silhouette: int = -1
    tiles: tuple[float, float] = (1.0, 1.0)
    cuts: tuple[float, float] = (1.0, 1.0)
    tint: Vector = field(default_factory=lambda: np.ones(3))
    opacity: float = 1.0
    gloss: float = 0.0
    ball: bool = False
    endless: bool = False
    lit: bool = True
    casts: bool = False  # a shadow on the scene's receiver
    sway: Vector = field(default_factory=_still)  # m, amplitude of the centre
    turn: float = 0.0  # rad, amplitude of the rotation about the vertical
    roll: float = 0.0  # rad, amplitude of the rotation in the picture plane
    rate: float = 0.0  # rad / s
    phase: float = 0.0  # rad


@dataclass(frozen=True)
class Camera:
    """A camera on a tripod, a dolly or a shoulder: slow sines of its own and quick small ones of the hand."""

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
        """Where the camera is and how it is turned."""
        wave = np.sin(self.rate * seconds + self.phase)
        amplitude, rates, phases = self.hand[0], self.hand[1:3], self.hand[3:5]
        shake = amplitude * np.sin(rates * seconds + phases).sum(0)
        position = self.travel * wave + np.array([shake[0], shake[1], 0])
        yaw = self.swing * wave + shake[2]
        pitch = self.pitch + self.tilt * wave + shake[3]
        return position, _about_y(yaw) @ _about_x(pitch) @ _about_z(self.roll)


@dataclass(frozen=True)
class Scene:
    """Everything in front of the camera."""

    bodies: list[Body]
    camera: Camera
    light: Vector  # unit, from the light to the scene
    ambient: float
    haze_per_m: float
    haze: Vector  # RGB
    receiver: tuple[Vector, float]  # unit normal n and offset e of the plane n . x = e that takes the shadows
    shade: float  # opacity of the shadows, below 0.5


def _about_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def appearance(
    scene: Scene,
    white: int,  # texture of the shadows
    disc: int,  # silhouette of the shadows of ellipsoids
) -> NDArray[np.void]:  # [S] SURFACE
    """The looks of all bodies, then of the shadows of those that cast one."""
    casts = _casters(scene)
    surfaces = np.empty(len(scene.bodies) + len(casts), SURFACE)
    for name in SURFACE.names or ():
        own = np.array([getattr(body, name) for body in scene.bodies])
        surfaces[name] = np.concatenate([own, own[casts]])
    shadows = surfaces[len(scene.bodies) :]
    shadows["silhouette"] = np.where(shadows["ball"], disc, shadows["silhouette"])
    for name in ("ball", "endless", "lit", "tint", "gloss"):
        shadows[name] = 0
    shadows["texture"], shadows["opacity"] = white, scene.shade
    return surfaces


def _casters(scene: Scene) -> NDArray[np.int64]:
    return np.flatnonzero([body.casts for body in scene.bodies])


def _standing(scene: Scene, seconds: float) -> tuple[Array, Array]:
    """Centres [S, 3] and axes [S, 3, 3] in the world, shadows last."""
    centres, axes = [], []
    for body in scene.bodies:
        wave = np.sin(body.rate * seconds + body.phase) if body.rate else 0.0
        centres.append(body.centre + body.sway * wave)
        turned = _about_y(body.turn * wave) @ _about_z(body.roll * wave) if body.rate else np.eye(3)
        axes.append(turned @ body.axes)
    centre, axis = np.stack(centres), np.stack(axes)
    casts = _casters(scene)
    fallen, flat = _fallen(scene, centre[casts], axis[casts])
    return np.concatenate([centre, fallen]), np.concatenate([axis, flat])


def _fallen(scene: Scene, centres: Array, axes: Array) -> tuple[Array, Array]:
    """Cards thrown along the light onto the receiver; one seen edge-on from the light shrinks to nothing."""
    normal, offset = scene.receiver
    slant = normal @ scene.light
    reach = (offset * 0.999 - centres @ normal) / slant
    landed = centres + reach[:, None] * scene.light
    across, up = axes[:, :, 0], axes[:, :, 1]
    across = across - (across @ normal / slant)[:, None] * scene.light
    up = up - (up @ normal / slant)[:, None] * scene.light
    area = np.abs(np.cross(across, up) @ normal)
    thin = area < 1e-3 * np.linalg.norm(across, axis=1) * np.linalg.norm(up, axis=1)
    flat = np.stack([across, up, np.broadcast_to(normal, across.shape)], -1)
    return landed, np.where(thin[:, None, None], np.eye(3) * 1e-3, flat)


def eyes(
    scene: Scene,
    surfaces: NDArray[np.void],  # [S] SURFACE, from `appearance`
    seconds: float,
    baseline_m: float,
    screen_px: float,
    height: int,
    width: int,
    jitter: tuple[float, float],  # px, where in the pixel the rays pass: x, y
) -> tuple[Eye, Eye, NDArray[np.void]]:  # left, right, [1] LIGHT
    """The scene before the left eye and the right eye, which is `baseline_m` to its right, at one moment."""
    position, turn = scene.camera.pose(seconds)
    centres, axes = _standing(scene, seconds)
    centres, axes = (centres - position) @ turn, turn.T @ axes
    light = np.array([(scene.light @ turn, scene.ambient, scene.haze_per_m, scene.haze)], LIGHT)
    focal_px, column, row = (
        scene.camera.focal * width,
        (width - 1) / 2 - jitter[0],
        (height - 1) / 2 - jitter[1],
    )

    def eye(shift_m: float, column: float) -> Eye:
        poses = _poses(surfaces, centres - np.array([shift_m, 0, 0]), axes, focal_px, column, row)
        return Eye(poses, np.argsort(-poses["reach"], kind="stable"), focal_px, column, row)

    return eye(0, column), eye(baseline_m, column + screen_px), light


def _poses(
    surfaces: NDArray[np.void], centres: Array, axes: Array, focal_px: float, column: float, row: float
) -> NDArray[np.void]:  # [S] POSE
    """A surface that reaches behind the eye may be seen anywhere; one that is all behind it nowhere."""
    poses = np.empty(len(centres), POSE)
    poses["inverse"] = np.linalg.inv(axes)
    poses["centre"] = np.einsum("sij,sj->si", poses["inverse"], centres)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    signs = np.where(surfaces["ball"][:, None, None], signs, signs * [1, 1, 0])  # [S, 8, 3]
    corners = centres[:, None] + signs @ axes.transpose(0, 2, 1)
    depth = corners[..., 2]
    sight = np.maximum(depth, NEAREST_M)
    x = corners[..., 0] / sight * focal_px + column
    y = corners[..., 1] / sight * focal_px + row
    everywhere = (depth.min(1) < NEAREST_M) | surfaces["endless"]
    nowhere = (depth.max(1) < NEAREST_M) & ~surfaces["endless"]
    poses["box"] = np.stack([x.min(1) - 1, y.min(1) - 1, x.max(1) + 1, y.max(1) + 1], -1)
    poses["box"][everywhere] = [-np.inf, -np.inf, np.inf, np.inf]
    poses["box"][nowhere] = [np.inf, np.inf, -np.inf, -np.inf]
    poses["reach"] = np.where(everywhere, np.inf, 1 / sight.min(1))
    return poses
