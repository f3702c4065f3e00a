"""Hashes and licences of everything a model is trained on: its run's key and tags follow from them."""

import hashlib
from collections.abc import Sequence
from typing import Literal

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import AcceptedClip, SyntheticShot
from secondeye.sources import MonoFilm, list_mono_films
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

SYNTHETIC_LICENCE = "CC0-1.0"


def hash_inputs(dataset: Dataset) -> dict[str, str]:
    """Hash the training clips and the synthetic shots. Held-out clips do not change the hashes."""
    clips = [f"{clip.id} {clip.disparity.key}" for clip in train_clips(dataset)]
    shots = [row.key for row in dataset.rows(SyntheticShot)]
    return {name: hash_lines(lines) for name, lines in (("clips", clips), ("synthetic", shots))}


def hash_mono_films(dataset: Dataset) -> dict[str, str]:
    """Hash the monocular films to train on."""
    return {"mono": hash_lines([hash_file(film.path) for film in mono_films(dataset)])}


def mono_films(dataset: Dataset) -> list[MonoFilm]:
    """List the monocular films to train on."""
    return list_mono_films(dataset.folder("raw"))


def hash_inpaint_inputs(dataset: Dataset, conditioning: Literal["warp", "splat"]) -> dict[str, str]:
    """Hash what an inpainter is trained on: for `splat` also what the stage of this name wrote."""
    splats = [f"{clip.id} {clip.occlusion.key}" for clip in train_clips(dataset) if conditioning == "splat"]
    films = hash_mono_films(dataset)
    return hash_inputs(dataset) | films | ({"splats": hash_lines(splats)} if splats else {})


def join_inpaint_licences(dataset: Dataset, others: Sequence[str] = ()) -> str:
    """Return the licences of all training data of an inpainter, see `join_licences`."""
    return join_licences(dataset, [*(film.licence for film in mono_films(dataset)), *others])


def train_clips(dataset: Dataset) -> list[DatasetClip]:
    """Return the clips to train on. Raises UserError if all clips are held out."""
    clips = dataset.clips("train")
    if not clips:
        raise UserError(
            f"{dataset.path(AcceptedClip)}: every clip is held out; give a film the split train in "
            "sources.csv"
        )
    return clips


def join_licences(dataset: Dataset, others: Sequence[str]) -> str:
    """Return the licences of all training data, `others` included, sorted and joined by commas."""
    films = [clip.film.licence for clip in train_clips(dataset)]
    return ", ".join(sorted({licence or "not stated" for licence in (SYNTHETIC_LICENCE, *films, *others)}))


def hash_lines(lines: Sequence[str]) -> str:
    """Return the SHA-256 of lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
