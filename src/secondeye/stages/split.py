"""Stage `split`: cut stereo films into clips of one shot each, with both views at working size."""

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from secondeye.dataset.clip_paths import clip_file, clip_id
from secondeye.dataset.perceptual_hash import hash_clip
from secondeye.dataset.reader import SKIPPED_FILMS, Dataset
from secondeye.dataset.schema import Clip, FailedItem, Film, SkippedClip
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.film.frame_checks import rejection_reason
from secondeye.film.letterbox import Letterbox
from secondeye.film.packing import crop, crop_and_resize
from secondeye.film.shots import split_shot, trim_shot
from secondeye.params import DatasetParams, Split
from secondeye.sources import Source, hash_source, list_sources, size_bytes, strip_paths
from secondeye.sources.clip_reader import ClipReader
from secondeye.sources.packing_detection import check_packing
from secondeye.sources.scan import Scan, scan
from secondeye.sources.spherical import spherical_tag
from secondeye.sources.views import spherical_reason, view_info
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir
from secondeye.video.probe import UnreadableFilm
from secondeye.video.write import write_lossless

_ENLARGED = 1.5  # upscaling factor above which the report says so: such films lack detail
_LOSSLESS_RATIO = 0.6  # upper bound: FFV1 took 0.13 (real) to 0.36 (synthetic films) of raw 8-bit RGB


@dataclass(frozen=True)
class FilmCuts:
    """What one pass over a film found; stored so that a second run does not decode the film again."""

    id: str
    key: str
    height: int  # px of one view
    width: int
    pixel_aspect: float
    frames: int
    fps: float
    shots: int
    crop: tuple[int, int, int, int]  # px of one view: top, bottom, left, right
    clips: list[tuple[int, int, int, int]]  # shot, start, stop, timestamp of the first frame
    skipped: list[tuple[int, int, str, str]]  # start, stop, reason, detail
    remark: str


def run(data: Path, *, split: Split, dataset: DatasetParams) -> None:
    """Read `raw`; write both views of every clip, and `films`, `clips` and `skipped.parquet`.

    Raises UserError if there is nothing to read, or too little disk for what would be written.
    """
    reader = Dataset(data)
    sources = list_sources(reader.folder("raw"))
    out = reader.folder("split")
    with lock_dir(out), lock_dir(out / "films"):
        by_id, copies = _by_content(sources)
        cuts = _find_all_cuts(out, by_id, copies, split, dataset)
        jobs = _clip_jobs(cuts, by_id, split)
        done = build_missing(
            out,
            jobs,
            _cut_clip,
            Clip,
            label="split",
            max_bad_fraction=dataset.max_bad_fraction,
            in_order=True,
        )
        films = [_film(found, by_id[found.id], split) for found in cuts]
        skipped = [SkippedClip(clip_id(f.id, *piece[:2]), f.id, *piece) for f in cuts for piece in f.skipped]
        skipped += _failed_clips(jobs, done.failed)
        write_table(reader.path(Film), films, Film)
        write_table(reader.path(SkippedClip), skipped, SkippedClip)
        write_table(reader.path(Clip), done.rows, Clip)


def _by_content(sources: list[Source]) -> tuple[dict[str, Source], list[FailedItem]]:
    """Group films by content: the ones to use by id, and their copies. Copies with a licence are preferred.

    Raises UserError if copies of one film have different splits or packings.
    """
    by_id: dict[str, Source] = {}
    copies = []
    for source in sorted(sources, key=lambda source: not source.licence):
        first = by_id.setdefault(hash_source(source), source)
        if first is source:
            continue
        if first.packing != source.packing or first.split != (source.split or first.split):
            raise UserError(
                f"{first.name} and {source.name} are the same film with different packing or split; "
                "remove one of them"
            )
        copies.append(FailedItem(source.name, "a copy", f"the same film as {first.name}"))
    return by_id, copies


def _find_all_cuts(
    out: Path, sources: dict[str, Source], copies: list[FailedItem], split: Split, dataset: DatasetParams
) -> list[FilmCuts]:
    jobs = []
    for film, source in sources.items():
        # Of the name only what decides enters the key: a film renamed as advised is scanned again.
        key = make_key("split", FilmCuts, [split], [film, source.packing, spherical_tag(source)])
        jobs.append(Job(film, key, (source, split), 0, source.name))
    done = build_missing(
        out / "films",
        jobs,
        _cut_film,
        FilmCuts,
        label="cuts",
        max_bad_fraction=dataset.max_bad_fraction,
        unit="film",
    )
    skipped = copies + [FailedItem(sources[item.id].name, item.reason, item.detail) for item in done.failed]
    write_table(out / SKIPPED_FILMS, skipped, FailedItem)
    for item in skipped:
        print(f"split: {item.id} is skipped: {item.reason} ({item.detail})")
    if not done.rows:
        raise UserError("split: none of the films can be used; the reasons are listed above")
    return done.rows


def _cut_film(out: Path, film: str, key: str, source: Source, split: Split) -> tuple[FilmCuts, list[Path]]:
    try:
        if reason := spherical_reason(source):
            raise BadClip("spherical", reason)
        check_packing(source)
        _require_long_clips(source, split)
        found = scan(source, cut_threshold=split.cut_threshold, min_shot_frames=split.min_shot_frames)
    except UnreadableFilm as error:
        raise BadClip("not a film", strip_paths(source, str(error))) from error
    pieces, skipped = find_pieces(found, split)
    if not pieces:
        counts = Counter(reason for _, _, reason, _ in skipped)
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        raise BadClip("no clip", f"shots: {len(found.shots)}, pieces skipped: {reasons or 0}")
    cuts = FilmCuts(
        id=film,
        key=key,
        height=found.info.height,
        width=found.info.width,
        pixel_aspect=float(found.info.pixel_aspect),
        frames=len(found.timestamps),
        fps=float(found.info.fps),
        shots=len(found.shots),
        crop=found.letterbox,
        clips=pieces,
        skipped=skipped,
        remark=found.remark,
    )
    return cuts, []


