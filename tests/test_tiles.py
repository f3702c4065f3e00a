"""Tiles: ours cover and blend to one whatever the size; the release's are as its seams say."""

import pytest
import released_walk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from secondeye.inpaint.tiles import Tile, blend_weights, plan_tiles

SIDES = st.integers(1, 12).map(lambda count: 8 * count)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 5), st.integers(1, 5), st.integers(0, 16))
def test_tiles_cover_everything_and_overlap_as_asked(
    height: int, width: int, rows: int, columns: int, overlap: int
) -> None:
    tiles = plan_tiles(height, width, (rows, columns), overlap, 8)
    assert len({tile[2:] for tile in tiles}) == 1 and len(set(tiles)) == len(tiles)
    assert len({tile.top for tile in tiles}) <= rows and len({tile.left for tile in tiles}) <= columns
    count = torch.zeros(height, width)
    for tile in tiles:
        assert tile.height % 8 == tile.width % 8 == 0
        part = tile.crop(count)
        assert part.shape == tile[2:]
        part.add_(1)
    assert count.min() >= 1
    for start, length in ((0, 2), (1, 3)):
        places = sorted({tile[start] for tile in tiles})
        assert all(places[k] + tiles[0][length] - places[k + 1] >= overlap for k in range(len(places) - 1))


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 4), st.integers(0, 8), st.randoms(use_true_random=False))
def test_blend_weights_sum_to_one(
    height: int, width: int, tiles_per_side: int, overlap: int, random: object
) -> None:
    tiles = plan_tiles(height, width, (tiles_per_side, tiles_per_side), overlap, 8)
    some = [tile for tile in tiles if random.random() < 0.7]  # type: ignore[attr-defined]
    total, covered = torch.zeros(height, width), torch.zeros(height, width)
    for tile, weight in zip(some, blend_weights(some, height, width), strict=True):
        assert weight.min() > 0
        tile.crop(total).add_(weight)
        tile.crop(covered).fill_(1)
    assert_close(total, covered)


def test_single_tile_has_weight_one() -> None:
    (tile,) = plan_tiles(16, 24, (1, 1), 8, 8)
    (weight,) = blend_weights([tile], 16, 24)
    assert tile == Tile(0, 0, 16, 24) and torch.equal(weight, torch.ones(16, 24))


def test_unnecessary_tiles_are_dropped() -> None:
    """Three of 16 with 8 in common reach 32 of 24: two do."""
    assert plan_tiles(8, 24, (3, 3), 8, 8) == [Tile(0, 0, 8, 16), Tile(0, 8, 8, 16)]


@pytest.mark.parametrize("sides", [(0, 8, 1, 0), (12, 8, 1, 0), (8, 8, 0, 0), (8, 8, 1, -1)])
def test_impossible_tiles_are_refused(sides: tuple[int, int, int, int]) -> None:
    height, width, rows, overlap = sides
    with pytest.raises(ValueError, match="cannot be cut"):
        plan_tiles(height, width, (rows, 1), overlap, 8)


# The release's


def test_tiles_match_the_release() -> None:
    tiles = released_walk.plan_tiles(256, 384, 2)
    assert [tile for row in tiles for tile in row] == [
        Tile(0, 0, 192, 256),
        Tile(0, 128, 192, 256),
        Tile(64, 0, 192, 256),
        Tile(64, 128, 192, 256),
    ]
    assert released_walk.plan_tiles(256, 384, 4)[1][1] == Tile(32, 64, 160, 192)
    assert released_walk.plan_tiles(512, 512, 3)[2][2] == Tile(256, 256, 256, 256)
    for side in (256, 384):
        with pytest.raises(ValueError, match="cannot cut"):
            released_walk.plan_tiles(side, 512, 3)


def test_release_seams_are_linear() -> None:
    above, below = torch.zeros(1, 24, 20), torch.ones(1, 24, 20)
    whole = released_walk.blend([[above], [below]], 16)
    assert whole.shape == (1, 32, 20)
    assert_close(whole[0, :, 0], torch.cat([torch.zeros(8), torch.arange(16) / 16, torch.ones(8)]))
    beside = released_walk.blend([[above.mT, below.mT]], 16)
    assert_close(beside, whole.mT)


def test_release_blends_vertically_then_horizontally() -> None:
    corners = [[torch.full((1, 2, 2), value) for value in row] for row in ([0.0, 8.0], [16.0, 64.0])]
    # Halves: 8 fades in beside 0 as 0, 4; 16 below 0 as 0, 8; 64 below the first row, then beside that.
    whole = released_walk.blend(corners, 2)
    first = torch.stack([torch.tensor([0.0, 4.0])] * 2)
    lower_left = torch.tensor([[0.0, 0.0], [8.0, 8.0]])
    lower_right = torch.stack([first[0], first[1] / 2 + 32])
    expected = torch.stack([lower_left[:, 0], lower_left[:, 1] / 2 + lower_right[:, 1] / 2], dim=1)
    assert_close(whole, expected[None])


def test_blending_parts_of_a_whole_gives_it_back() -> None:
    whole = torch.rand(2, 4, 32, 48)
    rows = [
        [tile.crop(whole) for tile in row]
        for row in (
            [tile._make(length // 8 for length in tile) for tile in tiles]
            for tiles in released_walk.plan_tiles(256, 384, 4)
        )
    ]
    assert_close(released_walk.blend(rows, 16), whole)
