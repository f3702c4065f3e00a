"""The ruler: regions, methods and scores, against what is known exactly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import coarse_cards, evaluated, held_clip

from secondeye.dataset import corrections
from secondeye.dataset.ground_truth import apply_shift, read_ground_truth, write_ground_truth
from secondeye.dataset.schema import ClipDisparity, Correction, Score
from secondeye.dataset.tables import write_table
from secondeye.depth import DepthEstimate, DepthEstimator
from secondeye.depth.edges import sharpen
from secondeye.depth.student import Student, save_student
from secondeye.evaluation import methods
from secondeye.evaluation.aggregate import film_means, mean_of_films
from secondeye.evaluation.eval_clips import EvalFrames, Folders, align, load_clip, manifest_hash
from secondeye.evaluation.methods import (
    BASELINES,
    Made,
    Method,
    NotNumbers,
    best_shift,
    fill_nearest,
    inpaint_left,
    make_right,
)
from secondeye.evaluation.regions import (
    BORDER,
    DISOCCLUDED,
    NAMES,
    UNKNOWN,
    VISIBLE,
    regions_from_match,
    regions_from_truth,
)
from secondeye.evaluation.score import (
    compute,
    matched_surely,
    prepare,
    score_depth,
    shares,
    update,
)
from secondeye.evaluation.score_methods import Broken, cached_scores, score_key, score_methods
from secondeye.inpaint import Warped, make_inpainter
from secondeye.inpaint.fill import fill_warped
from secondeye.inpaint.light import save_light
from secondeye.inpaint.light_network import Light
from secondeye.inpaint.tiny import make_tiny
from secondeye.matching import make_matcher
from secondeye.params import load_params
from secondeye.synthetic import Shot, render_shot, two_planes
from secondeye.system.errors import UserError
from secondeye.warp import warp

TWO_FRAMES = replace(load_params(Path(__file__).parent.parent / "params.yaml").evaluate, max_frames=2)


@pytest.fixture(scope="module")
def shot() -> Shot:
    return render_shot(5, 2, 96, 160)


def clip_of(shot: Shot) -> EvalFrames:
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    return EvalFrames(shot.left, shot.right, shot.disparity, regions)


def scored(made: Made, clip: EvalFrames) -> dict[str, float]:
    """Every score."""
    reference = prepare(clip.left, clip.right, clip.regions)
    return compute(update(reference, made.right, seen=0, learned=None)) | score_depth(made.disparity, clip)


def exact_card() -> Shot:
    """A near card of 12 px before a far wall; 7 px apart."""
    return two_planes(frames=2, height=24, width=64, near_px=9, far_px=2, card_px=12, seed=1)


def test_regions_of_a_card_are_exact() -> None:
    shot = exact_card()
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)[:, 0]
    assert (regions[:, :, -2:] == BORDER).all(), "the wall moved 2 px to the left"
    inside = regions[:, :, :-2]
    assert torch.equal(inside == DISOCCLUDED, shot.right_occlusion[:, 0, :, :-2])
    assert set(inside.unique().tolist()) == {VISIBLE, DISOCCLUDED}
    assert (inside == DISOCCLUDED).sum(-1).max() == 7, "the hole is as wide as the disparities differ"


def test_regions_from_a_match_agree_with_the_truth_on_a_plain_scene() -> None:
    shot = coarse_cards(2, 96, 256, near_px=24, far_px=8, card_px=80, seed=2)
    truth = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    found = regions_from_match(make_matcher("block", 48), shot.left, shot.right, tolerance_px=1.0)
    told = found != UNKNOWN
    assert told.double().mean() > 0.9
    assert (found == truth)[told].double().mean() > 0.95
    for region in (DISOCCLUDED, BORDER):
        assert ((found == region) & (truth == region)).sum() > 0.6 * (truth == region).sum()


@pytest.mark.parametrize("shift_px", [0, 3, -2])
def test_truth_follows_the_shift_of_the_views(tmp_path: Path, shift_px: int) -> None:
    shot = exact_card()
    write_ground_truth(tmp_path / "truth.npz", shot.right_disparity, shot.right_occlusion)
    moved = apply_shift(read_ground_truth(tmp_path / "truth.npz", 1, 2), shift_px)
    left, right = corrections.apply_shift(shot.left[1:], shot.right[1:], shift_px)
    place = torch.arange(left.shape[-1]) + moved.right_disparity
    inside = (place >= 0) & (place < left.shape[-1])
    there = left.gather(-1, place.clamp(0, left.shape[-1] - 1).long().expand_as(left))
    seen = inside & ~moved.right_occlusion
    assert seen.double().mean() > 0.8
    assert torch.equal(there[seen.expand_as(there)], right[seen.expand_as(right)])


def test_regions_know_nothing_of_a_method(shot: Shot) -> None:
    clip = clip_of(shot)
    before = clip.regions.clone()
    for method in BASELINES:
        made = make_right(method, clip)
        assert torch.equal(clip.regions, before)
        for name, region in NAMES.items():
            chosen = (before == region).expand_as(made.right)
            assert bool(chosen.any())
            error = (made.right - clip.right)[chosen].double().square().mean()
            expected = float(-10 * torch.log10(error))
            assert scored(made, clip)[f"psnr_{name}_db"] == pytest.approx(expected, abs=1e-3)


def test_shares_of_regions_are_counted() -> None:
    regions = torch.tensor([[[[UNKNOWN, VISIBLE, DISOCCLUDED, DISOCCLUDED, BORDER]]]], dtype=torch.uint8)
    assert shares(regions) == {
        "unknown_share": 0.2,
        "visible_share": 0.2,
        "disoccluded_share": 0.4,
        "border_share": 0.2,
    }


def test_the_truth_scores_perfectly(shot: Shot) -> None:
    scores = scored(Made(shot.right, shot.disparity), clip_of(shot))
    for name in ("psnr_db", "psnr_visible_db", "psnr_disoccluded_db", "psnr_border_db"):
        assert scores[name] == 100
    for name in ("ssim", "ssim_visible", "ssim_disoccluded", "ssim_border", "rank_correlation"):
        assert scores[name] == pytest.approx(1)
    assert scores["disparity_error_percent"] == 0


def test_a_region_that_is_not_there_is_no_score(shot: Shot) -> None:
    clip = clip_of(shot)._replace(regions=torch.full_like(shot.disparity, VISIBLE, dtype=torch.uint8))
    scores = scored(Made(shot.left, None), clip)
    assert math.isnan(scores["psnr_border_db"]) and math.isnan(scores["rank_correlation"])
    assert scores["psnr_visible_db"] == scores["psnr_db"]


def test_noise_in_one_region_shows_in_that_region_alone(shot: Shot) -> None:
    clip = clip_of(shot)
    wrong = torch.where(clip.regions == DISOCCLUDED, 1 - shot.right, shot.right)
    scores = scored(Made(wrong, None), clip)
    assert scores["psnr_visible_db"] == 100 and scores["psnr_border_db"] == 100
    assert scores["psnr_disoccluded_db"] < 20


def test_depth_is_aligned_by_scale_and_shift() -> None:
    disparity = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0)) * 9 - 3
    torch.testing.assert_close(align(0.3 * disparity + 7, disparity), disparity)
    against = align(-disparity, disparity)
    torch.testing.assert_close(against, torch.full_like(disparity, float(disparity.mean())))


def test_flat_depth_is_the_best_constant() -> None:
    disparity = torch.tensor([[[[0.0, 2.0, 4.0]]]])
    torch.testing.assert_close(align(torch.ones_like(disparity), disparity), torch.full((1, 1, 1, 3), 2.0))


@pytest.mark.parametrize("shift_px", [-3, 0, 4])
def test_the_best_shift_is_found(shift_px: int) -> None:
    wide = torch.rand(5, 3, 6, 80, generator=torch.Generator().manual_seed(1))
    left, right = wide[..., 8:72], wide[..., 8 + shift_px : 72 + shift_px]
    made = best_shift(left, right)
    inside = slice(4, -4)
    assert torch.equal(made[..., inside], right[..., inside])


def test_nearest_takes_the_nearer_side() -> None:
    frames = torch.tensor([0.1, 0.2, 0.0, 0.0, 0.0, 0.6]).expand(1, 3, 2, 6).clone()
    coverage = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0]).expand(1, 1, 2, 6).clone()
    filled, _ = fill_nearest(Warped(frames, frames, coverage, coverage), None)
    torch.testing.assert_close(filled[0, 0, 0], torch.tensor([0.1, 0.2, 0.2, 0.2, 0.6, 0.6]))


def test_painting_a_clip_with_exact_disparity_beats_every_floor(shot: Shot) -> None:
    clip = clip_of(shot)
    fill = Method("fill", "inpainter", inpainter="fill")
    best = scored(make_right(fill, clip), clip)
    assert all(best["psnr_db"] > scored(make_right(floor, clip), clip)["psnr_db"] for floor in BASELINES[:2])


def test_painting_goes_window_by_window(shot: Shot) -> None:
    left, disparity = (torch.cat([array] * 5) for array in (shot.left, shot.disparity))  # a window and more
    fill, state, pictures = make_inpainter("fill", None, "cpu"), None, []
    for t in range(len(left)):
        here = left[t : t + 1]
        picture, state = fill(Warped(here, *warp(here, disparity[t : t + 1])), state)
        pictures.append(picture.clamp(0, 1))
    made = inpaint_left(left, disparity, fill)
    assert torch.equal(made, torch.cat(pictures))
    fresh, _ = fill(Warped(here, *warp(here, disparity[-1:])), None)
    assert not torch.equal(made[-1:], fresh.clamp(0, 1)), "the frames before have left nothing to see"


def test_a_model_is_judged_by_its_depth_and_its_painting(shot: Shot, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = clip_of(shot)
    depths = {"exact": shot.disparity, "upside down": -shot.disparity}
    monkeypatch.setattr(methods, "make_depth_estimator", lambda name, *_: constant(depths[name]))
    scores = {}
    for name in depths:
        made = make_right(Method(name, "model", name, None, "fill"), clip)
        assert torch.equal(
            made.right, inpaint_left(clip.left, sharpen(made.disparity, clip.left), fill_warped)
        )
        scores[name] = scored(made, clip)
    assert scores["exact"]["rank_correlation"] == pytest.approx(1)
    assert scores["exact"]["disparity_error_percent"] == pytest.approx(0, abs=1e-3)
    # The best scale of the other is 0, so that it is flat.
    assert scores["upside down"]["rank_correlation"] == 0
    assert scores["upside down"]["disparity_error_percent"] > 0.5
    assert scores["exact"]["psnr_db"] > scores["upside down"]["psnr_db"]


def constant(depth: torch.Tensor) -> DepthEstimator:
    """An estimator that says this of any shot."""
    return lambda windows: iter([DepthEstimate(depth, 1.0) for _ in [list(windows)]])


@pytest.mark.parametrize("inside", [True, False])
def test_what_is_no_number_has_no_score_wherever_it_is(shot: Shot, inside: bool) -> None:
    clip = clip_of(shot)
    right, disparity = shot.right.clone(), shot.disparity.clone()
    region = DISOCCLUDED if inside else UNKNOWN  # UNKNOWN: in no region that is scored
    regions = clip.regions.clone()
    regions[0, 0, 0, 0], right[0, 0, 0, 0], disparity[0, 0, 0, 0] = region, math.nan, math.nan
    for made in (Made(right, None), Made(shot.right, disparity)):
        with pytest.raises(NotNumbers):
            scored(made, clip._replace(regions=regions))


@pytest.mark.parametrize("kind", ["student", "light", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_weights_of_nan_are_found_out(shot: Shot, tmp_path: Path, kind: str) -> None:
    method = Method("m", "inpainter", inpainter="light", inpaint_weights=spoilt_light(tmp_path))
    if kind == "student":
        save_student(spoilt(Student(96, 160)), tmp_path)
        method = Method("m", "model", "student", tmp_path, "fill")
    if kind == "diffusion":
        pipeline = make_tiny(2)  # two chunks in a window: the second begins with what the first made
        spoilt(pipeline.unet)
        pipeline.save_pretrained(tmp_path / "pipeline")
        method = Method("m", "inpainter", inpainter="diffusion", inpaint_weights=tmp_path / "pipeline")
    clip = clip_of(shot)
    long = EvalFrames(*(torch.cat([array] * 2) for array in clip))
    with pytest.raises(NotNumbers):
        make_right(method, long)


def spoilt(model: torch.nn.Module) -> torch.nn.Module:
    """A network whose weights are NaN."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(math.nan)
    return model


