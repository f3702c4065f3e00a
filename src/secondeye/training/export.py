"""Windows as WebDataset shards: tar files that a cluster reads in order, with every array lossless.

A shard holds a number of samples that is known beforehand, so shards depend on nothing but the settings: what
a killed export has finished stays, and the rest comes out as the same bytes.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from secondeye.dataset.clip_files import read_frames, read_occlusion, write_frames, write_occlusion
from secondeye.dataset.stamp import read_stamp
from secondeye.execution import parallel
from secondeye.execution.code_hash import code_and_versions
from secondeye.execution.parallel import WorkerCrashed
from secondeye.system.disk import require_free_space
from secondeye.system.errors import UserError
from secondeye.system.files import atomic_path, hash_file, write_atomic
from secondeye.system.process import lock_dir
from secondeye.training.clip_windows import (
    ClipSource,
    Sample,
    WindowSettings,
    generator_of,
    plan_epoch,
    read_sample,
)

# A bound on what FFV1 takes, bytes a pixel: warped and mask as in the splat stage, a view as in split.
_BYTES_PER_PIXEL = 1.9 + 1.8
_HEADER_BYTES = 16384  # of a sample's four files and of what tar puts between them
INDEX = "index.json"
_PICTURES = ("warped.mkv", "right.mkv")
_MASK = "occlusion.mkv"
_FILES = (*_PICTURES, _MASK, "json")
_SCRATCH = ".samples"  # what waits for the rest of its shard


@dataclass(frozen=True)
class ExportPlan:
    """All that an export's bytes follow from."""

    side: str  # train or test
    settings: WindowSettings
    seed: int
    samples: int
    per_shard: int  # samples of every shard but the last
    dataset: str  # hash, as validated
    clips: tuple[ClipSource, ...]  # that windows fit into

    @property
    def key(self) -> str:
        """The name of these bytes, code and libraries included."""
        parts = [code_and_versions("secondeye.training.export"), asdict(self)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> list[range]:
        """The samples of each shard."""
        starts = range(0, self.samples, self.per_shard)
        return [range(start, min(start + self.per_shard, self.samples)) for start in starts]


def sample_bytes(settings: WindowSettings) -> float:
    """A bound on what a sample takes."""
    return settings.frames * settings.height * settings.width * _BYTES_PER_PIXEL + _HEADER_BYTES


def plan_export(
    data: Path,
    side: str,  # train or test
    clips: Sequence[ClipSource],  # that windows fit into
    settings: WindowSettings,
    seed: int,
    samples: int | None,  # default: one a clip
    shard_megabytes: float,  # that no shard exceeds, unless it holds one sample
) -> ExportPlan:
    """Decide what goes where."""
    per_shard = max(1, int(shard_megabytes * 10**6 / sample_bytes(settings)))
    return ExportPlan(
        side, settings, seed, samples or len(clips), per_shard, read_stamp(data / "validate"), tuple(clips)
    )


def export(data: Path, out: Path, plan: ExportPlan) -> dict[str, Any]:
    """Write the shards that `out` lacks, and its index; returns the index.

    Raises Refusal when `out` holds anything else, without room on the disk, and without webdataset.
    """
    if find_spec("webdataset") is None:
        raise UserError("export needs webdataset; install it: pip install 'secondeye[export]'")
    with lock_dir(out):
        index = _open_index(out, plan)
        missing = [n for n in range(len(plan.shards)) if _name(plan, n) not in index["shards"]]
        _prune(out, index)
        if missing:
            # Samples wait beside the shard that they are packed into, while those of the next one are made.
            written = [len(plan.shards[n]) for n in (*missing, *missing[:2])]
            require_free_space(out, sum(written) * sample_bytes(plan.settings), "export")
            _write_shards(data, out, plan, missing, index)
        index["finished"] = True
        _write_index(out, index)
    return index


def decode_sample(
    record: Mapping[str, Any],  # as WebDataset gives it: bytes by warped.mkv, occlusion.mkv, right.mkv
) -> Sample:
    """The sample, to the bit, as a window of the dataset has it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in (*_PICTURES, _MASK)}
        for name, path in paths.items():
            path.write_bytes(record[name])
        return Sample(
            read_frames(paths["warped.mkv"]), read_occlusion(paths[_MASK]), read_frames(paths["right.mkv"])
        )


def _write_shards(
    data: Path, out: Path, plan: ExportPlan, missing: Sequence[int], index: dict[str, Any]
) -> None:
    """Samples are made by all cores; a shard is packed when its last one is there."""
    scratch = out / _SCRATCH
    scratch.mkdir(exist_ok=True)
    wanted = {sample: n for n in missing for sample in plan.shards[n]}
    jobs = [job for job in plan_epoch(plan.clips, plan.seed, 0, range(plan.samples)) if job[0] in wanted]
    work = partial(_write_sample, data, scratch, plan.settings, plan.seed, plan.dataset)
    left = Counter(wanted.values())
    with tqdm(total=plan.samples, initial=plan.samples - len(jobs), desc="export", unit="window") as bar:
        for position, result in parallel.map(work, jobs):
            if isinstance(result, WorkerCrashed):
                raise UserError(f"export: clip {jobs[position][1].id} can not be read: {result.detail}")
            shard = wanted[jobs[position][0]]
            left[shard] -= 1
            if not left[shard]:
                index["shards"][_name(plan, shard)] = _pack(out, scratch, plan, shard)
                _write_index(out, index)
            bar.update()
    scratch.rmdir()


def _write_sample(
    data: Path, scratch: Path, settings: WindowSettings, seed: int, dataset: str, job: tuple[int, ClipSource]
) -> None:
    number, source = job
    window, sample = read_sample(data, source, generator_of(seed, 0, number), settings)
    write_frames(_sample_file(scratch, number, "warped.mkv"), sample.warped)
    write_frames(_sample_file(scratch, number, "right.mkv"), sample.right)
    write_occlusion(_sample_file(scratch, number, _MASK), sample.occlusion)
    told = window._asdict() | {
        "clip": source.id,
        "film": source.film,
        "fps": source.fps,
        "licence": source.licence,
        "dataset": dataset,
    }
    write_atomic(_sample_file(scratch, number, "json"), json.dumps(told, sort_keys=True) + "\n")


def _pack(out: Path, scratch: Path, plan: ExportPlan, shard: int) -> dict[str, Any]:
    """Put a shard's samples into one tar file, which appears when whole; its line of the index."""
    from webdataset import TarWriter

    path = out / _name(plan, shard)
    anonymous = {"mtime": 0, "user": "", "group": "", "mode": 0o644}  # the same samples are the same bytes
    with (
        atomic_path(path) as part,
        part.open("wb") as file,
        TarWriter(file, encoder=False, **anonymous) as writer,
    ):
        for number in plan.shards[shard]:
            files = {kind: _sample_file(scratch, number, kind).read_bytes() for kind in _FILES}
            writer.write({"__key__": _key(number)} | files)
    for number in plan.shards[shard]:
        for kind in _FILES:
            _sample_file(scratch, number, kind).unlink()
    return {"samples": len(plan.shards[shard]), "bytes": path.stat().st_size, "sha256": hash_file(path)}


def _open_index(out: Path, plan: ExportPlan) -> dict[str, Any]:
    """The index to go on with; shards that are not the bytes it says are left to be made again."""
    path = out / INDEX
    ours = {INDEX, *(_name(plan, n) for n in range(len(plan.shards)))} if path.is_file() else set()
    strangers = sorted({found.name for found in out.glob("[!.]*")} - ours)
    if not path.is_file():
        _refuse_strangers(out, strangers)
        index = _describe(plan)
        _write_index(out, index)
        return index
    try:
        index = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: is not an export's index; give an empty folder") from error
    if not isinstance(index, dict) or index.get("key") != plan.key:
        raise UserError(
            f"{out}: holds an export of another dataset, other settings or another version; "
            "give an empty folder"
        )
    _refuse_strangers(out, strangers)
    shown = tqdm(index["shards"].items(), desc="check", unit="shard", disable=not index["shards"])
    index["shards"] = {name: told for name, told in shown if _is_whole(out / name, told)}
    index["finished"] = False
    return index


def _refuse_strangers(out: Path, names: Sequence[str]) -> None:
    if names:
        raise UserError(f"{out}: holds {names[0]}, which this export does not write; give an empty folder")


def _is_whole(path: Path, told: Mapping[str, Any]) -> bool:
    there = path.is_file() and path.stat().st_size == told["bytes"]
    return there and hash_file(path) == told["sha256"]


def _describe(plan: ExportPlan) -> dict[str, Any]:
    drawn = {source.id for _, source in plan_epoch(plan.clips, plan.seed, 0, range(plan.samples))}
    used = [source for source in plan.clips if source.id in drawn]
    return {
        "key": plan.key,
        "split": plan.side,
        "settings": asdict(plan.settings),
        "seed": plan.seed,
        "samples": plan.samples,
        "clips": len(used),
        "dataset": plan.dataset,
        "licences": sorted({source.licence for source in used}),
        "films": sorted({source.film for source in used}),
        "shards": {},
        "finished": False,
    }


def _write_index(out: Path, index: dict[str, Any]) -> None:
    write_atomic(out / INDEX, json.dumps(index, sort_keys=True, indent=1) + "\n")


def _prune(out: Path, index: Mapping[str, Any]) -> None:
    """What a killed export left unfinished."""
    for path in out.glob(f"{_SCRATCH}/*"):
        path.unlink()
    for path in out.glob(".*.part.*"):
        path.unlink()


def _name(plan: ExportPlan, shard: int) -> str:
    return f"secondeye-{plan.side}-{shard:06d}.tar"


def _key(number: int) -> str:
    return f"{number:08d}"


def _sample_file(scratch: Path, number: int, kind: str) -> Path:
    return scratch / f"{_key(number)}.{kind}"
