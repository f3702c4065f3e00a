"""The gate of the dataset names every expectation that fails, and the films and clips that fail it."""

from dataclasses import replace

import pytest
from conftest import a_film, a_score

from secondeye.dataset.report import Tables
from secondeye.dataset.schema import AcceptedClip, ClipQuality
from secondeye.params import Validate, load_params
from secondeye.stages import validate

PARAMS = Validate(min_accepted_clips=1, require_licences=True)


def failures(
    scored: list[ClipQuality], sides: list[str], damaged: dict[str, int] | None = None, **film: object
) -> list[str]:
    """Clip n is of film n, but for the second, which is of the first film."""
    films = [replace(a_film(name), **film) for name in "abc"]  # type: ignore[arg-type]
    owners = "aabc"
    kept = [AcceptedClip(row.id, owners[n], sides[n]) for n, row in enumerate(scored)]
    tables = Tables(films, [], [], [], [], scored, kept, [])
    return validate.find_failures(validate.expectation_rows(tables, damaged or {}, PARAMS), 1)


def test_good_clips_pass() -> None:
    assert failures([a_score("1"), a_score("2"), a_score("3")], ["train", "train", "test"]) == []


@pytest.mark.parametrize(
    ("change", "told"),
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
def test_a_score_out_of_range_is_named_with_its_clip(change: dict[str, float], told: str) -> None:
    bad = replace(a_score("2"), **change)  # type: ignore[arg-type]
    found = failures([a_score("1"), bad], ["train", "train"])
    assert len(found) == 1 and found[0].startswith(f"{told}: ") and found[0].endswith("for 1 clip of a: 2")


def test_a_film_in_two_splits_and_a_split_of_no_name_fail() -> None:
    found = failures([a_score("1"), a_score("2"), a_score("3")], ["train", "test", "nowhere"])
    assert len(found) == 2
    assert any("film_in_two_splits" in line and line.endswith("for 2 clips of a: 1, 2") for line in found)
    assert any(line.startswith("split") and line.endswith("of b: 3") for line in found)


def test_a_film_without_licence_fails_unless_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = failures([a_score("1"), a_score("2")], ["train", "train"], licence="")
    assert found == "no licence is stated for a; add it to sources.csv in data/raw"
    monkeypatch.setitem(globals(), "PARAMS", replace(PARAMS, require_licences=False))
    assert failures([a_score("1"), a_score("2")], ["train", "train"], licence="") == []


def test_a_damaged_file_and_an_id_that_is_there_twice_fail() -> None:
    (found,) = failures([a_score("1"), a_score("2")], ["train", "train"], {"2": 1})
    assert found == "files of 2 are damaged; delete data/*/ID.* of each and repeat"
    (found,) = failures([a_score("1"), a_score("1")], ["train", "train"])
    assert found.startswith("id: values to be unique")


def test_too_few_clips_fail_before_anything_else() -> None:
    assert validate.find_failures([], 2) == ["0 clips kept, validate.min_accepted_clips is 2"]


def test_licences_are_required_by_default() -> None:
    assert load_params().validate.require_licences
