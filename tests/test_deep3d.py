"""The rival Deep3D: exact shifts, an exactly continued training, and a stage whose result is scored."""

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_dataset import write_rows, write_small_dataset
from small_training import an_optimizer
from torch import Tensor

from secondeye.dataset.clip_files import write_frames
from secondeye.dataset.schema import SyntheticShot
from secondeye.deep3d import network
from secondeye.deep3d.model import CONFIG, WEIGHTS, load_deep3d, make_right_view, save_deep3d
from secondeye.deep3d.network import Deep3D
from secondeye.deep3d.selection import Shifts, choose_shifts, expected_shift, select, shift_view
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import make_right
from secondeye.params import TrainDeep3D
from secondeye.run_folder import Run, open_run, repeatable
from secondeye.stages import train_deep3d as stage
from secondeye.stages.evaluate import own_methods
from secondeye.synthetic import Shot, two_planes
from secondeye.system.errors import UserError
from secondeye.training import deep3d as training
from secondeye.training.sample_loader import Sample

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH = 32, 64
SHIFTS = Shifts(first=-1, step=2, count=4)  # -1, 1, 3, 5 px


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "CHANNELS", (8, 8, 8, 8, 8))
    monkeypatch.setattr(network, "HIDDEN", 16)


def settings(steps: int, **changes: float) -> TrainDeep3D:
    hyperparams = {"batch_size": 2, "learning_rate": 0.003, "checkpoint_every": 4} | changes
    return TrainDeep3D(
        height=HEIGHT, width=WIDTH, max_shifts=9, optimizer=an_optimizer(steps=steps, **hyperparams)
    )


