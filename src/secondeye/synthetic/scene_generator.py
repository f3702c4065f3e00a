"""Scenes drawn by chance: four kinds of place, peopled with things of power-law sizes at all depths.

`outdoors` and `room` teach that lower is nearer; `canopy` and `collage` teach that it need not be.
All numbers are ours: chosen by looking, so that every cue of depth is present and none is always right.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from secondeye.synthetic import silhouettes
from secondeye.synthetic.assets import MATERIALS, OUTLINES, SKY, WHITE, outline
from secondeye.synthetic.scene import Array, Body, Camera, Scene, Vector

FAR_M = 3000.0
FLAT = np.array([0.0, 0.0, 1.0])  # a card has no thickness; its third axis is its unit normal


@dataclass(frozen=True)
class Volume:
    """The part of the world that the camera sees: where things may be put."""

    half_wide: float  # half the sensor / focal length: x / z at the frame's right edge
    half_high: float
    near_m: float
    far_m: float
    floor_m: float  # y of the ground, inf when there is none
    ceiling_m: float  # y of the ceiling, -inf when there is none
    left_m: float = -np.inf  # x of the walls on either side
    right_m: float = np.inf

    def depth(self, rng: Generator) -> float:
        """Half of the things evenly in disparity, half evenly in the logarithm of depth."""
        if rng.integers(2):
            return 1 / rng.uniform(1 / self.far_m, 1 / self.near_m)
        return float(np.exp(rng.uniform(np.log(self.near_m), np.log(self.far_m))))


def _extent(rng: Generator, smallest: float, largest: float, power: float = 1.8) -> float:
    """A size with density s ** -power between two bounds."""
    a, b = smallest ** (1 - power), largest ** (1 - power)
    return float((a + (b - a) * rng.uniform()) ** (1 / (1 - power)))


def _tilted(rng: Generator, half: Vector, yaw: float, pitch: float, roll: float) -> Array:
    """Axes of a body with half extents `half`, turned by random angles of the given standard deviations."""
    from_angles = rng.normal(0, 1, 3) * [yaw, pitch, roll]
    (cy, cx, cz), (sy, sx, sz) = np.cos(from_angles), np.sin(from_angles)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z * half


def _plane(rng: Generator, centre: Vector, across: Vector, up: Vector, tile_m: float) -> Body:
    """An endless plane; `across` and `up` are unit vectors."""
    normal = np.cross(across, up)
    tint = rng.uniform(0.6, 1.1) * np.ones(3)
    texture = int(rng.integers(MATERIALS))
    gloss = rng.uniform(0.1, 0.5) if rng.uniform() < 0.15 else 0.0
    axes = np.stack([across * tile_m, up * tile_m, normal], -1)
    return Body(centre, axes, texture, tiles=(2.0, 2.0), tint=tint, gloss=gloss, endless=True)


def _ground(rng: Generator, y: float) -> Body:
    turn = rng.uniform(0, np.pi)
    across = np.array([np.cos(turn), 0, np.sin(turn)])
    up = np.array([-np.sin(turn), 0, np.cos(turn)])
    return _plane(rng, np.array([0, y, 0.0]), across, up, rng.uniform(1, 4))


def _wall(rng: Generator, z: float, slant: float) -> Body:
    """A wall across the view, turned about a slanted axis by `slant` rad."""
    axes = _tilted(rng, np.ones(3), slant, slant * 0.6, 0.02)
    return _plane(rng, np.array([0, 0, z]), axes[:, 0], axes[:, 1], rng.uniform(0.2, 0.6) * z)


def _sky(rng: Generator) -> Body:
    axes = np.diag([FAR_M * 1.5, FAR_M * 1.2, 1.0])
    return Body(np.array([0, 0, FAR_M]), axes, SKY, endless=True, lit=False)


def _thing(rng: Generator, volume: Volume, placing: str) -> Body:
    """One object, floating, standing on the ground or hanging from above."""
    z = volume.depth(rng)
    apparent = _extent(rng, 0.05, 0.55, 1.7) * (z / volume.near_m) ** -0.25
    aspect = np.exp(rng.normal(0, 0.35))
    half = apparent * z * volume.half_wide * np.array([aspect**-0.5, aspect**0.5, 0.0])
    x, y = rng.uniform(-1.15, 1.15, 2) * [volume.half_wide, volume.half_high] * z
    if not volume.left_m < x < volume.right_m:
        x = rng.uniform(max(volume.left_m, -volume.half_wide * z), min(volume.right_m, volume.half_wide * z))
    body = Body(
        centre=np.array([x, y, z]),
        axes=_tilted(rng, half + FLAT, 0.4, 0.4, 1.0),
        texture=int(rng.integers(MATERIALS)),
        silhouette=outline(rng, "floating") if rng.uniform() < 0.8 else -1,
        tiles=(rng.uniform(0.3, 1.0),) * 2,
        tint=np.clip(rng.uniform(0.4, 1.2) + rng.normal(0, 0.1, 3), 0.1, 1.3),
        gloss=rng.uniform(0.2, 0.9) if rng.uniform() < 0.15 else 0.0,
        casts=True,
    )
    if placing == "floating" and rng.uniform() < 0.35:
        radii = half + FLAT * half[0]
        return replace(body, axes=_tilted(rng, radii, 1, 0.5, 1), silhouette=-1, tiles=(1.0, 1.0), ball=True)
    if placing == "floating":
        return body
    lean = _tilted(rng, half + FLAT, 0.5, 0.05, 0.03)
    body = replace(body, axes=lean, silhouette=outline(rng, placing))
    if placing == "standing":
        bottom = volume.floor_m if np.isfinite(volume.floor_m) else 1.2 * volume.half_high * z
        return replace(body, centre=np.array([x, bottom, z]) - lean[:, 1])
    top = volume.ceiling_m if np.isfinite(volume.ceiling_m) else -1.2 * volume.half_high * z
    return replace(body, centre=np.array([x, top, z]) + np.array([0, abs(lean[1, 1]), 0]), axes=_hung(body))


def _hung(body: Body) -> Array:
    """Twigs and trees stand in their pictures; hung from above they are turned over, unlike lamps."""
    count = sum(len(OUTLINES[name]) for name in ("standing", "floating"))
    draw = silhouettes.HANGING[body.silhouette - count]
    return body.axes * [1, -1, 1] if draw in (silhouettes.twigs, silhouettes.tree) else body.axes


def _screen(rng: Generator, volume: Volume) -> Body:
    """A wide card of bars, mesh or cables in front of or behind other things."""
    z = volume.depth(rng)
    wide = z * volume.half_wide * rng.uniform(0.8, 2.5)
    high = z * volume.half_high * _extent(rng, 0.2, 1.3, 1.2)
    cut = max(1.0, round(wide / high * rng.uniform(0.5, 1)))
    y = rng.uniform(-1, 1) * volume.half_high * z
    if np.isfinite(volume.floor_m) and rng.integers(2):
        y = volume.floor_m - high
    return Body(
        centre=np.array([rng.normal(0, 0.5) * volume.half_wide * z, y, z]),
        axes=_tilted(rng, np.array([wide, high, 1]), 0.35, 0.05, 0.03),
        texture=int(rng.integers(MATERIALS)),
        silhouette=outline(rng, "screen"),
        tiles=(cut, 1.0),
        cuts=(cut, 1.0),
        tint=rng.uniform(0.2, 1.1) * np.ones(3),
        casts=True,
    )


def _edge(rng: Generator, volume: Volume) -> Body:
    """Something close that reaches into the frame from any side, the upper one as often as the lower."""
    z = volume.near_m * rng.uniform(1, 1.25)
    side = rng.uniform(0, 2 * np.pi)
    centre = np.array([np.cos(side) * volume.half_wide, np.sin(side) * volume.half_high, 1]) * z
    size = rng.uniform(0.3, 0.7) * z * volume.half_wide
    placing = str(rng.choice(["standing", "floating", "floating", "hanging"]))
    axes = _tilted(rng, np.array([size, size, 1]), 0.3, 0.3, 2)
    return Body(
        centre,
        axes,
        int(rng.integers(MATERIALS)),
        outline(rng, placing),
        tint=rng.uniform(0.2, 1) * np.ones(3),
    )


def _pane(rng: Generator, volume: Volume) -> Body:
    """Glass, or smoke: less than half opaque, so what stands behind owns the disparity."""
    z = volume.depth(rng)
    half = np.array([volume.half_wide, volume.half_high, 0]) * z * rng.uniform(0.15, 0.8, 3) + FLAT
    smoke = rng.uniform() < 0.4
    return Body(
        centre=np.array([*rng.uniform(-0.8, 0.8, 2) * [volume.half_wide, volume.half_high], 1]) * z,
        axes=_tilted(rng, half, 0.3, 0.1, 0.05),
        texture=WHITE if smoke else int(rng.choice([SKY, WHITE, int(rng.integers(MATERIALS))])),
        silhouette=outline(rng, "cloud") if smoke else -1,
        tint=rng.uniform(0.5, 1, 3),
        opacity=rng.uniform(0.15, 0.42),
        gloss=0.0 if smoke else rng.uniform(0, 0.8),
    )


def _moving(rng: Generator, body: Body, volume: Volume) -> Body:
    """The body on its own way: across the view, up and down unless it stands, a little in depth, turning."""
    reach = body.centre[2] * volume.half_wide
    stands = body.centre[1] + abs(body.axes[1, 1]) > volume.floor_m - 0.01
    heading = rng.normal(0, 1, 3) * [1, 0 if stands else 0.4, 0.15]
    return replace(
        body,
        sway=heading * reach * rng.uniform(0.05, 0.5),
        turn=rng.uniform(0, 0.5),
        roll=rng.uniform(0, 0.6) * rng.integers(2),
        rate=2 * np.pi / rng.uniform(2.5, 8),
        phase=rng.uniform(0, 2 * np.pi),
    )


def _peopled(rng: Generator, volume: Volume, placings: list[str]) -> list[Body]:
    """Things, screens, something close at an edge, glass; a share of the things move."""
    things = [_thing(rng, volume, str(rng.choice(placings))) for _ in range(int(_extent(rng, 14, 70, 1.2)))]
    share = rng.choice([0, 0.1, 0.3, 0.6])
    things = [_moving(rng, thing, volume) if rng.uniform() < share else thing for thing in things]
    things += [_screen(rng, volume) for _ in range(rng.choice([0, 1, 2], p=[0.35, 0.45, 0.2]))]
    things += [_edge(rng, volume) for _ in range(rng.choice([0, 1, 2, 3], p=[0.35, 0.3, 0.2, 0.15]))]
    return things + [_pane(rng, volume) for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1]))]


def _camera(rng: Generator, near_m: float) -> Camera:
    """Standing, panning, travelling or carried by hand."""
    kind = rng.choice(["static", "pan", "dolly", "hand"], p=[0.15, 0.25, 0.3, 0.3])
    hand = rng.uniform(0.3, 1) if kind == "hand" else rng.choice([0, 0.1])
    tremble = hand * np.array([0.01 * near_m, 0.01 * near_m, 0.008, 0.006])
    rates, phases = rng.uniform(2, 9, (2, 4)), rng.uniform(0, 6.3, (2, 4))
    travel = rng.normal(0, 1, 3) * [0.3, 0.1, 0.2] * near_m if kind == "dolly" else np.zeros(3)
    return Camera(
        focal=0.5 / np.tan(np.radians(rng.uniform(32, 75)) / 2),
        pitch=rng.normal(0, 0.06),
        roll=rng.normal(0, 0.02),
        travel=np.clip(travel, -0.35 * near_m, 0.35 * near_m),
        swing=rng.uniform(0.05, 0.3) if kind == "pan" else 0.0,
        tilt=rng.normal(0, 0.06) if kind == "pan" else 0.0,
        rate=2 * np.pi / rng.uniform(5, 12),
        phase=rng.uniform(0, 2 * np.pi),
        hand=np.concatenate([tremble[None], rates, phases]),
    )


def draw_scene(
    rng: Generator,
    aspect: float,  # width / height of the frame
) -> Scene:
    """One scene of any kind, with its camera and light."""
    near = rng.uniform(1.0, 2.5)
    camera = _camera(rng, near)
    far = near * rng.uniform(3, 14)
    half_wide = 0.5 / camera.focal
    volume = Volume(half_wide, half_wide / aspect, near, far, np.inf, -np.inf)
    kind = rng.choice(["outdoors", "room", "collage", "canopy"], p=[0.3, 0.25, 0.25, 0.2])
    normal, offset = np.array([0, 0, 1.0]), far * 1.1
    match kind:
        case "outdoors":
            volume = replace(volume, floor_m=rng.uniform(0.6, 1.3) * volume.half_high * near * 1.3)
            bodies = [_sky(rng), _ground(rng, volume.floor_m)]
            placings = ["standing", "standing", "standing", "floating", "hanging"]
        case "room":
            floor, ceiling = rng.uniform(0.9, 2.2, 2) * volume.half_high * near * [1, -1]
            volume = replace(volume, floor_m=floor, ceiling_m=ceiling)
            bodies = [_ground(rng, floor), _ground(rng, ceiling), _wall(rng, far * 1.1, 0.05)]
            left, right = rng.uniform(1.2, 3.5, 2) * volume.half_wide * near * [-1, 1]
            volume = replace(volume, left_m=left, right_m=right)
            bodies += [_side_wall(rng, left), _side_wall(rng, right)]
            placings = ["standing", "standing", "hanging", "floating"]
        case "canopy":
            ceiling = -rng.uniform(0.6, 1.3) * volume.half_high * near * 1.3
            volume = replace(volume, ceiling_m=ceiling)
            bodies = [_ground(rng, ceiling), _sky(rng) if rng.integers(2) else _wall(rng, far * 1.2, 0.2)]
            placings = ["hanging", "hanging", "hanging", "floating"]
        case _:
            bodies = [_wall(rng, far * 1.1, 0.35)]
            placings = ["floating", "floating", "floating", "hanging", "standing"]
    if np.isfinite(volume.floor_m):
        normal, offset = np.array([0, 1.0, 0]), volume.floor_m
    hazy = kind == "outdoors" and rng.integers(2)
    return Scene(
        bodies=bodies + _peopled(rng, volume, placings),
        camera=camera,
        light=_light(rng),
        ambient=rng.uniform(0.4, 0.8),
        haze_per_m=rng.uniform(0.1, 1.2) / far if hazy else 0.0,
        haze=rng.uniform(0.6, 0.95) + rng.normal(0, 0.04, 3),
        receiver=(normal, offset),
        shade=rng.uniform(0.15, 0.48),
    )


def _side_wall(rng: Generator, x: float) -> Body:
    ahead, up = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    return _plane(rng, np.array([x, 0, 0]), ahead, up, rng.uniform(1, 4))


def _light(rng: Generator) -> Vector:
    """From above and from behind the camera, never along a wall or straight down."""
    side, high = rng.uniform(-0.8, 0.8), rng.uniform(0.6, 1.2)
    direction = np.array([side, high, rng.uniform(0.3, 1)])
    return direction / np.linalg.norm(direction)
