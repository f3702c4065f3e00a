"""The dataset in words, numbers and pictures: how many clips went where, and why."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from secondeye.dataset.schema import (
    WORKER_CRASHED,
    AcceptedClip,
    Clip,
    ClipQuality,
    Correction,
    FailedItem,
    Film,
    RejectedClip,
    SkippedClip,
)
from secondeye.report.contact_sheet import Tile, read_picture
from secondeye.report.document import Picture, Section, Table
from secondeye.system.text import pluralize

SCORES = tuple(
    field.name for field in fields(ClipQuality) if field.name not in ("id", "key", "height", "width")
)
PICTURED = 3  # clips of each kind on the sheet
_DOUBT = -0.15  # evidence of swapped eyes that a look at the film should settle
_BINS = 20  # of a histogram
_SHARES = (5, 50, 95)  # percentiles that describe a score
_TILES = ("left", "right", "left seen from the right", "disparity")


@dataclass(frozen=True)
class Tables:
    """All that the dataset's stages wrote."""

    films: Sequence[Film]
    left_out: Sequence[FailedItem]  # id is the film's name
    dropped: Sequence[SkippedClip]
    clips: Sequence[Clip]
    shifted: Sequence[Correction]
    scored: Sequence[ClipQuality]
    kept: Sequence[AcceptedClip]
    rejected: Sequence[RejectedClip]


def count_dataset(tables: Tables) -> dict[str, int]:
    """The funnel as numbers, from top to bottom."""
    stages = Counter(row.stage for row in tables.rejected)
    left = len(tables.clips) + stages["split"]
    counts = {"films": len(tables.films), "pieces": left}
    for stage, name in (
        ("split", "cut"),
        ("shift", "aligned"),
        ("match", "matched"),
        ("splat", "splatted"),
        ("quality", "scored"),
        ("filter", "kept"),
    ):
        left -= stages[stage]
        counts[name] = left
    sides = Counter(row.split for row in tables.kept)
    return counts | {"kept_train": sides["train"], "kept_test": sides["test"]}


def medians(tables: Tables) -> dict[str, float]:
    """The middle of each score over kept clips, for `dvc metrics diff`; none where nothing was kept."""
    kept = {row.id for row in tables.kept}
    rows = [row for row in tables.scored if row.id in kept]
    return {name: round(float(np.median([getattr(row, name) for row in rows])), 4) for name in SCORES if rows}


def funnel(tables: Tables) -> list[dict[str, object]]:
    """The funnel as points of a plot."""
    counts = count_dataset(tables)
    steps = ("pieces", "cut", "aligned", "matched", "splatted", "scored", "kept")
    return [{"step": f"{place} {name}", "clips": counts[name]} for place, name in enumerate(steps)]


def histograms(tables: Tables) -> list[dict[str, object]]:
    """Each score's distribution over all scored clips as points of a plot."""
    points: list[dict[str, object]] = []
    for name in SCORES:
        values = np.array([getattr(row, name) for row in tables.scored], np.float64)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        counts, edges = np.histogram(values, _BINS)
        points += [
            {"score": name, "value": round(float(low + high) / 2, 6), "share": round(count / values.size, 6)}
            for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
        ]
    return points


def dataset_sections(tables: Tables, failures: Sequence[str], sheet: Path | None) -> list[Section]:
    """The report a person reads after `dvc repro`. `sheet` is None where no clip was scored."""
    verdict = "Every expectation holds." if not failures else "Failed: " + "; ".join(failures) + "."
    if died := sum(row.reason == WORKER_CRASHED for row in tables.rejected):
        verdict += f" Workers died of {pluralize(died, 'clip')}; `dvc repro --force` tries again."
    counts = count_dataset(tables)
    if not counts["kept_test"]:
        verdict += " No clip is held out for tests: name test films in sources.csv."
    steps = [(name.replace("_", ", "), str(count)) for name, count in counts.items()]
    table = Table("From films to clips", ("what", "count"), steps, _FUNNEL_NOTE)
    looks = (
        [Section("Best, worst and rejected clips", [_LOOKS, Picture("Middle frames", sheet)])]
        if sheet
        else []
    )
    return [
        Section("Verdict", [verdict, table]),
        Section("Films", list(_film_tables(tables))),
        Section("Why pieces and clips were rejected", [_reasons(tables)]),
        Section("Scores", [_score_table(tables)] if tables.scored else ["No clip was scored."]),
        *looks,
        Section("Clips", [_clip_table(tables)]),
    ]


_FUNNEL_NOTE = "Pieces: all that films were cut into. Below: how many of them each stage left, split first."
_LOOKS = (
    "Of each: left, right, the left eye seen from the right with holes in magenta, disparity. First the best "
    "and the worst of the kept clips by PSNR, then the worst of those that were scored and rejected."
)


