"""Region maps, methods and scores against exact answers."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import a_clip, a_film, a_shift, coarse_cards, eval_clip, score_row
from small_dataset import write_rows

from secondeye.dataset import corrections, reader
from secondeye.dataset.ground_truth import read_ground_truth, shift_ground_truth, write_ground_truth
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, Clip, ClipDisparity, Correction, Film, Score
from secondeye.depth import DepthEstimate, DepthEstimator, DepthState
from secondeye.depth.edges import sharpen
from secondeye.depth.student import Student, save_student
from secondeye.evaluation import methods
from secondeye.evaluation import score_methods as score_methods_module
from secondeye.evaluation.aggregate import group_by_film, mean_score
from secondeye.evaluation.baselines import best_shift, fill_nearest
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.manifest import manifest_hash
from secondeye.evaluation.methods import (
    BASELINES,
    Method,
    MethodOutput,
    fit_scale_and_shift,
    make_right,
    warp_and_inpaint,
)
from secondeye.evaluation.non_finite import NonFiniteError
from secondeye.evaluation.regions import (
    BORDER,
    DISOCCLUDED,
    REGIONS,
    UNKNOWN,
    VISIBLE,
    regions_from_match,
    regions_from_truth,
)
from secondeye.evaluation.score import (
    compute,
    confirmed_matches,
    prepare,
    region_shares,
    score_depth,
    update,
)
from secondeye.evaluation.score_methods import NonFiniteMethods, cached_scores, score_key, score_methods
from secondeye.inpaint import Inpainted, Warped, inpaint_shot, make_inpainter
from secondeye.inpaint.fill import fill_shot
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


def scored(output: MethodOutput, clip: EvalFrames) -> dict[str, float]:
    """Return every score."""
    prepared = prepare(clip.left, clip.right, clip.regions)
    state = update(prepared, output.right, overlap=0, learned=None)
    return compute(state) | score_depth(output.disparity, clip)


def exact_card() -> Shot:
    """A near card, 12 px wide, in front of a far wall; their disparities differ by 7 px."""
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
    known = found != UNKNOWN
    assert known.double().mean() > 0.9
    assert (found == truth)[known].double().mean() > 0.95
    for region in (DISOCCLUDED, BORDER):
        assert ((found == region) & (truth == region)).sum() > 0.6 * (truth == region).sum()


@pytest.mark.parametrize("shift_px", [0, 3, -2])
def test_ground_truth_is_shifted_with_the_views(tmp_path: Path, shift_px: int) -> None:
    shot = exact_card()
    write_ground_truth(tmp_path / "truth.npz", shot.right_disparity, shot.right_occlusion)
    moved = shift_ground_truth(read_ground_truth(tmp_path / "truth.npz", 1, 2), shift_px)
    left, right = corrections.apply_shift(shot.left[1:], shot.right[1:], shift_px)
    column = torch.arange(left.shape[-1]) + moved.right_disparity
    inside = (column >= 0) & (column < left.shape[-1])
    warped = left.gather(-1, column.clamp(0, left.shape[-1] - 1).long().expand_as(left))
    visible = inside & ~moved.right_occlusion
    assert visible.double().mean() > 0.8
    assert torch.equal(warped[visible.expand_as(warped)], right[visible.expand_as(right)])


def test_regional_psnr_is_the_psnr_of_the_region(shot: Shot) -> None:
    clip = clip_of(shot)
    for method in BASELINES:
        made = make_right(method, clip)
        for name, region in REGIONS.items():
            chosen = (clip.regions == region).expand_as(made.right)
            assert bool(chosen.any())
            error = (made.right - clip.right)[chosen].double().square().mean()
            expected = float(-10 * torch.log10(error))
            assert scored(made, clip)[f"psnr_{name}_db"] == pytest.approx(expected, abs=1e-3)


def test_region_shares_are_counted() -> None:
    regions = torch.tensor([[[[UNKNOWN, VISIBLE, DISOCCLUDED, DISOCCLUDED, BORDER]]]], dtype=torch.uint8)
    assert region_shares(regions) == {
        "unknown_share": 0.2,
        "visible_share": 0.2,
        "disoccluded_share": 0.4,
        "border_share": 0.2,
    }


def test_the_truth_scores_perfectly(shot: Shot) -> None:
    scores = scored(MethodOutput(shot.right, shot.disparity), clip_of(shot))
    for name in ("psnr_db", "psnr_visible_db", "psnr_disoccluded_db", "psnr_border_db"):
        assert scores[name] == 100
    for name in ("ssim", "ssim_visible", "ssim_disoccluded", "ssim_border", "rank_correlation"):
        assert scores[name] == pytest.approx(1)
    assert scores["disparity_error_percent"] == 0


def test_an_empty_region_has_no_score(shot: Shot) -> None:
    clip = clip_of(shot)._replace(regions=torch.full_like(shot.disparity, VISIBLE, dtype=torch.uint8))
    scores = scored(MethodOutput(shot.left, None), clip)
    assert math.isnan(scores["psnr_border_db"]) and math.isnan(scores["rank_correlation"])
    assert scores["psnr_visible_db"] == scores["psnr_db"]


def test_an_error_in_one_region_shows_only_there(shot: Shot) -> None:
    clip = clip_of(shot)
    wrong = torch.where(clip.regions == DISOCCLUDED, 1 - shot.right, shot.right)
    scores = scored(MethodOutput(wrong, None), clip)
    assert scores["psnr_visible_db"] == 100 and scores["psnr_border_db"] == 100
    assert scores["psnr_disoccluded_db"] < 20


def test_depth_is_aligned_by_scale_and_shift() -> None:
    disparity = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0)) * 9 - 3
    assert fit_scale_and_shift(0.3 * disparity + 7, disparity) == pytest.approx((1 / 0.3, -7 / 0.3), rel=1e-5)
    assert fit_scale_and_shift(-disparity, disparity) == pytest.approx((0, float(disparity.mean())))


def test_flat_depth_is_aligned_to_the_mean() -> None:
    disparity = torch.tensor([[[[0.0, 2.0, 4.0]]]])
    assert fit_scale_and_shift(torch.ones_like(disparity), disparity) == (0, 2)


@pytest.mark.parametrize("shift_px", [-3, 0, 4])
def test_the_best_shift_is_found(shift_px: int) -> None:
    wide = torch.rand(5, 3, 6, 80, generator=torch.Generator().manual_seed(1))
    left, right = wide[..., 8:72], wide[..., 8 + shift_px : 72 + shift_px]
    made = best_shift(left, right)
    inside = slice(4, -4)
    assert torch.equal(made[..., inside], right[..., inside])


def test_nearest_fills_from_the_nearer_side() -> None:
    frames = torch.tensor([0.1, 0.2, 0.0, 0.0, 0.0, 0.6]).expand(1, 3, 2, 6).clone()
    coverage = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0]).expand(1, 1, 2, 6).clone()
    filled = fill_nearest(Warped(frames, frames, coverage, coverage))
    torch.testing.assert_close(filled[0, 0, 0], torch.tensor([0.1, 0.2, 0.2, 0.2, 0.6, 0.6]))


def test_inpainting_with_exact_disparity_beats_constant_shifts(shot: Shot) -> None:
    clip = clip_of(shot)
    fill = Method("fill", "inpainter", inpainter="fill")
    best = scored(make_right(fill, clip), clip)
    assert all(
        best["psnr_db"] > scored(make_right(baseline, clip), clip)["psnr_db"] for baseline in BASELINES[:2]
    )


def test_inpainting_in_windows_equals_inpainting_frame_by_frame(shot: Shot) -> None:
    left, disparity = (torch.cat([array] * 5) for array in (shot.left, shot.disparity))  # a window and more
    fill, frames = make_inpainter("fill", None, "cpu"), zip(left.split(1), disparity.split(1), strict=True)
    one_by_one = inpaint_shot(fill, (Warped(here, *warp(here, plane)) for here, plane in frames))
    made = warp_and_inpaint(left, disparity, fill)
    assert torch.equal(made, one_by_one.clamp(0, 1))
    fresh = inpaint_shot(fill, [Warped(left[-1:], *warp(left[-1:], disparity[-1:]))])
    assert not torch.equal(made[-1:], fresh.clamp(0, 1)), "the state makes no difference here"


@pytest.mark.parametrize("conditioning", ["warp", "splat"])
def test_windows_contain_what_the_inpainter_is_conditioned_on(shot: Shot, conditioning: str) -> None:
    given: list[Warped] = []

    class Network:
        def __init__(self) -> None:
            self.conditioning = conditioning

        def __call__(self, windows: Iterable[Warped], state: object = None) -> Iterator[Inpainted]:
            for warped in windows:
                given.append(warped)
                yield Inpainted(warped.frames, {})

    warp_and_inpaint(shot.left, shot.disparity, Network())
    assert all((warped.conditioning_frames is not None) == (conditioning == "splat") for warped in given)
    assert sum(len(warped.left) for warped in given) == len(shot.left)


def test_a_model_is_scored_by_its_depth_and_its_right_view(
    shot: Shot, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_of(shot)
    depths = {"exact": shot.disparity, "upside down": -shot.disparity}
    monkeypatch.setattr(methods, "make_depth_estimator", lambda name, *_: constant(depths[name]))
    scores = {}
    for name in depths:
        made = make_right(Method(name, "model", name, None, "fill"), clip)
        assert torch.equal(
            made.right, warp_and_inpaint(clip.left, sharpen(made.disparity, clip.left), fill_shot)
        )
        scores[name] = scored(made, clip)
    assert scores["exact"]["rank_correlation"] == pytest.approx(1)
    assert scores["exact"]["disparity_error_percent"] == pytest.approx(0, abs=1e-3)
    # The best scale of inverted depth is 0: it becomes flat.
    assert scores["upside down"]["rank_correlation"] == 0
    assert scores["upside down"]["disparity_error_percent"] > 0.5
    assert scores["exact"]["psnr_db"] > scores["upside down"]["psnr_db"]


def constant(depth: torch.Tensor) -> DepthEstimator:
    """Return an estimator with the same output for any shot."""
    after = DepthState(len(depth), 0, {})
    return lambda windows, state=None: iter([DepthEstimate(depth, 1.0, after) for _ in [list(windows)]])


@pytest.mark.parametrize("inside", [True, False])
def test_nan_is_rejected_in_any_region(shot: Shot, inside: bool) -> None:
    clip = clip_of(shot)
    right, disparity = shot.right.clone(), shot.disparity.clone()
    region = DISOCCLUDED if inside else UNKNOWN  # UNKNOWN is not scored
    regions = clip.regions.clone()
    regions[0, 0, 0, 0], right[0, 0, 0, 0], disparity[0, 0, 0, 0] = region, math.nan, math.nan
    for made in (MethodOutput(right, None), MethodOutput(shot.right, disparity)):
        with pytest.raises(NonFiniteError):
            scored(made, clip._replace(regions=regions))


@pytest.mark.parametrize("kind", ["student", "light", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_nan_weights_are_rejected(shot: Shot, tmp_path: Path, kind: str) -> None:
    method = Method("m", "inpainter", inpainter="light", inpaint_weights=nan_light(tmp_path))
    if kind == "student":
        save_student(with_nan(Student(96, 160)), tmp_path)
        method = Method("m", "model", "student", tmp_path, "fill")
    if kind == "diffusion":
        pipeline = make_tiny(2)  # two chunks a window: the second starts from the first
        with_nan(pipeline.unet)
        pipeline.save_pretrained(tmp_path / "pipeline")
        method = Method("m", "inpainter", inpainter="diffusion", inpaint_weights=tmp_path / "pipeline")
    clip = clip_of(shot)
    long = EvalFrames(*(torch.cat([array] * 2) for array in clip))
    with pytest.raises(NonFiniteError):
        make_right(method, long)


def with_nan(model: torch.nn.Module) -> torch.nn.Module:
    """Set all weights of a network to NaN."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(math.nan)
    return model


