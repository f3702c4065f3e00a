"""Render examples/clip.mp4, the film that `./run demo` converts first: a walk through a garden, with sound.

    python examples/make_clip.py examples/clip.mp4

The scene is built from the ellipsoids and cards of `secondeye.synthetic` and ray-traced. The camera moves to
the right, so that near objects pass in front of far ones. All of it is our own; CC0-1.0.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from secondeye.synthetic import silhouettes, textures
from secondeye.synthetic.raytrace import render_view
from secondeye.synthetic.scene import Body, Camera, Scene, make_surfaces, stereo_geometry
from secondeye.video.write import write_film

HEIGHT, WIDTH, FPS, SECONDS = 480, 848, 24, 5
SOUND_RATE = 48_000
GROUND_M = 1.6  # below the camera
FAR_M = 3000.0
TEXTURE_PX = 512
MATERIALS = ("sky", "grass", "leaves", "bark", "bricks", "tiles", "planks", "stripes", "white", "gravel")
SHAPES = (silhouettes.fence, silhouettes.disc, silhouettes.grass, silhouettes.cloud)
FENCE, DISC, GRASS, CLOUD = range(len(SHAPES))

Array = NDArray[np.float64]


def colour(*rgb: float) -> Array:
    return np.array(rgb)


def flat(
    centre: tuple[float, float, float], half_x: float, half_y: float, material: str, **more: object
) -> Body:
    """Return a card that faces the camera."""
    axes = np.diag([half_x, half_y, 1.0])
    return Body(np.array(centre), axes, MATERIALS.index(material), **more)  # type: ignore[arg-type]


def ball(
    centre: tuple[float, float, float], radii: tuple[float, float, float], material: str, **more: object
) -> Body:
    """Return an ellipsoid; `roll` turns it in the image plane."""
    return Body(np.array(centre), np.diag(radii), MATERIALS.index(material), ellipsoid=True, **more)  # type: ignore[arg-type]


def leaning(body: Body, angle: float) -> Body:
    """Turn a body in the image plane about its upper end."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    length = body.axes[1, 1]
    top = body.centre - [0, length, 0]
    return Body(
        top + turn @ [0, length, 0],
        turn @ body.axes,
        body.texture,
        tint=body.tint,
        ellipsoid=True,
        casts_shadow=True,
    )


def backdrop(rng: Generator) -> list[Body]:
    sky = np.diag([FAR_M * 1.5, FAR_M * 1.2, 1.0])
    floor = np.stack([[2.0, 0, 0], [0, 0, 2.0], [0, -1.0, 0]], -1)
    path = np.stack([[0.9, 0, 0], [0.5, 0, 14.0], [0, -1.0, 0]], -1)
    bodies = [
        Body(np.array([0, 0, FAR_M]), sky, MATERIALS.index("sky"), infinite=True, lit=False),
        Body(np.array([0, GROUND_M, 0]), floor, MATERIALS.index("grass"), tiles=(1.0, 1.0), infinite=True),
        Body(np.array([1.2, GROUND_M - 0.01, 16.0]), path, MATERIALS.index("gravel"), tiles=(1.0, 14.0)),
    ]
    for x, z, width, height in (
        (-150, 420, 260, 70),
        (190, 380, 240, 55),
        (30, 300, 160, 32),
        (-230, 260, 120, 26),
    ):
        tint = colour(0.75, 0.85, 0.75) * rng.uniform(0.85, 1)
        bodies.append(ball((x, GROUND_M, z), (width, height, 60), "grass", tiles=(12.0, 12.0), tint=tint))
    for x, y, z, size in ((-200, -190, 800, 120), (160, -230, 900, 140), (420, -150, 850, 100)):
        bodies.append(flat((x, y, z), size, size * 0.4, "white", silhouette=CLOUD, opacity=0.9, lit=False))
    return bodies


