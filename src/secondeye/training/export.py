"""Export of training windows as WebDataset shards: tar files that a cluster reads in order, lossless.

The number of samples of a shard is known beforehand, so the shards depend on the settings alone: finished
shards of a killed export are kept, and the rest becomes the same bytes.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from secondeye.dataset.clip_files import read_frames, read_occlusion, write_frames, write_occlusion
from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.execution import parallel
from secondeye.execution.code_hash import code_and_versions
from secondeye.execution.parallel import WorkerCrashed
from secondeye.params import load_params
from secondeye.system.disk import require_free_space
from secondeye.system.errors import UserError
from secondeye.system.files import atomic_path, hash_file, write_atomic
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize
from secondeye.training.clip_windows import (
    InpaintSample,
    WindowSettings,
    choose_size,
    keep_fitting,
    list_clips,
    plan_epoch,
    read_sample,
    window_rng,
)

# Upper bound of FFV1, bytes a pixel: warped and mask as in the splat stage, a view as in split.
_BYTES_PER_PIXEL = 1.9 + 1.8
_HEADER_BYTES = 16384  # of a sample's four files and their tar headers
INDEX = "index.json"
_VIEWS = ("warped.mkv", "right.mkv")
_MASK = "occlusion.mkv"
_FILES = (*_VIEWS, _MASK, "json")
_SCRATCH = ".samples"  # samples of unfinished shards


@dataclass(frozen=True)
class ExportPlan:
    """Everything the bytes of an export depend on."""

    split: str  # train or test
    settings: WindowSettings
    seed: int
    samples: int
    per_shard: int  # samples of every shard but the last
    dataset: str  # hash, as validated
    clips: tuple[DatasetClip, ...]  # that windows fit into

    @property
    def key(self) -> str:
        """The hash of all of these, code and versions of libraries included."""
        content = {name: value for name, value in vars(self).items() if name not in ("settings", "clips")}
        # The dataset's hash covers the clips' files, but not what a sample says of its film.
        clips = [(clip.id, _describe_film(clip)) for clip in self.clips]
        parts = [code_and_versions("secondeye.training.export"), content, asdict(self.settings), clips]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> list[range]:
        """The samples of each shard."""
        starts = range(0, self.samples, self.per_shard)
        return [range(start, min(start + self.per_shard, self.samples)) for start in starts]


def export_dataset(
    root: Path,  # of the dataset
    out: Path,
    *,
    split: str,  # train or test
    windows: int | None,  # default: one per clip
    frames: int,  # per window
    max_stride: int,
    height: int | None,  # px; default: as `choose_size` returns
    width: int | None,  # px; likewise
    max_offset_percent: float,  # of the crop's width
    seed: int,
    shard_megabytes: float,
) -> str:
    """Export windows of a dataset to `out`, or resume it, and return a summary of two lines.

    The splat's weight exponent is read from params.yaml. Raises UserError if no clip fits, and as `export`.
    """
    weight = load_params().splat.weight_exponent_per_px
    dataset = Dataset(root)
    clips = list_clips(dataset, split)
    chosen = choose_size(clips)
    settings = WindowSettings(
        height or chosen[0], width or chosen[1], weight, frames, max_stride, max_offset_percent
    )
    fitting = keep_fitting(clips, settings)
    plan = plan_export(dataset, split, fitting, settings, seed, windows, shard_megabytes)
    index = export(dataset, out, plan)
    size = f"{pluralize(frames, 'frame')} of {settings.width}x{settings.height}"
    shards = pluralize(len(index["shards"]), "shard")
    return (
        f"{out}: {pluralize(index['samples'], 'window')} of {size} in {shards}\n"
        f"from {pluralize(index['clips'], 'clip')}; too short or too small: {len(clips) - len(fitting)}"
    )


def sample_bytes(settings: WindowSettings) -> float:
    """Return an upper bound of the size of a sample."""
    return settings.frames * settings.height * settings.width * _BYTES_PER_PIXEL + _HEADER_BYTES


def plan_export(
    dataset: Dataset,
    split: str,  # train or test
    clips: Sequence[DatasetClip],  # that windows fit into
    settings: WindowSettings,
    seed: int,
    samples: int | None,  # default: one a clip
    shard_megabytes: float,  # largest size of a shard, unless it holds one sample
) -> ExportPlan:
    """Assign samples to shards."""
    per_shard = max(1, int(shard_megabytes * 10**6 / sample_bytes(settings)))
    return ExportPlan(
        split, settings, seed, samples or len(clips), per_shard, dataset.validated_hash, tuple(clips)
    )


def export(dataset: Dataset, out: Path, plan: ExportPlan) -> dict[str, Any]:
    """Write the shards that `out` lacks, and its index; returns the index.

    Raises UserError if `out` holds anything else, the disk is too full or webdataset is not installed.
    """
    if find_spec("webdataset") is None:
        raise UserError("export needs webdataset; install it: pip install 'secondeye[export]'")
    with lock_dir(out):
        index = _open_index(out, plan)
        missing = [n for n in range(len(plan.shards)) if _shard_name(plan, n) not in index["shards"]]
        _delete_unfinished(out)
        if missing:
            # Two shards more: one is packed beside its samples while those of the next one are made.
            counts = [len(plan.shards[n]) for n in (*missing, *missing[:2])]
            require_free_space(out, sum(counts) * sample_bytes(plan.settings), "export")
            _write_shards(dataset, out, plan, missing, index)
        index["finished"] = True
        _write_index(out, index)
    return index


def decode_sample(
    record: Mapping[str, Any],  # as WebDataset yields it: bytes by warped.mkv, occlusion.mkv, right.mkv
) -> InpaintSample:
    """Decode a sample, bit for bit as a window of the dataset has it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in (*_VIEWS, _MASK)}
        for name, path in paths.items():
            path.write_bytes(record[name])
        return InpaintSample(
            read_frames(paths["warped.mkv"]), read_occlusion(paths[_MASK]), read_frames(paths["right.mkv"])
        )


