"""What a model learns from, by content and by licence: what makes its key, and the tags of its run."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from secondeye.refusal import Refusal
from secondeye.rows import Film, Kept, Rendered
from secondeye.sources import Mono
from secondeye.tables import read_table

WORLD_LICENCE = "CC0-1.0"  # of the synthetic world's pictures


def inputs_of(validate: Path, world: Path) -> dict[str, str]:
    """Hashes of the validated dataset and of the world's shots."""
    stamp = json.loads((validate / "stamp.json").read_text())
    keys = " ".join(row.key for row in read_table(world / "world.parquet", Rendered))
    return {"dataset": stamp["dataset"], "world": hashlib.sha256(keys.encode()).hexdigest()}


def train_clips(filter: Path) -> list[Kept]:
    """The clips to learn from. Raises Refusal when all are held out."""
    clips = [row for row in read_table(filter / "kept.parquet", Kept) if row.split == "train"]
    if not clips:
        raise Refusal(
            f"{filter / 'kept.parquet'}: every clip is held out; give a film the split train in sources.csv"
        )
    return clips


def licences_of(split: Path, filter: Path, mono: Sequence[Mono]) -> str:
    """The licences of everything that is learnt from, in alphabetical order."""
    learnt = {row.film for row in train_clips(filter)}
    films = [film.licence for film in read_table(split / "films.parquet", Film) if film.id in learnt]
    stated = {WORLD_LICENCE, *films, *(film.licence for film in mono)}
    return ", ".join(sorted(licence or "not stated" for licence in stated))
