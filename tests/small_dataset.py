"""A small dataset as `dvc repro` would leave it: cards in front of cards, matched exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from secondeye.dataset.clip_files import write_disparity, write_frames
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, Clip, ClipDisparity, ClipQuality, Correction, Film
from secondeye.dataset.stamp import dataset_hash, write_stamp
from secondeye.dataset.tables import write_table
from secondeye.synthetic import two_planes

Row = TypeVar("Row")
_EMPTY: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False}


def row(kind: type[Row], **given: object) -> Row:
    """Return a row with the given columns, and empty values in the others."""
    return kind(**{field.name: _EMPTY[field.type] for field in fields(kind)} | given)  # type: ignore[arg-type]


def write_rows(data: Path, tables: Mapping[type, Sequence[object]]) -> Dataset:
    """Write tables by their row type."""
    dataset = Dataset(data)
    for row_type, rows in tables.items():
        dataset.path(row_type).parent.mkdir(parents=True, exist_ok=True)
        write_table(dataset.path(row_type), rows, row_type)
    return dataset


def write_small_dataset(
    data: Path,
    frames: Sequence[int] = (9, 6, 12),  # of each clip, each of a film of its own
    height: int = 16,
    width: int = 64,
    held_out: Sequence[int] = (),  # clips of the test split
) -> Path:
    """Write tables and files; clip number n is called f"clip{n}"."""
    dataset = Dataset(data)
    for name in ("split", "match", "validate"):
        dataset.folder(name).mkdir(parents=True)
    names, rows = [f"clip{n}" for n in range(len(frames))], list(enumerate(frames))
    offsets = []
    for n, count in rows:
        shot = two_planes(count, height, width, near_px=6, far_px=1, card_px=16, step_px=1, seed=n)
        write_frames(dataset.file("split", names[n], "left"), shot.left)
        write_frames(dataset.file("split", names[n], "right"), shot.right)
        offsets.append(write_disparity(dataset.file("match", names[n], "disparity"), shot.disparity))
    films = [row(Film, id=f"film{n}", name=f"film{n}.mp4", licence="CC0-1.0", fps=24.0) for n, _ in rows]
    sizes = {"height": height, "width": width}
    clips = [row(Clip, id=names[n], film=f"film{n}", stop=count, stride=3, **sizes) for n, count in rows]
    gains = {"red_gain": 1.0, "green_gain": 1.0, "blue_gain": 1.0}
    reach = {"disparity_min_percent": 100 / width, "disparity_max_percent": 600 / width}
    kept = [
        row(AcceptedClip, id=names[n], film=f"film{n}", split="test" if n in held_out else "train")
        for n, _ in rows
    ]
    corrections = [row(Correction, id=n, near_px=6.0, **gains) for n in names]
    matched = [row(ClipDisparity, id=n, offset_px=o) for n, o in zip(names, offsets, strict=True)]
    quality = [row(ClipQuality, id=n, **sizes, **reach) for n in names]
    write_rows(
        data,
        {
            Film: films,
            Clip: clips,
            Correction: corrections,
            ClipDisparity: matched,
            ClipQuality: quality,
            AcceptedClip: kept,
        },
    )
    write_stamp(dataset.folder("validate"), len(kept), dataset_hash(kept, {one.id: one for one in quality}))
    return data
