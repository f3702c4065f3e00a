"""Cut stereo films into clips of one shot each, left and right eye at working size."""

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from secondeye.dataset.clip_files import clip_file, clip_id
from secondeye.dataset.perceptual_hash import hash_clip
from secondeye.dataset.schema import Clip, FailedItem, Film, SkippedClip
from secondeye.dataset.tables import write_table
from secondeye.execution.estimate import announce
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.film.frame_checks import rejection_reason
from secondeye.film.letterbox import Letterbox
from secondeye.film.packing import crop, fit
from secondeye.film.shots import split_shot, trim_shot
from secondeye.params import DatasetParams, Split
from secondeye.sources import Source, hash_source, list_sources, strip_paths
from secondeye.sources.clip_reader import ClipReader
from secondeye.sources.packing_detection import check_packing
from secondeye.sources.scan import Scan, scan
from secondeye.sources.source import FILM_SUFFIXES, is_still
from secondeye.sources.spherical import spherical_tag
from secondeye.sources.stills import pictures_of
from secondeye.sources.views import spherical_reason, view_info
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir
from secondeye.video.probe import UnreadableFilm, expected_frames, probe
from secondeye.video.write import write_lossless

_ENLARGED = 1.5  # times, from which on it is told: there is no detail to learn
_LOSSLESS_RATIO = 0.6  # a bound: FFV1 took 0.13 (real) to 0.36 (synthetic films) of raw 8-bit RGB


@dataclass(frozen=True)
class Cuts:
    """What one pass over a film found; kept so that a second run does not decode it again."""

    id: str
    key: str
    height: int  # px of an eye
    width: int
    pixel_aspect: float
    frames: int
    fps: float
    shots: int
    crop: tuple[int, int, int, int]  # px of an eye: top, bottom, left, right
    clips: list[tuple[int, int, int, int]]  # shot, start, stop, time stamp of the first frame
    dropped: list[tuple[int, int, str, str]]  # start, stop, reason, detail
    remark: str


def run(raw: Path, out: Path, *, split: Split, dataset: DatasetParams) -> None:
    """Read data/raw, write both eyes of every clip, and `clips`, `dropped` and `films.parquet`.

    Raises Refusal when there is nothing to read, or not enough disk for what would be written.
    """
    sources = list_sources(raw)
    with lock_dir(out), lock_dir(out / "films"):
        # Of long films even finding the cuts takes hours: say so, or refuse, before that.
        promised = sum(map(_promised, sources))
        announce(out, promised, split.height, split.width, known_by="by the films' headers")
        by_id, copies = _by_content(sources)
        cuts = _find_all_cuts(out / "films", by_id, copies, split, dataset)
        jobs = _clip_jobs(cuts, by_id, split)
        frames = sum(stop - start for film in cuts for _, start, stop, _ in film.clips)
        announce(out, frames, split.height, split.width)
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
        dropped = [SkippedClip(clip_id(f.id, *piece[:2]), f.id, *piece) for f in cuts for piece in f.dropped]
        dropped += _dropped_clips(jobs, done.bad)
        write_table(out / "films.parquet", films, Film)
        write_table(out / "skipped.parquet", dropped, SkippedClip)
        write_table(out / "clips.parquet", done.rows, Clip)


def _by_content(sources: list[Source]) -> tuple[dict[str, Source], list[FailedItem]]:
    """Films by their content, and what is left out as it is another's; one of known licence stays.

    Raises Refusal where two such are to be in different splits, or are packed differently.
    """
    by_id: dict[str, Source] = {}
    copies = []
    for source in sorted(sources, key=lambda source: not source.licence):
        first = by_id.setdefault(hash_source(source), source)
        if first is source:
            continue
        if first.packing != source.packing or first.split != (source.split or first.split):
            raise UserError(
                f"{first.name} and {source.name} are the same film, but of different packing or split; "
                "remove one of them"
            )
        copies.append(FailedItem(source.name, "a copy", f"the same film as {first.name}"))
    return by_id, copies


def _promised(source: Source) -> int:
    """Frames, before any is decoded; 0 where nothing says how many, or where it is no film."""
    first = source.paths[0]
    if is_still(first):
        return 1
    if first.is_dir():
        return len(pictures_of(first))
    try:
        return expected_frames(first)
    except UnreadableFilm:  # it is left out, with the reason, when its cuts are looked for
        return 0


def _find_all_cuts(
    out: Path, sources: dict[str, Source], copies: list[FailedItem], split: Split, dataset: DatasetParams
) -> list[Cuts]:
    jobs = []
    for film, source in sources.items():
        # Of the name only what decides: renamed as it was advised, a film is looked at again.
        key = make_key("split", Cuts, [split], [film, source.packing, spherical_tag(source)])
        jobs.append(Job(film, key, (source, split), 0, source.name))
    done = build_missing(
        out, jobs, _cut_film, Cuts, label="cuts", max_bad_fraction=dataset.max_bad_fraction, unit="film"
    )
    left_out = copies + [FailedItem(sources[bad.id].name, bad.reason, bad.detail) for bad in done.bad]
    write_table(out / "skipped_films.parquet", left_out, FailedItem)
    for one in left_out:
        print(f"split: {one.id} is left out: {one.reason} ({one.detail})")
    if not done.rows:
        raise UserError(f"split: none of the {len(jobs)} films can be used; the reasons stand above")
    return done.rows


