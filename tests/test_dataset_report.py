"""The report of the dataset adds up, and says of every piece what became of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import a_clip, a_film, a_score, a_shift

from secondeye.dataset.report import (
    PICTURED,
    SCORES,
    Tables,
    count_dataset,
    dataset_sections,
    funnel,
    histograms,
    medians,
    pick_pictured,
    picture_rows,
)
from secondeye.dataset.schema import AcceptedClip, FailedItem, RejectedClip, SkippedClip
from secondeye.report.contact_sheet import write_picture
from secondeye.report.document import to_markdown


def some_tables() -> Tables:
    """Twelve pieces: one dropped, one each lost in shift, match and splat, three rejected, five kept."""
    clips = [a_clip(f"c{n:02d}", "f", start=10 * n, stop=10 * n + 10) for n in range(11)]
    names = [clip.id for clip in clips]
    scored = [a_score(name, psnr_db=20.0 + n) for n, name in enumerate(names[3:])]
    lost = [
        RejectedClip(name, "f", stage, "lost", "why")
        for name, stage in zip(names, ("shift", "match", "splat"), strict=False)
    ]
    rejected = [RejectedClip(name, "f", "filter", "eyes differ", "dB") for name in names[3:6]]
    return Tables(
        films=[a_film("f")],
        left_out=[FailedItem("broken.mp4", "not a film", "text")],
        dropped=[SkippedClip("d", "f", 110, 113, "too short", "3 frames")],
        clips=clips,
        shifted=[a_shift(name) for name in names[1:]],
        scored=scored,
        kept=[AcceptedClip(name, "f", "test" if n else "train") for n, name in enumerate(names[6:])],
        rejected=[*lost, *rejected, RejectedClip("d", "f", "split", "too short", "3 frames")],
    )


def test_the_funnel_loses_what_was_rejected() -> None:
    counts = count_dataset(some_tables())
    assert counts == {
        "films": 1,
        "pieces": 12,
        "cut": 11,
        "aligned": 10,
        "matched": 9,
        "splatted": 8,
        "scored": 8,
        "kept": 5,
        "kept_train": 1,
        "kept_test": 4,
    }
    assert [point["clips"] for point in funnel(some_tables())] == [12, 11, 10, 9, 8, 8, 5]


def test_medians_are_of_kept_clips_alone() -> None:
    assert medians(some_tables())["psnr_db"] == 25.0, "20 to 22 were rejected, 23 to 27 kept"
    assert medians(replace(some_tables(), kept=[])) == {}


def test_histograms_hold_every_clip_once() -> None:
    points = histograms(some_tables())
    assert {point["score"] for point in points} == set(SCORES)
    shares = [point["share"] for point in points if point["score"] == "psnr_db"]
    assert sum(shares) == pytest.approx(1) and max(shares) == 0.125, "eight clips, each in a bin of its own"
    assert histograms(replace(some_tables(), scored=[])) == []


def test_pictures_are_of_the_best_the_worst_and_the_rejected(tmp_path: Path) -> None:
    chosen = pick_pictured(some_tables())
    assert [clip for clip, _ in chosen] == ["c10", "c09", "c06", "c07", "c08", "c03", "c04", "c05"]
    assert chosen[0][1] == "best: f 100-109, 27.0 dB" and chosen[-1][1].startswith("rejected: f 50-59")
    for clip, _ in chosen:
        parts = [np.full((6, 8, 3), level, np.uint8) for level in (10, 20, 30, 40)]
        write_picture(tmp_path / f"{clip}.middle.png", np.concatenate(parts, axis=1))
    rows = picture_rows(tmp_path, some_tables())
    assert len(rows) == len(chosen) and PICTURED == 3
    assert [int(picture.max()) for _, picture in rows[0]] == [10, 20, 30, 40]


def test_every_piece_has_its_line_with_what_became_of_it() -> None:
    tables = some_tables()
    swapped = replace(a_shift("c06"), swapped=True, vertical_px=-2, shift_px=5, red_gain=1.1)
    sections = dataset_sections(replace(tables, shifted=[swapped]), ["ssim fails"], None)
    text = to_markdown("T", sections)
    assert "Failed: ssim fails." in text
    assert "| broken.mp4 | not a film | text |" in text
    assert "| f | 110-112 | - | - | - | - | - | - | - | split: too short (3 frames) |" in text
    line = next(line for line in text.splitlines() if line.startswith("| f | 60-69 "))
    assert "| +5 | eyes swapped, -2 px vertical, colours |" in line and "kept, train" in line
    for row in tables.rejected:
        assert f"{row.stage}: {row.reason} ({row.detail})" in text
    all_train = replace(tables, kept=[replace(row, split="train") for row in tables.kept])
    assert "No clip is held out" in to_markdown("T", dataset_sections(all_train, [], None))


def test_clips_whose_workers_died_are_told_on_top() -> None:
    tables = some_tables()
    died = replace(tables.rejected[0], stage="match", reason="worker crashed")
    text = to_markdown("T", dataset_sections(replace(tables, rejected=[died, *tables.rejected]), [], None))
    assert "Workers died of 1 clip; `dvc repro --force` tries again." in text
    assert "Workers died" not in to_markdown("T", dataset_sections(tables, [], None))


def test_an_empty_dataset_has_a_report() -> None:
    empty = Tables([], [], [], [], [], [], [], [])
    assert json.dumps(histograms(empty) + funnel(empty))
    assert "None was." in to_markdown("T", dataset_sections(empty, ["0 clips kept"], None))
