"""The paper's ablations, by the command that writes their pages."""

import json
import sys
from pathlib import Path

import ablations
import pytest
import torch

from secondeye.evaluation.regions import VISIBLE
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.inpaint.tiny import make_tiny
from secondeye.metrics.image_quality import psnr_db
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.video.write import write_lossless
from secondeye.warp import warp

pytestmark = [pytest.mark.slow(seconds=9), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an untrained network for windows of 4 frames of 128 x 128 px."""
    torch.manual_seed(3)
    pipeline = make_tiny(frames=4)
    pipeline.unet.register_to_config(sample_size=16)
    folder = tmp_path_factory.mktemp("model")
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("ablation", ["overlap", "tiles"])
def test_ablation_writes_its_page(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablation: str
) -> None:
    size = ["--clips", "2", "--height", "128", "--width", "192", "--steps", "1"]
    arguments = ["ablations.py", ablation, "--model", str(model), "--out", str(tmp_path), *size]
    monkeypatch.setattr(sys, "argv", arguments)
    ablations.main()
    page = (tmp_path / "index.html").read_text()
    first, second = json.loads((tmp_path / "numbers.json").read_text()).items()
    assert first[0] in page and second[0] in page and (tmp_path / "clip_0.png").stat().st_size > 1000
    assert len(first[1]) == len(second[1]) == 2
    for ours, theirs in zip(first[1], second[1], strict=True):
        check_numbers(ablation, ours, theirs)
    if ablation == "tiles":
        assert (first[0], second[0]) == ("1x2 tiles", "reduced to 157x105")


def check_numbers(ablation: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert set(ours) == set(ablations.COLUMNS)
    assert all(0 < value < 1000 for numbers in (ours, theirs) for value in numbers.values())
    if ablation == "overlap":  # of two tiles: windows of 4, 3, 3 and 2 new frames; or of 4, 4 and 4
        assert (ours["passes_per_frame"], theirs["passes_per_frame"]) == (2 * 16 / 12, 2 * 12 / 12)
        assert ours["border_jump"] != theirs["border_jump"]
    else:
        assert ours["passes_per_frame"] >= theirs["passes_per_frame"] and ours["haarpsi"] != theirs["haarpsi"]
        assert abs(ours["memory_gib"] - theirs["memory_gib"]) < 0.05


def test_film_clips_hide_what_a_left_view_would_not_show(tmp_path: Path) -> None:
    shot = render_shot(5, 8, 96, 160)
    film = tmp_path / "film.mkv"
    write_lossless(film, frames_to_uint8(shot.right).numpy())
    (clip,) = ablations.film_clips(film, 1, 8, 96, 160)
    warped = warp(clip.left, clip.disparity)
    holes = warped.coverage <= 0.5
    assert torch.equal(clip.right, frames_from_uint8(frames_to_uint8(shot.right)))
    assert holes.any() and (clip.regions[holes] != VISIBLE).all()
    assert float(psnr_db(warped.frames, clip.right, clip.regions == VISIBLE)) > 30
    with pytest.raises(UserError, match="no shot has 9 frames"):
        next(ablations.film_clips(film, 1, 9, 96, 160))
