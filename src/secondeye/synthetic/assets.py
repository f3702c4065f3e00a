"""The textures and silhouettes of one shot, made once, and which index means what."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from secondeye.synthetic import silhouettes, textures

MATERIALS = 14  # textures a shot, then the sky and white
SKY, WHITE = MATERIALS, MATERIALS + 1
OUTLINES = {  # silhouettes a shot, by how they are placed
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
    """The textures and the silhouettes of one shot, in the order of `SKY`, `WHITE` and `OUTLINES`."""
    pictures = [textures.material(rng, size) for _ in range(MATERIALS)]
    pictures += [textures.sky(rng, size), np.ones((size, size, 3), np.float32)]
    outlines = [silhouettes.silhouette(rng, draw, size) for draws in OUTLINES.values() for draw in draws]
    return np.stack([*map(textures.pyramid, pictures)]), np.stack([*map(textures.pyramid, outlines)])


def outline(
    rng: Generator,
    placing: str,
) -> int:
    """Index of one of the silhouettes made for `placing`."""
    first = 0
    for name, draws in OUTLINES.items():
        if name == placing:
            return first + int(rng.integers(len(draws)))
        first += len(draws)
    raise ValueError(f"placing must be one of {list(OUTLINES)}, got {placing}")
