"""WindowDataset are parts of both views with the exact disparity between them, whoever reads them."""

from collections import Counter
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_dataset import write_small_dataset
from torch import Tensor
from torch.utils.data import DataLoader

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import AcceptedClip, ClipQuality
from secondeye.dataset.tables import read_table, write_table
from secondeye.synthetic import two_planes
from secondeye.system.errors import UserError
from secondeye.training.clip_windows import (
    ClipShape,
    ClipWindow,
    InpaintSample,
    WindowDataset,
    WindowSettings,
    choose_size,
    cut_window,
    list_clips,
    plan_window,
    read_windows,
)
from secondeye.training.column_offsets import offset_range

SETTINGS = WindowSettings(height=12, width=40, weight_exponent_per_px=0.5, frames=3, max_stride=3)
SHAPE = ClipShape(frames=20, stride=6, height=48, width=100)


def as_stored(frames: Tensor) -> Tensor:
    return (frames * 255).round() / 255


@pytest.mark.parametrize(("left", "right"), [(10, 10), (14, 4), (4, 14)])
def test_a_window_has_exactly_the_pixels_and_holes_of_its_crops(left: int, right: int) -> None:
    shot = two_planes(frames=5, height=16, width=64, near_px=8, far_px=2, step_px=1)
    window = ClipWindow(1, 2, 2, 3, left, right, 10, 40)
    sample = cut_window(shot.left, shot.right, shot.disparity, window, weight_exponent_per_px=0.5)
    times, rows, columns = [1, 3], slice(3, 13), slice(right, right + 40)
    assert torch.equal(sample.right, as_stored(shot.right[times][..., rows, columns]))
    # A pixel of the right crop is visible where the left view shows it at a column of the left crop.
    seen_at = torch.arange(64) + shot.right_disparity
    hidden = shot.right_occlusion | (seen_at < left) | (seen_at >= left + 40)
    assert torch.equal(sample.occlusion, hidden[times][..., rows, columns])
    visible = (~sample.occlusion).expand(-1, 3, -1, -1)
    assert torch.equal(sample.warped[visible], sample.right[visible])
    assert not sample.warped[~visible].any()


def test_the_offset_decides_on_which_side_border_holes_are() -> None:
    frames, flat = torch.rand(1, 3, 4, 32), torch.full((1, 1, 4, 32), 3.0)
    for offset, holes in ((0, range(17, 20)), (3, range(0)), (5, range(2))):
        window = ClipWindow(0, 1, 1, 0, 4 + offset, 4, 4, 20)
        sample = cut_window(frames, frames, flat, window, weight_exponent_per_px=0.5)
        assert torch.where(sample.occlusion[0, 0, 0])[0].tolist() == list(holes)


def test_a_window_outside_its_clip_is_an_error() -> None:
    frames, flat = torch.rand(4, 3, 8, 32), torch.zeros(4, 1, 8, 32)
    good = ClipWindow(0, 1, 4, 0, 2, 0, 8, 30)
    assert cut_window(frames, frames, flat, good, weight_exponent_per_px=0.5).right.shape == (4, 3, 8, 30)
    for bad in (good._replace(left_column=3), good._replace(start=1), good._replace(top=-1)):
        with pytest.raises(ValueError, match="does not lie inside"):
            cut_window(frames, frames, flat, bad, weight_exponent_per_px=0.5)


@pytest.mark.parametrize(
    ("middle", "room", "hole", "expected"),
    [
        (3.2, 50, 10.9, (-7, 13)),  # 10 px to each side of 3
        (3, 5, 10, (1, 5)),  # little room: less of both
        (3, 3, 10, (3, 3)),
        (3, 2, 10, (2, 2)),  # too little: the nearest
        (-7, 2, 10, (-2, -2)),
        (0, 0, 10, (0, 0)),
    ],
)
def test_offsets_are_symmetric_around_the_median_disparity(
    middle: float, room: int, hole: float, expected: tuple[int, int]
) -> None:
    assert offset_range(middle, room, hole) == expected


def test_holes_open_on_both_sides_equally_often() -> None:
    settings = WindowSettings(
        height=48, width=60, weight_exponent_per_px=0.5, frames=2, max_offset_percent=10
    )
    rng = np.random.default_rng(0)
    # Most of an image is background; the median says so, the middle of the extremes would not.
    disparity = rng.choice([0, 1, 2, 3, 4, 30], size=4000, p=[0.2, 0.2, 0.2, 0.15, 0.15, 0.1])
    windows = [plan_window(rng, SHAPE, float(np.median(disparity)), settings) for _ in range(4000)]
    offsets = np.array([window.left_column - window.right_column for window in windows])
    assert (offsets.min(), offsets.max()) == (-4, 8), "10 % of 60 px to both sides of 2"
    assert (offsets < 2).mean() == pytest.approx((offsets > 2).mean(), abs=0.04), "exact at the median"
    right, left = (disparity > offsets).mean(), (disparity < offsets).mean()
    assert right == pytest.approx(left, abs=0.12) and right + left > 0.9, "and about so over all"


