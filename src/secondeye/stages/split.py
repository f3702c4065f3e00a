"""Cut stereo films into clips of one shot each, left and right eye at working size."""

import hashlib
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from secondeye.clips import clip_file, clip_id
from secondeye.conversion.plan import make_plan
from secondeye.keep import BadClip, Job, finish_jobs, make_key
from secondeye.packing import eye_pixel_aspect, fit, unpack
from secondeye.params import Dataset, Split
from secondeye.process import alone_in
from secondeye.refusal import Refusal
from secondeye.rows import Bad, Clip, Film
from secondeye.sources import Source, list_sources
from secondeye.tables import write_table
from secondeye.video.probe import BadFilm, probe
from secondeye.video.read import read_pictures
from secondeye.video.write import write_lossless

_LOSSLESS_RATIO = 0.6  # a bound: FFV1 took 0.13 (real) to 0.36 (synthetic films) of raw 8-bit RGB


@dataclass(frozen=True)
class Cuts:
    """What one pass over a film found; kept so that a second run does not decode it again."""

    id: str
    key: str
    frames: int
    fps: float
    shots: int
    clips: list[tuple[int, int, int, int]]  # shot, start, stop, time stamp of the first frame
    remark: str


def run(raw: Path, out: Path, *, split: Split, dataset: Dataset) -> None:
    """Read data/raw, write both eyes of every clip, `clips.parquet` and `films.parquet`.

    Raises Refusal when there is nothing to read, or not enough disk for what would be written.
    """
    sources = list_sources(raw)
    with alone_in(out), alone_in(out / "films"):
        by_id = _by_content(sources)
        cuts = _find_all_cuts(out / "films", by_id, split, dataset)
        jobs = _clip_jobs(cuts, by_id, split)
        done = finish_jobs(
            out, jobs, _cut_clip, Clip, label="split", max_bad_fraction=dataset.max_bad_fraction
        )
        films = [_film(found, by_id[found.id]) for found in cuts]
        write_table(out / "films.parquet", films, Film)
        write_table(out / "clips.parquet", done.rows, Clip)


def _by_content(sources: list[Source]) -> dict[str, Source]:
    by_id: dict[str, Source] = {}
    for source in sources:
        film = _digest(source.path)
        if film in by_id:
            raise Refusal(f"{source.path} and {by_id[film].path} are the same film; remove one of them")
        by_id[film] = source
    return by_id


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _find_all_cuts(out: Path, sources: dict[str, Source], split: Split, dataset: Dataset) -> list[Cuts]:
    jobs = [
        Job(film, make_key("split", Cuts, [split], [film, source.packing]), (source.path, split), 0)
        for film, source in sources.items()
    ]
    done = finish_jobs(out, jobs, _cut_film, Cuts, label="cuts", max_bad_fraction=dataset.max_bad_fraction)
    left_out = [Bad(sources[bad.id].path.name, bad.reason, bad.detail) for bad in done.bad]
    write_table(out / "left_out.parquet", left_out, Bad)
    for film in left_out:
        print(f"split: {film.id} is left out: {film.reason} ({film.detail})")
    if not done.rows:
        raise Refusal(f"split: none of the {len(jobs)} films can be used; the reasons stand above")
    return done.rows


def _cut_film(out: Path, film: str, key: str, path: Path, split: Split) -> tuple[Cuts, list[Path]]:
    try:
        plan = make_plan(
            probe(path),
            cut_threshold=split.cut_threshold,
            min_shot_frames=split.min_shot_frames,
            seen=lambda: None,
        )
    except BadFilm as error:
        raise BadClip("not a film", str(error)) from error
    longest = round(split.max_seconds * plan.info.fps)
    pieces = [
        (shot, start, stop, plan.stamps[start])
        for shot, bounds in enumerate(plan.shots)
        for start, stop in _pieces(*bounds, longest, split.window_frames)
    ]
    if not pieces:
        raise BadClip("too short", f"no shot has {split.window_frames} frames")
    frames, fps = len(plan.stamps), float(plan.info.fps)
    return Cuts(film, key, frames, fps, len(plan.shots), pieces, plan.broken), []


def _pieces(start: int, stop: int, longest: int, shortest: int) -> list[tuple[int, int]]:
    """Equal pieces of a shot, each between `shortest` and `longest` frames where that can be."""
    if stop - start < shortest:
        return []
    count = max(1, min(-(-(stop - start) // max(longest, 1)), (stop - start) // shortest))
    bounds = [start + (stop - start) * k // count for k in range(count + 1)]
    return list(pairwise(bounds))


def _clip_jobs(cuts: list[Cuts], sources: dict[str, Source], split: Split) -> list[Job]:
    jobs = []
    for film in cuts:
        source = sources[film.id]
        for shot, start, stop, pts in film.clips:
            name = clip_id(film.id, start, stop)
            key = make_key("split", Clip, [split], [film.key, name])
            stride = max(1, min(split.max_stride, (stop - start - 1) // max(1, split.window_frames - 1)))
            share = start / film.frames
            clip = Clip(name, key, film.id, shot, start, stop, share, stride, split.height, split.width)
            size_bytes = (stop - start) * split.height * split.width * 6 * _LOSSLESS_RATIO
            jobs.append(Job(name, key, (source, clip, pts), size_bytes))
    return jobs


def _cut_clip(
    out: Path, name: str, key: str, source: Source, clip: Clip, start_pts: int
) -> tuple[Clip, list[Path]]:
    aspect = eye_pixel_aspect(source.packing, probe(source.path).pixel_aspect)
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for picture in islice(read_pictures(source.path, start_pts=start_pts), clip.stop - clip.start):
        for eye, eyes in zip(unpack(picture.rgb, source.packing), (left, right), strict=True):
            eyes.append(fit(eye, clip.height, clip.width, aspect))
    files = [clip_file(out, name, "left"), clip_file(out, name, "right")]
    write_lossless(files[0], np.stack(left))
    write_lossless(files[1], np.stack(right))
    return clip, files


def _film(cuts: Cuts, source: Source) -> Film:
    return Film(
        id=cuts.id,
        name=source.path.name,
        packing=source.packing,
        split=source.split,
        licence=source.licence,
        fps=cuts.fps,
        frames=cuts.frames,
        shots=cuts.shots,
        clips=len(cuts.clips),
        remark="; ".join(filter(None, [source.remark, cuts.remark])),
    )