def spoilt_light(folder: Path) -> Path:
    save_light(spoilt(Light((4, 6, 8))), folder)
    return folder


def test_a_method_that_makes_no_numbers_ends_the_judging_in_one_line(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    monkeypatch.setattr("secondeye.evaluation.score_methods.load_clip", lambda *_: clip_of(shot))
    held = [held_clip(clip, "f") for clip in ("a", "b")]
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=spoilt_light(tmp_path / "light"))
    folders = Folders(tmp_path, tmp_path, tmp_path, tmp_path)
    with pytest.raises(Broken, match=r"^light: makes pixels that are not numbers") as broken:
        score_methods(tmp_path / "scores", folders, held, [BASELINES[0], light], TWO_FRAMES, label="t")
    assert broken.value.methods == ["light"] and isinstance(broken.value, UserError)
    assert len(score_methods(tmp_path / "scores", folders, held, BASELINES[:1], TWO_FRAMES, label="t")) == 2


def test_weights_are_hashed_and_read_once(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    monkeypatch.setattr("secondeye.evaluation.score_methods.load_clip", lambda *_: clip_of(shot))
    calls: list[str] = []

    def counted(name: str) -> None:
        real = getattr(methods, name)
        monkeypatch.setattr(methods, name, lambda *given: calls.append(name) or real(*given))

    counted("hash_weights")
    counted("make_inpainter")
    save_light(Light((4, 6, 8)), tmp_path / "light")
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=tmp_path / "light")
    held = [held_clip(clip, "f") for clip in ("a", "b", "c")]
    score_methods(tmp_path / "scores", Folders(*[tmp_path] * 4), held, [light], TWO_FRAMES, label="t")
    assert sorted(calls) == ["hash_weights", "make_inpainter"]


