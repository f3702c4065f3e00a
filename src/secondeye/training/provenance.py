"""What a model learns from, by content and by licence: what makes its key, and the tags of its run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from secondeye.dataset.schema import AcceptedClip, ClipDisparity, Film, SyntheticShot
from secondeye.dataset.tables import read_table
from secondeye.sources import MonoFilm
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

WORLD_LICENCE = "CC0-1.0"  # of the synthetic world's pictures


def inputs_of(match: Path, filter: Path, synthetic: Path) -> dict[str, str]:
    """Hashes of the clips to learn from and of the world's shots. A film more to judge on changes neither."""
    matched = {row.id: row.key for row in read_table(match / "match.parquet", ClipDisparity)}
    clips = [f"{row.id} {matched[row.id]}" for row in train_clips(filter)]
    shots = [row.key for row in read_table(synthetic / "synthetic.parquet", SyntheticShot)]
    return {name: _hash(lines) for name, lines in (("clips", clips), ("synthetic", shots))}


def hash_mono(films: Sequence[MonoFilm]) -> str:
    """A hash of the films with one eye, in their order."""
    return _hash([hash_file(film.path) for film in films])


def train_clips(filter: Path) -> list[AcceptedClip]:
    """The clips to learn from. Raises Refusal when all are held out."""
    clips = [row for row in read_table(filter / "accepted.parquet", AcceptedClip) if row.split == "train"]
    if not clips:
        raise UserError(
            f"{filter / 'accepted.parquet'}: every clip is held out; "
            "give a film the split train in sources.csv"
        )
    return clips


def licences_of(split: Path, filter: Path, further: Sequence[str]) -> str:
    """The licences of everything that is learnt from, `further` ones included, in alphabetical order."""
    learnt = {row.film for row in train_clips(filter)}
    films = [film.licence for film in read_table(split / "films.parquet", Film) if film.id in learnt]
    return ", ".join(sorted({licence or "not stated" for licence in (WORLD_LICENCE, *films, *further)}))


def _hash(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
