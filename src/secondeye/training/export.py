"""Export of the training data as WebDataset shards: tar files that a cluster reads instead of small files.

A record is a clip or a synthetic shot with the files that its stages wrote, byte for byte, so any training
can draw its windows from it. Which record is in which shard depends on the dataset and the settings alone:
finished shards of a killed export are kept, and the rest becomes the same bytes.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from secondeye.dataset.checksums import verify_checksum
from secondeye.dataset.clip_files import read_disparity, read_frames, read_occlusion
from secondeye.dataset.corrections import apply_corrections
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, ClipOcclusion, Correction, SyntheticShot
from secondeye.dataset.shards import INDEX
from secondeye.system.disk import require_free_space
from secondeye.system.errors import UserError
from secondeye.system.files import atomic_path, hash_file, write_atomic
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize
from secondeye.training.provenance import SYNTHETIC_LICENCE

_TAR_HEADER_BYTES = 2048  # of a file: header, padding and its share of the end
_UNLISTED_SHARE = 0.01  # of the shards may be lost by a kill: the index grows, and is not written for each
_FORMAT = 2  # of a record; a change makes old exports foreign


@dataclass(frozen=True)
class Record:
    """A clip or synthetic shot to export."""

    id: str
    files: tuple[Path, ...]  # their names begin with the id
    description: Mapping[str, Any]  # of its json

    @cached_property
    def bytes(self) -> int:
        """Its size in a tar file."""
        return sum(path.stat().st_size + _TAR_HEADER_BYTES for path in self.files)


class ExportedClip(NamedTuple):
    """A record decoded, with the corrections of its views applied."""

    left: Tensor  # [T, 3, H, W] in [0, 1]
    right: Tensor  # [T, 3, H, W] in [0, 1]
    disparity: Tensor  # [T, 1, H, W] px, of the left view
    warped: Tensor | None  # [T, 3, H, W] in [0, 1], black in the holes; None for synthetic shots
    occlusion: Tensor | None  # bool [T, 1, H, W], True in the holes; None for synthetic shots


def export_dataset(
    root: Path,  # of the dataset
    out: Path,
    *,
    split: str,  # train, with the synthetic shots, or test
    shard_megabytes: float,  # largest size of a shard, unless it holds one record
) -> str:
    """Export a split of a dataset to `out`, or resume it, and return a summary.

    Raises UserError if the split has no clip, `out` holds anything else, the disk is too full or webdataset
    is not installed.
    """
    if find_spec("webdataset") is None:
        raise UserError("export needs webdataset; install it: pip install 'secondeye[export]'")
    dataset = Dataset(root)
    dataset.require_validated()
    shards = plan_shards(list_records(dataset, split), int(shard_megabytes * 10**6))
    names = {f"secondeye-{split}-{number:06d}.tar": shard for number, shard in enumerate(shards)}
    key = _hash_plan(dataset, names)
    with lock_dir(out):
        index = _open_index(out, names, {"key": key, "split": split, "dataset": dataset.validated_hash})
        missing = [name for name in names if name not in index["shards"]]
        _delete_unfinished(out)
        require_free_space(out, sum(one.bytes for name in missing for one in names[name]), "export")
        unlisted = 0
        for name in tqdm(missing, desc="export", unit="shard"):
            index["shards"][name] = _pack(out / name, names[name])
            unlisted += 1
            if unlisted > _UNLISTED_SHARE * len(index["shards"]):
                _write_index(out, index)
                unlisted = 0
        index["finished"] = True
        _write_index(out, index)
    records = [record for shard in shards for record in shard]
    return f"{out}: {pluralize(len(records), 'shot')} in {pluralize(len(shards), 'shard')}"


def list_records(dataset: Dataset, split: str) -> list[Record]:
    """List what to export, in the order of a training's listing. Raises UserError if there is no clip."""
    clips = dataset.clips(split)
    if not clips:
        raise UserError(f"{dataset.path(AcceptedClip)}: no clip is in the split {split!r}")
    records = []
    for clip in clips:
        kinds = [("split", "left"), ("split", "right"), ("match", "disparity")]
        if clip.get(ClipOcclusion):
            kinds += [("splat", "warped"), ("splat", "occlusion")]
        film = {"film": clip.film.name, "fps": clip.film.fps, "licence": clip.film.licence or "not stated"}
        about = film | {
            "kind": "clip",
            "keys": [clip.disparity.key, *(one.key for one in [clip.get(ClipOcclusion)] if one)],
            "stride": clip.clip.stride,
            "correction": asdict(clip.correction),
            "disparity_offset_px": clip.disparity.offset_px,
        }
        files = tuple(dataset.file(stage, clip.id, kind) for stage, kind in kinds)
        records.append(Record(clip.id, files, about))
    for row in _synthetic_rows(dataset) if split == "train" else ():
        about = {"kind": "synthetic", "keys": [row.key], "licence": SYNTHETIC_LICENCE}
        about |= {"disparity_offset_px": row.offset_px}
        files = tuple(dataset.file("synthetic", row.id, kind) for kind in ("left", "right", "disparity"))
        records.append(Record(row.id, files, about))
    return records


