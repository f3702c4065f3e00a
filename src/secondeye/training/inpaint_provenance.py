"""Hashes and licences of everything an inpainter is trained on."""

from collections.abc import Sequence
from typing import Literal

from secondeye.dataset.reader import Dataset
from secondeye.sources import MonoFilm, list_mono_films
from secondeye.system.files import hash_file
from secondeye.training.provenance import hash_inputs, hash_lines, join_licences, train_clips


def hash_inpaint_inputs(dataset: Dataset, conditioning: Literal["warp", "splat"]) -> dict[str, str]:
    """Hash what an inpainter is trained on: for `splat` also what the stage of this name wrote."""
    films = hash_lines([hash_file(film.path) for film in mono_films(dataset)])
    splats = [f"{clip.id} {clip.occlusion.key}" for clip in train_clips(dataset) if conditioning == "splat"]
    return hash_inputs(dataset) | {"mono": films} | ({"splats": hash_lines(splats)} if splats else {})


def join_inpaint_licences(dataset: Dataset, others: Sequence[str] = ()) -> str:
    """Return the licences of all training data of an inpainter, see `join_licences`."""
    return join_licences(dataset, [*(film.licence for film in mono_films(dataset)), *others])


def mono_films(dataset: Dataset) -> list[MonoFilm]:
    """List the monocular films to train on."""
    return list_mono_films(dataset.folder("raw"))
