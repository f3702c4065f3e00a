"""The footage that inpainters learn from, in memory: stereo clips, the synthetic world, films with one eye.

Stereo clips and the synthetic have a second eye: the left view is warped and the right view is the truth.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from secondeye.dataset.clip_files import clip_file, read_disparity, read_frames
from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import AcceptedClip, ClipDisparity, Correction, SyntheticShot
from secondeye.dataset.tables import read_table
from secondeye.sources import list_mono_films
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.training.memory_check import clips_of, require_free_memory, synthetic_pixels
from secondeye.training.monocular import LARGEST_RUNS, RUN_FRAMES, double_warp, mono_films
from secondeye.training.provenance import train_clips
from secondeye.training.scene import STORED_BYTES, Kinds, Scene, store, usable_frames
from secondeye.warp import warp

MONO_SCALE = (0.7, 1.4)  # of a clip's own disparity, when one of its eyes is used as a film with one eye
MONO_SEED = 0  # of the disparities that films with one eye are warped with
HELD_OUT = 10  # one film in ten is not learnt from; models are judged on it


def load_all(
    folders: Sequence[Path],  # raw, split, shift, match, filter, world
    least: tuple[int, int, int],  # frames, height and width of a sample
) -> Kinds:  # stored
    """Everything there is to learn from. Raises Refusal when every clip is held out, or memory too small."""
    raw, split, shift, match, filter, synthetic = folders
    kept = train_clips(filter)
    films = [film.path for film in list_mono_films(raw)]
    frames = max(RUN_FRAMES, least[0])
    clips = clips_of(split, kept)
    height, width = (max(sides) for sides in zip((clips[0].height, clips[0].width), least[1:], strict=True))
    # A clip becomes two scenes: with both its eyes, and as a film with one.
    pixels = 2 * sum(clip.pixels for clip in clips) + synthetic_pixels(synthetic)
    pixels += len(films) * LARGEST_RUNS * frames * height * width
    require_free_memory(STORED_BYTES * pixels, "train_inpaint")
    stereo = load_scenes(split, shift, match, synthetic, kept)
    single = load_mono_scenes(split, shift, match, kept, MONO_SEED)
    return stereo, [*single, *mono_films(films, frames, height, width, MONO_SEED)]


def keep_usable(
    name: str,  # of the model
    stereo: Sequence[Scene],
    mono: Sequence[Scene],
    least: tuple[int, int, int],  # frames, height and width of a sample
) -> Kinds:
    """The scenes that are large and long enough; prints how many. Raises Refusal when there are none."""
    usable = [[scene for scene in scenes if usable_frames(scene, least)] for scenes in (stereo, mono)]
    count = sum(map(len, usable))
    told = (
        f"{name}: {count} of {len(stereo) + len(mono)} scenes have {least[0]} frames of {least[2]}x{least[1]}"
    )
    if not count:
        raise UserError(f"{told}; lower train_inpaint.{name}'s frames, height or width in params.yaml")
    if is_main_process():
        print(told, file=sys.stderr)
    return usable[0], usable[1]


def hold_out(stereo: list[Scene], mono: list[Scene]) -> tuple[Kinds, Kinds]:
    """What is held out, every tenth film with all its scenes, and what is learnt from; too few are both."""
    films = list(dict.fromkeys(scene.film for scene in (*stereo, *mono)))
    if len(films) < 2 * HELD_OUT:
        return (stereo, mono), (stereo, mono)
    held = set(films[HELD_OUT - 1 :: HELD_OUT])  # not the first: often all the real film there is comes first

    def those(are_held: bool) -> Kinds:
        first, second = (
            [scene for scene in kind if (scene.film in held) == are_held] for kind in (stereo, mono)
        )
        return first, second

    return those(True), those(False)


def load_scenes(
    split: Path,
    shift: Path,
    match: Path,
    synthetic: Path,
    kept: Sequence[AcceptedClip],  # of the training split
) -> list[Scene]:  # stored
    """Stereo clips, warped with their matched disparity, and all shots of the world, with the exact one."""
    scenes = []
    for row, (left, right, disparity) in zip(kept, _load_clips(split, shift, match, kept), strict=True):
        scenes.append(store(Scene(left, right, *warp(left, disparity), film=row.film)))
    for shot in read_table(synthetic / "synthetic.parquet", SyntheticShot):
        left, right = (read_frames(clip_file(synthetic, shot.id, kind)) for kind in ("left", "right"))
        disparity = read_disparity(clip_file(synthetic, shot.id, "disparity"), shot.offset_px)
        scenes.append(store(Scene(left, right, *warp(left, disparity), film=shot.id)))
    return scenes


def load_mono_scenes(
    split: Path,
    shift: Path,
    match: Path,
    kept: Sequence[AcceptedClip],  # of the training split
    seed: int,
) -> list[Scene]:  # stored
    """The left eyes of stereo clips as films with one eye; their matched disparity is scaled at random."""
    rng = np.random.default_rng(seed)
    scenes = []
    for row, (left, _, disparity) in zip(kept, _load_clips(split, shift, match, kept), strict=True):
        scene = double_warp(left, disparity * float(rng.uniform(*MONO_SCALE)))
        scenes.append(store(scene._replace(film=row.film)))
    return scenes


def _load_clips(
    split: Path, shift: Path, match: Path, kept: Sequence[AcceptedClip]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Left, right and left disparity of every clip, one clip in memory at a time."""
    shifted = {row.id: row for row in read_table(shift / "shift.parquet", Correction)}
    matched = {row.id: row for row in read_table(match / "match.parquet", ClipDisparity)}
    for row in kept:
        left, right = load_views(split, shifted[row.id])
        path = clip_file(match, row.id, "disparity")
        yield left, right, read_disparity(path, matched[row.id].offset_px)
