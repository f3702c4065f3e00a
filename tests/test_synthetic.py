"""Synthetic shots are geometrically exact and reproducible from their seed."""

import csv
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.dataset.sample_films import write_sample_films
from secondeye.synthetic import Shot, render_shot, two_planes
from secondeye.synthetic.assets import SKY
from secondeye.synthetic.scene_generator import generate_scene
from secondeye.video.probe import probe
from secondeye.video.read import decode_film

SIZE = (2, 72, 128)  # frames, height, width
SEEDS = range(8)
SAMPLE = {"height": 48, "width": 80, "frames_per_shot": 3, "shots_per_film": 2, "mono_size": (36, 64)}


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    return [render_shot(seed, *SIZE) for seed in SEEDS]


def assert_same(one: Shot, two: Shot) -> None:
    for name, array in vars(one).items():
        assert torch.equal(array, getattr(two, name)), name


def sampled(
    array: Tensor,  # [T, C, H, W]
    columns: Tensor,  # [T, 1, H, W] px
) -> Tensor:
    """Interpolate linearly at fractional columns."""
    count, _, height, width = array.shape
    rows = torch.arange(height).view(1, height, 1).expand(count, height, width)
    x = 2 * columns[:, 0] / (width - 1) - 1
    return F.grid_sample(array, torch.stack([x, 2 * rows / (height - 1) - 1], -1), align_corners=True)


def read(
    path: Path,
) -> Tensor:  # [T, 3, H, W] in [0, 1]
    return torch.from_numpy(np.stack([p.rgb for p in decode_film(path)])).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("frames, height, width", [(1, 9, 31), (3, 20, 33)])
def test_arrays_have_the_documented_shapes_types_and_ranges(frames: int, height: int, width: int) -> None:
    shot = render_shot(3, frames, height, width)
    for name, array in vars(shot).items():
        assert array.shape == (frames, 3 if name in ("left", "right") else 1, height, width), name
        assert array.dtype == (torch.bool if "occlusion" in name else torch.float32), name
        assert array.is_contiguous(), name
    for view in (shot.left, shot.right):
        assert view.min() >= 0 and view.max() <= 1 and view.std() > 0.01


@pytest.mark.parametrize("threads", [1, 2])
def test_a_seed_is_bit_identical_for_any_number_of_threads(shots: list[Shot], threads: int) -> None:
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    again = render_shot(SEEDS[1], *SIZE)
    numba.set_num_threads(before)
    assert_same(again, shots[1])


def test_different_seeds_render_different_shots(shots: list[Shot]) -> None:
    for one, two in pairwise(shots):
        assert (one.left - two.left).abs().mean() > 0.02
        assert not torch.equal(one.disparity, two.disparity)


def test_disparity_starts_at_zero_and_spans_one_to_eight_percent_of_the_width(
    shots: list[Shot],
) -> None:
    width = SIZE[2]
    for shot in shots:
        for disparity in (shot.disparity, shot.right_disparity):
            span = (disparity.max() - disparity.min()) / width
            assert disparity.min() >= 0 and 0.01 <= span <= 0.085, span


def test_every_right_view_has_disocclusions(shots: list[Shot]) -> None:
    shares = torch.stack([shot.right_occlusion.float().mean() for shot in shots])
    assert shares.min() > 0.005 and shares.max() < 0.15 and shares.median() < 0.1, shares


def test_screen_px_shifts_the_right_view() -> None:
    plain, shifted = render_shot(4, *SIZE), render_shot(4, *SIZE, screen_px=3)
    torch.testing.assert_close(shifted.disparity, plain.disparity - 3)
    assert shifted.right_disparity.min() >= -3
    kept = ~plain.right_occlusion[..., :-3] & ~shifted.right_occlusion[..., 3:]
    torch.testing.assert_close(
        shifted.right_disparity[..., 3:][kept], plain.right_disparity[..., :-3][kept] - 3, rtol=0, atol=1e-3
    )


def test_visible_points_agree_in_both_views(shots: list[Shot]) -> None:
    columns = torch.arange(SIZE[2]).float()
    for shot in shots:
        ways = [
            (shot.left, shot.right, shot.disparity, shot.right_disparity, shot.left_occlusion, -1),
            (shot.right, shot.left, shot.right_disparity, shot.disparity, shot.right_occlusion, 1),
        ]
        for view, other, own, there, hidden, sign in ways:
            place = columns + sign * own
            seen = ~hidden & (place >= 0) & (place <= SIZE[2] - 1)
            gap = (sampled(there, place) - own).abs()[seen]
            assert (gap < 0.1).float().mean() > 0.85 and gap.median() < 0.01
            colour = (sampled(other, place) - view).abs().mean(1, keepdim=True)
            assert colour[seen].median() < 0.03


def test_occluded_points_are_behind_nearer_surfaces(shots: list[Shot]) -> None:
    columns = torch.arange(SIZE[2]).float()
    for shot in shots:
        place = columns + shot.right_disparity
        hidden = shot.right_occlusion & (place <= SIZE[2] - 1)
        around = F.max_pool2d(shot.disparity, 3, 1, 1)
        nearer = around.gather(-1, place.round().long().clamp(0, SIZE[2] - 1)) - shot.right_disparity
        assert (nearer[hidden] > 0.4).float().mean() > 0.97
        assert shot.right_occlusion[place > SIZE[2] - 0.5].all()


