"""Stage `shift`: find what makes each clip's two views a stereo pair.

Corrections are the view order, colours, a vertical offset in whole pixels, and the shift that puts the
farthest point near disparity zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import Correction
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.params import DatasetParams, Shift
from secondeye.system.process import lock_dir

# Median over a film's clips. Single shots in the right order reached -0.38 (a lattice in front of bars).
_SWAPPED, _SWAPPED_ALONE = -0.15, -0.5
_ORDER_CLIPS = 8  # of a film


@dataclass(frozen=True)
class ViewOrder:
    """Whether a film's views are swapped. Decided by film, because a single shot can mislead."""

    id: str  # Film.id
    key: str
    evidence: float  # median over its clips, [-1, 1]; negative if the views are swapped
    clips: int  # that gave evidence

    @property
    def swapped(self) -> bool:
        """Whether the evidence suffices to swap the views."""
        return self.evidence <= (_SWAPPED if self.clips > 1 else _SWAPPED_ALONE)


def run(data: Path, *, shift: Shift, dataset: DatasetParams) -> None:
    """Read `split`; write `shift.parquet`, the corrections that `Dataset.views` applies."""
    reader = Dataset(data)
    clips = reader.join()
    out = reader.folder("shift")
    with lock_dir(out), lock_dir(out / "films"):
        orders = _find_orders(out / "films", clips, reader, shift, dataset)
        jobs = []
        for clip in clips:
            order = orders[clip.film.id]
            key = make_key("shift", Correction, [shift], [clip.clip.key, str(order.evidence)])
            jobs.append(Job(clip.id, key, (reader, shift, order), 0, film=clip.film.name))
        done = build_missing(
            out, jobs, _shift_clip, Correction, label="shift", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(reader.path(Correction), done.rows, Correction)


def _find_orders(
    out: Path, clips: Sequence[DatasetClip], reader: Dataset, shift: Shift, dataset: DatasetParams
) -> dict[str, ViewOrder]:
    films: dict[str, list[DatasetClip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.clip.start):
        films.setdefault(clip.film.id, []).append(clip)
    jobs = []
    for film, film_clips in films.items():
        count = len(film_clips)
        sampled = np.linspace(0, count - 1, min(_ORDER_CLIPS, count)).round().astype(int)
        chosen = [film_clips[k] for k in sampled]
        key = make_key("shift", ViewOrder, [shift], [clip.clip.key for clip in chosen])
        jobs.append(Job(film, key, (reader, shift, [clip.id for clip in chosen]), 0))
    done = build_missing(
        out,
        jobs,
        _find_film_order,
        ViewOrder,
        label="order",
        max_bad_fraction=dataset.max_bad_fraction,
        unit="film",
    )
    # A film whose workers crashed keeps its order; its clips report what is wrong.
    return {film: ViewOrder(film, "", 0.0, 0) for film in films} | {row.id: row for row in done.rows}


def _find_film_order(
    out: Path, film: str, key: str, reader: Dataset, shift: Shift, clips: Sequence[str]
) -> tuple[ViewOrder, list[Path]]:
    from secondeye.stages.stereo_pair import find_order

    evidence = []
    for clip_id in clips:
        try:
            evidence.append(find_order(*reader.raw_views(clip_id), shift))
        except BadClip:  # reported when the clip itself is processed
            continue
    median = round(float(np.median(evidence)), 4) if evidence else 0.0
    return ViewOrder(film, key, median, len(evidence)), []


def _shift_clip(
    out: Path, clip_id: str, key: str, reader: Dataset, shift: Shift, order: ViewOrder
) -> tuple[Correction, list[Path]]:
    from secondeye.stages.stereo_pair import find_corrections

    views = reader.raw_views(clip_id)
    correction = find_corrections(*views, shift, clip_id, key, swapped=order.swapped, evidence=order.evidence)
    return correction, []
