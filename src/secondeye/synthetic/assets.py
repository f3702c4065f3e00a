"""The textures and silhouettes of one shot, and the meaning of their indices."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from secondeye.synthetic import silhouettes, textures

MATERIAL_COUNT = 14  # textures per shot, followed by sky and white
SKY, WHITE = MATERIAL_COUNT, MATERIAL_COUNT + 1
SILHOUETTES = {  # silhouettes per shot, by placement
    "standing": silhouettes.STANDING,
    "floating": silhouettes.FLOATING,
    "hanging": silhouettes.HANGING,
    "screen": silhouettes.SCREENS,
    "disc": (silhouettes.disc,),
    "cloud": (silhouettes.cloud,),
}


def make_assets(
    rng: Generator,
    size: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:  # [K, size, 2 size, 3] and [M, size, 2 size, 1] pyramids
    """Draw the textures and silhouettes of one shot, in the order of `SKY`, `WHITE` and `SILHOUETTES`."""
    images = [textures.random_material(rng, size) for _ in range(MATERIAL_COUNT)]
    images += [textures.sky(rng, size), np.ones((size, size, 3), np.float32)]
    shapes = [
        silhouettes.draw_silhouette(rng, draw, size) for draws in SILHOUETTES.values() for draw in draws
    ]
    return np.stack([*map(textures.mip_pyramid, images)]), np.stack([*map(textures.mip_pyramid, shapes)])


def silhouette_index(
    rng: Generator,
    placement: str,
) -> int:
    """Return the index of a random silhouette for `placement`."""
    first = 0
    for name, draws in SILHOUETTES.items():
        if name == placement:
            return first + int(rng.integers(len(draws)))
        first += len(draws)
    raise ValueError(f"placement must be one of {list(SILHOUETTES)}, got {placement}")