def _write_shards(
    dataset: Dataset, out: Path, plan: ExportPlan, missing: Sequence[int], index: dict[str, Any]
) -> None:
    """Make samples on all cores, and pack a shard as soon as its last sample is there."""
    scratch = out / _SCRATCH
    scratch.mkdir(exist_ok=True)
    shard_of = {sample: n for n in missing for sample in plan.shards[n]}
    jobs = [job for job in plan_epoch(plan.clips, plan.seed, 0, range(plan.samples)) if job[0] in shard_of]
    work = partial(_write_sample, dataset, scratch, plan.settings, plan.seed, plan.dataset)
    remaining = Counter(shard_of.values())
    bar = tqdm(total=plan.samples, initial=plan.samples - len(jobs), desc="export", unit="window")
    with bar, closing(parallel.map(work, jobs)) as results:  # closing it stops the workers
        for position, result in results:
            number, clip = jobs[position]
            if isinstance(result, WorkerCrashed):
                raise UserError(f"export: clip {clip.id} cannot be read: {result.detail}")
            shard = shard_of[number]
            remaining[shard] -= 1
            if not remaining[shard]:
                index["shards"][_shard_name(plan, shard)] = _pack(out, scratch, plan, shard)
                _write_index(out, index)
            bar.update()
    scratch.rmdir()


def _write_sample(
    dataset: Dataset,
    scratch: Path,
    settings: WindowSettings,
    seed: int,
    stamp: str,
    job: tuple[int, DatasetClip],
) -> None:
    number, clip = job
    window, sample = read_sample(dataset, clip, window_rng(seed, 0, number), settings)
    write_frames(_sample_file(scratch, number, "warped.mkv"), sample.warped)
    write_frames(_sample_file(scratch, number, "right.mkv"), sample.right)
    write_occlusion(_sample_file(scratch, number, _MASK), sample.occlusion)
    content = window._asdict() | {"clip": clip.id, "dataset": stamp} | _describe_film(clip)
    write_atomic(_sample_file(scratch, number, "json"), json.dumps(content, sort_keys=True) + "\n")


