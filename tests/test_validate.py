"""Validation names every failed expectation, with the films and clips that fail it."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from conftest import a_film, a_score
from small_dataset import write_rows

from secondeye.dataset import checksums
from secondeye.dataset.schema import AcceptedClip, ClipQuality, Film
from secondeye.params import Validate, load_params
from secondeye.stages import validate

PARAMS = Validate(min_accepted_clips=1, require_licences=True)


Failures = Callable[..., list[str]]


@pytest.fixture
def failures(tmp_path: Path) -> Failures:
    """Find failures of a dataset whose clip n is of film n, but the second one of the first film."""
    number = count()

    def find(
        scored: list[ClipQuality],
        splits: list[str],
        damaged: dict[str, int] | None = None,
        section: Validate = PARAMS,
        **film: object,
    ) -> list[str]:
        films = [replace(a_film(name), **film) for name in "abc"]  # type: ignore[arg-type]
        accepted = [AcceptedClip(row.id, "aabc"[n], splits[n]) for n, row in enumerate(scored)]
        tables = {Film: films, ClipQuality: scored, AcceptedClip: accepted}
        dataset = write_rows(tmp_path / str(next(number)), tables)
        return validate.find_failures(validate.expectation_rows(dataset, damaged or {}, section), 1)

    return find


def test_good_clips_pass(failures: Failures) -> None:
    assert failures([a_score("1"), a_score("2"), a_score("3")], ["train", "train", "test"]) == []


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"psnr_db": 3.0}, "psnr_db"),
        ({"ssim": -2.0}, "ssim"),
        ({"matched_share": 1.5}, "matched_share"),
        ({"occlusion_share": 0.7}, "occlusion_share"),
        ({"disparity_min_percent": -9.0}, "disparity_min_percent"),
        ({"disparity_max_percent": 70.0}, "disparity_max_percent"),
        ({"motion_percent": float("nan")}, "motion_percent"),
        ({"sharpness": -1.0}, "sharpness"),
        ({"sharpness_ratio": float("nan")}, "sharpness_ratio"),
        ({"colour_difference": 300.0}, "colour_difference"),
        ({"height": 2}, "height"),
        ({"width": 8}, "width"),
    ],
)
def test_a_score_out_of_range_is_named_with_its_clip(
    failures: Failures, change: dict[str, float], column: str
) -> None:
    bad = replace(a_score("2"), **change)  # type: ignore[arg-type]
    found = failures([a_score("1"), bad], ["train", "train"])
    assert (
        len(found) == 1 and found[0].startswith(f"{column} must ") and found[0].endswith("in 1 clip of a: 2")
    )


def test_a_film_in_two_splits_and_an_unknown_split_fail(failures: Failures) -> None:
    found = failures([a_score("1"), a_score("2"), a_score("3")], ["train", "test", "nowhere"])
    assert len(found) == 2
    assert any(line.startswith("a: clips of one film are in both splits") for line in found)
    assert any(line.startswith("split") and line.endswith("of b: 3") for line in found)


def test_a_film_without_licence_fails_unless_that_is_allowed(failures: Failures) -> None:
    (found,) = failures([a_score("1"), a_score("2")], ["train", "train"], licence="")
    assert found == "no licence is stated for a; add it to sources.csv in data/raw"
    lenient = replace(PARAMS, require_licences=False)
    assert failures([a_score("1"), a_score("2")], ["train", "train"], section=lenient, licence="") == []


def test_a_damaged_file_and_a_repeated_id_fail(failures: Failures) -> None:
    (found,) = failures([a_score("1"), a_score("2")], ["train", "train"], {"2": 1})
    assert found == "files of 2 are damaged; delete data/*/ID.* of each and run dvc repro"
    (found,) = failures([a_score("1"), a_score("1")], ["train", "train"])
    assert found.startswith("id must be unique")


def test_too_few_clips_fail() -> None:
    assert validate.find_failures([], 2) == ["0 clips accepted, validate.min_accepted_clips is 2"]


def test_licences_are_required_by_default() -> None:
    assert load_params().validate.require_licences


def test_a_message_names_at_most_a_hundred_clips() -> None:
    names = [f"{n:03d}" for n in range(103)]
    assert validate._join_some(names[:100]) == ", ".join(names[:100])
    assert validate._join_some(names).endswith(", 098, 099 and 3 more")


def test_damaged_files_are_counted_without_reading_those_that_are_older_than_their_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(checksums, "hash_file", lambda path: hashed.append(path.name) or "other")
    for n, later_ns in ((1, 0), (2, 1), (3, 0)):
        file, entry = (tmp_path / f"{n:016x}.{kind}" for kind in ("left.mkv", "json"))
        file.write_text("a view")
        record = {file.name: {"bytes": 6, "sha256": "digest"}}
        entry.write_text(json.dumps({"files": record}))
        written_ns = entry.stat().st_mtime_ns
        os.utime(file, ns=(written_ns, written_ns + later_ns))
    file.unlink()
    assert validate.count_damaged([tmp_path]) == {f"{2:016x}": 1, f"{3:016x}": 1}
    assert hashed == [f"{2:016x}.left.mkv"], "the first is older than its entry, the third is missing"
