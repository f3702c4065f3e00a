"""The sample: stereo films rendered from nothing, one mono film with sound, and the table that lists them.

folder/film_00.mp4 ...       full side-by-side, left eye first, several shots with hard cuts
folder/mono.mp4              the left eye of shots that no film shows, with a sound track
folder/sources.csv           film, packing, split, licence
folder/truth/film_00.npz     what the right eye of every frame really is; `evaluate` judges by it
folder/exact/film_00_0.npz   with `exact`: the arrays of one shot, and its first frame in the film
"""

import csv
import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.random import SeedSequence
from numpy.typing import NDArray
from torch import Tensor

from secondeye.dataset.ground_truth import write_ground_truth
from secondeye.synthetic.render import render_shot
from secondeye.synthetic.shot import Shot
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.video.write import write_film

CRF = 16  # our choice: visibly perfect, a tenth of the bytes of lossless
TEST_FILMS = 5  # enough to compare models over films; all but three of a smaller sample
TRAIN_FILMS = 3
SHIFTED = 0.4  # share of films whose right view is shifted by whole pixels
MONO_SHOTS = 2
MONO_FRAMES = 30  # a shot
SOUND_RATE = 48_000
LICENCE = "CC0-1.0"

Bytes = NDArray[np.uint8]


def require_no_other_films(folder: Path, films: int) -> None:
    """Raise UserError if `folder` has or lists a file that a sample of this many films does not write."""
    own = {f"film_{number:02d}.mp4" for number in range(films)}
    own |= {"mono.mp4", "sources.csv", "exact", "truth"}
    present = {path.name for path in folder.glob("[!.]*")}
    if (folder / "sources.csv").is_file():
        lines = (folder / "sources.csv").read_text().splitlines()[1:]
        present |= {line.split(",")[0] for line in lines}
    if foreign := sorted(present - own):
        raise UserError(f"{folder}: {foreign[0]} is not part of the sample; give an empty folder")


def write_sample_films(
    folder: Path,
    films: int,
    seed: int,
    *,
    height: int = 256,
    width: int = 448,
    frames_per_shot: int = 16,
    shots_per_film: int = 2,
    fps: int = 24,
    mono_size: tuple[int, int] = (360, 640),
    exact: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Path]:
    """Write the sample into `folder`, made if it is missing; returns the films, mono last.

    `progress` is called with the name of each film that is done. The same arguments give the same
    pixels. Files that are there are replaced, each at once. Sides are even, as H.264 wants them.
    Raises ValueError when a count is not positive or a side is odd.
    """
    sides = (height, width, *mono_size)
    if min(films, frames_per_shot, shots_per_film, fps, *sides) < 1 or any(side % 2 for side in sides):
        raise ValueError(f"need positive counts and even sides, got {films} films, sides {sides}")
    folder.mkdir(parents=True, exist_ok=True)
    size = (frames_per_shot, height, width)
    written = []
    for film in range(films):
        path = folder / f"film_{film:02d}.mp4"
        kept = folder / "exact" if exact else None
        shots = _film_shots(seed, film, shots_per_film, size)
        right: list[Shot] = []
        write_film(path, _side_by_side(shots, path.stem, kept, right.append), Fraction(fps), crf=CRF)
        write_ground_truth(
            folder / "truth" / f"{path.stem}.npz",
            torch.cat([shot.right_disparity for shot in right]),
            torch.cat([shot.right_occlusion for shot in right]),
        )
        written.append(path)
        progress(path.name)
    _write_mono(folder / "mono.mp4", seed, mono_size, fps)
    progress("mono.mp4")
    _write_sources(folder / "sources.csv", [path.name for path in written])
    return [*written, folder / "mono.mp4"]


def _film_shots(seed: int, film: int, shots: int, size: tuple[int, int, int]) -> Iterator[Shot]:
    """The shots of one film, one at a time; all share the film's shift of the right view."""
    rng = np.random.default_rng(SeedSequence([seed, 0, film]))
    most = max(1, round(0.02 * size[2]))
    screen_px = int(rng.integers(1, most + 1)) if rng.uniform() < SHIFTED else 0
    for shot in range(shots):
        yield render_shot(_shot_seed(seed, 1, film, shot), *size, screen_px=screen_px)


def _shot_seed(*place: int) -> int:
    """A 64-bit seed of its own for every place."""
    return int(SeedSequence(place).generate_state(1, np.uint64)[0])


def _side_by_side(
    shots: Iterator[Shot], stem: str, kept: Path | None, shown: Callable[[Shot], None]
) -> Iterator[Bytes]:
    """Frames [H, 2W, 3], left eye first; the exact arrays are written on the way when `kept` is a folder."""
    first = 0
    for number, shot in enumerate(shots):
        if kept:
            _write_exact(kept / f"{stem}_{number}.npz", shot, first)
        yield from _to_bytes(torch.cat([shot.left, shot.right], -1))
        shown(shot)
        first += len(shot.left)


def _to_bytes(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Bytes:  # [T, H, W, 3]
    return (frames * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _write_exact(path: Path, shot: Shot, first_frame: int) -> None:
    """float32 disparities [T, 1, H, W], bool occlusions, uint8 views [T, H, W, 3] as the codec gets them."""
    path.parent.mkdir(exist_ok=True)
    arrays = {name: array.numpy() for name, array in vars(shot).items()}
    arrays |= {"left": _to_bytes(shot.left), "right": _to_bytes(shot.right)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, first_frame=first_frame, **arrays)
    write_atomic(path, buffer.getvalue())


def _write_mono(path: Path, seed: int, size: tuple[int, int], fps: int) -> None:
    def frames() -> Iterator[Bytes]:
        for shot in range(MONO_SHOTS):
            yield from _to_bytes(render_shot(_shot_seed(seed, 2, shot), MONO_FRAMES, *size).left)

    sound = np.concatenate([_chord(_shot_seed(seed, 3, s), MONO_FRAMES / fps) for s in range(MONO_SHOTS)], 1)
    write_film(path, frames(), Fraction(fps), crf=CRF, sound=sound, audio_rate=SOUND_RATE)


def _chord(
    seed: int,
    seconds: float,
) -> NDArray[np.float32]:  # [2, samples] in [-1, 1]
    """Three soft tones spread from left to right, faded in and out so that the cut does not click."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    tones = rng.uniform(180, 320) * np.array([1, 1.25, 1.5])
    side = rng.permutation([0.2, 0.5, 0.8])
    waves = 0.12 * np.sin(2 * np.pi * tones[:, None] * time)
    fade = np.clip(np.minimum(time, seconds - time) / 0.02, 0, 1)
    return (np.stack([1 - side, side]) @ waves * fade).astype(np.float32)


def _write_sources(path: Path, films: list[str]) -> None:
    """The last films are the test: five of eight or more."""
    train = max(len(films) - TEST_FILMS, min(TRAIN_FILMS, len(films)))
    rows = [(name, "sbs", "train" if k < train else "test", LICENCE) for k, name in enumerate(films)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("film", "packing", "split", "licence"), *rows, ("mono.mp4", "mono", "test", LICENCE)])
    write_atomic(path, text.getvalue().encode())