def tree(rng: Generator, x: float, z: float, height: float) -> list[Body]:
    top = GROUND_M - height
    trunk = ball(
        (x, GROUND_M - height * 0.3, z),
        (height * 0.05, height * 0.36, height * 0.05),
        "bark",
        casts_shadow=True,
    )
    bodies = [trunk]
    for _ in range(9):
        dx, dz = rng.normal(0, 0.16 * height, 2)
        y = top + height * rng.uniform(0.1, 0.48)
        radius = height * rng.uniform(0.13, 0.22)
        tint = colour(0.9, 1, 0.8) * rng.uniform(0.65, 1.15)
        bodies.append(
            ball(
                (x + dx, y, z + dz * 0.6),
                (radius, radius * 0.85, radius),
                "leaves",
                tint=tint,
                casts_shadow=True,
            )
        )
    return bodies


def house(x: float, z: float) -> list[Body]:
    """Two walls, a gable roof, a door, windows and a chimney."""
    wide, deep, high, roof = 2.6, 2.2, 1.3, 1.1
    eaves, base = GROUND_M - 2 * high, GROUND_M - high
    slope = np.stack([[wide + 0.25, 0, 0], [0, roof / 2 + 0.1, -(deep / 2 + 0.2)], [0, -0.8, -0.6]], -1)
    side = np.stack([[0, 0, deep], [0, high, 0], [-1.0, 0, 0]], -1)
    bodies = [
        flat((x, base, z), wide, high, "bricks", tiles=(3.0, 1.5), casts_shadow=True),
        Body(np.array([x - wide, base, z + deep]), side, MATERIALS.index("bricks"), tiles=(2.5, 1.5)),
        Body(
            np.array([x, eaves - roof / 2, z + deep / 2]), slope, MATERIALS.index("tiles"), tiles=(4.0, 2.0)
        ),
        flat((x + 1.5, eaves - roof - 0.1, z + deep * 0.8), 0.22, 0.5, "bricks"),
        flat((x, GROUND_M - 0.85, z - 0.03), 0.42, 0.85, "planks", tint=colour(0.35, 0.5, 0.7)),
    ]
    for dx in (-1.5, 1.5):
        bodies.append(flat((x + dx, base - 0.1, z - 0.02), 0.55, 0.5, "white"))
        for px in (-0.25, 0.25):
            for py in (-0.22, 0.22):
                tint = colour(0.35, 0.45, 0.6)
                bodies.append(
                    flat((x + dx + px, base - 0.1 + py, z - 0.04), 0.2, 0.18, "sky", tint=tint, gloss=0.6)
                )
    return bodies


def walker(x: float, z: float, seconds: float) -> list[Body]:
    """A person who walks to the right and holds a balloon."""
    stride = np.sin(2 * np.pi * seconds / 1.1)
    hips, shoulders = GROUND_M - 0.86, GROUND_M - 1.42
    bounce = 0.02 * np.abs(stride)
    skin, trousers, jacket = colour(0.95, 0.75, 0.6), colour(0.25, 0.3, 0.55), colour(0.85, 0.3, 0.2)
    leg, arm = (0.09, 0.44, 0.09), (0.055, 0.33, 0.06)
    return [
        leaning(ball((x, hips + 0.42, z + 0.1), leg, "white", tint=trousers * 0.8), 0.5 * stride),
        leaning(ball((x, hips + 0.42, z - 0.1), leg, "white", tint=trousers), -0.5 * stride),
        ball((x, GROUND_M - 1.12 - bounce, z), (0.2, 0.36, 0.15), "white", tint=jacket, casts_shadow=True),
        leaning(ball((x, shoulders + 0.3, z - 0.2), arm, "white", tint=jacket * 0.9), 0.6 * stride),
        leaning(ball((x, shoulders + 0.3, z + 0.2), arm, "white", tint=jacket * 0.7), np.pi + 0.5),
        ball((x, GROUND_M - 1.62 - bounce, z), (0.125, 0.15, 0.13), "white", tint=skin, casts_shadow=True),
        ball(
            (x - 0.01, GROUND_M - 1.70 - bounce, z), (0.135, 0.1, 0.14), "bark", tint=colour(0.5, 0.35, 0.25)
        ),
        flat((x + 0.32, GROUND_M - 2.3, z + 0.2), 0.006, 0.3, "white", tint=colour(0.3, 0.3, 0.3)),
        ball(
            (x + 0.32, GROUND_M - 2.85, z + 0.2),
            (0.22, 0.27, 0.22),
            "white",
            tint=colour(0.95, 0.2, 0.25),
            gloss=0.7,
        ),
    ]


