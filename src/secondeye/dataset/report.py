"""Report the dataset: how many clips each stage passed on, why the others were rejected, and images."""

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import (
    WORKER_CRASHED,
    AcceptedClip,
    Clip,
    ClipQuality,
    Correction,
    RejectedClip,
    SkippedClip,
)
from secondeye.report.contact_sheet import Tile, blank, read_image, write_contact_sheet
from secondeye.report.document import Image, Section, Table, choose_shown, describe_shown, to_markdown
from secondeye.report.html import write_page
from secondeye.system.files import write_atomic

SCORES = tuple(
    field.name for field in fields(ClipQuality) if field.name not in ("id", "key", "height", "width")
)
SHOWN_CLIPS = 3  # clips of each kind on the contact sheet
_BINS = 20  # of a histogram
_PERCENTILES = (5, 50, 95)
_TILES = ("left", "right", "warped left", "disparity")
_TITLE = "The dataset"
_NO_IMAGES = [[("no clip to show", blank((90, 160)))]]


def write_dataset_report(
    reports: Path,
    dataset: Dataset,
    failures: Sequence[str],  # failed expectations
    damaged: Container[str],  # clips that are not shown
) -> None:
    """Write dataset.html, .md and .png, and the JSON files of `dvc metrics` and `dvc plots`."""
    reports.mkdir(parents=True, exist_ok=True)
    # DVC requires every out, so the contact sheet is written even if no clip was scored.
    write_contact_sheet(reports / "dataset.png", image_rows(dataset, damaged) or _NO_IMAGES)
    scored = bool(dataset.rows(ClipQuality))
    sections = dataset_sections(dataset, failures, reports / "dataset.png" if scored else None)
    write_atomic(reports / "dataset.md", to_markdown(_TITLE, sections))
    write_page(reports / "dataset.html", _TITLE, sections, {"dataset.md": "as Markdown"})
    for name, content in (
        ("dataset.json", count_dataset(dataset) | medians(dataset)),
        ("dataset_funnel.json", funnel(dataset)),
        ("dataset_scores.json", histograms(dataset)),
    ):
        write_atomic(reports / name, json.dumps(content, indent=1) + "\n")


def count_dataset(dataset: Dataset) -> dict[str, int]:
    """Count films and pieces, and the clips that each stage passed on."""
    stages = Counter(row.stage for row in dataset.rows(RejectedClip))
    left = len(dataset.rows(Clip)) + stages["split"]
    counts = {"films": len(dataset.films), "pieces": left}
    for stage, name in (
        ("split", "cut"),
        ("shift", "aligned"),
        ("match", "matched"),
        ("splat", "splatted"),
        ("quality", "scored"),
        ("filter", "accepted"),
    ):
        left -= stages[stage]
        counts[name] = left
    sides = Counter(row.split for row in dataset.rows(AcceptedClip))
    return counts | {"accepted_train": sides["train"], "accepted_test": sides["test"]}


def medians(dataset: Dataset) -> dict[str, float]:
    """Return each score's median over accepted clips, for `dvc metrics diff`; {} without clips."""
    kept = {row.id for row in dataset.rows(AcceptedClip)}
    rows = [row for row in dataset.rows(ClipQuality) if row.id in kept]
    return {name: round(float(np.median([getattr(row, name) for row in rows])), 4) for name in SCORES if rows}


def funnel(dataset: Dataset) -> list[dict[str, object]]:
    """Return the clip count after each stage as points of a plot."""
    counts = count_dataset(dataset)
    steps = ("pieces", "cut", "aligned", "matched", "splatted", "scored", "accepted")
    return [{"step": f"{number} {name}", "clips": counts[name]} for number, name in enumerate(steps)]


def histograms(dataset: Dataset) -> list[dict[str, object]]:
    """Return the histogram of each score over all scored clips as points of a plot."""
    points: list[dict[str, object]] = []
    for name in SCORES:
        values = np.array([getattr(row, name) for row in dataset.rows(ClipQuality)], np.float64)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        counts, edges = np.histogram(values, _BINS)
        points += [
            {"score": name, "value": round(float(low + high) / 2, 6), "share": round(count / values.size, 6)}
            for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
        ]
    return points


