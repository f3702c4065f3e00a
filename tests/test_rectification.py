"""Views of cameras that do not look in parallel are rectified, by film, or refused."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import a_clip, a_film, a_shift
from small_dataset import write_rows
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.rectification import fit_rectification
from secondeye.alignment.vertical import fit_vertical
from secondeye.dataset.clip_files import write_frames
from secondeye.dataset.corrections import apply_corrections, rectification_of
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import Clip, Correction, Film
from secondeye.imaging.rectification import Rectification, project, rectify
from secondeye.params import load_params
from secondeye.stages import shift
from secondeye.synthetic import Shot
from secondeye.synthetic.render import render_shot

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml")
HEIGHT, WIDTH = 256, 448
# Two webcams: rows miss by up to 8 px of 256 (14 of 480) from corner to corner, and the zooms differ by 1 %.
WEBCAMS = Rectification(0.8, 0.6, -0.4, 0.5, -0.8, 0.5, 1.01)
TURNED_BACK = WEBCAMS._replace(left_roll_deg=0.5, right_roll_deg=-0.7)


@pytest.fixture(scope="module")
def shot() -> Shot:
    return render_shot(100, 2, HEIGHT, WIDTH)


def misalign(shot: Shot, rig: Rectification) -> tuple[Tensor, Tensor]:
    """Return the views as a rig would take them: `rectify` with the same numbers undoes it."""
    left, right = (
        torch.from_numpy(
            np.stack(
                [
                    cv2.warpPerspective(image, np.linalg.inv(matrix), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
                    for image in view.permute(0, 2, 3, 1).numpy()
                ]
            )
        )
        .permute(0, 3, 1, 2)
        .clamp(0, 1)
        for view, matrix in zip((shot.left, shot.right), rig.homographies(HEIGHT, WIDTH), strict=True)
    )
    return left, right


def row_errors(left: Tensor, right: Tensor) -> np.ndarray:
    matches = find_correspondences(left, right, max_disparity_percent=25.0, max_vertical_percent=6.0)
    assert matches.match_ratio > 0.5
    return np.abs(matches.vertical)


def exact_points(rig: Rectification, seed: int, height: int, width: int) -> Correspondences:
    """Return the pixels of points at many depths in both views of a rig, without noise."""
    rng = np.random.default_rng(seed)
    x, y, disparity = rng.uniform(0, width, 300), rng.uniform(0, height, 300), rng.uniform(0, width / 12, 300)
    to_left, to_right = (np.linalg.inv(matrix) for matrix in rig.homographies(height, width))
    left = project(to_left, np.column_stack([x, y]))
    right = project(to_right, np.column_stack([x - disparity, y]))
    across, down = (left - right).T
    return Correspondences(np.zeros(300, int), left[:, 0], left[:, 1], across, -down, 300)


@pytest.mark.parametrize("rig", [WEBCAMS, TURNED_BACK, WEBCAMS._replace(focal_widths=1.3, right_zoom=0.97)])
def test_rows_of_exact_points_agree_after_the_fit(rig: Rectification) -> None:
    fitted = fit_rectification([exact_points(rig, seed, 480, 640) for seed in (0, 1)], 480, 640)
    others = exact_points(rig, 2, 480, 640)  # that it was not fitted to
    assert fit_vertical(others, 480, 640).spread_px > 9
    to_left, to_right = fitted.homographies(480, 640)
    left = project(to_left, np.column_stack([others.x, others.y]))
    right = project(to_right, np.column_stack([others.x - others.disparity, others.y + others.vertical]))
    assert np.abs(left - right)[:, 1].max() < 0.1


def test_rectified_views_are_those_of_the_parallel_cameras(shot: Shot) -> None:
    left, right = rectify(*misalign(shot, WEBCAMS), WEBCAMS)
    rows, columns = HEIGHT - left.shape[-2], WIDTH - left.shape[-1]
    assert left.shape == right.shape and 0 < rows < 16 and 0 < columns < 24
    unmoved = Rectification(0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert torch.equal(rectify(shot.left, shot.right, unmoved)[1], shot.right)
    assert unmoved.largest_row_move_px(HEIGHT, WIDTH) < 1e-9
    errors = torch.stack(
        [_difference(view, exact) for view, exact in ((left, shot.left), (right, shot.right))]
    )
    assert errors.max() < 0.02


def _difference(view: Tensor, exact: Tensor) -> Tensor:
    """Return the mean difference to the place of the exact view that is most alike."""
    height, width = view.shape[-2:]
    places = [
        (exact[..., y : y + height, x : x + width] - view).abs().mean()
        for y in range(exact.shape[-2] - height + 1)
        for x in range(exact.shape[-1] - width + 1)
    ]
    return torch.stack(places).min()


def run_shift(data: Path, clips: list[tuple[Tensor, Tensor]], rectify: str = "auto") -> Dataset:
    """Run the stage `shift` on one film of these clips."""
    dataset, rows = Dataset(data), []
    for stage in ("split", "shift/films"):
        dataset.folder(stage).mkdir(parents=True)
    for number, (left, right) in enumerate(clips):
        rows.append(a_clip(f"{number:016x}", "f", shot=number, start=number, height=HEIGHT, width=WIDTH))
        write_frames(dataset.file("split", rows[-1].id, "left"), left)
        write_frames(dataset.file("split", rows[-1].id, "right"), right)
    write_rows(data, {Film: [a_film("f" * 16)], Clip: [replace(row, film="f" * 16) for row in rows]})
    section = replace(PARAMS.shift, rectify=rectify, sampled_frames=2)
    shift.run(data, shift=section, dataset=replace(PARAMS.dataset, max_bad_fraction=1.0))
    return Dataset(data)


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")


def test_a_film_of_two_webcams_is_rectified(
    tmp_path: Path, shot: Shot, capsys: pytest.CaptureFixture[str]
) -> None:
    views = misalign(shot, WEBCAMS)
    assert np.percentile(row_errors(*views), 95) > 3
    dataset = run_shift(tmp_path, [views])
    assert "shift: " + "f" * 16 + ": rows are rectified, by up to" in capsys.readouterr().out
    (clip,) = dataset.join(Correction)
    assert 3 < clip.correction.rectify_row_px < 15 and not clip.correction.swapped
    left, right = dataset.views(clip)
    assert left.shape == right.shape and left.shape[-1] > 0.9 * WIDTH - abs(clip.correction.shift_px)
    errors = row_errors(left, right)
    assert np.median(errors) < 0.15 and np.percentile(errors, 95) < 0.6
    assert torch.equal(dataset.right_view(clip), right)


@pytest.mark.parametrize(
    ("rigs", "mode"),
    [
        ([WEBCAMS], "off"),
        ([WEBCAMS, TURNED_BACK], "auto"),  # the rig was touched between two shots
        ([WEBCAMS._replace(left_roll_deg=-0.6, right_roll_deg=4.0)], "auto"),  # beyond the bound
    ],
)
def test_what_one_correction_cannot_rectify_is_refused(
    tmp_path: Path, shot: Shot, rigs: list[Rectification], mode: str
) -> None:
    dataset = run_shift(tmp_path, [misalign(shot, rig) for rig in rigs], mode)
    assert [row.reason for row in dataset.failed("shift")] == ["not rectified"] * len(rigs)


def test_views_are_rectified_as_stored_before_they_are_exchanged(shot: Shot) -> None:
    numbers = {f"rectify_{name}": value for name, value in WEBCAMS._asdict().items()}
    row = a_shift("c", swapped=True, **numbers)
    assert rectification_of(row) == WEBCAMS and rectification_of(a_shift("c")) is None
    left, right = apply_corrections(shot.left, shot.right, row)
    other, one = rectify(shot.left, shot.right, WEBCAMS)
    assert torch.equal(left, one) and torch.equal(right, other)
