"""Random scenes: four kinds of places, filled with objects of power-law sizes at all depths.

In `outdoors` and `room` lower usually is nearer; in `canopy` and `collage` it need not be. Some rooms have
houses for walls and no ceiling: streets. All numbers are ours, chosen by inspection so that every depth cue
is present and none is always right.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from secondeye.synthetic import silhouettes
from secondeye.synthetic.assets import MATERIAL_COUNT, SILHOUETTES, SKY, WHITE, silhouette_index
from secondeye.synthetic.scene import Array, Body, Camera, Scene, Vector

FAR_M = 3000.0
STREET_SHARE = 0.4  # of rooms
CARD_NORMAL = np.array([0.0, 0.0, 1.0])  # third axis of a card, which has no thickness


@dataclass(frozen=True)
class ViewVolume:
    """The part of the world that the camera sees, where objects may be placed."""

    half_width: float  # x / z at the frame's right border
    half_height: float
    near_m: float
    far_m: float
    floor_m: float  # y of the ground, inf for none
    ceiling_m: float  # y of the ceiling, -inf for none
    left_m: float = -np.inf  # x of the side walls
    right_m: float = np.inf

    def sample_depth(self, rng: Generator) -> float:
        """Sample a depth: half uniformly in disparity, half uniformly in log depth."""
        if rng.integers(2):
            return 1 / rng.uniform(1 / self.far_m, 1 / self.near_m)
        return float(np.exp(rng.uniform(np.log(self.near_m), np.log(self.far_m))))


def _power_law(rng: Generator, smallest: float, largest: float, power: float = 1.8) -> float:
    """Sample a size with density s ** -power between two bounds."""
    a, b = smallest ** (1 - power), largest ** (1 - power)
    return float((a + (b - a) * rng.uniform()) ** (1 / (1 - power)))


def _random_axes(rng: Generator, half: Vector, yaw: float, pitch: float, roll: float) -> Array:
    """Return axes of half extents `half`, rotated by random angles of the given standard deviations."""
    angles = rng.normal(0, 1, 3) * [yaw, pitch, roll]
    (cy, cx, cz), (sy, sx, sz) = np.cos(angles), np.sin(angles)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z * half


def _plane(rng: Generator, centre: Vector, across: Vector, up: Vector, tile_m: float) -> Body:
    """Return an infinite plane; `across` and `up` are unit vectors."""
    normal = np.cross(across, up)
    tint = rng.uniform(0.6, 1.1) * np.ones(3)
    texture = int(rng.integers(MATERIAL_COUNT))
    gloss = rng.uniform(0.1, 0.5) if rng.uniform() < 0.15 else 0.0
    axes = np.stack([across * tile_m, up * tile_m, normal], -1)
    return Body(centre, axes, texture, tiles=(2.0, 2.0), tint=tint, gloss=gloss, infinite=True)


def _ground(rng: Generator, y: float) -> Body:
    turn = rng.uniform(0, np.pi)
    across = np.array([np.cos(turn), 0, np.sin(turn)])
    up = np.array([-np.sin(turn), 0, np.cos(turn)])
    return _plane(rng, np.array([0, y, 0.0]), across, up, rng.uniform(1, 4))


def _wall(rng: Generator, z: float, slant: float) -> Body:
    """Return a wall facing the camera, randomly tilted by about `slant` rad."""
    axes = _random_axes(rng, np.ones(3), slant, slant * 0.6, 0.02)
    return _plane(rng, np.array([0, 0, z]), axes[:, 0], axes[:, 1], rng.uniform(0.2, 0.6) * z)


def _sky(rng: Generator) -> Body:
    axes = np.diag([FAR_M * 1.5, FAR_M * 1.2, 1.0])
    return Body(np.array([0, 0, FAR_M]), axes, SKY, infinite=True, lit=False)


def _object(rng: Generator, volume: ViewVolume, placement: str) -> Body:
    """Return one object: floating, standing on the ground or hanging from above."""
    z = volume.sample_depth(rng)
    apparent = _power_law(rng, 0.05, 0.55, 1.7) * (z / volume.near_m) ** -0.25
    aspect = np.exp(rng.normal(0, 0.35))
    half = apparent * z * volume.half_width * np.array([aspect**-0.5, aspect**0.5, 0.0])
    x, y = rng.uniform(-1.15, 1.15, 2) * [volume.half_width, volume.half_height] * z
    if not volume.left_m < x < volume.right_m:
        x = rng.uniform(
            max(volume.left_m, -volume.half_width * z), min(volume.right_m, volume.half_width * z)
        )
    body = Body(
        centre=np.array([x, y, z]),
        axes=_random_axes(rng, half + CARD_NORMAL, 0.4, 0.4, 1.0),
        texture=int(rng.integers(MATERIAL_COUNT)),
        silhouette=silhouette_index(rng, "floating") if rng.uniform() < 0.8 else -1,
        tiles=(rng.uniform(0.3, 1.0),) * 2,
        tint=np.clip(rng.uniform(0.4, 1.2) + rng.normal(0, 0.1, 3), 0.1, 1.3),
        gloss=rng.uniform(0.2, 0.9) if rng.uniform() < 0.15 else 0.0,
        casts_shadow=True,
    )
    if placement == "floating" and rng.uniform() < 0.35:
        radii = half + CARD_NORMAL * half[0]
        return replace(
            body, axes=_random_axes(rng, radii, 1, 0.5, 1), silhouette=-1, tiles=(1.0, 1.0), ellipsoid=True
        )
    if placement == "floating":
        return body
    upright_axes = _random_axes(rng, half + CARD_NORMAL, 0.5, 0.05, 0.03)
    body = replace(body, axes=upright_axes, silhouette=silhouette_index(rng, placement))
    if placement == "standing":
        bottom = volume.floor_m if np.isfinite(volume.floor_m) else 1.2 * volume.half_height * z
        return replace(body, centre=np.array([x, bottom, z]) - upright_axes[:, 1])
    top = volume.ceiling_m if np.isfinite(volume.ceiling_m) else -1.2 * volume.half_height * z
    return replace(
        body,
        centre=np.array([x, top, z]) + np.array([0, abs(upright_axes[1, 1]), 0]),
        axes=_hanging_axes(body),
    )


def _hanging_axes(body: Body) -> Array:
    """Turn twigs and trees, which are drawn standing, upside down; lamps already hang."""
    count = sum(len(SILHOUETTES[name]) for name in ("standing", "floating"))
    shape = silhouettes.HANGING[body.silhouette - count]
    return body.axes * [1, -1, 1] if shape in (silhouettes.twigs, silhouettes.tree) else body.axes


def _screen(rng: Generator, volume: ViewVolume) -> Body:
    """Return a wide card of bars, mesh or cables at any depth."""
    z = volume.sample_depth(rng)
    half_width = z * volume.half_width * rng.uniform(0.8, 2.5)
    half_height = z * volume.half_height * _power_law(rng, 0.2, 1.3, 1.2)
    repeats = max(1.0, round(half_width / half_height * rng.uniform(0.5, 1)))
    y = rng.uniform(-1, 1) * volume.half_height * z
    if np.isfinite(volume.floor_m) and rng.integers(2):
        y = volume.floor_m - half_height
    return Body(
        centre=np.array([rng.normal(0, 0.5) * volume.half_width * z, y, z]),
        axes=_random_axes(rng, np.array([half_width, half_height, 1]), 0.35, 0.05, 0.03),
        texture=int(rng.integers(MATERIAL_COUNT)),
        silhouette=silhouette_index(rng, "screen"),
        tiles=(repeats, 1.0),
        silhouette_tiles=(repeats, 1.0),
        tint=rng.uniform(0.2, 1.1) * np.ones(3),
        casts_shadow=True,
    )


def _foreground_object(rng: Generator, volume: ViewVolume) -> Body:
    """Return a close object that reaches into the frame from a random side."""
    z = volume.near_m * rng.uniform(1, 1.25)
    side = rng.uniform(0, 2 * np.pi)
    centre = np.array([np.cos(side) * volume.half_width, np.sin(side) * volume.half_height, 1]) * z
    size = rng.uniform(0.3, 0.7) * z * volume.half_width
    placement = str(rng.choice(["standing", "floating", "floating", "hanging"]))
    axes = _random_axes(rng, np.array([size, size, 1]), 0.3, 0.3, 2)
    return Body(
        centre,
        axes,
        int(rng.integers(MATERIAL_COUNT)),
        silhouette_index(rng, placement),
        tint=rng.uniform(0.2, 1) * np.ones(3),
    )


def _transparent_pane(rng: Generator, volume: ViewVolume) -> Body:
    """Return glass or smoke of opacity below 0.5, so that the disparity is that of the surface behind it."""
    z = volume.sample_depth(rng)
    half = np.array([volume.half_width, volume.half_height, 0]) * z * rng.uniform(0.15, 0.8, 3) + CARD_NORMAL
    smoke = rng.uniform() < 0.4
    return Body(
        centre=np.array([*rng.uniform(-0.8, 0.8, 2) * [volume.half_width, volume.half_height], 1]) * z,
        axes=_random_axes(rng, half, 0.3, 0.1, 0.05),
        texture=WHITE if smoke else int(rng.choice([SKY, WHITE, int(rng.integers(MATERIAL_COUNT))])),
        silhouette=silhouette_index(rng, "cloud") if smoke else -1,
        tint=rng.uniform(0.5, 1, 3),
        opacity=rng.uniform(0.15, 0.42),
        gloss=0.0 if smoke else rng.uniform(0, 0.8),
    )


def _animate(rng: Generator, body: Body, volume: ViewVolume) -> Body:
    """Return the body with motion: sideways, vertically unless it stands, slightly in depth, and rotating."""
    reach = body.centre[2] * volume.half_width
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


def _populate(rng: Generator, volume: ViewVolume, placements: list[str]) -> list[Body]:
    """Return objects (some of them moving), screens, foreground objects and transparent panes."""
    objects = [
        _object(rng, volume, str(rng.choice(placements))) for _ in range(int(_power_law(rng, 14, 70, 1.2)))
    ]
    share = rng.choice([0, 0.1, 0.3, 0.6])
    objects = [_animate(rng, item, volume) if rng.uniform() < share else item for item in objects]
    objects += [_screen(rng, volume) for _ in range(rng.choice([0, 1, 2], p=[0.35, 0.45, 0.2]))]
    objects += [
        _foreground_object(rng, volume) for _ in range(rng.choice([0, 1, 2, 3], p=[0.35, 0.3, 0.2, 0.15]))
    ]
    return objects + [_transparent_pane(rng, volume) for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1]))]


def _camera(rng: Generator, near_m: float) -> Camera:
    """Return a static, panning, travelling or hand-held camera."""
    kind = rng.choice(["static", "pan", "dolly", "hand"], p=[0.15, 0.25, 0.3, 0.3])
    hand = rng.uniform(0.3, 1) if kind == "hand" else rng.choice([0, 0.1])
    shake = hand * np.array([0.01 * near_m, 0.01 * near_m, 0.008, 0.006])
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
        hand=np.concatenate([shake[None], rates, phases]),
    )


def generate_scene(
    rng: Generator,
    aspect: float,  # width / height of the frame
) -> Scene:
    """Return a random scene with its camera and light."""
    near = rng.uniform(1.0, 2.5)
    camera = _camera(rng, near)
    far = near * rng.uniform(3, 14)
    half_width = 0.5 / camera.focal
    volume = ViewVolume(half_width, half_width / aspect, near, far, np.inf, -np.inf)
    kind = rng.choice(["outdoors", "room", "collage", "canopy"], p=[0.3, 0.25, 0.25, 0.2])
    normal, offset = np.array([0, 0, 1.0]), far * 1.1
    match kind:
        case "outdoors":
            volume = replace(volume, floor_m=rng.uniform(0.6, 1.3) * volume.half_height * near * 1.3)
            bodies = [_sky(rng), _ground(rng, volume.floor_m)]
            placements = ["standing", "standing", "standing", "floating", "hanging"]
        case "room" if (street := rng.spawn(1)[0]).uniform() < STREET_SHARE:  # leaves other scenes unchanged
            volume = replace(
                volume,
                far_m=near * street.uniform(10, 40),
                floor_m=street.uniform(0.6, 1.3) * volume.half_height * near * 1.3,
                left_m=-street.uniform(1.2, 3.5) * volume.half_width * near,
                right_m=street.uniform(1.2, 3.5) * volume.half_width * near,
            )
            bodies = [_sky(street), _ground(street, volume.floor_m), *_houses(street, volume)]
            placements = ["standing", "standing", "standing", "floating"]
        case "room":
            floor, ceiling = rng.uniform(0.9, 2.2, 2) * volume.half_height * near * [1, -1]
            volume = replace(volume, floor_m=floor, ceiling_m=ceiling)
            bodies = [_ground(rng, floor), _ground(rng, ceiling), _wall(rng, far * 1.1, 0.05)]
            left, right = rng.uniform(1.2, 3.5, 2) * volume.half_width * near * [-1, 1]
            volume = replace(volume, left_m=left, right_m=right)
            bodies += [_side_wall(rng, left), _side_wall(rng, right)]
            placements = ["standing", "standing", "hanging", "floating"]
        case "canopy":
            ceiling = -rng.uniform(0.6, 1.3) * volume.half_height * near * 1.3
            volume = replace(volume, ceiling_m=ceiling)
            bodies = [_ground(rng, ceiling), _sky(rng) if rng.integers(2) else _wall(rng, far * 1.2, 0.2)]
            placements = ["hanging", "hanging", "hanging", "floating"]
        case _:
            bodies = [_wall(rng, far * 1.1, 0.35)]
            placements = ["floating", "floating", "floating", "hanging", "standing"]
    if np.isfinite(volume.floor_m):
        normal, offset = np.array([0, 1.0, 0]), volume.floor_m
    hazy = kind == "outdoors" and rng.integers(2)
    return Scene(
        bodies=bodies + _populate(rng, volume, placements),
        camera=camera,
        light=_light(rng),
        ambient=rng.uniform(0.4, 0.8),
        haze_per_m=rng.uniform(0.1, 1.2) / far if hazy else 0.0,
        haze=rng.uniform(0.6, 0.95) + rng.normal(0, 0.04, 3),
        shadow_plane=(normal, offset),
        shadow_opacity=rng.uniform(0.15, 0.48),
    )


def _houses(rng: Generator, volume: ViewVolume) -> list[Body]:
    """Return the facades on both sides of a street: of random sizes, some with a gap before the next one."""
    houses = []
    for x in (volume.left_m, volume.right_m):
        z = -volume.near_m
        while z < volume.far_m:
            length, height = np.array([rng.uniform(1.5, 6), rng.uniform(1.5, 5)]) * volume.near_m
            axes = np.array([[0, 0, 1.0], [0, height / 2, 0], [length / 2, 0, 0]])
            houses.append(
                Body(
                    centre=np.array([x * rng.uniform(1, 1.2), volume.floor_m - height / 2, z + length / 2]),
                    axes=axes,
                    texture=int(rng.integers(MATERIAL_COUNT)),
                    tiles=(rng.uniform(0.5, 3), rng.uniform(0.5, 3)),
                    tint=np.clip(rng.uniform(0.5, 1.1) + rng.normal(0, 0.05, 3), 0.1, 1.3),
                )
            )
            z += length * rng.choice([1.0, 1.0, 1.3])
    return houses


def _side_wall(rng: Generator, x: float) -> Body:
    ahead, up = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    return _plane(rng, np.array([x, 0, 0]), ahead, up, rng.uniform(1, 4))


def _light(rng: Generator) -> Vector:
    """Return a light from above and behind the camera, never along a wall or straight down."""
    sideways, down = rng.uniform(-0.8, 0.8), rng.uniform(0.6, 1.2)
    direction = np.array([sideways, down, rng.uniform(0.3, 1)])
    return direction / np.linalg.norm(direction)