def _require_long_clips(source: Source, split: Split) -> None:
    """Raise BadClip if the longest clip is shorter than one window; half a frame is rounded up."""
    info = view_info(source)
    longest = int(Fraction(str(split.max_seconds)) * info.fps + Fraction(1, 2))
    if not info.still and longest < split.window_frames:
        raise BadClip(
            "no clip",
            f"split.max_seconds {split.max_seconds:g} limits clips to {longest} frames at "
            f"{float(info.fps):.4g} fps, split.window_frames is {split.window_frames}",
        )


def find_pieces(
    scanned: Scan, split: Split
) -> tuple[
    list[tuple[int, int, int, int]],  # shot, start, stop, timestamp of the first frame
    list[tuple[int, int, str, str]],  # skipped pieces: start, stop, reason, detail
]:
    """Cut shots into pieces that become clips; a still image is one piece of one frame."""
    pieces, skipped = [], []
    shortest = 1 if scanned.info.still else split.window_frames
    trim, longest = Fraction(str(split.trim_seconds)), Fraction(str(split.max_seconds))
    for start, stop in scanned.gaps:
        if stop - start >= shortest and (reason := _flaw(scanned, start, stop, split)):
            skipped.append((start, stop, *reason))
    for shot, bounds in enumerate(scanned.shots):
        first, last = trim_shot(scanned.seconds, *bounds, trim)
        if last - first < shortest:
            skipped.append(
                (*bounds, "too short", f"{last - first} frames left after trimming, {shortest} needed")
            )
            continue
        for start, stop in split_shot(scanned.seconds, first, last, longest, shortest):
            if reason := _flaw(scanned, start, stop, split):
                skipped.append((start, stop, *reason))
            else:
                pieces.append((shot, start, stop, scanned.timestamps[start]))
    return pieces, skipped


def _flaw(scanned: Scan, start: int, stop: int, split: Split) -> tuple[str, str] | None:
    return rejection_reason(
        scanned.checks[start:stop], min_brightness=split.min_brightness, min_motion=split.min_motion
    )


def _clip_jobs(cuts: list[FilmCuts], sources: dict[str, Source], split: Split) -> list[Job]:
    jobs = []
    for film in cuts:
        source = sources[film.id]
        for shot, start, stop, pts in film.clips:
            name = clip_id(film.id, start, stop)
            key = make_key("split", Clip, [split], [film.key, name])
            stride = max(1, min(split.max_stride, (stop - start - 1) // max(1, split.window_frames - 1)))
            share = start / film.frames
            size = split.height, split.width
            clip = Clip(name, key, film.id, shot, start, stop, share, stride, *size, perceptual_hash="")
            room_bytes = (stop - start) * split.height * split.width * 6 * _LOSSLESS_RATIO
            jobs.append(Job(name, key, (source, clip, film.crop, pts), room_bytes, film=source.name))
    return jobs


def _failed_clips(jobs: list[Job], failed: list[FailedItem]) -> list[SkippedClip]:
    """Return the clips that could not be cut as skipped pieces."""
    clips: dict[str, Clip] = {job.id: job.arguments[1] for job in jobs}
    found = [(clips[item.id], item) for item in failed]
    return [SkippedClip(c.id, c.film, c.start, c.stop, item.reason, item.detail) for c, item in found]


def _cut_clip(
    out: Path, name: str, key: str, source: Source, clip: Clip, borders: Letterbox, start_pts: int
) -> tuple[Clip, list[Path]]:
    aspect = view_info(source).pixel_aspect
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for views in _clip_reader(clip.film, source).read(start_pts, clip.stop - clip.start):
        left.append(crop_and_resize(crop(views.left, *borders), clip.height, clip.width, aspect))
        right.append(crop_and_resize(crop(views.right, *borders), clip.height, clip.width, aspect))
    files = [clip_file(out, name, "left"), clip_file(out, name, "right")]
    write_lossless(files[0], np.stack(left))
    write_lossless(files[1], np.stack(right))
    # Hash both views: another release of the film may have them swapped.
    return replace(clip, perceptual_hash=hash_clip(left) + hash_clip(right)), files


@lru_cache(maxsize=1)
def _clip_reader(film: str, source: Source) -> ClipReader:
    """Return the reader of this process for its current film, positioned before the next clip."""
    return ClipReader(source)


def _film(cuts: FilmCuts, source: Source, split: Split) -> Film:
    top, bottom, left, right = cuts.crop
    height = cuts.height - top - bottom
    width = (cuts.width - left - right) * cuts.pixel_aspect
    scale = max(split.height / height, split.width / width)
    enlarged = f"enlarged {scale:.1f} times" if scale > _ENLARGED else ""
    return Film(
        id=cuts.id,
        name=source.name,
        packing=source.packing,
        split=source.split,
        licence=source.licence,
        height=cuts.height,
        width=cuts.width,
        pixel_aspect=cuts.pixel_aspect,
        fps=cuts.fps,
        frames=cuts.frames,
        shots=cuts.shots,
        clips=len(cuts.clips),
        crop_top=top,
        crop_bottom=bottom,
        crop_left=left,
        crop_right=right,
        bit_rate=round(8 * size_bytes(source) * cuts.fps / cuts.frames, 1),
        remark="; ".join(filter(None, [source.remark, cuts.remark, enlarged])),
    )