def nan_light(folder: Path) -> Path:
    save_light(with_nan(Light((4, 6, 8))), folder)
    return folder


def dataset_of(root: Path, *clips: str) -> Dataset:
    """Write the tables of a dataset with these held-out clips; their files are missing."""
    return write_rows(
        root,
        {
            Film: [a_film("f")],
            Clip: [a_clip(name, "f") for name in clips],
            Correction: [a_shift(name) for name in clips],
            ClipDisparity: [ClipDisparity(name, "k", 0.0, 1.0) for name in clips],
            AcceptedClip: [AcceptedClip(name, "f", "test") for name in clips],
        },
    )


def test_a_method_that_produces_nan_stops_the_scoring_with_one_line(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    monkeypatch.setattr("secondeye.evaluation.score_methods.load_clip", lambda *_: clip_of(shot))
    dataset, clips = dataset_of(tmp_path, "a", "b"), [eval_clip(clip, "f") for clip in ("a", "b")]
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=nan_light(tmp_path / "light"))
    out = tmp_path / "scores"
    with pytest.raises(NonFiniteMethods, match=r"^light: produces pixels that are NaN or inf") as error:
        score_methods(out, dataset, clips, [BASELINES[0], light], TWO_FRAMES, label="t")
    assert error.value.methods == ["light"] and isinstance(error.value, UserError)
    assert len(score_methods(out, dataset, clips, BASELINES[:1], TWO_FRAMES, label="t")) == 2


