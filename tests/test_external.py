"""Films made elsewhere are read exactly as the dataset has the film's own right eye."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import a_shift, damage, moving_pictures

from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import Clip, Correction, Film
from secondeye.dataset.tables import read_table, write_table
from secondeye.evaluation.eval_clips import Folders
from secondeye.evaluation.external import films_of, list_external, plain_name, read_external, read_right
from secondeye.film.packing import side_by_side
from secondeye.params import load_params
from secondeye.stages import split
from secondeye.system.errors import UserError
from secondeye.video.probe import TruncatedFilm
from secondeye.video.write import write_film, write_lossless

HEIGHT, WIDTH, FRAMES = 64, 96, 24
PARAMS = load_params(Path(__file__).parent.parent / "params.yaml")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("candle.mp4", "candle"),
        ("candle_sbs.mp4", "candle"),
        ("candle_half-sbs.mkv", "candle"),
        ("candle-HSBS.mkv", "candle"),
        ("side_by_side-candle.mp4", "candle"),
        ("my.candle.tb.mp4", "my.candle"),
        ("candle_lr_1080p.mp4", "candle_1080p"),
        ("album.mp4", "album"),
    ],
)
def test_a_name_without_its_tag(file: str, name: str) -> None:
    assert plain_name(file) == name


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_makers_are_folders_of_films(tmp_path: Path) -> None:
    assert list_external(tmp_path / "external") == []
    (tmp_path / "nothing yet").mkdir()
    put(
        tmp_path / "owl" / "street_sbs.mp4",
        tmp_path / "owl" / "candle.mkv",
        tmp_path / "ant" / "candle_lr.mp4",
    )
    put(tmp_path / ".gitignore", tmp_path / "owl.dvc", tmp_path / "owl" / "candle.mkv.dvc")
    assert [(maker.name, [*maker.films]) for maker in list_external(tmp_path)] == [
        ("ant", ["candle"]),
        ("owl", ["candle", "street"]),
    ]
    assert list_external(tmp_path)[1].films["street"] == tmp_path / "owl" / "street_sbs.mp4"


@pytest.mark.parametrize(
    ("stray", "told"),
    [
        ("candle_sbs.mp4", "lies beside the makers' folders"),
        ("owl/notes.txt", "is no film"),
        ("owl/more/candle.mp4", "is no film"),
        ("owl/candle_half-sbs.mkv", "two films called candle"),
    ],
)
def test_stray_files_are_refused(tmp_path: Path, stray: str, told: str) -> None:
    put(tmp_path / "owl" / "candle.mp4", tmp_path / stray)
    with pytest.raises(UserError, match=told):
        list_external(tmp_path)


@pytest.fixture(scope="module")
def eyes() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [T, H, W, 3] of both eyes, wider than the dataset's clips."""
    left, right = (moving_pictures(FRAMES, 100, 150, seed) for seed in (1, 2))
    return left, right


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, eyes: tuple[np.ndarray, np.ndarray]) -> Path:
    """A film cut into two clips, the right views moved by 3 px and by -2 px."""
    root = tmp_path_factory.mktemp("data")
    (root / "raw").mkdir()
    pictures = np.stack([side_by_side(*pair) for pair in zip(*eyes, strict=True)])
    write_lossless(root / "raw" / "candle_sbs.mkv", pictures)
    wanted = replace(PARAMS.split, height=HEIGHT, width=WIDTH, max_seconds=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDEYE_WORKERS", "1")
        split.run(root, split=wanted, dataset=PARAMS.dataset)
    clips = sorted(read_table(root / "split" / "clips.parquet", Clip), key=lambda clip: clip.start)
    assert [(clip.start, clip.stop) for clip in clips] == [(0, 12), (12, 24)]
    moved = [a_shift(clip.id, shift_px=px) for clip, px in zip(clips, (3, -2), strict=True)]
    (root / "shift").mkdir()
    write_table(root / "shift" / "shift.parquet", moved, Correction)
    return root


def whole(root: Path, eyes: tuple[np.ndarray, np.ndarray]) -> Path:
    pictures = np.stack([side_by_side(*pair) for pair in zip(*eyes, strict=True)])
    write_lossless(root / "candle_lr.mkv", pictures)
    return root / "candle_lr.mkv"


def right_only(root: Path, eyes: tuple[np.ndarray, np.ndarray]) -> Path:
    write_lossless(root / "candle.mkv", eyes[1])
    return root / "candle.mkv"


def over_under(root: Path, eyes: tuple[np.ndarray, np.ndarray]) -> Path:
    write_lossless(root / "candle_tb.mkv", np.concatenate(eyes, axis=1))
    return root / "candle_tb.mkv"


@pytest.mark.parametrize("make", [whole, right_only, over_under])
def test_the_true_right_eye_comes_back_bit_for_bit(
    tmp_path: Path, dataset: Path, eyes: tuple[np.ndarray, np.ndarray], make: Callable[..., Path]
) -> None:
    film = make(tmp_path, eyes)
    folders = Folders(dataset / "split", dataset / "shift", dataset / "match", dataset / "regions")
    for row in read_table(dataset / "shift" / "shift.parquet", Correction):
        _, right = load_views(folders.split, row)
        assert torch.equal(read_external(film, folders, row.id, 12), right)
        assert torch.equal(read_external(film, folders, row.id, 5), right[:5])


def test_squeezed_eyes_are_stretched(
    tmp_path: Path, dataset: Path, eyes: tuple[np.ndarray, np.ndarray]
) -> None:
    small = [np.stack([cv2.resize(p, (75, 100), interpolation=cv2.INTER_AREA) for p in eye]) for eye in eyes]
    film = tmp_path / "candle_half-sbs.mkv"
    write_lossless(film, np.concatenate(small, axis=2))
    row = read_table(dataset / "shift" / "shift.parquet", Correction)[0]
    clip = next(c for c in read_table(dataset / "split" / "clips.parquet", Clip) if c.id == row.id)
    made, right = read_right(film, ours(dataset)[0], clip, row), load_views(dataset / "split", row)[1]
    assert made.shape == right.shape
    assert (made - right).abs().mean() < 0.02 < (made.roll(2, -1) - right).abs().mean()


def test_a_film_that_is_too_short_or_breaks_off_is_one_line(
    tmp_path: Path, dataset: Path, eyes: tuple[np.ndarray, np.ndarray]
) -> None:
    film = tmp_path / "candle.mkv"
    write_lossless(film, eyes[1][:20])
    first, second = sorted(read_table(dataset / "split" / "clips.parquet", Clip), key=lambda clip: clip.start)
    shifted = a_shift("")
    assert len(read_right(film, ours(dataset)[0], first, shifted)) == 12
    with pytest.raises(UserError, match=f"has 20 frames, of which clip {second.id} asks for 24"):
        read_right(film, ours(dataset)[0], second, shifted)
    write_film(tmp_path / "candle.mp4", iter(eyes[1]), Fraction(24))
    with pytest.raises(TruncatedFilm, match="breaks off after"):
        read_right(damage(tmp_path / "candle.mp4"), ours(dataset)[0], first, shifted)


def test_borders_are_cut_off_what_was_made_of_a_letterboxed_film(tmp_path: Path, dataset: Path) -> None:
    clip = min(read_table(dataset / "split" / "clips.parquet", Clip), key=lambda clip: clip.start)
    picture = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    picture[16:-16] = 200
    write_lossless(tmp_path / "candle.mkv", np.stack([picture] * 12))
    boxed = replace(ours(dataset)[0], height=HEIGHT, width=WIDTH, crop_top=8, crop_bottom=8)
    assert float(read_right(tmp_path / "candle.mkv", boxed, clip, a_shift("")).min()) == pytest.approx(
        200 / 255
    )
    moved = read_right(tmp_path / "candle.mkv", boxed, clip, a_shift("", vertical_px=-3, shift_px=2))
    assert moved.shape[-2:] == (HEIGHT - 3, WIDTH - 2)
    with pytest.raises(UserError, match=r"candle_sbs\.mkv, whose eyes are swapped"):
        read_right(tmp_path / "candle.mkv", boxed, clip, a_shift("", swapped=True))


def ours(dataset: Path) -> list[Film]:
    return read_table(dataset / "split" / "films.parquet", Film)


def test_films_find_the_one_they_were_made_of(
    tmp_path: Path, dataset: Path, eyes: tuple[np.ndarray, np.ndarray]
) -> None:
    (tmp_path / "owl").mkdir()
    film = right_only(tmp_path / "owl", eyes)
    [maker] = list_external(tmp_path)
    assert films_of(maker, ours(dataset)) == ((ours(dataset)[0].id, film),)
    with pytest.raises(UserError, match=r"candle.mkv: no film of the dataset is called candle"):
        films_of(maker, [])
    twins = [*ours(dataset), replace(ours(dataset)[0], name="candle_tb.mkv")]
    with pytest.raises(UserError, match=r"both candle_sbs.mkv and candle_tb.mkv are called candle"):
        films_of(maker, twins)


@pytest.mark.parametrize(
    ("cut", "fps", "told"),
    [
        (np.s_[:, :96], 24, "150x96 px is another shape than 150x100 px"),
        (np.s_[:, :], 30, "30.000 frames a second, and 24.000 of"),
        (np.s_[3:], 24, "has 21 frames, candle_sbs.mkv has 24"),
    ],
)
def test_another_shape_rate_or_length_is_refused(
    tmp_path: Path,
    dataset: Path,
    eyes: tuple[np.ndarray, np.ndarray],
    cut: tuple[slice, ...],
    fps: int,
    told: str,
) -> None:
    (tmp_path / "owl").mkdir()
    write_film(tmp_path / "owl" / "candle.mp4", iter(np.ascontiguousarray(eyes[1][cut])), Fraction(fps))
    with pytest.raises(UserError, match=f"candle.mp4: {told}"):
        films_of(list_external(tmp_path)[0], ours(dataset))
