"""Render sample films: stereo films, one mono film with sound, and the table that lists them.

folder/film_00.mp4 ...       full side-by-side, left view first, several shots with hard cuts
folder/mono.mp4              the left view of shots that are in no other film, with a sound track
folder/sources.csv           film, packing, split, licence
folder/truth/film_00.npz     ground truth of the right view of every frame, used by `evaluate`
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

from secondeye.dataset.ground_truth import write_ground_truth
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.synthetic.render import render_shot
from secondeye.synthetic.shot import Shot
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.video.write import write_film

CRF = 16  # visually lossless at a tenth of the size of lossless (our choice)
TEST_FILMS = 5  # enough to compare models over films; fewer in samples under eight films
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
    """Write the sample into `folder`, creating it if needed; return the films, mono last.

    `progress` is called with the name of each finished film. The same arguments give the same pixels.
    Existing files are replaced atomically. Raises ValueError if a count is not positive, or a side is odd,
    which H.264 does not allow.
    """
    sides = (height, width, *mono_size)
    if min(films, frames_per_shot, shots_per_film, fps, *sides) < 1 or any(side % 2 for side in sides):
        raise ValueError(f"need positive counts and even sides, got {films} films, sides {sides}")
    folder.mkdir(parents=True, exist_ok=True)
    size = (frames_per_shot, height, width)
    written = []
    for film in range(films):
        path = folder / f"film_{film:02d}.mp4"
        exact_folder = folder / "exact" if exact else None
        shots = _film_shots(seed, film, shots_per_film, size)
        rendered: list[Shot] = []
        write_film(path, _side_by_side(shots, path.stem, exact_folder, rendered), Fraction(fps), crf=CRF)
        write_ground_truth(
            folder / "truth" / f"{path.stem}.npz",
            torch.cat([shot.right_disparity for shot in rendered]),
            torch.cat([shot.right_occlusion for shot in rendered]),
        )
        written.append(path)
        progress(path.name)
    _write_mono(folder / "mono.mp4", seed, mono_size, fps)
    progress("mono.mp4")
    _write_sources(folder / "sources.csv", [path.name for path in written])
    return [*written, folder / "mono.mp4"]


def _film_shots(seed: int, film: int, shots: int, size: tuple[int, int, int]) -> Iterator[Shot]:
    """Render the shots of one film, one at a time; all share the film's shift of the right view."""
    rng = np.random.default_rng(SeedSequence([seed, 0, film]))
    max_px = max(1, round(0.02 * size[2]))
    screen_px = int(rng.integers(1, max_px + 1)) if rng.uniform() < SHIFTED else 0
    for shot in range(shots):
        yield render_shot(_shot_seed(seed, 1, film, shot), *size, screen_px=screen_px)


def _shot_seed(*position: int) -> int:
    """Return a different 64-bit seed for every position."""
    return int(SeedSequence(position).generate_state(1, np.uint64)[0])


def _side_by_side(
    shots: Iterator[Shot], stem: str, exact_folder: Path | None, rendered: list[Shot]
) -> Iterator[Bytes]:
    """Yield frames [H, 2W, 3], left view first; append each shot to `rendered` and write its exact arrays."""
    first = 0
    for number, shot in enumerate(shots):
        if exact_folder:
            _write_exact(exact_folder / f"{stem}_{number}.npz", shot, first)
        yield from frames_to_uint8(torch.cat([shot.left, shot.right], -1)).numpy()
        rendered.append(shot)
        first += len(shot.left)


def _write_exact(path: Path, shot: Shot, first_frame: int) -> None:
    """Write float32 disparities, bool occlusions [T, 1, H, W], and the encoded views, uint8 [T, H, W, 3]."""
    path.parent.mkdir(exist_ok=True)
    arrays = {name: array.numpy() for name, array in vars(shot).items()}
    arrays |= {name: frames_to_uint8(getattr(shot, name)).numpy() for name in ("left", "right")}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, first_frame=first_frame, **arrays)
    write_atomic(path, buffer.getvalue())


def _write_mono(path: Path, seed: int, size: tuple[int, int], fps: int) -> None:
    def frames() -> Iterator[Bytes]:
        for shot in range(MONO_SHOTS):
            view = render_shot(_shot_seed(seed, 2, shot), MONO_FRAMES, *size).left
            yield from frames_to_uint8(view).numpy()

    sound = np.concatenate([_chord(_shot_seed(seed, 3, s), MONO_FRAMES / fps) for s in range(MONO_SHOTS)], 1)
    write_film(path, frames(), Fraction(fps), crf=CRF, audio=sound, audio_rate=SOUND_RATE)


def _chord(
    seed: int,
    seconds: float,
) -> NDArray[np.float32]:  # [2, samples] in [-1, 1]
    """Return three soft tones panned from left to right, faded in and out to avoid clicks at cuts."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    tones = rng.uniform(180, 320) * np.array([1, 1.25, 1.5])
    side = rng.permutation([0.2, 0.5, 0.8])
    waves = 0.12 * np.sin(2 * np.pi * tones[:, None] * time)
    fade = np.clip(np.minimum(time, seconds - time) / 0.02, 0, 1)
    return (np.stack([1 - side, side]) @ waves * fade).astype(np.float32)


def _write_sources(path: Path, films: list[str]) -> None:
    """Write sources.csv; the last films are the test split, five of eight or more."""
    train = max(len(films) - TEST_FILMS, min(TRAIN_FILMS, len(films)))
    rows = [(name, "sbs", "train" if k < train else "test", LICENCE) for k, name in enumerate(films)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("film", "packing", "split", "licence"), *rows, ("mono.mp4", "mono", "test", LICENCE)])
    write_atomic(path, text.getvalue().encode())
