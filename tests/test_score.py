"""Scores of whole stereo films: exact answers, windows, cuts, and films that do not fit."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import damage, moving_images
from test_cli import Run, one_line, secondeye
from torch import Tensor

from secondeye.dataset.clip_files import read_frames, write_frames
from secondeye.evaluation.columns import COLUMNS
from secondeye.evaluation.film_report import find_warnings, to_json, to_text
from secondeye.evaluation.film_score import FilmScore, score_films
from secondeye.evaluation.regions import (
    BORDER,
    VISIBLE,
    match_by_search,
    regions_from_match,
    regions_from_truth,
)
from secondeye.evaluation.score import compute, prepare, update
from secondeye.film.packing import side_by_side
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.matching import make_matcher
from secondeye.synthetic import Shot, render_shot
from secondeye.system.errors import UserError
from secondeye.video.probe import UnreadableFilm
from secondeye.video.write import write_film, write_lossless

__all__ = ["secondeye"]  # a fixture

HEIGHT, WIDTH = 96, 160

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shot() -> Shot:
    """Ten frames played forwards and backwards, partly in front of the screen and partly behind it."""
    made = render_shot(16, 10, HEIGHT, WIDTH, screen_px=3)
    assert made.right_disparity.min() < -2 and made.right_disparity.max() > 3
    return Shot(**{name: torch.cat([array, array.flip(0)]) for name, array in vars(made).items()})


@pytest.fixture(scope="module")
def views(shot: Shot, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("views")
    return write_frames(folder / "left.mkv", shot.left), write_frames(folder / "right.mkv", shot.right)


@pytest.fixture(scope="module")
def true_score(views: tuple[Path, Path]) -> FilmScore:
    """The score of the true right view."""
    return score_of(*views, views[1])


def score_of(left: Path, right: Path, truth: Path | None = None, every: int = 1) -> FilmScore:
    return score_films(left, right, truth, every=every, log=lambda line: None)


def test_true_right_view_has_perfect_scores(true_score: FilmScore) -> None:
    scores = true_score.scores
    perfect = {"psnr_db": 100, "psnr_disoccluded_db": 100, "ssim": 1, "ms_ssim": 1, "haarpsi": 1, "siou": 1}
    perfect |= {"worst_block": 0, "chroma_excess": 0}
    perfect |= {"epe_px": 0, "d1_percent": 0, "tepe_px": 0, "flicker": 0, "disparity_correlation": 1}
    assert {name: scores[name] for name in perfect} == pytest.approx(perfect, abs=1e-4)
    assert (true_score.size, true_score.frames, true_score.scored_frames) == ((HEIGHT, WIDTH), 20, 20)
    assert sum(true_score.region_percent.values()) == pytest.approx(100, abs=0.01)
    assert true_score.cuts == [] and np.isnan(true_score.disparity_jump_percent)


def test_two_pixels_of_excess_disparity(
    views: tuple[Path, Path], shot: Shot, true_score: FilmScore, tmp_path: Path
) -> None:
    moved = F.pad(shot.right[..., 2:], (0, 2, 0, 0), "replicate")
    score = score_of(*views[:1], write_frames(tmp_path / "moved.mkv", moved), views[1])
    assert score.scores["epe_px"] == pytest.approx(2, abs=0.2)
    for end in ("far_percent", "near_percent"):
        assert score.scores[end] - true_score.scores[end] == pytest.approx(200 / WIDTH, abs=0.2)
    assert score.region_percent == true_score.region_percent, "regions do not depend on what is scored"


def blur(right: Tensor) -> Tensor:
    return F.avg_pool2d(right, 3, stride=1, padding=1, count_include_pad=False)


def flicker(right: Tensor) -> Tensor:
    return (right + 0.04 * (torch.arange(len(right)) % 2)[:, None, None, None]).clamp(0, 1)


def lower(right: Tensor) -> Tensor:
    """Move half a pixel down."""
    return (right + right.roll(1, dims=-2)) / 2


@pytest.mark.parametrize(
    ("sabotage", "column", "min_change"),
    [
        (blur, "sharpness_ratio", 0.2),
        (flicker, "flicker", 5),
        (flicker, "worst_jump", 5),
        (lower, "vertical_px", 0.3),
    ],
)
def test_degradations_change_scores_without_ground_truth(
    views: tuple[Path, Path],
    shot: Shot,
    tmp_path: Path,
    sabotage: Callable[[Tensor], Tensor],
    column: str,
    min_change: float,
) -> None:
    spoilt = write_frames(tmp_path / "spoilt.mkv", sabotage(shot.right[:9]))
    left = write_frames(tmp_path / "left.mkv", shot.left[:9])
    clean = write_frames(tmp_path / "clean.mkv", shot.right[:9])
    assert abs(score_of(left, spoilt).scores[column] - score_of(left, clean).scores[column]) > min_change


def test_windows_add_up_to_the_whole_film(views: tuple[Path, Path], shot: Shot, tmp_path: Path) -> None:
    spoilt = write_frames(tmp_path / "spoilt.mkv", flicker(blur(shot.right)))
    left, right, truth = map(read_frames, (views[0], spoilt, views[1]))
    whole = update(prepare(left, truth, match_by_search(left, truth).regions), right, overlap=0, learned=None)
    found = score_of(views[0], spoilt, views[1]).scores
    assert found == pytest.approx(compute(whole), abs=2e-4, nan_ok=True)
    alone = update(prepare(left, None, None), right, overlap=0, learned=None)
    assert score_of(views[0], spoilt).scores == pytest.approx(compute(alone), abs=2e-4, nan_ok=True)


def test_every_scores_a_subset_of_windows(views: tuple[Path, Path], shot: Shot) -> None:
    score = score_of(*views, views[1], every=2)
    assert (score.frames, score.scored_frames) == (20, 12)
    spoilt = torch.cat([shot.right[:8], flicker(shot.right[8:16]), shot.right[16:]])
    path = write_frames(views[0].with_name("spoilt_in_the_middle.mkv"), spoilt)
    assert (
        score_of(views[0], path, every=2).scores["worst_jump"] < score_of(views[0], path).scores["worst_jump"]
    )


def test_disparity_jump_at_a_cut(tmp_path: Path) -> None:
    """Two flat shots: 2 px in front of the screen, then 3 px behind it."""
    shots = [moving_images(14, HEIGHT, WIDTH + 8, seed) for seed in (1, 2)]
    left = np.concatenate([shot[:, :, 4 : 4 + WIDTH] for shot in shots])
    right = np.concatenate(
        [shot[:, :, 4 + d : 4 + d + WIDTH] for shot, d in zip(shots, (2, -3), strict=True)]
    )
    write_lossless(tmp_path / "left.mkv", left)
    write_lossless(tmp_path / "right.mkv", right)
    score = score_of(tmp_path / "left.mkv", tmp_path / "right.mkv")
    assert score.cuts == [14]
    assert score.disparity_jump_percent == pytest.approx(500 / WIDTH, abs=0.2)
    assert "disparity jump" in to_text(score)


def test_negative_disparities_are_matched(shot: Shot) -> None:
    left, right = shot.left[:3], shot.right[:3]
    truth = regions_from_truth(shot.right_disparity[:3], shot.right_occlusion[:3])
    behind = (truth == VISIBLE) & (shot.right_disparity[:3] < -1)
    found = match_by_search(left, right).regions
    only_before = regions_from_match(make_matcher("block", 16), left, right, tolerance_px=1.0)
    assert behind.double().mean() > 0.4
    assert (only_before == VISIBLE)[behind].double().mean() < 0.7
    assert (found == VISIBLE)[behind].double().mean() > 0.9
    border = truth == BORDER
    assert (found == BORDER)[border].double().mean() > 0.6


@pytest.mark.parametrize(("name", "join"), [("film_sbs.mkv", side_by_side), ("film.tb.mkv", None)])
def test_views_are_read_from_packed_films(
    shot: Shot, tmp_path: Path, name: str, join: Callable[..., np.ndarray] | None
) -> None:
    left, right = (frames_to_uint8(frames[:9]).numpy() for frames in (shot.left, shot.right))
    pairs = zip(left, right, strict=True)
    packed = [join(*pair) if join else np.concatenate(pair) for pair in pairs]
    write_lossless(tmp_path / name, np.stack(packed))
    write_lossless(tmp_path / "left.mkv", left)
    write_lossless(tmp_path / "right.mkv", right)
    logged: list[str] = []
    film = tmp_path / name
    score = score_films(film, film, film, log=logged.append)
    alone = score_of(tmp_path / "left.mkv", tmp_path / "right.mkv", tmp_path / "right.mkv")
    assert score.scores == pytest.approx(alone.scores, nan_ok=True) and score.scores["psnr_db"] == 100
    assert [line.split(" eye of")[0] for line in logged] == [
        "left: the left",
        "right: the right",
        "truth: the right",
    ]


def write(path: Path, frames: int = 3, height: int = HEIGHT, width: int = WIDTH, fps: int = 24) -> Path:
    write_film(path, iter(moving_images(frames, height, width)), Fraction(fps))
    return path


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"width": 128}, "is 128x96 px, .*one.mp4 is 160x96; scale"),
        ({"fps": 30}, "has 30.000 fps, .*one.mp4 has 24.000"),
        ({"frames": 4}, "has 4 frames, .*one.mp4 has 3"),
    ],
)
def test_mismatched_films_are_rejected_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, int], message: str
) -> None:
    one, two = write(tmp_path / "one.mp4"), write(tmp_path / "two.mp4", **other)
    monkeypatch.setattr("secondeye.evaluation.film_score.read_synchronized", None)
    for films in ((one, two, None), (one, one, two)):
        with pytest.raises(UserError, match=f"two.mp4 {message}"):
            score_of(*films)


def test_a_film_that_ends_early_is_rejected(tmp_path: Path, views: tuple[Path, Path]) -> None:
    """The header of FFV1 in Matroska has no number of frames."""
    short = tmp_path / "short.mkv"
    write_frames(short, read_frames(views[1])[:10])
    with pytest.raises(UserError, match=r"short.mkv: ends after 10 frames, but .*left.mkv is longer"):
        score_of(views[0], short)


def test_unscorable_films_are_user_errors(
    tmp_path: Path, views: tuple[Path, Path], make_film: Callable[..., Path]
) -> None:
    one = write_frames(tmp_path / "one.mkv", torch.rand(1, 3, HEIGHT, WIDTH))
    with pytest.raises(UserError, match="has a single frame"):
        score_of(one, one)
    with pytest.raises(UserError, match=r"small.mp4: an eye is 160x48 px; both sides must be at least 64"):
        score_of(*[write(tmp_path / "small.mp4", height=48)] * 2)
    with pytest.raises(UnreadableFilm, match="file does not exist"):
        score_of(*views, tmp_path / "missing.mkv")
    broken = damage(make_film("broken.mp4", shots=(40,), height=HEIGHT, width=WIDTH))
    with pytest.raises(UserError, match=r"broken.mp4: a picture before frame \d+ does not decode"):
        score_of(broken, broken)


def test_text_and_json_hold_the_scores(views: tuple[Path, Path], true_score: FilmScore) -> None:
    text = to_text(true_score)
    assert f"{WIDTH}x{HEIGHT} px, 24.000 fps, 20 frames, 20 of them scored, 0 cuts" in text
    assert "HaarPSI" in text and "LPIPS; DISTS" in text.splitlines()[-1]
    without_truth = to_text(score_of(*views, every=9))
    assert "far, % of width" in without_truth and "HaarPSI" not in without_truth
    assert "nan" not in text + without_truth and "no --truth" in without_truth.splitlines()[-1]
    content = json.loads(to_json(true_score))
    assert content["scores"]["psnr_db"] == 100 and content["scores"]["lpips"] is None
    assert content["scores"].keys() < COLUMNS.keys()


def test_likely_mistakes_give_warnings(
    views: tuple[Path, Path], true_score: FilmScore, tmp_path: Path
) -> None:
    left, right = views
    assert find_warnings(true_score) == find_warnings(score_of(left, right)) == []
    (copy,) = find_warnings(score_of(left, left))
    assert "nearly identical" in copy
    shot = render_shot(16, 4, HEIGHT, WIDTH)  # all in front of the screen, as by parallel cameras
    films = (write_frames(tmp_path / f"{n}.mkv", view) for n, view in enumerate((shot.right, shot.left)))
    (swapped,) = find_warnings(score_of(*films))
    assert "are the eyes swapped?" in swapped
    budget = replace(true_score, scores=true_score.scores | {"far_percent": -2.0, "near_percent": 1.0})
    assert find_warnings(budget) == [], "as much as guidelines allow"
    (itself,) = find_warnings(score_of(left, right, left))
    assert "is it the left eye?" in itself
    assert "warning:" in to_text(score_of(left, left)) and "warning:" not in to_text(true_score)


def test_align_forgives_another_convergence_and_says_what_it_found(
    views: tuple[Path, Path], shot: Shot, secondeye: Run, tmp_path: Path
) -> None:
    left, truth = (write_frames(tmp_path / f"{n}.mkv", f[:4]) for n, f in enumerate((shot.left, shot.right)))
    moved = write_frames(tmp_path / "moved.mkv", F.pad(shot.right[:4, ..., 2:], (0, 2, 0, 0), "replicate"))
    done = secondeye("score", left, moved, "--truth", truth, "--align", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    aligned = found["aligned"]
    assert aligned["scale"] == pytest.approx(1, abs=0.05) and aligned["obstacle"] == ""
    assert aligned["shift_percent"] == pytest.approx(200 / WIDTH, abs=0.1)
    assert aligned["scores"]["psnr_visible_db"] > found["scores"]["psnr_visible_db"] + 10
    assert aligned["scores"]["psnr_visible_db"] > aligned["flat_scores"]["psnr_visible_db"] + 10
    flat = secondeye("score", left, left, "--truth", truth, "--align").stdout
    assert "Not aligned: it is flat" in flat and "(depth 0.00 times the true one)" in flat
    assert "--align needs --truth" in one_line(secondeye("score", left, left, "--align"))


def test_score_command(secondeye: Run, tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4")
    done = secondeye("score", film, film, "--json")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert plain["films"] == {"left": str(film), "right": str(film)}
    assert plain["scores"]["psnr_db"] is None and plain["scores"]["far_percent"] == 0
    assert "left:" not in done.stderr and "3/3" in done.stderr
    both = write(tmp_path / "film_sbs.mp4", width=2 * WIDTH)
    log = secondeye("score", both, both).stderr
    assert f"left: the left eye of {both}" in log and f"right: the right eye of {both}" in log
    assert "128x96" in one_line(secondeye("score", film, write(tmp_path / "two.mp4", width=128)))
