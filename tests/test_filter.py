from dataclasses import replace
from pathlib import Path

import pytest
from conftest import a_clip, a_film, a_score, a_shift
from small_dataset import write_rows

from secondeye.dataset.reader import FAILED, Dataset
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
from secondeye.dataset.train_test_split import choose_split, deciding_films
from secondeye.params import Filter, load_params
from secondeye.stages import filter
from secondeye.system.errors import UserError

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def section() -> Filter:
    return load_params(PROJECT / "params.yaml").filter


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"psnr_db": 23.8, "agreement_psnr_db": 33.0, "matched_share": 0.92}, None),  # an exact pair
        ({"psnr_db": 23.8, "agreement_psnr_db": 33.0, "matched_share": 0.84}, "mismatched"),
        ({"psnr_db": 24.0, "agreement_psnr_db": 24.9}, "views differ"),
        ({"psnr_db": NAN, "agreement_psnr_db": NAN}, "views differ"),
        ({"psnr_db": 20.0, "agreement_psnr_db": 21.0, "colour_difference": 12.1}, "colours differ"),
        ({"psnr_db": 20.0, "agreement_psnr_db": 21.0, "occlusion_share": 0.3}, "mostly occluded"),
        ({"psnr_db": 20.0, "agreement_psnr_db": 31.0, "matched_share": 0.3}, "few matches"),
        ({"ssim": 0.4}, "views differ"),
        ({"ssim": NAN}, "views differ"),
        ({"colour_difference": 12.1}, "colours differ"),
        ({"colour_difference": NAN}, "colours differ"),
        ({"sharpness": 0.1}, "blurred"),
        ({"sharpness": NAN}, "blurred"),
        ({"sharpness_ratio": 2.1}, "one view sharper"),
        ({"sharpness_ratio": 0.4}, "one view sharper"),
        ({"sharpness_ratio": NAN}, "one view sharper"),
        ({"sharpness_ratio": 2.0}, None),
        ({"sharpness_ratio": 0.5}, None),
        ({"matched_share": 0.3}, "few matches"),
        ({"matched_share": NAN}, "few matches"),
        ({"occlusion_share": 0.3}, "mostly occluded"),
        ({"occlusion_share": NAN}, "mostly occluded"),
        ({"disparity_max_percent": 0.2}, "flat"),
        ({"disparity_max_percent": NAN}, "flat"),
    ],
)
def test_each_threshold_rejects_with_its_reason(
    section: Filter, changes: dict[str, float], reason: str | None
) -> None:
    fault = filter.rejection_reason(a_score("a", **changes), section)
    assert (fault[0] if fault else None) == reason


def test_splits_are_by_film_and_by_time_when_there_are_few() -> None:
    assert choose_split(a_clip("c", "a"), a_film("a", split="test"), 9, 0.2) == "test"
    names = [str(n) for n in range(300)]
    sides = [choose_split(a_clip("c", name), a_film(name), 300, 0.2) for name in names]
    assert 40 <= sides.count("test") <= 80
    assert choose_split(a_clip("c", "a", start_share=0.1), a_film("a"), 2, 0.2) == "train"
    assert choose_split(a_clip("c", "a", start_share=0.8), a_film("a"), 2, 0.2) == "test"


def hashed(name: str, film: str, start: int, image: int) -> Clip:
    return a_clip(name, film, start=start, stop=start + 10, perceptual_hash=f"{image * 0x1234567:016x}" * 5)


FILMS = [a_film("brief", frames=50), a_film("long", frames=90), a_film("other"), a_film("alone")]
CLIPS = [
    hashed("a", "brief", 0, 0x5A5A5A5A5),
    hashed("b", "brief", 10, 0x123),
    hashed("c", "long", 20, 0x5A5A5A5A5),
    hashed("d", "other", 30, 0x123),
    hashed("e", "alone", 0, 0xFFF0000),
]


def run_filter(
    root: Path,
    section: Filter,
    films: list[Film] = FILMS,
    clips: list[Clip] = CLIPS,
    skipped: tuple[SkippedClip, ...] = (),
    failed: dict[str, FailedItem] | None = None,
    blurred: tuple[str, ...] = (),
    uncertain: tuple[str, ...] = (),
) -> tuple[list[AcceptedClip], list[RejectedClip]]:
    failed = failed or {}
    for stage in ("shift", "match", "splat", "quality"):
        (root / stage).mkdir(parents=True, exist_ok=True)
        write_table(root / stage / FAILED, [failed[stage]] if stage in failed else [], FailedItem)
    lost = {row.id for row in failed.values()}
    scores = [a_score(c.id, sharpness=0.0 if c.id in blurred else 8.0) for c in clips if c.id not in lost]
    orders = [a_shift(c.id, order_uncertain=c.id in uncertain, order_cues="strips -0.20") for c in clips]
    tables = {Film: films, Clip: clips, SkippedClip: skipped, Correction: orders, ClipQuality: scores}
    write_rows(root, tables)
    filter.run(root, filter=section)
    dataset = Dataset(root)
    return dataset.rows(AcceptedClip), dataset.rows(RejectedClip)


def test_of_two_duplicates_the_one_of_the_longer_film_stays(tmp_path: Path, section: Filter) -> None:
    kept, rejected = run_filter(tmp_path, section)
    assert [row.id for row in kept] == ["c", "d", "e"]
    assert [(row.id, row.stage, row.reason, row.detail) for row in rejected] == [
        ("a", "filter", "duplicate", "shows frames 20 to 29 of long"),
        ("b", "filter", "duplicate", "shows frames 30 to 39 of other"),
    ]
    assert run_filter(tmp_path / "turned", section, FILMS[::-1], CLIPS[::-1]) == (kept, rejected)


