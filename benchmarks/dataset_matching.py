"""Measure accuracy and temporal stability of the matchers, against OpenCV's SGBM frame by frame.

    python benchmarks/dataset_matching.py [--films 4] [--frames 12] [--seeds 5 21 33 47]

The film is synthetic and H.264-coded; its disparity is known exactly. Error: mean over the pixels that both
views see, px. Temporal error: mean over all pixels of |change of the disparity - change of the ground truth|
between frames (TEPE), px. Wrong: share of all pixels off by more than 2 px, %. Matched: share that passed the
consistency check, %. The baseline's gaps are filled like ours. With SECONDEYE_FOOTAGE: stills with known
disparity, against SGBM at the best of many settings; wrong is the share of pixels seen by both views, where a
pixel without a disparity counts as wrong.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from command import make_parser, run
from machine import machine
from torch import Tensor

from secondeye.dataset.corrections import apply_shift
from secondeye.dataset.sample_films import write_sample_films
from secondeye.film.packing import unpack
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.matching import make_matcher
from secondeye.matching.consistency import fill_from_background, match_both_ways
from secondeye.matching.gap_filling import fill_by_colour
from secondeye.matching.video_matcher import match_video
from secondeye.report.contact_sheet import read_image
from secondeye.system.process import one_thread
from secondeye.video.read import decode_film

SEEDS = (5, 21, 33, 47)  # of the films; the matcher was tuned on 5 and 33
LARGEST, TOLERANCE_PX, MARGIN_PX = 0.18, 1.0, 1  # as in params.yaml
Matching = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Clip(NamedTuple):
    """A decoded shot, shifted like in the stage `shift`."""

    left: Tensor
    right: Tensor
    disparity: Tensor
    occlusion: Tensor


class Still(NamedTuple):
    """A stereo pair with known disparity."""

    name: str
    left: Tensor
    right: Tensor
    disparity: Tensor
    seen: Tensor  # known, and seen by both eyes


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    print(f"{machine()}\n\n{table(**vars(parser.parse_args()))}")


def table(films: int = 4, frames: int = 12, seeds: Sequence[int] = SEEDS) -> str:
    """Return the Markdown tables: films, and stills if available."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        clips = [clip for seed in seeds for clip in film_clips(Path(folder) / str(seed), films, frames, seed)]
        parts = [
            f"{len(clips)} shots of {frames} frames, 448x256; one thread",
            film_table(clips),
        ]
        if footage := os.environ.get("SECONDEYE_FOOTAGE"):
            parts.append(still_table([motorcycle(Path(footage)), cones(Path(footage))]))
    return "\n\n".join(parts)


def film_clips(folder: Path, films: int, frames: int, seed: int) -> Iterator[Clip]:
    """Yield the shots of the sample films."""
    write_sample_films(folder, films, seed, frames_per_shot=frames, mono_size=(32, 64), exact=True)
    for path in sorted((folder / "exact").glob("*.npz")):
        with np.load(path) as exact:
            first, truth, hidden = (exact[n] for n in ("first_frame", "disparity", "left_occlusion"))
        film = folder / f"{path.stem[:-2]}.mp4"
        eyes = [unpack(frame.rgb, "sbs") for frame in decode_film(film)][first : first + len(truth)]
        left, right = (frames_from_uint8(torch.from_numpy(np.stack(eye))) for eye in zip(*eyes, strict=True))
        shift_px = min(0, int(np.floor(truth.min())) - MARGIN_PX)
        left, right = apply_shift(left, right, shift_px)
        planes = (torch.from_numpy(plane)[..., : left.shape[-1]] for plane in (truth - shift_px, hidden))
        yield Clip(left, right, *planes)


def search_px(left: Tensor) -> int:
    """Return the largest disparity of the search, px."""
    return round(LARGEST * left.shape[-1])


def sgbm_row_filled(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Match with SGBM and row filling: the matcher `block`."""
    disparity, known = match_both_ways(
        make_matcher("block", search_px(left)), left, right, tolerance_px=TOLERANCE_PX
    )
    return fill_from_background(disparity, known), known


def sgbm_color_filled(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Match with SGBM and the gap filling of `video`."""
    disparity, known = match_both_ways(
        make_matcher("block", search_px(left)), left, right, tolerance_px=TOLERANCE_PX
    )
    frames = zip(disparity[:, 0].numpy(), known[:, 0].numpy(), frames_to_uint8(left).numpy(), strict=True)
    return torch.from_numpy(np.stack([fill_by_colour(*frame) for frame in frames]))[:, None], known


def video(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Match with `video`."""
    return match_video(left, right, max_disparity_px=search_px(left), tolerance_px=TOLERANCE_PX)


def video_single_frames(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Match with `video`, one frame at a time."""
    parts = [video(*pair) for pair in zip(left.split(1), right.split(1), strict=True)]
    disparity, known = zip(*parts, strict=True)
    return torch.cat(disparity), torch.cat(known)


METHODS: dict[str, Matching] = {
    "SGBM, rows filled (block)": sgbm_row_filled,
    "SGBM, filled like ours (baseline)": sgbm_color_filled,
    "ours, frame by frame": video_single_frames,
    "ours (video)": video,
}


def film_table(clips: list[Clip]) -> str:
    """Return a row per method and one for our change against the baseline."""
    lines = [
        "| matcher | error, px | temporal error, px | wrong, % | matched, % | ms per frame |",
        "|---|---|---|---|---|---|",
    ]
    means = {}
    for name, method in METHODS.items():
        method(clips[0].left[:3], clips[0].right[:3])  # compiles
        means[name] = np.mean([film_scores(method, clip) for clip in clips], 0)
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in means[name][:2]) + " | ")
        lines[-1] += " | ".join(f"{value:.1f}" for value in means[name][2:4]) + f" | {means[name][4]:.0f} |"
    _, peer, _, ours = means.values()
    change = " | ".join(f"{100 * value:+.1f} %" for value in (ours / peer - 1)[:3])
    return "\n".join([*lines, f"| ours against the baseline | {change} | | |"])


