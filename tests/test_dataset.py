"""However a film is packed, the dataset has the same clips, bit for bit."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import Clip, Correction
from secondeye.dataset.tables import read_table
from secondeye.film.packing import packing_axis
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.params import load_params
from secondeye.stages import shift, split
from secondeye.synthetic.render import render_shot
from secondeye.video.write import write_lossless

PROJECT = Path(__file__).parent.parent
HEIGHT, WIDTH, FRAMES = 144, 256, 8
SEEDS = (3, 6)  # scenes that tell by what they hide which eye is which
PLAIN = "sbs"

Clips = dict[tuple[int, int], list[np.ndarray]]


@pytest.fixture(scope="module")
def eyes() -> tuple[np.ndarray, ...]:
    """Left and right, uint8 [2 * FRAMES, HEIGHT, WIDTH, 3]: a film of two shots."""
    shots = [render_shot(seed, FRAMES, HEIGHT, WIDTH) for seed in SEEDS]
    left, right = ([getattr(shot, eye) for shot in shots] for eye in ("left", "right"))
    return tuple(frames_to_uint8(torch.cat(eye)).numpy() for eye in (left, right))


def store(raw: Path, packing: str, left: np.ndarray, right: np.ndarray) -> None:
    """The film without loss; `swapped` is packed right eye first and says nothing of it."""
    raw.mkdir()
    if packing == "folders":
        for name, eye in (("film_L", left), ("film_R", right)):
            (raw / name).mkdir()
            for index, picture in enumerate(eye):
                cv2.imwrite(str(raw / name / f"{index:03}.png"), picture[..., ::-1])
        return
    if packing == "pair":
        write_lossless(raw / "film_L.mkv", left)
        write_lossless(raw / "film_R.mkv", right)
        return
    order = (right, left) if packing == "swapped" or packing.endswith("right-first") else (left, right)
    told = PLAIN if packing == "swapped" else packing
    write_lossless(raw / "film.mkv", np.concatenate(order, axis=2 if packing_axis(told) == "sbs" else 1))
    (raw / "sources.csv").write_text(f"film,packing,split,licence\nfilm.mkv,{told},,CC0-1.0\n")


def clips_of(root: Path) -> Clips:
    """Both eyes of every clip as training sees them, by first and last frame."""
    params = load_params(PROJECT / "params.yaml")
    small = replace(params.split, height=HEIGHT, width=WIDTH, min_motion=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDEYE_WORKERS", "1")
        split.run(root / "raw", root / "split", split=small, dataset=params.dataset)
        shift.run(root / "split", root / "shift", shift=params.shift, dataset=params.dataset)
    rows = {row.id: row for row in read_table(root / "shift" / "shift.parquet", Correction)}
    clips = read_table(root / "split" / "clips.parquet", Clip)
    return {(c.start, c.stop): [eye.numpy() for eye in load_views(root / "split", rows[c.id])] for c in clips}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, eyes: tuple[np.ndarray, ...]) -> Clips:
    root = tmp_path_factory.mktemp(PLAIN)
    store(root / "raw", PLAIN, *eyes)
    return clips_of(root)


@pytest.mark.parametrize("packing", ["sbs-right-first", "tb", "tb-right-first", "pair", "folders", "swapped"])
def test_clips_are_those_of_the_plain_film(
    tmp_path: Path, eyes: tuple[np.ndarray, ...], plain: Clips, packing: str
) -> None:
    store(tmp_path / "raw", packing, *eyes)
    found = clips_of(tmp_path)
    assert sorted(found) == sorted(plain) == [(0, FRAMES), (FRAMES, 2 * FRAMES)]
    for place, clip in plain.items():
        for eye, other in zip(clip, found[place], strict=True):
            assert np.array_equal(eye, other)