@pytest.mark.parametrize(
    ("brief", "long", "kept"),
    [
        ({"height": 128}, {}, "a"),
        ({"height": 128, "crop_top": 40, "crop_bottom": 40}, {}, "c"),  # 48 rows without its borders
        ({"width": 129, "bit_rate": 1.0}, {"bit_rate": 9e9}, "a"),
        ({"bit_rate": 2e6}, {"bit_rate": 1e6}, "a"),
        ({"bit_rate": 1e6}, {"bit_rate": 2e6}, "c"),
        ({}, {}, "c"),  # the longer film
    ],
)
def test_of_two_duplicates_the_better_picture_stays(
    tmp_path: Path, section: Filter, brief: dict[str, float], long: dict[str, float], kept: str
) -> None:
    films = [a_film("brief", frames=50, **brief), a_film("long", frames=90, **long), *FILMS[2:]]
    accepted, _ = run_filter(tmp_path, section, films)
    assert {row.id for row in accepted} & {"a", "c"} == {kept}


def test_a_duplicate_stays_where_the_other_is_rejected(tmp_path: Path, section: Filter) -> None:
    kept, rejected = run_filter(tmp_path, section, blurred=("c",))
    assert [row.id for row in kept] == ["a", "d", "e"]
    assert [(row.id, row.reason) for row in rejected] == [("b", "duplicate"), ("c", "blurred")]


def test_films_that_share_images_are_in_one_split(tmp_path: Path, section: Filter) -> None:
    for alone in range(30):
        films = [*FILMS[:3], a_film("alone"), a_film(str(alone))]
        pairs = [(CLIPS[0], CLIPS[2]), (CLIPS[3], CLIPS[1])]
        deciding = deciding_films({film.id: film for film in films}, pairs)
        sides = {choose_split(a_clip("c", f), deciding[f], 9, 0.5) for f in ("long", "brief", "other")}
        assert len(sides) == 1
    assert deciding["other"].id == "brief" and deciding["alone"].id == "alone"


def test_the_test_split_refuses_clips_of_uncertain_view_order(tmp_path: Path, section: Filter) -> None:
    films = [a_film("a", split="test"), a_film("b", split="train")]
    clips = [a_clip("a0", "a"), a_clip("a1", "a", start=10), a_clip("b0", "b")]
    kept, rejected = run_filter(tmp_path, section, films, clips, uncertain=("a1", "b0"))
    assert [(row.id, row.split) for row in kept] == [("a0", "test"), ("b0", "train")]
    assert [(row.id, row.stage, row.reason) for row in rejected] == [("a1", "filter", "order uncertain")]
    assert rejected[0].detail.startswith("strips -0.20; set split to train, or state the packing")


def test_a_copy_stays_where_the_order_of_the_better_picture_is_uncertain(
    tmp_path: Path, section: Filter
) -> None:
    films = [replace(film, split="test") for film in FILMS]
    assert {"c", "a"} & {row.id for row in run_filter(tmp_path / "sure", section, films)[0]} == {"c"}
    kept, rejected = run_filter(tmp_path / "unsure", section, films, uncertain=("c",))
    assert {"c", "a"} & {row.id for row in kept} == {"a"}
    assert [row.reason for row in rejected if row.id == "c"] == ["order uncertain"]


def test_the_split_of_one_film_applies_to_its_group(tmp_path: Path, section: Filter) -> None:
    films = [a_film("brief", split="test", frames=50), *FILMS[1:]]
    kept, _ = run_filter(tmp_path, section, films)
    assert {row.film: row.split for row in kept if row.film != "alone"} == {"long": "test", "other": "test"}


def test_duplicates_in_different_splits_are_refused(tmp_path: Path, section: Filter) -> None:
    films = [FILMS[0], a_film("long", frames=90, split="train"), a_film("other", split="test"), FILMS[3]]
    with pytest.raises(UserError, match="long is in train and other in test"):
        run_filter(tmp_path, section, films)


def test_everything_rejected_earlier_is_listed(tmp_path: Path, section: Filter) -> None:
    skipped = (SkippedClip("x", "long", 0, 9, "black", "mean brightness 0.0010, 0.01 needed"),)
    kept, rejected = run_filter(
        tmp_path, section, skipped=skipped, failed={"shift": FailedItem("e", "odd", "why")}
    )
    assert [(row.id, row.film, row.stage, row.reason) for row in rejected] == [
        ("a", "brief", "filter", "duplicate"),
        ("b", "brief", "filter", "duplicate"),
        ("e", "alone", "shift", "odd"),
        ("x", "long", "split", "black"),
    ]
    assert [row.id for row in kept] == ["c", "d"]


def test_films_are_split_by_time_only_where_sources_csv_leaves_them_open(
    tmp_path: Path, section: Filter, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [a_film("a", split="train"), a_film("b", split="test")]
    clips = [a_clip(f"{film}{n}", film, start_share=n / 10) for film in "ab" for n in range(10)]
    accepted, _ = run_filter(tmp_path / "named", section, films, clips)
    assert {(row.film, row.split) for row in accepted} == {("a", "train"), ("b", "test")}
    assert "the last" not in capsys.readouterr().out, "nothing is split by time"
    accepted, _ = run_filter(tmp_path / "open", section, [films[0], a_film("b")], clips)
    assert {(row.film, row.split) for row in accepted} == {("a", "train"), ("b", "train"), ("b", "test")}
    assert "filter: b: sources.csv names no split" in capsys.readouterr().out