def dataset_sections(dataset: Dataset, failures: Sequence[str], sheet: Path | None) -> list[Section]:
    """Return the report's sections. `sheet` is None if no clip was scored."""
    verdict = describe_unused(dataset)
    verdict += "All expectations passed." if not failures else "Failed: " + "; ".join(failures) + "."
    if crashed := sum(row.reason == WORKER_CRASHED for row in dataset.rows(RejectedClip)):
        verdict += f" Clips lost to crashed workers: {crashed}; `dvc repro --force` tries again."
    counts = count_dataset(dataset)
    if not counts["accepted_test"]:
        verdict += " No clip is in the test split: assign test films in sources.csv."
    steps = [(name.replace("_", ", "), str(count)) for name, count in counts.items()]
    table = Table("From films to clips", ("what", "count"), steps, _FUNNEL_NOTE)
    images = (
        [Section("Best, worst and rejected clips", [_PICTURES_NOTE, Image("Middle frames", sheet)])]
        if sheet
        else []
    )
    return [
        Section("Verdict", [verdict, table]),
        Section("Films", list(_film_tables(dataset))),
        Section("Why pieces and clips were rejected", [_reasons(dataset)]),
        Section("Scores", [_score_table(dataset)] if dataset.rows(ClipQuality) else ["No clip was scored."]),
        *images,
        Section("Clips", [_clip_table(dataset)]),
    ]


def describe_unused(dataset: Dataset) -> str:
    """Return a sentence that names the films without an accepted clip, each with its main reason, or ""."""
    used = {row.film for row in dataset.rows(AcceptedClip)}
    reasons: dict[str, Counter[str]] = {film: Counter() for film in dataset.films if film not in used}
    for row in dataset.rows(RejectedClip):
        if row.film in reasons:
            reasons[row.film][f"{row.stage}: {row.reason}"] += 1
    names = {film: dataset.films[film].name for film in reasons}
    unused = [(film.id, f"split: {film.reason}") for film in dataset.skipped_films]
    unused += [(names[film], found.most_common(1)[0][0]) for film, found in reasons.items() if found]
    if not unused:
        return ""
    listed = ", ".join(f"{name} ({reason})" for name, reason in choose_shown(sorted(unused)))
    films = len(dataset.films) + len(dataset.skipped_films)
    return f"Films without an accepted clip: {len(unused)} of {films}: {listed}. "


_FUNNEL_NOTE = "Pieces: everything the films were cut into. Below: how many of them each stage passed on."
_PICTURES_NOTE = (
    "Left, right, left view warped to the right with holes in magenta, disparity. First the best and the "
    "worst accepted clips by PSNR, then the worst of those that were scored and rejected."
)