def test_exactly_the_strides_that_fit_are_drawn() -> None:
    settings = replace(SETTINGS, frames=5, max_stride=6)
    for shape, most in ((SHAPE, 4), (SHAPE._replace(stride=2), 2), (SHAPE._replace(frames=5), 1)):
        rng = np.random.default_rng(0)
        windows = [plan_window(rng, shape, 3.0, settings) for _ in range(200)]
        assert {window.stride for window in windows} == set(range(1, most + 1))
        ends = {window.start + 4 * window.stride for window in windows}
        assert max(ends) == shape.frames - 1 and min(window.start for window in windows) == 0
    with pytest.raises(ValueError, match="no window"):
        plan_window(rng, SHAPE._replace(frames=4), 3.0, settings)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> WindowDataset:
    data = write_small_dataset(tmp_path_factory.mktemp("project") / "data")
    return read_windows(data, "train", SETTINGS, seed=3, count=7)


def digests(samples: list[InpaintSample]) -> list[bytes]:
    return [b"".join(plane.numpy().tobytes() for plane in sample) for sample in samples]


def test_workers_and_ranks_together_yield_the_windows_of_one_process(
    windows: WindowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = digests(list(windows))
    assert len(set(alone)) == 7
    assert digests(list(windows)) == alone
    shared = []
    for rank, number in product(range(2), range(2)):
        worker = SimpleNamespace(num_workers=2, id=number)
        monkeypatch.setattr("secondeye.training.clip_windows.get_worker_info", lambda worker=worker: worker)
        shared.append(digests(list(replace(windows, rank=rank, world_size=2))))
    assert [len(part) for part in shared] == [2, 2, 2, 1]
    assert Counter(chain(*shared)) == Counter(alone)


@pytest.mark.slow
def test_a_loader_yields_the_windows_of_its_rank_in_order(windows: WindowDataset) -> None:
    second = replace(windows, rank=1, world_size=2)
    loader = DataLoader(second, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert digests(list(loader)) == digests(list(windows))[1::2]


def test_windows_differ_between_epochs_and_seeds(windows: WindowDataset) -> None:
    one, two, three = (
        set(digests(list(w))) for w in (windows, replace(windows, epoch=1), replace(windows, seed=4))
    )
    assert len(one & two) < 3 and len(one & three) < 3


def test_clips_that_are_too_short_or_too_small_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_small_dataset(tmp_path / "data", held_out=[2])
    assert [clip.id for clip in list_clips(Dataset(data), "test")] == ["clip2"]
    long = replace(SETTINGS, frames=7)
    assert [clip.id for clip in read_windows(data, "train", long, 0).clips] == ["clip0"]
    assert "clips with 7 frames of 40x12: 1 of 2" in capsys.readouterr().out
    for too_large in (
        replace(SETTINGS, frames=10),
        replace(SETTINGS, width=65),
        replace(SETTINGS, height=17),
    ):
        with pytest.raises(UserError, match=r"no clip of 2 .* 9 frames, .* 64 and 16; ask for smaller"):
            read_windows(data, "train", too_large, 0)


def test_only_the_validated_dataset_is_used(tmp_path: Path) -> None:
    data = write_small_dataset(tmp_path / "data", held_out=[2])
    kept = read_table(data / "filter" / "accepted.parquet", AcceptedClip)
    for changed in (kept[:-1], [replace(kept[0], split="test"), *kept[1:]]):
        write_table(data / "filter" / "accepted.parquet", changed, AcceptedClip)
        with pytest.raises(UserError, match="has changed since it was validated; run dvc repro validate"):
            list_clips(Dataset(data), "train")
    write_table(data / "filter" / "accepted.parquet", kept, AcceptedClip)
    assert len(list_clips(Dataset(data), "train")) == 2
    (data / "validate" / "stamp.json").unlink()
    with pytest.raises(
        UserError, match="not found; build and validate the dataset first: dvc repro validate"
    ):
        list_clips(Dataset(data), "train")


def resized(clip: DatasetClip, near_px: float) -> DatasetClip:
    quality = replace(clip.quality, height=200, width=262, disparity_max_percent=100 * near_px / 262)
    return replace(clip, rows={**clip.rows, ClipQuality: quality})


def test_the_chosen_size_leaves_room_for_offsets(windows: WindowDataset) -> None:
    wide, wider = (resized(windows.clips[0], near_px) for near_px in (5.5, 6.5))
    assert choose_size([wide] * 20) == (192, 256)
    assert choose_size([wider] * 20) == (192, 192)
    assert choose_size([wide] * 19 + [wider]) == (192, 256), "one small clip decides nothing"