def test_an_invalid_seed_or_size_is_rejected() -> None:
    with pytest.raises(ValueError, match="seed"):
        render_shot(-1, 1, 8, 8)
    with pytest.raises(ValueError, match="size"):
        render_shot(0, 0, 8, 8)


def test_two_planes_correspond_exactly() -> None:
    shot = two_planes(3, 21, 61, near_px=7, far_px=2, card_px=13, step_px=3)
    place = torch.arange(61) - shot.disparity.long()
    seen = ~shot.left_occlusion
    found = shot.right.gather(-1, place.clamp(0, 60).expand(-1, 3, -1, -1))
    assert torch.equal(found.masked_select(seen), shot.left.masked_select(seen))


def test_two_planes_occlude_exactly_the_difference_of_disparities() -> None:
    shot = two_planes(2, 24, 64, near_px=8, far_px=2, card_px=16, step_px=5)
    left, right = torch.zeros(2, 1, 24, 64, dtype=torch.bool), torch.zeros(2, 1, 24, 64, dtype=torch.bool)
    left[..., :2], right[..., 62:] = True, True  # out of frame
    for t, start in enumerate([24, 29]):
        assert (shot.disparity[t, 0, 6:18, start : start + 16] == 8).all()
        left[t, 0, 6:18, start - 6 : start] = True
        right[t, 0, 6:18, start + 8 : start + 14] = True
    assert torch.equal(shot.left_occlusion, left)
    assert torch.equal(shot.right_occlusion, right)
    assert (shot.disparity == 8).sum() == (shot.right_disparity == 8).sum() == 2 * 12 * 16


def test_two_planes_reject_a_card_that_leaves_the_frame() -> None:
    with pytest.raises(ValueError, match="card"):
        two_planes(9, step_px=5)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "new" / "raw"
    write_sample_films(folder, 8, 5, **SAMPLE, exact=True)
    return folder


def test_the_table_lists_every_film_and_holds_out_five_of_eight(sample: Path) -> None:
    rows = list(csv.DictReader((sample / "sources.csv").read_text().splitlines()))
    assert list(rows[0]) == ["film", "packing", "split", "licence"]
    assert {row["film"] for row in rows} == {path.name for path in sample.glob("*.mp4")}
    stereo = [row for row in rows if row["packing"] == "sbs"]
    assert [row["split"] for row in stereo] == ["train"] * 3 + ["test"] * 5
    assert rows[-1] == {"film": "mono.mp4", "packing": "mono", "split": "test", "licence": "CC0-1.0"}
    assert not list(sample.rglob("*.part"))


def test_a_film_contains_its_shots_side_by_side_with_hard_cuts(sample: Path) -> None:
    frames = read(sample / "film_00.mp4")
    assert frames.shape == (6, 3, 48, 160)
    changes = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    assert changes.argmax() == 2
    assert np.load(sample / "exact" / "film_00_1.npz")["first_frame"] == 3
    left, right = frames[..., :80], frames[..., 80:]
    for number in range(2):
        exact = np.load(sample / "exact" / f"film_00_{number}.npz")
        assert exact["disparity"].dtype == np.float32 and exact["disparity"].shape == (3, 1, 48, 80)
        view, other = left[3 * number :][:3], right[3 * number :][:3]
        for given, coded in (("left", view), ("right", other)):  # up to compression
            given_frames = torch.from_numpy(exact[given]).permute(0, 3, 1, 2) / 255
            assert (given_frames - coded).abs().mean() < 0.03
        place = torch.arange(80) - torch.from_numpy(exact["disparity"])
        seen = ~torch.from_numpy(exact["left_occlusion"]) & (place >= 0) & (place <= 79)
        error = (sampled(other, place) - view).abs().mean(1, keepdim=True)[seen]
        assert error.median() < 0.05


def test_the_mono_film_has_two_shots_and_sound(sample: Path) -> None:
    film = probe(sample / "mono.mp4")
    assert (film.width, film.height) == (64, 36)
    assert len(film.audio) == 1 and film.audio[0] == "aac"
    assert len(read(sample / "mono.mp4")) == 60


def test_a_seed_writes_identical_films(sample: Path, tmp_path: Path) -> None:
    write_sample_films(tmp_path, 1, 5, **SAMPLE)
    assert (tmp_path / "film_00.mp4").read_bytes() == (sample / "film_00.mp4").read_bytes()


def test_odd_sizes_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        write_sample_films(tmp_path, 1, 0, height=47)


def test_a_few_scenes_are_streets_with_houses_on_both_sides_under_a_sky() -> None:
    streets = 0
    for seed in range(80):
        scene = generate_scene(np.random.default_rng(np.random.SeedSequence(seed).spawn(4)[0]), 16 / 9)
        houses = [body for body in scene.bodies if not body.infinite and body.axes[0, 2] == 1]
        if not houses:
            continue
        streets += 1
        assert any(body.texture == SKY for body in scene.bodies)
        assert {np.sign(body.centre[0]) for body in houses} == {-1, 1}
    assert 3 <= streets <= 12