def test_clips_tables_and_weights_are_read_once(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    calls: list[str] = []

    def count(module: object, name: str, function: Callable[..., object]) -> None:
        monkeypatch.setattr(module, name, lambda *given: calls.append(name) or function(*given))

    count(score_methods_module, "load_clip", lambda *_: clip_of(shot))
    count(reader, "read_table", reader.read_table)
    count(methods, "hash_weights", methods.hash_weights)
    count(methods, "make_inpainter", methods.make_inpainter)
    save_light(Light((4, 6, 8)), tmp_path / "light")
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=tmp_path / "light")
    clips = [eval_clip(clip, "f") for clip in ("a", "b", "c")]
    wanted = [light, BASELINES[0]]
    score_methods(
        tmp_path / "scores", dataset_of(tmp_path, "a", "b", "c"), clips, wanted, TWO_FRAMES, label="t"
    )
    counts = {name: calls.count(name) for name in calls}
    assert counts == {"load_clip": 3, "read_table": 5, "hash_weights": 1, "make_inpainter": 1}


def test_a_clip_that_the_rebuilt_dataset_lacks_is_a_user_error(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, "b")
    with pytest.raises(UserError, match="has no clip a; the dataset was rebuilt, run dvc repro evaluate"):
        score_methods(tmp_path / "s", dataset, [eval_clip("a", "f")], BASELINES, TWO_FRAMES, label="t")