def one_hot(index: int, count: int, height: int, width: int) -> Tensor:
    """Return probabilities that choose one shift everywhere."""
    probabilities = torch.zeros(1, count, height, width)
    probabilities[:, index] = 1
    return probabilities


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("index", range(SHIFTS.count))
@pytest.mark.parametrize("scale", [1, 2])
def test_a_chosen_shift_moves_the_view_by_its_disparity(index: int, scale: int) -> None:
    left, shift = noise(9, 31), int(SHIFTS.px[index])
    right = select(left, one_hot(index, SHIFTS.count, 9 // scale, 31 // scale), SHIFTS.px)
    columns = torch.arange(31)
    inside = (columns + shift >= 0) & (columns + shift < 31)
    moved = left[..., (columns + shift)[inside]]  # x_right = x_left - shift
    torch.testing.assert_close(right[..., inside], moved)
    edge = left[..., -1:] if shift > 0 else left[..., :1]
    torch.testing.assert_close(right[..., ~inside], edge.expand(-1, -1, -1, abs(shift)))


def test_a_fraction_of_a_pixel_is_interpolated() -> None:
    ramp = torch.arange(8.0).expand(1, 3, 2, 8)
    assert torch.equal(shift_view(ramp, 1.25)[..., :6], ramp[..., :6] + 1.25)
    assert torch.equal(shift_view(ramp, -0.5)[..., 1:], ramp[..., 1:] - 0.5)


def test_a_mixture_is_the_mean_of_the_shifted_views() -> None:
    left, mixed = noise(4, 16), (one_hot(1, 4, 2, 8) + 3 * one_hot(2, 4, 2, 8)) / 4
    wanted = 0.25 * shift_view(left, 1) + 0.75 * shift_view(left, 3)
    torch.testing.assert_close(select(left, mixed, SHIFTS.px), wanted)
    torch.testing.assert_close(expected_shift(mixed, SHIFTS.px), torch.full((1, 1, 2, 8), 2.5))


@pytest.mark.parametrize(
    ("far_px", "near_px", "max_count", "wanted"),
    [
        (0.0, 8.0, 33, (0, 1, 9)),
        (-2.5, 3.2, 33, (-3, 1, 8)),
        (0.4, 64.1, 33, (0, 3, 23)),  # 66 single steps would be too many
        (1.0, 1.0, 33, (1, 1, 1)),
        (-7.0, 7.0, 2, (-7, 14, 2)),
    ],
)
def test_shifts_cover_the_range_in_whole_steps(
    far_px: float, near_px: float, max_count: int, wanted: tuple[int, int, int]
) -> None:
    shifts = choose_shifts(far_px, near_px, max_count)
    assert (shifts.first, shifts.step, shifts.count) == wanted and shifts.count <= max_count
    assert shifts.px[0] <= far_px and shifts.px[-1] >= near_px


def test_probabilities_sum_to_one_and_use_the_whole_image(small_network: None) -> None:
    torch.manual_seed(0)
    model = Deep3D(HEIGHT, WIDTH, SHIFTS)
    left = noise(HEIGHT, WIDTH).requires_grad_()
    probabilities = model(left)
    assert probabilities.shape == (1, SHIFTS.count, HEIGHT // 2, WIDTH // 2) and probabilities.min() >= 0
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, HEIGHT // 2, WIDTH // 2))
    probabilities[0, 0, 0, 0].backward()
    assert left.grad is not None and left.grad[..., -4:, -4:].abs().max() > 0, "the opposite corner counts"
    assert all(weights.grad is not None for weights in model.parameters())


class _OneShift(Deep3D):
    def forward(self, left: Tensor) -> Tensor:
        assert left.shape == (1, 3, HEIGHT, WIDTH)
        return one_hot(2, SHIFTS.count, HEIGHT // 2, WIDTH // 2)


@pytest.mark.parametrize(("width", "shift_px"), [(64, 3), (128, 6), (192, 9)])
def test_another_resolution_keeps_the_shift_as_a_share_of_the_width(
    small_network: None, width: int, shift_px: int
) -> None:
    left = noise(width // 2, width).repeat(2, 1, 1, 1)
    right = make_right_view(_OneShift(HEIGHT, WIDTH, SHIFTS).eval(), left)
    torch.testing.assert_close(right[..., :-shift_px], left[..., shift_px:])


@dataclass(frozen=True)
class MemoryPair:
    """A shot in memory."""

    shot: Shot
    film: str = "film"

    @property
    def frames(self) -> int:
        return len(self.shot.left)

    def views(self, frame: int) -> tuple[Tensor, Tensor]:
        return self.shot.left[frame : frame + 1], self.shot.right[frame : frame + 1]

    def disparity(self, frame: int) -> Tensor:
        return self.shot.disparity[frame : frame + 1]


def planes(seed: int) -> MemoryPair:
    return MemoryPair(two_planes(3, HEIGHT, WIDTH, near_px=6, far_px=1, card_px=16, step_px=2, seed=seed))


def test_the_range_ignores_a_hundredth_at_either_end_and_follows_the_width() -> None:
    assert training.disparity_range([planes(0)], WIDTH) == (1, 6)
    assert training.disparity_range([planes(0), planes(1)], WIDTH // 2) == (0.5, 3)
    outliers = planes(0)
    outliers.shot.disparity[1].flatten()[:10] = 60.0  # of 2048
    outliers.shot.disparity[1].flatten()[-10:] = -60.0
    assert training.disparity_range([outliers], WIDTH) == (1, 6)


def test_mirrored_samples_keep_their_disparity() -> None:
    draw, mirrored = training.DrawPair([planes(0)], (HEIGHT, WIDTH), 0), []
    for seed in range(6):
        left, right = draw(0, np.random.default_rng(seed))
        assert torch.equal(right[:, :6, :-6], left[:, :6, 1:-5]), "the wall is 1 px to the left"
        again = draw(0, np.random.default_rng(seed))
        assert torch.equal(again[0], left) and torch.equal(again[1], right)
        mirrored.append(not any(torch.equal(left, planes(0).shot.left[frame]) for frame in range(3)))
    assert any(mirrored) and not all(mirrored)


def new_run(folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    return open_run(folder, "key", "train_deep3d", settings(1), {})


def test_a_killed_training_ends_with_the_same_weights(
    small_network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = [planes(seed) for seed in range(3)]
    whole, killed, draw = (
        new_run(tmp_path / "whole"),
        new_run(tmp_path / "killed"),
        training.DrawPair.__call__,
    )
    training.train_deep3d(whole, shots, settings(9))

    def draw_until_killed(self: training.DrawPair, number: int, rng: np.random.Generator) -> Sample:
        if number >= 2 * 6:  # in the seventh step, two samples a step
            raise KeyboardInterrupt
        return draw(self, number, rng)

    with monkeypatch.context() as patch:
        patch.setattr(training.DrawPair, "__call__", draw_until_killed)
        with pytest.raises(KeyboardInterrupt):
            training.train_deep3d(killed, shots, settings(9))
    assert [path.name for path in killed.checkpoints.iterdir()] == ["deep3d_00000004.safetensors"]
    training.train_deep3d(killed, shots, settings(9))
    weights, again = (load_file(run.model / WEIGHTS) for run in (whole, killed))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert repeatable(killed.metrics()) == repeatable(whole.metrics())
    sheet = cv2.imread(str(whole.picture("deep3d.png")))
    assert sheet is not None and sheet.shape == (4 * HEIGHT, 3 * WIDTH, 3)


def test_weights_are_kept_and_damage_is_one_line(small_network: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, left = Deep3D(HEIGHT, WIDTH, SHIFTS).eval(), noise(48, 80)
    save_deep3d(model, tmp_path)
    loaded = load_deep3d(tmp_path, "cpu")
    assert loaded.shifts == SHIFTS
    assert torch.equal(make_right_view(loaded, left), make_right_view(model, left))
    text = (tmp_path / CONFIG).read_text()
    for old, new, message in (
        ('"count": 4', '"count": 5', "does not fit config.json"),
        ('"first"', '"last"', "config.json: damaged"),
        (f'"height": {HEIGHT}', '"height": 33', "config.json: damaged"),
        ("deep3d 1", "deep3d 0", "kind is 'secondeye deep3d 0'"),
    ):
        (tmp_path / CONFIG).write_text(text.replace(old, new))
        with pytest.raises(UserError, match=re.escape(message)):
            load_deep3d(tmp_path, "cpu")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"missing model.safetensors; run dvc repro train_deep3d"):
        load_deep3d(tmp_path, "cpu")


def test_the_evaluation_scores_a_trained_one_unchanged(small_network: None, tmp_path: Path) -> None:
    assert "Deep3D" not in {method.name for method in own_methods(tmp_path)}
    torch.manual_seed(0)
    model = Deep3D(HEIGHT, WIDTH, SHIFTS).eval()
    save_deep3d(model, tmp_path / "deep3d")
    (method,) = (method for method in own_methods(tmp_path) if method.name == "Deep3D")
    shot = two_planes(2, 40, 80)
    clip = EvalFrames(shot.left, shot.right, 3 * shot.disparity, torch.zeros(2, 1, 40, 80, dtype=torch.uint8))
    made = make_right(method, clip)
    assert torch.equal(made.right, make_right_view(model, shot.left)) and made.disparity is None


@pytest.fixture
def dark_walls(tmp_path: Path) -> Path:
    """Return a data root with three small films, matched exactly: a bright card before a dark wall."""
    data = write_small_dataset(tmp_path / "data", height=HEIGHT, width=WIDTH, held_out=(2,))
    dataset = write_rows(data, {SyntheticShot: []})
    for clip in dataset.clips():
        frames, seed = clip.clip.stop, int(clip.id.removeprefix("clip"))
        shot = two_planes(frames, HEIGHT, WIDTH, near_px=6, far_px=1, card_px=16, step_px=1, seed=seed)
        for side, disparity in (("left", shot.disparity), ("right", shot.right_disparity)):
            light = torch.where(disparity == 6, 1.0, 0.3)
            write_frames(dataset.file("split", clip.id, side), getattr(shot, side) * light)
    return data


@pytest.mark.slow(seconds=8)
def test_the_stage_learns_more_than_a_constant_shift(
    small_network: None, dark_walls: Path, tmp_path: Path
) -> None:
    out, runs = tmp_path / "models" / "deep3d", tmp_path / "runs"
    of = settings(60, batch_size=4, checkpoint_every=30)
    stage.run(dark_walls, out, runs, train_deep3d=of)
    stage.run(dark_walls, out, runs, train_deep3d=of)
    run = Run(out / "run")
    assert run.finished and len(list(runs.iterdir())) == 1 and run.read()["stage"] == "train_deep3d"
    scores = run.metrics()[-1]
    assert scores["deep3d/psnr_db"] > scores["deep3d/best_shift_psnr_db"] + 3
    assert 100 / WIDTH < scores["deep3d/held_out_shift_percent"] < 600 / WIDTH, "between wall and card"
    assert load_deep3d(out, "cpu").shifts == Shifts(1, 1, 6)