def test_a_clip_that_a_rebuilt_dataset_lacks_is_one_line(tmp_path: Path) -> None:
    write_table(tmp_path / "shift.parquet", [], Correction)
    write_table(tmp_path / "match.parquet", [], ClipDisparity)
    with pytest.raises(UserError, match="was rebuilt since, without clip a; run dvc repro evaluate"):
        load_clip(Folders(*[tmp_path] * 4), "a", 2)


def test_an_unknown_method_is_refused(shot: Shot) -> None:
    with pytest.raises(ValueError, match="no floor called magic"):
        make_right(Method("magic", "floor"), clip_of(shot))


def test_only_confirmed_matches_judge_depth() -> None:
    shot = exact_card()
    sure = matched_surely(clip_of(shot))[:, 0]
    hidden_from_right = shot.left_occlusion[:, 0]
    assert not (sure & hidden_from_right).any()
    assert sure[~hidden_from_right].double().mean() > 0.95


def row(clip: str, film: str, psnr: float, method: str = "fill") -> Score:
    return evaluated(clip, film, method, psnr_db=psnr)


def test_every_film_counts_once() -> None:
    rows = [row("a", "one", 10), row("b", "one", 20), row("c", "two", 40), row("d", "two", float("nan"))]
    assert film_means(rows, "psnr_db") == {"one": 15, "two": 40}
    assert mean_of_films(rows, "psnr_db") == 27.5
    assert math.isnan(mean_of_films(rows, "ssim"))