def _describe_film(clip: DatasetClip) -> dict[str, Any]:
    return {"film": clip.film.name, "fps": clip.film.fps, "licence": clip.film.licence or "not stated"}


def _pack(out: Path, scratch: Path, plan: ExportPlan, shard: int) -> dict[str, Any]:
    """Pack a shard's samples into a tar file and delete them; returns its entry of the index."""
    from webdataset import TarWriter

    path = out / _shard_name(plan, shard)
    constant = {"mtime": 0, "user": "", "group": "", "mode": 0o644}  # the same samples give the same bytes
    with (
        atomic_path(path) as part,
        part.open("wb") as file,
        TarWriter(file, encoder=False, **constant) as writer,
    ):
        for number in plan.shards[shard]:
            files = {kind: _sample_file(scratch, number, kind).read_bytes() for kind in _FILES}
            writer.write({"__key__": _sample_name(number)} | files)
    for number in plan.shards[shard]:
        for kind in _FILES:
            _sample_file(scratch, number, kind).unlink()
    return {"samples": len(plan.shards[shard]), "bytes": path.stat().st_size, "sha256": hash_file(path)}


def _open_index(out: Path, plan: ExportPlan) -> dict[str, Any]:
    """Read the index, without the shards whose files are missing or damaged, or start a new one."""
    path = out / INDEX
    expected = {INDEX, *(_shard_name(plan, n) for n in range(len(plan.shards)))} if path.is_file() else set()
    foreign = sorted({found.name for found in out.glob("[!.]*")} - expected)
    if not path.is_file():
        _require_no_foreign(out, foreign)
        index = _new_index(plan)
        _write_index(out, index)
        return index
    try:
        index = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not an index of an export; give an empty folder") from error
    if not isinstance(index, dict) or index.get("key") != plan.key:
        raise UserError(
            f"{out}: holds an export of another dataset, other settings or another version; "
            "give an empty folder"
        )
    _require_no_foreign(out, foreign)
    entries = tqdm(index["shards"].items(), desc="check", unit="shard", disable=not index["shards"])
    index["shards"] = {name: entry for name, entry in entries if _is_intact(out / name, entry)}
    index["finished"] = False
    return index


def _require_no_foreign(out: Path, names: Sequence[str]) -> None:
    if names:
        raise UserError(f"{out}: holds {names[0]}, which this export does not write; give an empty folder")


def _is_intact(path: Path, entry: Mapping[str, Any]) -> bool:
    complete = path.is_file() and path.stat().st_size == entry["bytes"]
    return complete and hash_file(path) == entry["sha256"]


def _new_index(plan: ExportPlan) -> dict[str, Any]:
    drawn = {clip.id: clip for _, clip in plan_epoch(plan.clips, plan.seed, 0, range(plan.samples))}
    films = [_describe_film(clip) for clip in drawn.values()]
    return {
        "key": plan.key,
        "split": plan.split,
        "settings": asdict(plan.settings),
        "seed": plan.seed,
        "samples": plan.samples,
        "clips": len(drawn),
        "dataset": plan.dataset,
        "licences": sorted({film["licence"] for film in films}),
        "films": sorted({film["film"] for film in films}),
        "shards": {},
        "finished": False,
    }


def _write_index(out: Path, index: dict[str, Any]) -> None:
    write_atomic(out / INDEX, json.dumps(index, sort_keys=True, indent=1) + "\n")


def _delete_unfinished(out: Path) -> None:
    """Delete samples and temporary files of a killed export."""
    for path in [*out.glob(f"{_SCRATCH}/*"), *out.glob(".*.part.*")]:
        path.unlink()


def _shard_name(plan: ExportPlan, shard: int) -> str:
    return f"secondeye-{plan.split}-{shard:06d}.tar"


def _sample_name(number: int) -> str:
    return f"{number:08d}"


def _sample_file(scratch: Path, number: int, kind: str) -> Path:
    return scratch / f"{_sample_name(number)}.{kind}"
