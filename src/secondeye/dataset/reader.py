"""Read the dataset: the only place that knows the names of its folders and tables, and that joins tables.

    dataset = Dataset(Path("data"))
    for clip in dataset.clips("train"):
        left, right = dataset.views(clip)  # corrected
        disparity = dataset.disparity(clip)

Each table is read at most once for each `Dataset`. A pickled `Dataset` carries only its root, a `DatasetClip`
only its own rows, so a worker that gets both reads no table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from secondeye.dataset.clip_paths import clip_file
from secondeye.dataset.schema import (
    AcceptedClip,
    AggregateScore,
    Clip,
    ClipDisparity,
    ClipOcclusion,
    ClipQuality,
    Correction,
    EvalClip,
    FailedItem,
    Film,
    RejectedClip,
    Score,
    SkippedClip,
    SyntheticShot,
)
from secondeye.dataset.stamp import dataset_hash, read_stamp
from secondeye.dataset.tables import read_table
from secondeye.system.errors import UserError

if TYPE_CHECKING:  # PyTorch is imported where arrays are read: most commands read only tables
    from torch import Tensor

Row = TypeVar("Row")

# Row type -> folder below the root, and file.
TABLES: Mapping[type, tuple[str, str]] = {
    Film: ("split", "films.parquet"),
    Clip: ("split", "clips.parquet"),
    SkippedClip: ("split", "skipped.parquet"),
    Correction: ("shift", "shift.parquet"),
    ClipDisparity: ("match", "match.parquet"),
    ClipOcclusion: ("splat", "splat.parquet"),
    ClipQuality: ("quality", "quality.parquet"),
    AcceptedClip: ("filter", "accepted.parquet"),
    RejectedClip: ("filter", "rejected.parquet"),
    SyntheticShot: ("synthetic", "synthetic.parquet"),
    EvalClip: ("evaluate/regions", "manifest.parquet"),
    Score: ("evaluate/scores", "scores.parquet"),
    AggregateScore: ("evaluate/scores", "totals.parquet"),
}
FAILED = "failed.parquet"  # of FailedItem, in the folder of every stage that builds clips
SKIPPED_FILMS = "films/skipped_films.parquet"  # of FailedItem, below the folder of `split`
# Row types of the tables with one row per clip, in stage order.
CLIP_ROWS: tuple[type, ...] = (Correction, ClipDisparity, ClipOcclusion, ClipQuality)


@dataclass(frozen=True)
class DatasetClip:
    """One clip with the rows that the stages wrote for it. A missing row raises UserError."""

    id: str
    split: str  # train or test; "" unless accepted
    clip: Clip
    film: Film
    rows: Mapping[type, Any]  # of CLIP_ROWS, those that were joined

    def __hash__(self) -> int:
        return hash(self.id)  # a mapping has no hash

    def get(self, row_type: type[Row]) -> Row | None:
        """Return the row of one of CLIP_ROWS, or None if there is none."""
        row: Row | None = self.rows.get(row_type)
        return row

    def only(self, *row_types: type) -> "DatasetClip":
        """Return the clip with only these rows and without hashes, to keep many clips in memory."""
        rows: dict[type, Any] = {kind: self._require(kind) for kind in row_types}
        rows = {kind: replace(row, key="") for kind, row in rows.items()}
        return replace(self, clip=replace(self.clip, key="", perceptual_hash=""), rows=rows)

    @property
    def correction(self) -> Correction:
        """Row of `shift.parquet`."""
        return self._require(Correction)

    @property
    def disparity(self) -> ClipDisparity:
        """Row of `match.parquet`."""
        return self._require(ClipDisparity)

    @property
    def occlusion(self) -> ClipOcclusion:
        """Row of `splat.parquet`."""
        return self._require(ClipOcclusion)

    @property
    def quality(self) -> ClipQuality:
        """Row of `quality.parquet`."""
        return self._require(ClipQuality)

    def _require(self, row_type: type[Row]) -> Row:
        row = self.get(row_type)
        if row is None:
            folder, file = TABLES[row_type]
            raise UserError(f"{folder}/{file}: has no row for clip {self.id}; run dvc repro {folder}")
        return row


@dataclass(frozen=True)
class Dataset:
    """The folder `data` with everything that the stages wrote to it."""

    root: Path

    def __reduce__(self) -> tuple[type["Dataset"], tuple[Path]]:
        return Dataset, (self.root,)  # without the tables that were read

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage; "raw" for the films, "external" for conversions by other tools."""
        return self.root / stage

    def path(self, row_type: type) -> Path:
        """Return the path of a table."""
        folder, file = TABLES[row_type]
        return self.folder(folder) / file

    def file(self, stage: str, clip_id: str, kind: str) -> Path:
        """Return the path of a file of a clip or synthetic shot, such as stage split, kind left."""
        return clip_file(self.folder(stage), clip_id, kind)

    def source(self, stage: str, clip_id: str, kind: str) -> Path | BinaryIO:
        """Return where the arrays of a file are read from; shards return an open file instead."""
        return self.file(stage, clip_id, kind)

    # Tables

    @cached_property
    def _tables(self) -> dict[Path, list[Any]]:
        return {}

    def _read(self, path: Path, row_type: type[Row]) -> list[Row]:
        if path not in self._tables:
            self._tables[path] = read_table(path, row_type)
        return self._tables[path]

    def rows(self, row_type: type[Row]) -> list[Row]:
        """Return every row of a table, sorted by id. Raises UserError if the table is missing."""
        return self._read(self.path(row_type), row_type)

    def failed(self, stage: str) -> list[FailedItem]:
        """Return the clips that a stage could not process."""
        return self._read(self.folder(stage) / FAILED, FailedItem)

    @property
    def skipped_films(self) -> list[FailedItem]:
        """The films that could not be used; `id` is the film's name."""
        return self._read(self.folder("split") / SKIPPED_FILMS, FailedItem)

    @cached_property
    def films(self) -> dict[str, Film]:
        """The films by id."""
        return {film.id: film for film in self.rows(Film)}

    # Clips

    def join(self, *row_types: type) -> list[DatasetClip]:
        """Return every clip that has a row in each of these tables, sorted by id; reads no other table."""
        tables = {row_type: self._by_id(row_type) for row_type in row_types}
        clips = self._by_id(Clip)
        shared = [clip for clip in clips.values() if all(clip.id in table for table in tables.values())]
        return [
            DatasetClip(clip.id, "", clip, self.films[clip.film], {t: tables[t][clip.id] for t in row_types})
            for clip in shared
        ]

    def clips(self, split: str | None = None) -> list[DatasetClip]:
        """Return the accepted clips of "train", "test" or both, sorted by id, with every row there is.

        Raises UserError if a table of the stages `split` or `filter` is missing or disagrees.
        """
        return [clip for clip in self._accepted.values() if split in (None, clip.split)]

    def clip(self, clip_id: str) -> DatasetClip:
        """Return one accepted clip. Raises UserError if the dataset was rebuilt without it."""
        if clip_id not in self._accepted:
            path = self.path(AcceptedClip)
            raise UserError(f"{path}: has no clip {clip_id}; the dataset was rebuilt, run dvc repro evaluate")
        return self._accepted[clip_id]

    @cached_property
    def _accepted(self) -> dict[str, DatasetClip]:
        return {clip.id: clip for clip in self._join_accepted()}

    def _join_accepted(self) -> Iterator[DatasetClip]:
        # A table may be missing: training needs neither splats nor scores.
        tables = {kind: self._by_id(kind) for kind in CLIP_ROWS if self.path(kind).is_file()}
        clips = self._by_id(Clip)
        for row in self.rows(AcceptedClip):
            if row.id not in clips:
                raise UserError(f"{self.path(Clip)}: has no clip {row.id}; run dvc repro filter")
            joined = {kind: table[row.id] for kind, table in tables.items() if row.id in table}
            yield DatasetClip(row.id, row.split, clips[row.id], self.films[row.film], joined)

    def _by_id(self, row_type: type[Any]) -> dict[str, Any]:
        return {row.id: row for row in self.rows(row_type)}

    # Arrays of a clip: of the frames with these indices, ascending; of all frames by default

    def raw_views(
        self, clip_id: str, frames: Sequence[int] | None = None
    ) -> tuple["Tensor", "Tensor"]:  # left, right [T, 3, H, W]
        """Read both views of a clip as they were cut from the film, without corrections."""
        from secondeye.dataset.clip_files import read_frames

        left, right = (read_frames(self.source("split", clip_id, kind), frames) for kind in ("left", "right"))
        return left, right

    def views(
        self, clip: DatasetClip, frames: Sequence[int] | None = None
    ) -> tuple[
        "Tensor", "Tensor"
    ]:  # left, right [T, 3, H - |vertical_px|, W - |shift_px|], less if rectified
        """Read both views of a clip with its corrections applied."""
        from secondeye.dataset.corrections import apply_corrections

        return apply_corrections(*self.raw_views(clip.id, frames), clip.correction)

    def right_view(self, clip: DatasetClip, frames: Sequence[int] | None = None) -> "Tensor":
        """Read the right view alone, with its corrections applied; shape as of `views`."""
        from secondeye.dataset.clip_files import read_frames
        from secondeye.dataset.corrections import apply_corrections

        kind = "left" if clip.correction.swapped else "right"
        raw = read_frames(self.source("split", clip.id, kind), frames)
        return apply_corrections(raw, raw, clip.correction)[1]

    def disparity(
        self, clip: DatasetClip, frames: Sequence[int] | None = None
    ) -> "Tensor":  # [T, 1, H, W] px
        """Read the disparity of the left view."""
        from secondeye.dataset.clip_files import read_disparity

        source = self.source("match", clip.id, "disparity")
        return read_disparity(source, clip.disparity.offset_px, frames)

    def splat(
        self, clip: DatasetClip, frames: Sequence[int] | None = None
    ) -> tuple["Tensor", "Tensor"]:  # warped [T, 3, H, W], occlusion [T, 1, H, W] bool
        """Read the left view splatted to the right view, and its occlusion."""
        from secondeye.dataset.clip_files import read_frames, read_occlusion

        warped = read_frames(self.source("splat", clip.id, "warped"), frames)
        return warped, read_occlusion(self.source("splat", clip.id, "occlusion"), frames)

    def regions(self, clip: EvalClip | DatasetClip) -> "Tensor":  # uint8 [T, 1, H, W]: evaluation.regions
        """Read the map of evaluation regions of a held-out clip."""
        from secondeye.dataset.clip_files import read_plane

        return read_plane(self.file("evaluate/regions", clip.id, "regions"))

    # Synthetic shots

    def synthetic_views(
        self, shot: SyntheticShot, frames: Sequence[int] | None = None
    ) -> tuple["Tensor", "Tensor"]:  # left, right [T, 3, H, W]
        """Read both views of a synthetic shot."""
        from secondeye.dataset.clip_files import read_frames

        left, right = (
            read_frames(self.source("synthetic", shot.id, kind), frames) for kind in ("left", "right")
        )
        return left, right

    def synthetic_disparity(
        self, shot: SyntheticShot, frames: Sequence[int] | None = None
    ) -> "Tensor":  # [T, 1, H, W] px
        """Read the exact disparity of the left view of a synthetic shot."""
        from secondeye.dataset.clip_files import read_disparity

        source = self.source("synthetic", shot.id, "disparity")
        return read_disparity(source, shot.offset_px, frames)

    # Identity

    @property
    def validated_hash(self) -> str:
        """The hash of the dataset that passed validation last. Raises UserError if none has."""
        return read_stamp(self.folder("validate"))

    @property
    def hash(self) -> str:
        """The hash of the present dataset: accepted clips, their splits, and the keys of their scores."""
        return dataset_hash(self.rows(AcceptedClip), self._by_id(ClipQuality))

    def require_validated(self) -> None:
        """Raise UserError if the dataset is not the one that passed validation last."""
        if self.validated_hash != self.hash:
            raise UserError(
                f"{self.root}: the dataset has changed since it was validated; run dvc repro validate"
            )