def hot_air_balloon(x: float, y: float, z: float) -> list[Body]:
    return [
        ball((x, y, z), (5.0, 5.6, 5.0), "stripes", tiles=(3.0, 1.0)),
        ball((x, y + 6.0, z), (1.7, 1.6, 1.7), "stripes", tiles=(3.0, 1.0), tint=colour(0.8, 0.8, 0.8)),
        flat((x, y + 9.2, z), 0.8, 0.6, "planks", tint=colour(0.7, 0.5, 0.3)),
        flat((x - 0.7, y + 7.9, z), 0.04, 0.9, "bark"),
        flat((x + 0.7, y + 7.9, z), 0.04, 0.9, "bark"),
    ]


def garden(seconds: float) -> list[Body]:
    """Return everything at one moment; the seed is fixed, so that only what walks and flies moves."""
    rng = np.random.default_rng(5)
    bodies = backdrop(rng)
    for x, z, height in (
        (-7, 24, 6.5),
        (9, 30, 8),
        (-14, 40, 8),
        (16, 22, 6),
        (2, 46, 7),
        (-4.2, 9.5, 4.2),
        (7.5, 8.2, 4.6),
    ):
        bodies += tree(rng, x, z, height)
    bodies += house(3.0, 15.0)
    bodies += hot_air_balloon(-3 + 0.5 * seconds, -12.5 - 0.25 * seconds, 60)
    bodies += walker(-2.6 + 0.85 * seconds, 6.0, seconds)
    for k in range(14):
        x = -10.4 + 1.6 * k
        if k != 6:  # the gate
            bodies.append(
                flat(
                    (x, GROUND_M - 0.45, 4.6),
                    0.8,
                    0.45,
                    "white",
                    silhouette=FENCE,
                    silhouette_tiles=(3.0, 1.0),
                    casts_shadow=True,
                )
            )
    for _ in range(40):
        x, z, size = rng.uniform(-5, 6), rng.uniform(3.4, 4.5), rng.uniform(0.15, 0.3)
        tint = colour(0.8, 1.1, 0.6) * rng.uniform(0.7, 1.1)
        bodies.append(flat((x, GROUND_M - size, z), size, size, "leaves", silhouette=GRASS, tint=tint))
    for _ in range(24):
        x, z, high = rng.uniform(-5, 6), rng.uniform(3.4, 4.4), rng.uniform(0.3, 0.55)
        tint = [colour(1, 0.85, 0.2), colour(0.95, 0.4, 0.5), colour(0.95, 0.95, 1)][rng.integers(3)]
        bodies.append(flat((x, GROUND_M - high / 2, z + 0.01), 0.008, high / 2, "leaves"))
        bodies.append(ball((x, GROUND_M - high, z), (0.06, 0.05, 0.06), "white", tint=tint))
    return bodies


def materials(rng: Generator) -> NDArray[np.uint8]:  # [K, N, 2N, 3]
    size = TEXTURE_PX
    rough = textures.noise(rng, size, 0.7)[..., None]
    soft = textures.noise(rng, size, 1.3)[..., None]
    rows, columns = np.mgrid[0:size, 0:size] / size
    course = np.floor(rows * 12)
    joint = ((rows * 12) % 1 < 0.12) | ((columns * 6 + 0.5 * (course % 2)) % 1 < 0.05)
    brick = np.where(joint[..., None], colour(0.75, 0.72, 0.68), colour(0.72, 0.38, 0.28))
    scale = np.hypot((columns * 10 + 0.5 * (np.floor(rows * 10) % 2)) % 1 - 0.5, (rows * 10) % 1) / 0.9
    plank = ((columns * 6) % 1 < 0.06)[..., None]
    wide = (np.floor(columns * 8) % 2)[..., None]
    height = np.clip(np.linspace(1, -1, size), 0, 1)[:, None, None]
    drawn = {
        "sky": colour(0.82, 0.9, 0.97)
        + (colour(0.3, 0.55, 0.9) - colour(0.82, 0.9, 0.97)) * height**0.6
        + 0 * rough,
        "grass": colour(0.36, 0.55, 0.2) * (1 + 0.16 * rough + 0.1 * soft),
        "leaves": colour(0.3, 0.52, 0.2) * (1 + 0.3 * rough),
        "bark": colour(0.42, 0.31, 0.22) * (1 + 0.2 * cv2.blur(rough, (1, 25))[..., None] + 0.1 * rough),
        "bricks": brick * (1 + 0.07 * rough),
        "tiles": colour(0.5, 0.22, 0.18)
        * (1.25 - 0.5 * np.clip(scale, 0, 1))[..., None]
        * (1 + 0.06 * rough),
        "planks": np.where(plank, 0.5, 1.0)
        * (1 + 0.08 * cv2.blur(rough, (1, 41))[..., None])
        * colour(1, 0.98, 0.95),
        "stripes": np.where(wide, colour(0.95, 0.75, 0.15), colour(0.8, 0.2, 0.2)) * (1 + 0.03 * soft),
        "white": colour(0.93, 0.93, 0.92) * (1 + 0.03 * soft),
        "gravel": colour(0.68, 0.6, 0.48) * (1 + 0.14 * rough),
    }
    return np.stack([textures.mip_pyramid(np.clip(drawn[name], 0, 1)) for name in MATERIALS])