def film_scores(method: Matching, clip: Clip) -> tuple[float, ...]:
    """Return error, temporal error, wrong, matched and CPU milliseconds per frame."""
    start = time.process_time()
    disparity, known = method(clip.left, clip.right)
    seconds = time.process_time() - start
    error = (disparity - clip.disparity).abs().double()
    temporal_error = (disparity.diff(dim=0) - clip.disparity.diff(dim=0)).abs().double()
    shares = [100 * float(part.double().mean()) for part in (error > 2, known)]
    return (
        float(error[~clip.occlusion].mean()),
        float(temporal_error.mean()),
        *shares,
        1000 * seconds / len(known),
    )


def motorcycle(footage: Path) -> Still:
    """Read Middlebury 2014; a pixel is hidden if a nearer one has the same position in the right view."""
    left, right = (read_still(footage / "pair_motorcycle" / f"{eye}.png") for eye in ("left", "right"))
    truth = np.load(footage / "pair_motorcycle" / "disp.npz")["arr_0"].astype(np.float32)
    place = np.arange(truth.shape[1]) - truth
    known = np.isfinite(truth) & (place >= 0)
    nearest = np.zeros_like(truth)
    for side in (np.floor, np.ceil):
        columns = side(np.where(known, place, 0)).astype(int)
        rows = np.nonzero(known)[0]
        np.maximum.at(nearest, (rows, columns[known]), truth[known])
    there = np.take_along_axis(nearest, np.round(np.where(known, place, 0)).astype(int), 1)
    return Still("motorcycle", left, right, *planes_of(truth, known & (there <= truth + 1)))


def cones(footage: Path) -> Still:
    """Read Middlebury 2003 (quarter-pixel disparities of both views); a pixel is hidden where they differ."""
    left, right = (read_still(footage / "pair_cones" / f"im{eye}.png") for eye in (2, 6))
    both = [read_image(footage / "pair_cones" / f"disp{eye}.png")[..., 0] / np.float32(4) for eye in (2, 6)]
    place = np.arange(both[0].shape[1]) - both[0]
    there = np.take_along_axis(both[1], np.round(place.clip(0)).astype(int), 1)
    seen = (both[0] > 0) & (place >= 0) & (abs(there - both[0]) <= 1)
    return Still("cones", left, right, *planes_of(both[0], seen))


def read_still(path: Path) -> Tensor:
    """Read an image as one frame [1, 3, H, W]."""
    return frames_from_uint8(torch.from_numpy(read_image(path)[None].copy()))


def planes_of(disparity: np.ndarray, seen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Convert both maps to [1, 1, H, W]."""
    return torch.from_numpy(disparity)[None, None], torch.from_numpy(seen)[None, None]


def still_table(stills: list[Still]) -> str:
    """Return a row per still."""
    lines = ["| still | best SGBM, wrong % | its setting | ours, wrong % | ours dense, % |"]
    lines.append("|---|---|---|---|---|")
    for still in stills:
        share, setting = min(sgbm_grid(still))
        disparity, _ = video(still.left, still.right)
        density = 100 * float(disparity.isfinite().double().mean())
        lines.append(
            f"| {still.name} | {share:.2f} | {setting} | {wrong(still, disparity):.2f} | {density:.0f} |"
        )
    return "\n".join(lines)


def wrong(still: Still, disparity: Tensor) -> float:
    """Return the percentage of visible pixels that are off by more than 2 px or have no disparity."""
    return 100 * float((~((disparity - still.disparity).abs() <= 2))[still.seen].double().mean())


MODES = {
    "SGBM": cv2.STEREO_SGBM_MODE_SGBM,
    "HH": cv2.STEREO_SGBM_MODE_HH,
    "3WAY": cv2.STEREO_SGBM_MODE_SGBM_3WAY,
}
PENALTIES = ((8, 32), (4, 32), (8, 64), (2, 16), (16, 96))


def sgbm_grid(still: Still) -> Iterator[tuple[float, str]]:
    """Yield SGBM's share of wrong pixels for every setting of a grid."""
    left, right = (frames_to_uint8(eye)[0].flip(-1).numpy() for eye in (still.left, still.right))
    most = 16 * -(-search_px(still.left) // 16)
    pad = ((0, 0), (most, 0), (0, 0))  # OpenCV gives up on the first `most` columns
    for mode, block, (p1, p2), unique in product(MODES, (1, 3, 5, 7), PENALTIES, (0, 5, 10)):
        area = 3 * block * block
        engine = cv2.StereoSGBM.create(
            0, most, block, p1 * area, p2 * area, -1, 63, unique, 0, 0, MODES[mode]
        )
        steps = engine.compute(np.pad(left, pad, "edge"), np.pad(right, pad, "edge"))[:, most:]
        found = torch.from_numpy(np.where(steps < 0, np.nan, steps / 16))[None, None]
        setting = f"{mode}, block {block}, P1 {p1 * area}, P2 {p2 * area}, uniqueness {unique}"
        yield wrong(still, found), setting


if __name__ == "__main__":
    run(main)