def _synthetic_rows(dataset: Dataset) -> list[SyntheticShot]:
    return dataset.rows(SyntheticShot) if dataset.path(SyntheticShot).is_file() else []


def plan_shards(records: Sequence[Record], max_bytes: int) -> list[list[Record]]:
    """Fill shards with records, in order, up to their largest size."""
    shards: list[list[Record]] = []
    filled = max_bytes + 1
    for record in records:
        if filled + record.bytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(record)
        filled += record.bytes
    return shards


def decode_clip(
    record: Mapping[str, Any],  # as WebDataset yields it: bytes by left.mkv, right.mkv, ..., json
    frames: Sequence[int] | None = None,  # indices, ascending; all by default
) -> ExportedClip:
    """Decode a record, bit for bit as `Dataset` reads the clip."""
    about = json.loads(record["json"])
    left, right = (read_frames(io.BytesIO(record[f"{kind}.mkv"]), frames) for kind in ("left", "right"))
    disparity = read_disparity(io.BytesIO(record["disparity.mkv"]), about["disparity_offset_px"], frames)
    if "warped.mkv" not in record:
        return ExportedClip(left, right, disparity, None, None)
    warped = read_frames(io.BytesIO(record["warped.mkv"]), frames)
    occlusion = read_occlusion(io.BytesIO(record["occlusion.mkv"]), frames)
    try:
        correction = Correction(**about["correction"])
    except TypeError as error:
        raise UserError("the shards are of an earlier version; export the dataset again") from error
    views = apply_corrections(left, right, correction)
    return ExportedClip(*views, disparity, warped, occlusion)


def _hash_plan(dataset: Dataset, shards: Mapping[str, Sequence[Record]]) -> str:
    """Hash everything that the bytes of an export depend on."""
    parts = [
        [name, [[one.id, dict(one.description), [path.name for path in one.files]] for one in records]]
        for name, records in shards.items()
    ]
    content = json.dumps([_FORMAT, dataset.validated_hash, parts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _pack(path: Path, records: Sequence[Record]) -> dict[str, Any]:
    """Write a shard; returns its entry of the index. Raises UserError if a file is missing or damaged."""
    from webdataset import TarWriter

    constant = {"mtime": 0, "user": "", "group": "", "mode": 0o644}  # the same records give the same bytes
    with (
        atomic_path(path) as part,
        part.open("wb") as file,
        TarWriter(file, encoder=False, **constant) as writer,
    ):
        for record in records:
            writer.write({"__key__": record.id} | _content(record))
    ids = [record.id for record in records]
    return {"ids": ids, "bytes": path.stat().st_size, "sha256": hash_file(path)}


def _content(record: Record) -> dict[str, bytes]:
    files = {path.name: verify_checksum(path).read_bytes() for path in record.files}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    about = json.dumps({"files": digests, **record.description}, sort_keys=True) + "\n"
    return {"json": about.encode()} | {name.partition(".")[2]: content for name, content in files.items()}


def _open_index(
    out: Path, shards: Mapping[str, Sequence[Record]], about: Mapping[str, str]
) -> dict[str, Any]:
    """Read the index, without the shards whose files are missing or damaged, or start a new one."""
    path = out / INDEX
    expected = {INDEX, *shards} if path.is_file() else set()
    foreign = sorted({found.name for found in out.glob("[!.]*")} - expected)
    if not path.is_file():
        _require_no_foreign(out, foreign)
        index = _new_index(shards, about)
        _write_index(out, index)
        return index
    try:
        index = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not an index of an export; give an empty folder") from error
    if not isinstance(index, dict) or index.get("key") != about["key"]:
        raise UserError(
            f"{out}: holds an export of another dataset, other settings or another version; "
            "give an empty folder"
        )
    _require_no_foreign(out, foreign)
    entries = tqdm(index["shards"].items(), desc="check", unit="shard", disable=not index["shards"])
    index["shards"] = {name: entry for name, entry in entries if _is_intact(out / name, entry)}
    index["finished"] = False
    return index


def _new_index(shards: Mapping[str, Sequence[Record]], about: Mapping[str, str]) -> dict[str, Any]:
    records = [record.description for shard in shards.values() for record in shard]
    return {
        **about,
        "shots": len(records),
        "licences": sorted({record["licence"] for record in records}),
        "films": sorted({record["film"] for record in records if "film" in record}),
        "shards": {},
        "finished": False,
    }


def _require_no_foreign(out: Path, names: Sequence[str]) -> None:
    if names:
        raise UserError(f"{out}: holds {names[0]}, which this export does not write; give an empty folder")


def _is_intact(path: Path, entry: Mapping[str, Any]) -> bool:
    complete = path.is_file() and path.stat().st_size == entry["bytes"]
    return complete and hash_file(path) == entry["sha256"]


def _write_index(out: Path, index: dict[str, Any]) -> None:
    write_atomic(out / INDEX, json.dumps(index, sort_keys=True, indent=1) + "\n")


def _delete_unfinished(out: Path) -> None:
    """Delete temporary files of a killed export."""
    for path in out.glob(".*.part.*"):
        path.unlink()