def frames() -> Iterator[NDArray[np.uint8]]:  # [H, W, 3]
    rng = np.random.default_rng(3)
    atlas = materials(rng)
    shapes = np.stack(
        [textures.mip_pyramid(silhouettes.draw_silhouette(rng, draw, TEXTURE_PX)) for draw in SHAPES]
    )
    light = np.array([0.5, 0.8, 0.55])
    for number in tqdm(range(FPS * SECONDS), unit="frame"):
        seconds = number / FPS
        travel = np.array([-1.3 + 0.55 * seconds, 0.0, 0.1 * seconds])
        camera = Camera(0.85, 0.02, 0.0, travel, 0.0, 0.0, 0.0, np.pi / 2, np.zeros((5, 4)))
        scene = Scene(
            bodies=garden(seconds),
            camera=camera,
            light=light / np.linalg.norm(light),
            ambient=0.5,
            haze_per_m=0.0012,
            haze=colour(0.78, 0.86, 0.95),
            shadow_plane=(np.array([0, 1.0, 0]), GROUND_M),
            shadow_opacity=0.4,
        )
        surfaces = make_surfaces(scene, MATERIALS.index("white"), DISC)
        image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for jitter in ((-0.25, 0.25), (0.25, -0.25)):
            left, right, lighting = stereo_geometry(scene, surfaces, 0.0, 0.06, 0.0, HEIGHT, WIDTH, jitter)
            image += render_view(surfaces, left, right, atlas, shapes, lighting, 0.0, HEIGHT, WIDTH).image / 2
        yield np.rint(np.clip(image * 1.1, 0, 1) * 255).astype(np.uint8)


def sound() -> NDArray[np.float32]:  # [2, samples] in [-1, 1]
    """Wind, birds and steps on gravel."""
    rng = np.random.default_rng(8)
    time = np.arange(SOUND_RATE * SECONDS) / SOUND_RATE
    wind = cv2.blur(rng.standard_normal((1, len(time))), (601, 1))[0]
    mono = 0.5 * wind * (1 + 0.5 * np.sin(0.9 * time))
    both = np.stack([mono, np.roll(mono, 9000)])
    for start, pan in ((0.5, 0.2), (1.6, 0.8), (1.85, 0.8), (3.1, 0.4), (4.2, 0.7)):
        t = time - start
        chirp = np.where((t > 0) & (t < 0.16), np.sin(np.pi * np.clip(t, 0, 0.16) / 0.16) ** 2, 0)
        both += np.outer([1 - pan, pan], 0.12 * chirp * np.sin(2 * np.pi * (2600 + 5000 * t) * t))
    for step in np.arange(0.2, SECONDS, 0.55):
        burst = np.exp(-np.clip(time - step, 0, None) * 45) * (time >= step)
        both += 0.1 * burst * rng.standard_normal(len(time))
    return np.clip(both, -1, 1).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the film that ./run demo converts first")
    parser.add_argument("film", type=Path)
    film = parser.parse_args().film
    write_film(film, frames(), Fraction(FPS), crf=24, preset="slow", audio=sound(), audio_rate=SOUND_RATE)


if __name__ == "__main__":
    main()
