"""The training data of the inpainters, in memory: stereo clips, synthetic shots, monocular films.

Clips and synthetic shots have a right view: the left view is warped to it, and it is the ground truth.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import SyntheticShot
from secondeye.inpaint import Conditioning
from secondeye.sources import list_mono_films
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.training.held_out import held_out_films
from secondeye.training.memory_check import require_free_memory, synthetic_pixels
from secondeye.training.monocular import MAX_RUNS, RUN_FRAMES, double_warp, read_mono_shots
from secondeye.training.provenance import train_clips
from secondeye.training.stereo_shot import (
    QUANTIZED_BYTES,
    ShotPool,
    StereoShot,
    quantize,
    usable_frames,
    warp_shot,
)

MONO_SCALE = (0.7, 1.4)  # of a clip's own disparity, if its left view is used as a monocular film
MONO_SEED = 0  # of the disparities that monocular films are warped with


def load_shots(
    data: Path,
    min_size: tuple[int, int, int],  # frames, height and width of a sample
    conditioning: Conditioning,
) -> ShotPool:
    """Load all training data. Raises UserError if every clip is held out or memory is too small."""
    dataset = Dataset(data)
    clips = train_clips(dataset)
    films = [film.path for film in list_mono_films(dataset.folder("raw"))]
    frames = max(RUN_FRAMES, min_size[0])
    view = clips[0].clip
    height, width = max(view.height, min_size[1]), max(view.width, min_size[2])
    # A clip becomes two shots: a stereo one, and a monocular one of its left view.
    pixels = 2 * sum(clip.clip.pixels for clip in clips) + synthetic_pixels(dataset)
    pixels += len(films) * MAX_RUNS * frames * height * width
    require_free_memory(QUANTIZED_BYTES * pixels, "train_inpaint")
    stereo = load_stereo_shots(dataset, clips, conditioning)
    mono = load_mono_shots(dataset, clips, MONO_SEED, conditioning)
    films_shots = read_mono_shots(films, frames, height, width, MONO_SEED, conditioning)
    return ShotPool(stereo, [*mono, *films_shots])


def select_usable(
    name: str,  # of the model
    stereo: Sequence[StereoShot],
    mono: Sequence[StereoShot],
    min_size: tuple[int, int, int],  # frames, height and width of a sample
) -> ShotPool:
    """Return the shots that samples fit into, and print how many. Raises UserError if there are none."""
    pool = ShotPool(*([shot for shot in shots if usable_frames(shot, min_size)] for shots in (stereo, mono)))
    count, total = sum(map(len, pool)), len(stereo) + len(mono)
    frames, height, width = min_size
    message = f"{name}: shots with {frames} frames of {width}x{height}: {count} of {total}"
    if not count:
        raise UserError(f"{message}; lower train_inpaint.{name}'s frames, height or width in params.yaml")
    if is_main_process():
        print(message, file=sys.stderr)
    return pool


def hold_out(
    name: str,  # of the model
    pool: ShotPool,
) -> tuple[ShotPool, ShotPool]:  # held out, trained on
    """Split shots by film, see `held_out_films`; with too few films both sides are the whole pool."""
    held = held_out_films(name, (shot.film for shots in pool for shot in shots))
    if not held:
        return pool, pool

    def select(is_held: bool) -> ShotPool:
        return ShotPool(*([shot for shot in shots if (shot.film in held) == is_held] for shots in pool))

    return select(True), select(False)


def load_stereo_shots(
    dataset: Dataset, clips: Sequence[DatasetClip], conditioning: Conditioning = "warp"
) -> list[StereoShot]:  # quantized
    """Load clips, warped with their matched disparity, and all synthetic shots, with the exact one."""
    shots = []
    for clip in clips:
        left, right = dataset.views(clip)
        shots.append(quantize(warp_shot(left, right, dataset.disparity(clip), conditioning, clip.film.id)))
    for row in dataset.rows(SyntheticShot):
        left, right = dataset.synthetic_views(row)
        disparity = dataset.synthetic_disparity(row)
        shots.append(quantize(warp_shot(left, right, disparity, conditioning, row.id)))
    return shots


def load_mono_shots(
    dataset: Dataset, clips: Sequence[DatasetClip], seed: int, conditioning: Conditioning = "warp"
) -> list[StereoShot]:  # quantized
    """Load the left views of clips as monocular films; their matched disparity is scaled at random."""
    rng = np.random.default_rng(seed)
    shots = []
    for clip in clips:
        left, _ = dataset.views(clip)
        disparity = dataset.disparity(clip) * float(rng.uniform(*MONO_SCALE))
        shot = double_warp(left, disparity, conditioning)
        shots.append(quantize(shot._replace(film=clip.film.id)))
    return shots