def test_an_unknown_method_is_rejected(shot: Shot) -> None:
    with pytest.raises(ValueError, match="unknown baseline: magic"):
        make_right(Method("magic", "baseline"), clip_of(shot))


def test_confirmed_matches_exclude_occluded_pixels() -> None:
    shot = exact_card()
    confirmed = confirmed_matches(clip_of(shot))[:, 0]
    occluded = shot.left_occlusion[:, 0]
    assert not (confirmed & occluded).any()
    assert confirmed[~occluded].double().mean() > 0.95


def row(clip: str, film: str, psnr: float, method: str = "fill") -> Score:
    return score_row(clip, film, method, psnr_db=psnr)


def test_every_film_has_the_same_weight() -> None:
    rows = [row("a", "one", 10), row("b", "one", 20), row("c", "two", 40), row("d", "two", float("nan"))]
    assert group_by_film(rows, "psnr_db") == {"one": [10, 20], "two": [40]}
    assert mean_score(rows, "psnr_db") == 27.5
    assert math.isnan(mean_score(rows, "ssim"))


def test_the_manifest_hash_depends_on_clips_and_keys() -> None:
    one = eval_clip("a", "f", "k")
    other = eval_clip("b", "f", "k")
    assert manifest_hash([one, other]) == manifest_hash([other, one])
    assert manifest_hash([one]) != manifest_hash([one, other])
    assert manifest_hash([one]) != manifest_hash([eval_clip("a", "f", "k2")])


def test_identity_is_the_left_view(shot: Shot) -> None:
    made = make_right(BASELINES[0], clip_of(shot))
    assert made.disparity is None and np.array_equal(made.right.numpy(), shot.left.numpy())


def test_known_scores_are_reused_for_the_same_content(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    clips = [eval_clip("a", "f", "k")]
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=tmp_path)
    known = [replace(row("a", "f", 30.0, "light"), key=score_key(clips[0], light, TWO_FRAMES))]
    found = cached_scores(known, clips, [replace(light, name="challenger")], TWO_FRAMES)
    assert found is not None and (found[0].method, found[0].psnr_db) == ("challenger", 30.0)
    assert cached_scores(known, clips, [light], replace(TWO_FRAMES, max_frames=3)) is None, "other frames"
    assert (
        cached_scores(known, clips, [light], replace(TWO_FRAMES, vgg_weights="timm/vgg16.tv_in1k")) is None
    ), "other networks"
    assert cached_scores(known, clips, [replace(light, kind="model")], TWO_FRAMES) is None, "another kind"
    (tmp_path / "model.safetensors").write_text("others")
    assert cached_scores(known, clips, [replace(light)], TWO_FRAMES) is None, "other weights"
