"""Stage `shift`: find what makes each clip's two views a stereo pair.

Corrections are a rectification of the film, the view order, colours, a vertical offset in whole pixels, and
the shift that puts the farthest point near disparity zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import Clip, Correction, Film
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.film.packing import RIGHT_FIRST
from secondeye.params import DatasetParams, Shift
from secondeye.system.process import lock_dir

_ORDER_CLIPS = 8  # of a film
_ORDER_STATED = ("pair", "multiview")  # packings that say which view is the left one, as does right first


@dataclass(frozen=True)
class FilmAlignment:
    """What all clips of a film share: one rig took them, and a single shot can mislead about their order."""

    id: str  # Film.id
    key: str
    rectification: list[float]  # as of `Rectification`; empty for none
    swapped: bool
    uncertain: bool
    cues: list[float]  # as of `OrderCues`


def run(data: Path, *, shift: Shift, dataset: DatasetParams) -> None:
    """Read `split`; write `shift.parquet`, the corrections that `Dataset.views` applies."""
    reader = Dataset(data)
    clips = reader.join()
    out = reader.folder("shift")
    with lock_dir(out), lock_dir(out / "films"):
        films = _align_films(out / "films", clips, reader, shift, dataset)
        jobs = []
        for clip in clips:
            film = films[clip.film.id]
            key = make_key("shift", Correction, [shift], [clip.clip.key, repr(replace(film, key=""))])
            jobs.append(Job(clip.id, key, (reader, shift, film), 0, film=clip.film.name))
        done = build_missing(
            out, jobs, _shift_clip, Correction, label="shift", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(reader.path(Correction), done.rows, Correction)
    _report_films(reader.join(Correction))


def _report_films(clips: Sequence[DatasetClip]) -> None:
    """Print which films were rectified, and whose view order is changed or uncertain."""
    for name, row in sorted({clip.film.name: clip.correction for clip in clips}.items()):
        if row.rectify_row_px:
            print(f"shift: {name}: rows are rectified, by up to {row.rectify_row_px:.1f} px")
        if row.swapped or row.order_uncertain:
            verdict = "the views are exchanged" if row.swapped else "the order of the views is uncertain"
            print(f"shift: {name}: {verdict} ({row.order_cues})")


def _align_films(
    out: Path, clips: Sequence[DatasetClip], reader: Dataset, shift: Shift, dataset: DatasetParams
) -> dict[str, FilmAlignment]:
    films: dict[str, list[DatasetClip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.clip.start):
        films.setdefault(clip.film.id, []).append(clip)
    jobs = []
    for film, film_clips in films.items():
        count = len(film_clips)
        sampled = np.linspace(0, count - 1, min(_ORDER_CLIPS, count)).round().astype(int)
        chosen = [film_clips[k] for k in sampled]
        stated = film_clips[0].film.packing, str(_is_by_person(film_clips[0].film))
        key = make_key("shift", FilmAlignment, [shift], [*stated, *(clip.clip.key for clip in chosen)])
        jobs.append(Job(film, key, (reader, shift, [clip.id for clip in chosen]), 0))
    done = build_missing(
        out,
        jobs,
        _align_film,
        FilmAlignment,
        label="align",
        max_bad_fraction=dataset.max_bad_fraction,
        unit="film",
    )
    # A film whose workers crashed keeps its order; its clips report what is wrong.
    return {film: FilmAlignment(film, "", [], False, False, [0.0] * 4) for film in films} | {
        row.id: row for row in done.rows
    }


def _align_film(
    out: Path, film: str, key: str, reader: Dataset, shift: Shift, clips: Sequence[str]
) -> tuple[FilmAlignment, list[Path]]:
    from secondeye.stages.film_alignment import align_clips, sample_clip

    shots = {clip.id: clip.shot for clip in reader.rows(Clip)}
    sampled = [clip for name in clips if (clip := sample_clip(*reader.raw_views(name), shots[name], shift))]
    found = align_clips(sampled, shift, stated=_states_order(reader.films[film].packing))
    order = found.order
    rectification = list(found.rectification or [])
    uncertain = order.uncertain and not _is_by_person(reader.films[film])
    return FilmAlignment(film, key, rectification, order.swapped, uncertain, list(order.cues)), []


def _is_by_person(film: Film) -> bool:
    """Return whether a person wrote the packing into sources.csv, who then decides a doubt."""
    return not film.remark


def _states_order(packing: str) -> bool:
    return packing in _ORDER_STATED or packing.endswith(RIGHT_FIRST)


def _shift_clip(
    out: Path, clip_id: str, key: str, reader: Dataset, shift: Shift, film: FilmAlignment
) -> tuple[Correction, list[Path]]:
    from secondeye.alignment.order_cues import OrderCues, OrderVerdict
    from secondeye.imaging.rectification import Rectification
    from secondeye.stages.stereo_pair import find_corrections

    correction = find_corrections(
        *reader.raw_views(clip_id),
        shift,
        clip_id,
        key,
        rectification=Rectification(*film.rectification) if film.rectification else None,
        order=OrderVerdict(film.swapped, film.uncertain, OrderCues(*film.cues)),
    )
    return correction, []
