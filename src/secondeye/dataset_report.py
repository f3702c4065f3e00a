"""The dataset in words and numbers: how many clips went where, and why."""

from collections import Counter
from collections.abc import Iterable, Sequence

from secondeye.rows import Bad, Clip, Film, Kept, Rejected, Scored, Shifted


def count_dataset(
    films: Sequence[Film], clips: Sequence[Clip], kept: Sequence[Kept], rejected: Sequence[Rejected]
) -> dict[str, int]:
    """The funnel as numbers."""
    sides = Counter(row.split for row in kept)
    return {
        "films": len(films),
        "clips": len(clips),
        "rejected": len(rejected),
        "kept": len(kept),
        "kept_train": sides["train"],
        "kept_test": sides["test"],
    }


def describe_dataset(
    films: Sequence[Film],
    left_out: Sequence[Bad],  # id is the file's name
    clips: Sequence[Clip],
    shifted: Sequence[Shifted],
    scored: Sequence[Scored],
    kept: Sequence[Kept],
    rejected: Sequence[Rejected],
    failures: Sequence[str],
) -> str:
    """The report a person reads after `dvc repro`: Markdown."""
    verdict = "Every expectation holds." if not failures else "**Failed:** " + "; ".join(failures) + "."
    counts = count_dataset(films, clips, kept, rejected)
    if not counts["kept_test"]:
        verdict += " No clip is held out for tests: name test films in sources.csv."
    funnel = [(name.replace("_", ", "), str(count)) for name, count in counts.items()]
    reasons = Counter((row.stage, row.reason) for row in rejected)
    parts = [
        f"# The dataset\n\n{verdict}",
        _table(("what", "count"), funnel),
        "## Films",
        _table(
            ("film", "packing", "licence", "frames", "fps", "shots", "clips", "kept", "remark"),
            [_film_line(film, kept) for film in films],
        ),
        *_left_out(left_out),
        "## Why clips were rejected",
        _table(("stage", "reason", "clips"), [(*key, str(n)) for key, n in sorted(reasons.items())])
        if reasons
        else "None was.",
        "## Clips",
        "Shift: how far the right view was moved to the right, px at working size. Disparity: its range in % "
        "of the width. PSNR of the warped left view against the right view, visible pixels.",
        _clip_table(films, clips, shifted, scored, kept, rejected),
    ]
    return "\n\n".join(parts) + "\n"


def _left_out(films: Sequence[Bad]) -> list[str]:
    if not films:
        return []
    lines = [(film.id, film.reason, film.detail) for film in films]
    return ["## Films left out", _table(("film", "reason", "detail"), lines)]


def _film_line(film: Film, kept: Iterable[Kept]) -> tuple[str, ...]:
    survivors = sum(row.film == film.id for row in kept)
    return (
        film.name,
        film.packing,
        film.licence or "not stated",
        str(film.frames),
        f"{film.fps:.3f}".rstrip("0").rstrip("."),
        str(film.shots),
        str(film.clips),
        str(survivors),
        film.remark or "-",
    )


def _clip_table(
    films: Sequence[Film],
    clips: Sequence[Clip],
    shifted: Sequence[Shifted],
    scored: Sequence[Scored],
    kept: Sequence[Kept],
    rejected: Sequence[Rejected],
) -> str:
    names = {film.id: film.name for film in films}
    shifts = {row.id: row for row in shifted}
    scores = {row.id: row for row in scored}
    verdicts = {row.id: f"kept, {row.split}" for row in kept}
    verdicts |= {row.id: f"{row.stage}: {row.reason} ({row.detail})" for row in rejected}
    lines = []
    for clip in sorted(clips, key=lambda clip: (names[clip.film], clip.start)):
        shift, score = shifts.get(clip.id), scores.get(clip.id)
        lines.append(
            (
                names[clip.film],
                f"{clip.start}-{clip.stop - 1}",
                f"{shift.shift_px:+d}" if shift else "-",
                f"{score.disparity_min_percent:.2f} to {score.disparity_max_percent:.2f}" if score else "-",
                f"{score.matched_share:.1%}" if score else "-",
                f"{score.occlusion_share:.2%}" if score else "-",
                f"{score.psnr_db:.2f}" if score else "-",
                verdicts[clip.id],
            )
        )
    return _table(("film", "frames", "shift", "disparity", "matched", "hidden", "PSNR, dB", "verdict"), lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
