"""The packing of a film does not change its clips by a bit."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import Correction
from secondeye.film.packing import packing_axis
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.params import load_params
from secondeye.stages import shift, split
from secondeye.synthetic.render import render_shot
from secondeye.video.write import write_lossless

PROJECT = Path(__file__).parent.parent
HEIGHT, WIDTH, FRAMES = 144, 256, 8
SEEDS = (3, 6)  # scenes whose occlusions tell the view order
PLAIN = "sbs"

Clips = dict[tuple[int, int], list[np.ndarray]]


@pytest.fixture(scope="module")
def eyes() -> tuple[np.ndarray, ...]:
    """Left and right, uint8 [2 * FRAMES, HEIGHT, WIDTH, 3]: a film of two shots."""
    shots = [render_shot(seed, FRAMES, HEIGHT, WIDTH) for seed in SEEDS]
    left, right = ([getattr(shot, eye) for shot in shots] for eye in ("left", "right"))
    return tuple(frames_to_uint8(torch.cat(eye)).numpy() for eye in (left, right))


def store(raw: Path, packing: str, left: np.ndarray, right: np.ndarray) -> None:
    """Write the film losslessly; `swapped` is packed right view first without a tag."""
    raw.mkdir()
    if packing == "folders":
        for name, eye in (("film_L", left), ("film_R", right)):
            (raw / name).mkdir()
            for index, image in enumerate(eye):
                cv2.imwrite(str(raw / name / f"{index:03}.png"), image[..., ::-1])
        return
    if packing == "pair":
        write_lossless(raw / "film_L.mkv", left)
        write_lossless(raw / "film_R.mkv", right)
        return
    order = (right, left) if packing == "swapped" or packing.endswith("right-first") else (left, right)
    packing_tag = PLAIN if packing == "swapped" else packing
    write_lossless(
        raw / "film.mkv", np.concatenate(order, axis=2 if packing_axis(packing_tag) == "sbs" else 1)
    )
    (raw / "sources.csv").write_text(f"film,packing,split,licence\nfilm.mkv,{packing_tag},,CC0-1.0\n")


def build(root: Path, *, corrected: bool) -> Dataset:
    """Build the clips, and their corrections if asked."""
    params = load_params(PROJECT / "params.yaml")
    small = replace(params.split, height=HEIGHT, width=WIDTH, min_motion=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDEYE_WORKERS", "1")
        split.run(root, split=small, dataset=params.dataset)
        if corrected:
            shift.run(root, shift=params.shift, dataset=params.dataset)
    return Dataset(root)


def cut_clips(dataset: Dataset) -> Clips:
    """Return both views of every clip as they were cut, by (start, stop)."""
    clips = dataset.join()
    return {(c.clip.start, c.clip.stop): [v.numpy() for v in dataset.raw_views(c.id)] for c in clips}


def corrected_clips(dataset: Dataset) -> Clips:
    """Return both views of every clip as training sees them, by (start, stop)."""
    clips = dataset.join(Correction)
    return {(c.clip.start, c.clip.stop): [v.numpy() for v in dataset.views(c)] for c in clips}


def require_equal(found: Clips, wanted: Clips) -> None:
    assert sorted(found) == sorted(wanted) == [(0, FRAMES), (FRAMES, 2 * FRAMES)]
    for place, views in wanted.items():
        for view, other in zip(views, found[place], strict=True):
            assert np.array_equal(view, other)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, eyes: tuple[np.ndarray, ...]) -> Dataset:
    root = tmp_path_factory.mktemp(PLAIN)
    store(root / "raw", PLAIN, *eyes)
    return build(root, corrected=True)


@pytest.mark.parametrize("packing", ["sbs-right-first", "tb", "tb-right-first", "pair", "folders"])
def test_clips_are_those_of_the_plain_film(
    tmp_path: Path, eyes: tuple[np.ndarray, ...], plain: Dataset, packing: str
) -> None:
    store(tmp_path / "raw", packing, *eyes)
    require_equal(cut_clips(build(tmp_path, corrected=False)), cut_clips(plain))


def test_swapped_views_are_corrected(tmp_path: Path, eyes: tuple[np.ndarray, ...], plain: Dataset) -> None:
    store(tmp_path / "raw", "swapped", *eyes)
    require_equal(corrected_clips(build(tmp_path, corrected=True)), corrected_clips(plain))
