"""Films converted by other software are cut and shifted like the dataset's own right views."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from conftest import a_shift, damage, moving_images

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import Clip, Correction, Film
from secondeye.dataset.tables import write_table
from secondeye.evaluation.external import list_external, match_films, read_external
from secondeye.film.packing import side_by_side, strip_packing_tag
from secondeye.params import load_params
from secondeye.stages import split
from secondeye.system.errors import UserError
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
        ("candle_LRF_Full_SBS.mp4", "candle"),
        ("side_by_side-candle.mp4", "candle"),
        ("my.candle.tb.mp4", "my.candle"),
        ("candle_lr_1080p.mp4", "candle_1080p"),
        ("album.mp4", "album"),
    ],
)
def test_packing_tags_are_stripped_from_names(file: str, name: str) -> None:
    assert strip_packing_tag(file) == name


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_external_methods_are_folders_of_films(tmp_path: Path) -> None:
    assert list_external(tmp_path / "external") == []
    (tmp_path / "nothing yet").mkdir()
    touch(
        tmp_path / "owl" / "street_sbs.mp4",
        tmp_path / "owl" / "candle.mkv",
        tmp_path / "ant" / "candle_lr.mp4",
    )
    touch(tmp_path / ".gitignore", tmp_path / "owl.dvc", tmp_path / "owl" / "candle.mkv.dvc")
    assert [(method.name, [*method.films]) for method in list_external(tmp_path)] == [
        ("ant", ["candle"]),
        ("owl", ["candle", "street"]),
    ]
    assert list_external(tmp_path)[1].films["street"] == tmp_path / "owl" / "street_sbs.mp4"


@pytest.mark.parametrize(
    ("stray", "message"),
    [
        ("candle_sbs.mp4", "belong into a folder for each method"),
        ("owl/notes.txt", "not a film"),
        ("owl/more/candle.mp4", "not a film"),
        ("owl/candle_half-sbs.mkv", "two films called candle"),
    ],
)
def test_stray_files_are_rejected(tmp_path: Path, stray: str, message: str) -> None:
    touch(tmp_path / "owl" / "candle.mp4", tmp_path / stray)
    with pytest.raises(UserError, match=message):
        list_external(tmp_path)


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray]:
    """Both views, uint8 [T, H, W, 3], larger than the dataset's clips."""
    left, right = (moving_images(FRAMES, 100, 150, seed) for seed in (1, 2))
    return left, right


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, views: tuple[np.ndarray, np.ndarray]) -> Dataset:
    """A film cut into two clips, whose right views are shifted by 3 px and -2 px."""
    root = tmp_path_factory.mktemp("data")
    (root / "raw").mkdir()
    images = np.stack([side_by_side(*pair) for pair in zip(*views, strict=True)])
    write_lossless(root / "raw" / "candle_sbs.mkv", images)
    wanted = replace(PARAMS.split, height=HEIGHT, width=WIDTH, max_seconds=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDEYE_WORKERS", "1")
        split.run(root, split=wanted, dataset=PARAMS.dataset)
    dataset = Dataset(root)
    clips = sorted(dataset.rows(Clip), key=lambda clip: clip.start)
    assert [(clip.start, clip.stop) for clip in clips] == [(0, 12), (12, 24)]
    moved = [a_shift(clip.id, shift_px=px) for clip, px in zip(clips, (3, -2), strict=True)]
    dataset.folder("shift").mkdir()
    write_table(dataset.path(Correction), moved, Correction)
    return dataset


def side_by_side_film(root: Path, views: tuple[np.ndarray, np.ndarray]) -> Path:
    images = np.stack([side_by_side(*pair) for pair in zip(*views, strict=True)])
    write_lossless(root / "candle_lr.mkv", images)
    return root / "candle_lr.mkv"


def right_only(root: Path, views: tuple[np.ndarray, np.ndarray]) -> Path:
    write_lossless(root / "candle.mkv", views[1])
    return root / "candle.mkv"


def over_under(root: Path, views: tuple[np.ndarray, np.ndarray]) -> Path:
    write_lossless(root / "candle_tb.mkv", np.concatenate(views, axis=1))
    return root / "candle_tb.mkv"


@pytest.mark.parametrize("make", [side_by_side_film, right_only, over_under])
def test_the_true_right_view_is_read_bit_for_bit(
    tmp_path: Path, dataset: Dataset, views: tuple[np.ndarray, np.ndarray], make: Callable[..., Path]
) -> None:
    film = make(tmp_path, views)
    for clip in dataset.join(Correction):
        assert torch.equal(read_external(film, clip), dataset.views(clip)[1])


def test_half_width_views_are_stretched(
    tmp_path: Path, dataset: Dataset, views: tuple[np.ndarray, np.ndarray]
) -> None:
    small = [np.stack([cv2.resize(p, (75, 100), interpolation=cv2.INTER_AREA) for p in eye]) for eye in views]
    film = tmp_path / "candle_half-sbs.mkv"
    write_lossless(film, np.concatenate(small, axis=2))
    clip = dataset.join(Correction)[0]
    made, right = read_external(film, clip), dataset.views(clip)[1]
    assert made.shape == right.shape
    assert (made - right).abs().mean() < 0.02 < (made.roll(2, -1) - right).abs().mean()


def test_a_film_that_is_short_or_damaged_is_a_user_error(
    tmp_path: Path, dataset: Dataset, views: tuple[np.ndarray, np.ndarray]
) -> None:
    film = tmp_path / "candle.mkv"
    write_lossless(film, views[1][:20])
    first, second = sorted(dataset.join(Correction), key=lambda clip: clip.clip.start)
    assert len(read_external(film, first)) == 12
    with pytest.raises(UserError, match=f"has 20 frames, clip {second.id} needs 24"):
        read_external(film, second)
    write_film(tmp_path / "candle.mp4", iter(views[1]), Fraction(24))
    with pytest.raises(UserError, match="a picture before frame 11 does not decode"):
        read_external(damage(tmp_path / "candle.mp4"), first)


def test_the_original_letterbox_is_cropped(tmp_path: Path, dataset: Dataset) -> None:
    clip = min(dataset.join(), key=lambda clip: clip.clip.start)
    image = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    image[16:-16] = 200
    write_lossless(tmp_path / "candle.mkv", np.stack([image] * 12))

    def read(**correction: object) -> torch.Tensor:
        film = replace(clip.film, height=HEIGHT, width=WIDTH, crop_top=8, crop_bottom=8)
        rows = {Correction: a_shift(clip.id, **correction)}
        return read_external(tmp_path / "candle.mkv", DatasetClip(clip.id, "", clip.clip, film, rows))

    assert float(read().min()) == pytest.approx(200 / 255)
    assert read(vertical_px=-3, shift_px=2).shape[-2:] == (HEIGHT - 3, WIDTH - 2)
    with pytest.raises(UserError, match=r"candle_sbs\.mkv, whose eyes are swapped"):
        read(swapped=True)


def test_films_are_matched_by_name(
    tmp_path: Path, dataset: Dataset, views: tuple[np.ndarray, np.ndarray]
) -> None:
    (tmp_path / "owl").mkdir()
    film = right_only(tmp_path / "owl", views)
    [method] = list_external(tmp_path)
    assert match_films(method, dataset.rows(Film)) == ((dataset.rows(Film)[0].id, film),)
    with pytest.raises(UserError, match=r"candle.mkv: no film in data/raw is called candle"):
        match_films(method, [])
    twins = [*dataset.rows(Film), replace(dataset.rows(Film)[0], name="candle_tb.mkv")]
    with pytest.raises(
        UserError, match=r"both candle_sbs.mkv and candle_tb.mkv are called candle in data/raw"
    ):
        match_films(method, twins)


def test_a_right_view_that_was_shifted_by_half_is_refused(
    tmp_path: Path, dataset: Dataset, views: tuple[np.ndarray, np.ndarray]
) -> None:
    """As in films that `secondeye convert --views both` made."""
    folder = tmp_path / "external" / "ours"
    folder.mkdir(parents=True)
    comment = json.dumps({"secondeye": "0.1.0", "settings": {"views": "both"}})
    plain = right_only(tmp_path, views)
    with av.open(str(plain)) as source, av.open(str(folder / "candle.mkv"), "w") as made:
        made.metadata["comment"] = comment
        stream = made.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    [method] = list_external(folder.parent)
    with pytest.raises(UserError, match=r"candle\.mkv: was converted with --views both, .*; convert with"):
        match_films(method, dataset.rows(Film))


@pytest.mark.parametrize(
    ("cut", "fps", "message"),
    [
        (np.s_[:, :96], 24, "the aspect of 150x96 px differs from the 150x100 px"),
        (np.s_[:, :], 30, "has 30.000 frames a second, candle_sbs.mkv has 24.000"),
        (np.s_[3:], 24, "has 21 frames, candle_sbs.mkv has 24"),
    ],
)
def test_another_shape_rate_or_length_is_rejected(
    tmp_path: Path,
    dataset: Dataset,
    views: tuple[np.ndarray, np.ndarray],
    cut: tuple[slice, ...],
    fps: int,
    message: str,
) -> None:
    (tmp_path / "owl").mkdir()
    write_film(tmp_path / "owl" / "candle.mp4", iter(np.ascontiguousarray(views[1][cut])), Fraction(fps))
    with pytest.raises(UserError, match=f"candle.mp4: {message}"):
        match_films(list_external(tmp_path)[0], dataset.rows(Film))