def pick_pictured(tables: Tables) -> list[tuple[str, str]]:  # clip, what to write above it
    """The best and the worst kept clips by PSNR, and the worst of those that the filter rejected."""
    scored = sorted(tables.scored, key=lambda row: (row.psnr_db, row.id))
    kept, names = {row.id for row in tables.kept}, _names(tables)
    good = [row for row in scored if row.id in kept]
    bad = [row for row in scored if row.id not in kept]
    worst, best = good[: (len(good) + 1) // 2][:PICTURED], good[(len(good) + 1) // 2 :][::-1][:PICTURED]
    chosen = [("best", best), ("worst kept", worst), ("rejected", bad[:PICTURED])]
    return [
        (row.id, f"{word}: {names[row.id]}, {row.psnr_db:.1f} dB") for word, rows in chosen for row in rows
    ]


def picture_rows(quality: Path, tables: Tables) -> list[list[Tile]]:
    """The sheet of `pick_pictured`, from the pictures that the stage `quality` left."""
    rows = []
    for clip, words in pick_pictured(tables):
        parts = np.split(read_picture(quality / f"{clip}.middle.png"), len(_TILES), axis=1)
        rows.append(list(zip((words, *_TILES[1:]), parts, strict=True)))
    return rows


def _names(tables: Tables) -> dict[str, str]:
    films = {film.id: film.name for film in tables.films}
    return {clip.id: f"{films[clip.film]} {clip.start}-{clip.stop - 1}" for clip in tables.clips}


def _film_tables(tables: Tables) -> Iterator[Table]:
    kept = Counter(row.film for row in tables.kept)
    lines = [
        (
            film.name,
            film.packing,
            film.licence or "not stated",
            str(film.frames),
            f"{film.fps:.3f}".rstrip("0").rstrip("."),
            str(film.shots),
            str(film.clips),
            str(kept[film.id]),
            film.remark or "-",
        )
        for film in sorted(tables.films, key=lambda film: film.name)
    ]
    head = ("film", "packing", "licence", "frames", "fps", "shots", "clips", "kept", "remark")
    yield Table("Films used", head, lines, "")
    if tables.left_out:
        left_out = [(film.id, film.reason, film.detail) for film in tables.left_out]
        yield Table("Films left out", ("film", "reason", "detail"), left_out, "")


def _reasons(tables: Tables) -> Table | str:
    reasons = Counter((row.stage, row.reason) for row in tables.rejected)
    if not reasons:
        return "None was."
    lines = [(*key, str(count)) for key, count in sorted(reasons.items())]
    return Table("Reasons", ("stage", "reason", "clips"), lines, "")


def _score_table(tables: Tables) -> Table:
    """How each score is distributed."""
    lines = []
    for name in SCORES:
        values = np.array([getattr(row, name) for row in tables.scored], np.float64)
        low, middle, high = (f"{end:.4g}" for end in np.nanpercentile(values, _SHARES))
        lines.append((name, low, middle, high))
    head = ("score", *(f"{share} % lie below" for share in _SHARES))
    return Table("Of all scored clips", head, lines, "docs/data.md says what each score is.")


def _clip_table(tables: Tables) -> Table:
    films = {film.id: film.name for film in tables.films}
    shifts = {row.id: row for row in tables.shifted}
    scores = {row.id: row for row in tables.scored}
    verdicts = {row.id: f"kept, {row.split}" for row in tables.kept}
    verdicts |= {row.id: f"{row.stage}: {row.reason} ({row.detail})" for row in tables.rejected}
    pieces = [(films[row.film], row.start, row.stop, row.id) for row in tables.clips]
    pieces += [(films[row.film], row.start, row.stop, row.id) for row in tables.dropped]
    lines = [
        (
            name,
            f"{start}-{stop - 1}",
            *_corrections(shifts.get(clip)),
            *_scores(scores.get(clip)),
            verdicts[clip],
        )
        for name, start, stop, clip in sorted(pieces)
    ]
    head = (
        "film",
        "frames",
        "shift",
        "corrected",
        "disparity",
        "matched",
        "hidden",
        "PSNR, dB",
        "SSIM",
        "verdict",
    )
    return Table("Every piece of every film", head, lines, _CLIP_NOTE)


_CLIP_NOTE = (
    "Shift: how far the right view was moved to the right, px at working size. Corrected: what else was put "
    "right. Disparity: its range in % of the width. PSNR and SSIM of the warped left view against the right "
    "view, visible pixels."
)


def _corrections(row: Correction | None) -> tuple[str, str]:
    if row is None:
        return "-", "-"
    gains = (row.red_gain, row.green_gain, row.blue_gain, row.red_offset, row.green_offset, row.blue_offset)
    told = [
        "eyes swapped" if row.swapped else "order in doubt" if row.order_evidence < _DOUBT else "",
        f"{row.vertical_px:+d} px vertical" if row.vertical_px else "",
        "colours" if gains != (1, 1, 1, 0, 0, 0) else "",
    ]
    return f"{row.shift_px:+d}", ", ".join(filter(None, told)) or "-"


def _scores(row: ClipQuality | None) -> tuple[str, ...]:
    if row is None:
        return ("-",) * 5
    return (
        f"{row.disparity_min_percent:.2f} to {row.disparity_max_percent:.2f}",
        f"{row.matched_share:.1%}",
        f"{row.occlusion_share:.2%}",
        f"{row.psnr_db:.2f}",
        f"{row.ssim:.3f}",
    )
