"""Depth student: inputs, losses, saved folder, and the contract of every estimator."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.depth.cues import CUE_CHANNELS, MAX_NORMALISED, MOTION_CHANNELS, measure_motion, stack_cues
from secondeye.depth.estimators import make_depth_estimator
from secondeye.depth.losses import (
    error_loss,
    gradient_loss,
    laplace_loss,
    normalise,
    ranking_loss,
    scale_to_fit,
    temporal_loss,
    warp,
)
from secondeye.depth.motion import MAX_OFFSET_FRAMES, MAX_THREADS
from secondeye.depth.student import (
    BATCH_FRAMES,
    MAX_CONFIDENCE,
    FrameDepth,
    Student,
    expected_correlation,
    load_student_network,
    make_student_estimator,
    mix,
    network_size,
    predict_depth,
    save_student,
)
from secondeye.imaging.optical_flow import to_gray
from secondeye.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH = 64, 96


def texture(height: int, width: int, seed: int = 0) -> Tensor:  # [3, height, width] in [0, 1]
    coarse = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]


def slide(count: int, speed_px: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """An image that slides to the left, [count, 3, height, width]."""
    image = texture(height, width + count * speed_px)
    return torch.stack([image[..., t * speed_px : t * speed_px + width] for t in range(count)])


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student(HEIGHT, WIDTH).eval().half().float()  # so that files hold the same numbers


@pytest.fixture
def folder(student: Student, tmp_path: Path) -> Path:
    save_student(student, tmp_path / "student")
    return tmp_path / "student"


def test_size_is_that_of_a_mobile_network(student: Student) -> None:
    assert 2_000_000 <= sum(weights.numel() for weights in student.parameters()) <= 4_000_000


def test_network_answers_at_the_size_of_its_input(student: Student) -> None:
    with torch.inference_mode():
        depth, log_uncertainty = student(torch.randn(2, CUE_CHANNELS, 32, 160))
    assert depth.shape == log_uncertainty.shape == (2, 1, 32, 160)
    with pytest.raises(ValueError, match="multiples of 32"):
        student(torch.zeros(1, CUE_CHANNELS, 40, 64))


def test_receptive_field_is_the_whole_frame(student: Student) -> None:
    """A change in one corner is felt in the opposite one, in a frame too large for the convolutions."""
    inputs = torch.randn(1, CUE_CHANNELS, 128, 256, generator=torch.Generator().manual_seed(1))
    changed = inputs.clone()
    changed[..., :32, :32] = 0
    with torch.inference_mode():
        assert not torch.equal(student(inputs)[0][..., -8:, -8:], student(changed)[0][..., -8:, -8:])


def test_a_frame_does_not_depend_on_its_batch(student: Student) -> None:
    inputs = torch.randn(3, CUE_CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(student(inputs)[0][1:2], student(inputs[1:2])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "height", "width"),
    [(1, 64, 96), (2, 61, 99), (7, 96, 54), (3, 16, 16), (2, 5, 7), (1, 1, 1), (2, 300, 20)],
)
def test_estimates_cover_the_frames(student: Student, count: int, height: int, width: int) -> None:
    frames = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    estimates = list(make_student_estimator(student, "cpu")(frames.split(3)))
    depth = torch.cat([estimate.depth for estimate in estimates])
    assert depth.shape[:2] == (count, 1) and depth.dtype == torch.float32
    assert depth.shape[2] <= height and depth.shape[3] <= width
    assert bool(torch.isfinite(depth).all()) and all(0 <= e.confidence <= 1 for e in estimates)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_estimates_of_empty_images_are_finite(student: Student, level: float) -> None:
    for estimate in make_student_estimator(student, "cpu")([torch.full((3, 3, 40, 60), level)]):
        assert bool(torch.isfinite(estimate.depth).all())


def test_result_does_not_depend_on_windows(student: Student) -> None:
    frames = slide(11, 2)
    answers = []
    for sizes in ([11], [1] * 11, [2, 7, 2]):
        estimates = list(make_student_estimator(student, "cpu")(frames.split(sizes)))
        answers.append((torch.cat([e.depth for e in estimates]), [e.confidence for e in estimates]))
    for depth, confidence in answers[1:]:
        assert torch.equal(depth, answers[0][0]) and confidence == answers[0][1]


def test_continues_after_every_estimate_with_equal_results(student: Student, tmp_path: Path) -> None:
    frames = slide(15, 2)
    whole = list(make_student_estimator(student, "cpu")(frames.split(4)))
    for number, estimate in enumerate(whole, start=1):
        assert estimate.state.next_frame == number
        save_file(dict(estimate.state.tensors), tmp_path / "state")
        saved = estimate.state._replace(tensors=load_file(tmp_path / "state"))
        rest = make_student_estimator(student, "cpu")(frames[saved.first_frame :].split(3), saved)
        for a, b in zip(islice(rest, 2), whole[number:], strict=False):
            assert torch.equal(a.depth, b.depth) and a.confidence == b.confidence
            assert a.state.tensors.keys() == b.state.tensors.keys() and a.state[:2] == b.state[:2]
            assert all(torch.equal(a.state.tensors[name], b.state.tensors[name]) for name in a.state.tensors)


def test_look_ahead_is_bounded(student: Student) -> None:
    read = 0

    def windows() -> list[Tensor]:
        nonlocal read
        for frame in slide(20, 2).split(1):
            read += 1
            yield frame

    estimates = make_student_estimator(student, "cpu")(windows())
    for place, _ in enumerate(estimates):
        assert read <= place + 1 + BATCH_FRAMES + MAX_OFFSET_FRAMES + MAX_THREADS


def test_a_shot_without_frames_has_no_estimates(student: Student) -> None:
    assert list(make_student_estimator(student, "cpu")([])) == []


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(720, 1080, (64, 96)), (100, 100, (64, 64)), (10, 1000, (32, 160)), (1000, 10, (160, 32))],
)
def test_network_size_keeps_aspect_and_area(
    student: Student, height: int, width: int, expected: tuple[int, int]
) -> None:
    assert network_size(student, height, width) == expected


def test_confidence_falls_with_the_errors_expected() -> None:
    flat = torch.zeros(1, 8, 8)
    sure, unsure, hopeless = (
        float(expected_correlation(flat + np.log(size), torch.ones(()))) for size in (0.01, 0.6, 3)
    )
    assert sure > 0.999 and unsure == pytest.approx(0.8) and hopeless == 0
    assert float(expected_correlation(flat + np.log(0.6), torch.tensor(0.5))) == pytest.approx(0.4)


@pytest.mark.parametrize("sure", [0, 1])
def test_more_confident_source_dominates(sure: int) -> None:
    guesses = [torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    answers = [FrameDepth(guess, 1.0 if place == sure else 0.0) for place, guess in enumerate(guesses)]
    mixed = mix(answers[0], answers[1])
    assert float(torch.corrcoef(torch.stack([mixed.depth.ravel(), guesses[sure].ravel()]))[0, 1]) > 0.9999
    assert mixed.confidence == pytest.approx(MAX_CONFIDENCE)


def test_two_sources_are_more_confident_than_one() -> None:
    guess = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert mix(FrameDepth(guess, 0.6), FrameDepth(guess * 3, 0.6)).confidence == pytest.approx(
        (1.125 / 2.125) ** 0.5
    )
    assert mix(FrameDepth(guess, 0.0), FrameDepth(guess, 0.0)).confidence == 0


def test_network_alone_answers_every_frame_at_its_own_size(student: Student) -> None:
    answers = list(predict_depth(student, iter(slide(6, 1, 50, 75))))
    assert [tuple(answer.depth.shape) for answer in answers] == [(1, 1, HEIGHT, WIDTH)] * 6


def test_student_survives_save_and_load(student: Student, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    again = load_student_network(folder)
    assert (again.height, again.width) == (HEIGHT, WIDTH)
    for name, weights in student.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    here, there = (
        next(iter(estimator([slide(2, 2)]))).depth
        for estimator in (
            make_student_estimator(student, "cpu"),
            make_depth_estimator("student", folder, "cpu"),
        )
    )
    assert torch.equal(here, there)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"student: missing {name}"):
        make_depth_estimator("student", folder, "cpu")


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("head.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        load_student_network(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="does not fit"):
        load_student_network(folder)


def test_another_model_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "depth_anything"}))
    with pytest.raises(UserError, match="not 'secondeye depth student"):
        load_student_network(folder)


@pytest.mark.parametrize("change", ["{", "[]", {"height": None}, {"width": "wide"}])
def test_a_damaged_config_is_a_user_error(folder: Path, change: str | dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    text = change if isinstance(change, str) else json.dumps(config | change)
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config.json: (damaged|kind is None)") as error:
        load_student_network(folder)
    assert "\n" not in str(error.value)


def test_the_student_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="folder"):
        make_depth_estimator("student", None, "cpu")


def test_motion_of_a_translation_is_exact() -> None:
    frames = slide(2, 2)
    ahead, back = measure_motion(*to_gray(frames[:2]))
    inner = (slice(None), slice(16, -16), slice(16, -16))
    percent = 100 * 2 / WIDTH
    assert ahead.shape == (MOTION_CHANNELS, HEIGHT, WIDTH)
    assert float(ahead[0][inner[1:]].median()) == pytest.approx(-percent, abs=0.2)
    assert float(back[0][inner[1:]].median()) == pytest.approx(percent, abs=0.2)
    assert float(ahead[inner][1:3].abs().median()) < 0.1 and float(ahead[3][inner[1:]].median()) > 0.9


def test_cues_do_not_depend_on_camera_speed() -> None:
    frames = slide(1, 1)
    motion = torch.rand(1, MOTION_CHANNELS, HEIGHT, WIDTH) * 10
    faster = motion * torch.tensor([3.0, 3, 3, 1]).view(1, 4, 1, 1)
    torch.testing.assert_close(stack_cues(frames, motion), stack_cues(frames, faster), rtol=0.05, atol=0.05)
    assert float(stack_cues(frames, motion)[:, 5:8].abs().max()) <= MAX_NORMALISED


def test_cues_without_motion_are_zero() -> None:
    shown = stack_cues(slide(2, 1), torch.zeros(2, MOTION_CHANNELS, HEIGHT, WIDTH))
    assert shown.shape == (2, CUE_CHANNELS, HEIGHT, WIDTH) and not shown[:, 5:].any()


def maps(seed: int) -> Tensor:  # [2, 3, 1, 24, 32], multiples of 1/64 so that shifts round nothing away
    values = torch.rand(2, 3, 1, 24, 32, generator=torch.Generator().manual_seed(seed))
    return (values * 64).round() / 64


def test_normalised_maps_have_median_zero_and_deviation_one() -> None:
    everywhere = torch.ones(2, 3, 1, 24, 32, dtype=torch.bool)
    normal = normalise(maps(0) * 5 + 2, everywhere)
    assert normal.flatten(1).median(1).values.abs().max() < 1e-6
    torch.testing.assert_close(normal.abs().flatten(1).mean(1), torch.ones(2))


def test_losses_are_invariant_to_scale_and_shift() -> None:
    valid = maps(3) > 0.2
    depth, truth, uncertainty = maps(0), normalise(maps(1), valid), maps(2)
    one, other = normalise(depth, valid), normalise(depth * 4 + 8, valid)
    assert torch.equal(error_loss(one, truth, valid), error_loss(other, truth, valid))
    assert torch.equal(
        laplace_loss(one, truth, uncertainty, valid), laplace_loss(other, truth, uncertainty, valid)
    )
    assert float(error_loss(one, truth, valid)) > 0.1


def test_affine_copy_has_no_loss() -> None:
    valid = maps(3) > 0.2
    truth, copy = normalise(maps(0), valid), normalise(maps(0) * 2 + 1, valid)
    for loss in (error_loss, gradient_loss, ranking_loss):
        assert float(loss(copy, truth, valid)) == 0
        assert float(loss(-copy, truth, valid)) > 0.1


def test_scale_to_fit_scales_bad_fits_down_only() -> None:
    valid = torch.ones(2, 3, 1, 24, 32, dtype=torch.bool)
    truth, other = normalise(maps(0), valid), normalise(maps(1), valid)
    assert torch.equal(scale_to_fit(truth, truth, valid), truth)
    torch.testing.assert_close(scale_to_fit(-truth, truth, valid), -0.1 * truth)
    half = scale_to_fit(normalise(truth + other, valid), truth, valid)
    assert float(error_loss(half, truth, valid)) < float(error_loss(normalise(half, valid), truth, valid))


def test_invalid_pixels_are_ignored() -> None:
    valid = maps(3) > 0.2
    depth, truth = maps(0), maps(1)
    wrong = torch.where(valid, truth, torch.tensor(1e3))
    for loss in (error_loss, gradient_loss, ranking_loss):
        torch.manual_seed(0)
        expected = loss(normalise(depth, valid), normalise(truth, valid), valid)
        torch.manual_seed(0)
        assert torch.equal(loss(normalise(depth, valid), normalise(wrong, valid), valid), expected)


def test_losses_of_samples_without_truth_are_finite() -> None:
    nowhere = torch.zeros(2, 3, 1, 24, 32, dtype=torch.bool)
    depth, truth = normalise(maps(0), nowhere), normalise(torch.zeros_like(maps(0)), nowhere)
    for loss in (error_loss, gradient_loss, ranking_loss):
        assert float(loss(depth, truth, nowhere)) == 0
    assert bool(torch.isfinite(normalise(maps(0), nowhere)).all())


def test_uncertainty_lowers_the_loss_of_errors() -> None:
    everywhere = torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)
    depth, truth = torch.full((1, 1, 1, 1, 1), 0.5), torch.zeros(1, 1, 1, 1, 1)
    costs = {
        size: float(laplace_loss(depth, truth, torch.full_like(depth, np.log(size)), everywhere))
        for size in (0.25, 0.5, 1.0)
    }
    assert min(costs, key=costs.__getitem__) == 0.5


def test_depth_moving_along_the_flow_has_no_temporal_loss() -> None:
    frames = slide(3, 2)[None, :, :1]
    flow = torch.zeros(1, 3, 2, HEIGHT, WIDTH)
    flow[:, :, 0] = 2  # a pixel came from the right
    sure = torch.ones(1, 3, 1, HEIGHT, WIDTH)
    sure[..., -4:] = 0  # what slid in was not there before
    assert float(temporal_loss(frames, flow, sure)) < 1e-5
    assert float(temporal_loss(frames, -flow, sure)) > 1e-2
    assert float(temporal_loss(frames, -flow, torch.zeros_like(sure))) == 0


def test_warp_fetches_along_the_flow() -> None:
    image = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0] = 1.5
    torch.testing.assert_close(warp(image, flow)[0, 0, 2], torch.tensor([1.5, 2.5, 3.5, 4, 4]))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left")])
def test_a_full_disk_is_a_user_error(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fill_up(*_: object) -> None:
        raise error

    monkeypatch.setattr("secondeye.depth.student.save_file", fill_up)
    with pytest.raises(UserError, match=r"model: the weights cannot be written .*; free some disk"):
        save_student(student, tmp_path / "model")