def _cut_film(out: Path, film: str, key: str, source: Source, split: Split) -> tuple[Cuts, list[Path]]:
    try:
        if why := spherical_reason(source):
            raise BadClip("spherical", why)
        if any(probe(path).is_hdr for path in source.paths if path.suffix.lower() in FILM_SUFFIXES):
            raise BadClip("high dynamic range", "PQ or HLG; convert it to BT.709 first")
        check_packing(source)
        _require_long_clips(source, split)
        seen = scan(source, cut_threshold=split.cut_threshold, min_shot_frames=split.min_shot_frames)
    except UnreadableFilm as error:
        raise BadClip("not a film", strip_paths(source, str(error))) from error
    pieces, dropped = find_pieces(seen, split)
    if not pieces:
        counted = Counter(reason for _, _, reason, _ in dropped)
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(counted.items()))
        raise BadClip("no clip", f"shots: {len(seen.shots)}, pieces dropped: {told or 0}")
    cuts = Cuts(
        id=film,
        key=key,
        height=seen.info.height,
        width=seen.info.width,
        pixel_aspect=float(seen.info.pixel_aspect),
        frames=len(seen.timestamps),
        fps=float(seen.info.fps),
        shots=len(seen.shots),
        crop=seen.borders,
        clips=pieces,
        dropped=dropped,
        remark=seen.remark,
    )
    return cuts, []


def _require_long_clips(source: Source, split: Split) -> None:
    """Raise BadClip where the longest clip is too short for one window; half a frame more is let pass."""
    info = view_info(source)
    most = int(Fraction(str(split.max_seconds)) * info.fps + Fraction(1, 2))
    if not info.still and most < split.window_frames:
        told = (
            f"split.max_seconds {split.max_seconds:g} lets clips have {most} frames at {float(info.fps):.4g}"
        )
        raise BadClip("no clip", f"{told} a second, split.window_frames is {split.window_frames}")


def find_pieces(
    seen: Scan, split: Split
) -> tuple[
    list[tuple[int, int, int, int]],  # shot, start, stop, time stamp of the first frame
    list[tuple[int, int, str, str]],  # what teaches nothing: start, stop, reason, detail
]:
    """Cut shots into pieces for clips; a still is one piece of one frame."""
    pieces, dropped = [], []
    shortest = 1 if seen.info.still else split.window_frames
    trim, longest = Fraction(str(split.trim_seconds)), Fraction(str(split.max_seconds))
    for start, stop in seen.gaps:
        if stop - start >= shortest and (flaw := _flaw(seen, start, stop, split)):
            dropped.append((start, stop, *flaw))
    for shot, bounds in enumerate(seen.shots):
        first, last = trim_shot(seen.seconds, *bounds, trim)
        if last - first < shortest:
            dropped.append((*bounds, "too short", f"{last - first} frames are left, {shortest} needed"))
            continue
        for start, stop in split_shot(seen.seconds, first, last, longest, shortest):
            if flaw := _flaw(seen, start, stop, split):
                dropped.append((start, stop, *flaw))
            else:
                pieces.append((shot, start, stop, seen.timestamps[start]))
    return pieces, dropped


def _flaw(seen: Scan, start: int, stop: int, split: Split) -> tuple[str, str] | None:
    looks = seen.looks[start:stop]
    return rejection_reason(looks, min_brightness=split.min_brightness, min_motion=split.min_motion)


def _clip_jobs(cuts: list[Cuts], sources: dict[str, Source], split: Split) -> list[Job]:
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
            size_bytes = (stop - start) * split.height * split.width * 6 * _LOSSLESS_RATIO
            jobs.append(Job(name, key, (source, clip, film.crop, pts), size_bytes))
    return jobs


def _dropped_clips(jobs: list[Job], bad: list[FailedItem]) -> list[SkippedClip]:
    """Clips that could not be cut, as pieces that became no clip."""
    clips: dict[str, Clip] = {job.id: job.arguments[1] for job in jobs}
    found = [(clips[one.id], one) for one in bad]
    return [SkippedClip(c.id, c.film, c.start, c.stop, one.reason, one.detail) for c, one in found]


def _cut_clip(
    out: Path, name: str, key: str, source: Source, clip: Clip, borders: Letterbox, start_pts: int
) -> tuple[Clip, list[Path]]:
    aspect = view_info(source).pixel_aspect
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for eyes in _reader_of(clip.film, source).read(start_pts, clip.stop - clip.start):
        left.append(fit(crop(eyes.left, *borders), clip.height, clip.width, aspect))
        right.append(fit(crop(eyes.right, *borders), clip.height, clip.width, aspect))
    files = [clip_file(out, name, "left"), clip_file(out, name, "right")]
    write_lossless(files[0], np.stack(left))
    write_lossless(files[1], np.stack(right))
    # Of both eyes, for in another release they may have changed places.
    return replace(clip, perceptual_hash=hash_clip(left) + hash_clip(right)), files


@lru_cache(maxsize=1)
def _reader_of(film: str, source: Source) -> ClipReader:
    """The reader of this process for the film it is at: its next clip lies ahead."""
    return ClipReader(source)


def _film(cuts: Cuts, source: Source, split: Split) -> Film:
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
        remark="; ".join(filter(None, [source.remark, cuts.remark, enlarged])),
    )