def test_the_manifest_changes_with_clips_and_their_regions() -> None:
    one = held_clip("a", "f", "k")
    other = held_clip("b", "f", "k")
    assert manifest_hash([one, other]) == manifest_hash([other, one])
    assert manifest_hash([one]) != manifest_hash([one, other])
    assert manifest_hash([one]) != manifest_hash([held_clip("a", "f", "k2")])


def test_identity_is_the_left_eye(shot: Shot) -> None:
    made = make_right(BASELINES[0], clip_of(shot))
    assert made.disparity is None and np.array_equal(made.right.numpy(), shot.left.numpy())


def test_scores_are_recalled_by_what_a_method_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    held = [held_clip("a", "f", "k")]
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=tmp_path)
    known = [replace(row("a", "f", 30.0, "light"), key=score_key(held[0], light, TWO_FRAMES))]
    found = cached_scores(known, held, [replace(light, name="challenger")], TWO_FRAMES)
    assert found is not None and (found[0].method, found[0].psnr_db) == ("challenger", 30.0)
    assert cached_scores(known, held, [light], replace(TWO_FRAMES, max_frames=3)) is None, "other frames"
    assert (
        cached_scores(known, held, [light], replace(TWO_FRAMES, vgg_weights="timm/vgg16.tv_in1k")) is None
    ), "other eyes"
    assert cached_scores(known, held, [replace(light, kind="model")], TWO_FRAMES) is None, "another test"
    (tmp_path / "model.safetensors").write_text("others")
    assert cached_scores(known, held, [replace(light)], TWO_FRAMES) is None, "other weights"
