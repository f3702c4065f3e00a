"""The dataset report adds up and lists every piece with its outcome."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import a_clip, a_film, a_score, a_shift
from small_dataset import write_rows

from secondeye.dataset.reader import SKIPPED_FILMS, Dataset
from secondeye.dataset.report import (
    SCORES,
    SHOWN_CLIPS,
    count_dataset,
    dataset_sections,
    funnel,
    histograms,
    image_rows,
    medians,
    pick_shown_clips,
)
from secondeye.dataset.schema import (
    AcceptedClip,
    Clip,
    ClipQuality,
    Correction,
    FailedItem,
    Film,
    RejectedClip,
    SkippedClip,
)
from secondeye.dataset.tables import write_table
from secondeye.report.contact_sheet import write_image
from secondeye.report.document import MAX_ROWS, Table, to_markdown

Tables = dict[type, list[Any]]


def some_tables() -> Tables:
    """Twelve pieces: one skipped, one each lost in shift, match and splat, three rejected, five accepted."""
    clips = [a_clip(f"c{n:02d}", "f", start=10 * n, stop=10 * n + 10) for n in range(11)]
    names = [clip.id for clip in clips]
    lost = [
        RejectedClip(name, "f", stage, "lost", "why")
        for name, stage in zip(names, ("shift", "match", "splat"), strict=False)
    ]
    rejected = [RejectedClip(name, "f", "filter", "views differ", "dB") for name in names[3:6]]
    return {
        Film: [a_film("f")],
        SkippedClip: [SkippedClip("d", "f", 110, 113, "too short", "3 frames")],
        Clip: clips,
        Correction: [a_shift(name) for name in names[1:]],
        ClipQuality: [a_score(name, psnr_db=20.0 + n) for n, name in enumerate(names[3:])],
        AcceptedClip: [AcceptedClip(name, "f", "test" if n else "train") for n, name in enumerate(names[6:])],
        RejectedClip: [*lost, *rejected, RejectedClip("d", "f", "split", "too short", "3 frames")],
    }


Write = Callable[[Tables], Dataset]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write some tables, with `changes`, into a folder of their own."""
    number = count()

    def write_tables(changes: Tables) -> Dataset:
        data = tmp_path / str(next(number))
        (data / "split" / "films").mkdir(parents=True)
        skipped = [FailedItem("broken.mp4", "not a film", "text")]
        write_table(data / "split" / SKIPPED_FILMS, skipped, FailedItem)
        return write_rows(data, some_tables() | changes)

    return write_tables


@pytest.fixture
def dataset(write: Write) -> Dataset:
    return write({})


def test_the_funnel_counts_every_rejection(dataset: Dataset) -> None:
    counts = count_dataset(dataset)
    assert counts == {
        "films": 1,
        "pieces": 12,
        "cut": 11,
        "aligned": 10,
        "matched": 9,
        "splatted": 8,
        "scored": 8,
        "accepted": 5,
        "accepted_train": 1,
        "accepted_test": 4,
    }
    assert [point["clips"] for point in funnel(dataset)] == [12, 11, 10, 9, 8, 8, 5]


def test_medians_are_of_accepted_clips(dataset: Dataset, write: Write) -> None:
    assert medians(dataset)["psnr_db"] == 25.0, "20 to 22 were rejected, 23 to 27 accepted"
    assert medians(write({AcceptedClip: []})) == {}


def test_histograms_hold_every_clip_once(dataset: Dataset, write: Write) -> None:
    points = histograms(dataset)
    assert {point["score"] for point in points} == set(SCORES)
    shares = [point["share"] for point in points if point["score"] == "psnr_db"]
    assert sum(shares) == pytest.approx(1) and max(shares) == 0.125, "eight clips, each in a bin of its own"
    assert histograms(write({ClipQuality: []})) == []


