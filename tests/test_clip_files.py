import json
from functools import partial
from pathlib import Path

import pytest
import torch

from secondeye.dataset.clip_files import (
    STEPS_PER_PX,
    read_disparity,
    read_frames,
    read_occlusion,
    read_plane,
    write_disparity,
    write_frames,
    write_occlusion,
)
from secondeye.dataset.clip_paths import clip_file, clip_id
from secondeye.dataset.corrections import apply_shift
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file
from secondeye.video.write import read_lossless


def test_clip_ids_depend_on_film_and_frames_only() -> None:
    assert clip_id("ab", 0, 16) == clip_id("ab", 0, 16)
    assert len({clip_id("ab", 0, 16), clip_id("ab", 0, 17), clip_id("ab", 1, 16), clip_id("ac", 0, 16)}) == 4


def test_eight_bit_frames_are_stored_exactly(tmp_path: Path) -> None:
    frames = torch.randint(0, 256, (3, 3, 17, 23)).float() / 255
    assert torch.equal(read_frames(write_frames(tmp_path / "a.mkv", frames)), frames)


@pytest.mark.parametrize("low", [0.0, -37.3, 900.0])
def test_disparity_is_stored_to_half_a_step(tmp_path: Path, low: float) -> None:
    disparity = low + 1000 * torch.rand(2, 1, 11, 13)
    offset_px = write_disparity(tmp_path / "d.mkv", disparity)
    error = (read_disparity(tmp_path / "d.mkv", offset_px) - disparity).abs().max()
    assert error <= 0.5 / STEPS_PER_PX + 1e-4  # float32 near 2000 px


def test_a_disparity_range_too_large_to_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1023"):
        write_disparity(tmp_path / "d.mkv", torch.tensor([0.0, 1100.0]).view(1, 1, 1, 2))
    assert not list(tmp_path.iterdir())


def test_occlusion_is_stored_exactly(tmp_path: Path) -> None:
    occlusion = torch.rand(2, 1, 9, 15) > 0.5
    assert torch.equal(read_occlusion(write_occlusion(tmp_path / "o.mkv", occlusion)), occlusion)


@pytest.mark.parametrize("shift_px", [-5, 0, 7])
def test_a_shift_lowers_every_disparity_by_as_much(shift_px: int) -> None:
    scene = torch.rand(1, 3, 4, 60)
    disparity = 9  # x_right = x_left - 9
    left, right = scene[..., 10:50], scene[..., 10 + disparity : 50 + disparity]
    moved_left, moved_right = apply_shift(left, right, shift_px)
    assert moved_left.shape == moved_right.shape == (1, 3, 4, 40 - abs(shift_px))
    rest = disparity - shift_px
    assert torch.equal(moved_left[..., rest:], moved_right[..., : moved_right.shape[-1] - rest])


def test_damage_that_ffmpeg_hides_is_refused(tmp_path: Path) -> None:
    path = write_frames(clip_file(tmp_path, "a" * 16, "left"), torch.rand(2, 3, 16, 16))
    entry = {"files": {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)}}}
    (tmp_path / f"{'a' * 16}.json").write_text(json.dumps(entry))
    assert len(read_frames(path)) == 2
    content = bytearray(path.read_bytes())
    content[-200] ^= 255
    path.write_bytes(content)
    assert len(read_lossless(path)) == 2
    for read in (read_frames, read_plane, partial(read_disparity, offset_px=0.0)):
        with pytest.raises(UserError, match=rf"{path}: differs from what its stage wrote"):
            read(path)