def pick_shown_clips(
    dataset: Dataset,
    damaged: Container[str],  # clips to leave out
) -> list[tuple[str, str]]:  # clip, caption
    """Pick the best and the worst accepted clips by PSNR, and the worst that the filter rejected."""
    scored = [row for row in dataset.rows(ClipQuality) if row.id not in damaged]
    scored.sort(key=lambda row: (row.psnr_db, row.id))
    accepted, names = {row.id for row in dataset.rows(AcceptedClip)}, _clip_names(dataset)
    good = [row for row in scored if row.id in accepted]
    bad = [row for row in scored if row.id not in accepted]
    worst, best = good[: (len(good) + 1) // 2][:SHOWN_CLIPS], good[(len(good) + 1) // 2 :][::-1][:SHOWN_CLIPS]
    chosen = [("best", best), ("worst accepted", worst), ("rejected", bad[:SHOWN_CLIPS])]
    return [
        (row.id, f"{word}: {names[row.id]}, {row.psnr_db:.1f} dB") for word, rows in chosen for row in rows
    ]


def image_rows(dataset: Dataset, damaged: Container[str]) -> list[list[Tile]]:
    """Load the contact sheet's rows from the images that the stage `quality` wrote."""
    rows = []
    for clip, caption in pick_shown_clips(dataset, damaged):
        image = read_image(dataset.folder("quality") / f"{clip}.middle.png")
        tiles = np.split(image, len(_TILES), axis=1)
        rows.append(list(zip((caption, *_TILES[1:]), tiles, strict=True)))
    return rows


def _clip_names(dataset: Dataset) -> dict[str, str]:
    films = dataset.films
    return {clip.id: f"{films[clip.film].name} {clip.start}-{clip.stop - 1}" for clip in dataset.rows(Clip)}


def _film_tables(dataset: Dataset) -> Iterator[Table]:
    accepted = Counter(row.film for row in dataset.rows(AcceptedClip))
    films = sorted(dataset.films.values(), key=lambda film: film.name)
    lines = [
        (
            film.name,
            film.packing,
            film.licence or "not stated",
            str(film.frames),
            f"{film.fps:.3f}".rstrip("0").rstrip("."),
            str(film.shots),
            str(film.clips),
            str(accepted[film.id]),
            film.remark or "-",
        )
        for film in choose_shown(films)
    ]
    head = ("film", "packing", "licence", "frames", "fps", "shots", "clips", "accepted", "remark")
    yield Table("Films used", head, lines, describe_shown(len(films)))
    if skipped := dataset.skipped_films:
        reasons = [(film.id, film.reason, film.detail) for film in choose_shown(skipped)]
        yield Table("Films skipped", ("film", "reason", "detail"), reasons, describe_shown(len(skipped)))


def _reasons(dataset: Dataset) -> Table | str:
    reasons = Counter((row.stage, row.reason) for row in dataset.rows(RejectedClip))
    if not reasons:
        return "None were rejected."
    lines = [(*key, str(count)) for key, count in sorted(reasons.items())]
    return Table("Reasons", ("stage", "reason", "clips"), lines, "")


def _score_table(dataset: Dataset) -> Table:
    """Return the distribution of each score."""
    lines = []
    for name in SCORES:
        values = np.array([getattr(row, name) for row in dataset.rows(ClipQuality)], np.float64)
        low, middle, high = (f"{end:.4g}" for end in np.nanpercentile(values, _PERCENTILES))
        lines.append((name, low, middle, high))
    head = ("score", *(f"{share}th percentile" for share in _PERCENTILES))
    return Table("All scored clips", head, lines, "docs/data.md defines each score.")


def _clip_table(dataset: Dataset) -> Table:
    films = {film.id: film.name for film in dataset.films.values()}
    pieces = [(films[row.film], row.start, row.stop, row.id) for row in dataset.rows(Clip)]
    pieces += [(films[row.film], row.start, row.stop, row.id) for row in dataset.rows(SkippedClip)]
    shifts = {row.id: row for row in dataset.rows(Correction)}
    scores = {row.id: row for row in dataset.rows(ClipQuality)}
    rejected = {row.id: row for row in dataset.rows(RejectedClip)}
    splits = {row.id: row.split for row in dataset.rows(AcceptedClip)}
    lines = [
        (
            name,
            f"{start}-{stop - 1}",
            *_corrections(shifts.get(clip)),
            *_scores(scores.get(clip)),
            _verdict(rejected[clip]) if clip in rejected else f"accepted, {splits[clip]}",
        )
        for name, start, stop, clip in choose_shown(sorted(pieces))
    ]
    head = (
        "film",
        "frames",
        "shift",
        "corrected",
        "disparity",
        "matched",
        "occluded",
        "PSNR, dB",
        "SSIM",
        "verdict",
    )
    note = " ".join(filter(None, [_CLIP_NOTE, describe_shown(len(pieces))]))
    return Table("Every piece of every film", head, lines, note)


def _verdict(row: RejectedClip) -> str:
    return f"{row.stage}: {row.reason} ({row.detail})"


_CLIP_NOTE = (
    "Shift: how far the right view was moved to the right, px at working size. Corrected: the other "
    "corrections. Disparity: its range in % of the width. PSNR and SSIM: warped left view against the right "
    "view, over visible pixels."
)


def _corrections(row: Correction | None) -> tuple[str, str]:
    if row is None:
        return "-", "-"
    gains = (row.red_gain, row.green_gain, row.blue_gain, row.red_offset, row.green_offset, row.blue_offset)
    corrections = [
        f"rows rectified by up to {row.rectify_row_px:.1f} px" if row.rectify_row_px else "",
        "views swapped" if row.swapped else "",
        f"order uncertain ({row.order_cues})" if row.order_uncertain else "",
        f"{row.vertical_px:+d} px vertical" if row.vertical_px else "",
        "colours" if gains != (1, 1, 1, 0, 0, 0) else "",
    ]
    return f"{row.shift_px:+d}", ", ".join(filter(None, corrections)) or "-"


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