def test_images_are_of_the_best_the_worst_and_the_rejected(dataset: Dataset) -> None:
    chosen = pick_shown_clips(dataset, {})
    assert [clip for clip, _ in chosen] == ["c10", "c09", "c06", "c07", "c08", "c03", "c04", "c05"]
    assert chosen[0][1] == "best: f 100-109, 27.0 dB" and chosen[-1][1].startswith("rejected: f 50-59")
    for clip, _ in chosen:
        parts = [np.full((6, 8, 3), level, np.uint8) for level in (10, 20, 30, 40)]
        write_image(dataset.folder("quality") / f"{clip}.middle.png", np.concatenate(parts, axis=1))
    rows = image_rows(dataset, {})
    assert len(rows) == len(chosen) and SHOWN_CLIPS == 3
    assert "c10" not in [clip for clip, _ in pick_shown_clips(dataset, {"c10": 1})], "its image is damaged"
    assert [int(image.max()) for _, image in rows[0]] == [10, 20, 30, 40]


def test_every_piece_has_its_line_with_its_outcome(write: Write) -> None:
    swapped = replace(a_shift("c06"), swapped=True, vertical_px=-2, shift_px=5, red_gain=1.1)
    doubtful = a_shift("c07", order_uncertain=True, order_cues="strips -0.20", rectify_row_px=7.46)
    dataset = write({Correction: [swapped, doubtful]})
    sections = dataset_sections(dataset, ["ssim fails"], None)
    text = to_markdown("T", sections)
    assert "Failed: ssim fails." in text
    assert "| broken.mp4 | not a film | text |" in text
    assert "| f | 110-112 | - | - | - | - | - | - | - | split: too short (3 frames) |" in text
    line = next(line for line in text.splitlines() if line.startswith("| f | 60-69 "))
    assert "| +5 | views swapped, -2 px vertical, colours |" in line and "accepted, train" in line
    assert "| +0 | rows rectified by up to 7.5 px, order uncertain (strips -0.20) |" in text
    for row in dataset.rows(RejectedClip):
        assert f"{row.stage}: {row.reason} ({row.detail})" in text
    train = [replace(row, split="train") for row in dataset.rows(AcceptedClip)]
    all_train = write({AcceptedClip: train})
    assert "No clip is in the test split" in to_markdown("T", dataset_sections(all_train, [], None))


def test_crashed_workers_are_reported_at_the_top(dataset: Dataset, write: Write) -> None:
    rejected = dataset.rows(RejectedClip)
    crashed = replace(rejected[0], stage="match", reason="worker crashed")
    text = to_markdown("T", dataset_sections(write({RejectedClip: [crashed, *rejected]}), [], None))
    assert "Clips lost to crashed workers: 1; `dvc repro --force` tries again." in text
    assert "crashed workers" not in to_markdown("T", dataset_sections(dataset, [], None))


def test_an_empty_dataset_has_a_report(write: Write) -> None:
    empty = write({row_type: [] for row_type in some_tables()})
    assert json.dumps(histograms(empty) + funnel(empty))
    assert "None were rejected." in to_markdown("T", dataset_sections(empty, ["0 clips accepted"], None))


def test_a_long_table_shows_evenly_spaced_rows_and_says_so(write: Write) -> None:
    clips = [a_clip(f"c{n:05d}", "f", start=n, stop=n + 1) for n in range(2 * MAX_ROWS)]
    accepted = [AcceptedClip(clip.id, "f", "train") for clip in clips]
    for total in (MAX_ROWS, 2 * MAX_ROWS):
        changed: Tables = {Clip: clips[:total], AcceptedClip: accepted[:total], SkippedClip: []}
        section = dataset_sections(write(changed | {RejectedClip: [], Correction: []}), [], None)[-1]
        (table,) = section.parts
        assert isinstance(table, Table) and len(table.rows) == MAX_ROWS
        assert (f"{MAX_ROWS} of {total} rows" in table.note) == (total > MAX_ROWS)
        step = total // MAX_ROWS
        assert [row[1] for row in table.rows[:3]] == ["0-0", f"{step}-{step}", f"{2 * step}-{2 * step}"]
