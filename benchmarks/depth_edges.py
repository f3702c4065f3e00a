"""Measure what blurred depth costs around holes, and how much sharpening its edges wins back.

python benchmarks/depth_edges.py [--blur 4] [--footage FOLDER] [--from-short-side 518]

True disparity is blurred, sharpened or not, warped and inpainted by `fill`; the result is compared with the
true right view in the band of 8 px around true disocclusions. Also: the area of holes relative to the
truth's, and what dilation changes: of exact disparity, of disparity whose foreground is 1 px too tight, and
of sharpened disparity. Scenes are synthetic shots, and with --footage Middlebury's motorcycle and cones, and
frames of stereo pairs and films, whose disparity OpenCV's SGBM matches. The older constants were
chosen on cones and toon (frames 5 and 40), too; the lowest step, only on scenes not named held out.

With --from-short-side, scenes are synthetic shots of 3840x2160, whose disparity is reduced to that short side
before it is blurred, as estimators do, and the band is 36 px wide. The time is that of `sharpen`.
"""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import cv2
import numpy as np
import torch
from command import existing, make_parser, run
from machine import machine
from torch import Tensor

from secondeye.conversion.warped_window import warped_window
from secondeye.depth import edges
from secondeye.depth.edges import dilate, sharpen, upsample
from secondeye.imaging.arrays import frames_to_uint8, occlusion_mask
from secondeye.inpaint import Inpainter, make_inpainter
from secondeye.metrics.image_quality import decibels
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.video.read import decode_film
from secondeye.warp import warp

SEEDS, HELD_OUT_SEEDS, FRAMES = range(1, 9), range(31, 39), 2
LARGE_SEEDS, HELD_OUT_LARGE_SEEDS = (2, 5), (31, 32)
SIZE, LARGE_SIZE = (480, 854), (2160, 3840)
BAND_PX, LARGE_BAND_PX = 8, 36
CANDLE = "sv_candle_ego/candle_ego_sbs_2560x720.mp4"
TOON = "sv_toon_shot/shot_sbs.mp4"


class Scene(NamedTuple):
    """A stereo pair with its true disparity."""

    name: str
    left: Tensor  # uint8 [T, H, W, 3]
    right: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, H, W] px
    held_out: bool = False  # the lowest step was not chosen on it


class Measured(NamedTuple):
    """What is averaged over scenes."""

    lost_db: float  # by the blur
    left_db: float  # lost still after sharpening
    area: float  # of holes after sharpening, relative to the truth's


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--blur", type=float, default=4.0, help="standard deviation, px of the map")
    parser.add_argument("--footage", type=existing, help="folder with pair_motorcycle, sv_toon_shot, ...")
    parser.add_argument("--from-short-side", type=int, help="px: height of the depth maps of 3840x2160 shots")
    options = parser.parse_args()
    side = options.from_short_side
    band_px = LARGE_BAND_PX if side else BAND_PX
    print(f"{machine()}\nblur {options.blur:g} px, band of {band_px} px around disocclusions, dB\n")
    print(
        "| scene | exact | dilated | too tight, dilated | blurred | sharpened | won back | of it, dilation "
        "| holes, blurred | holes, sharpened |" + (" ms |" if side else "")
    )
    print("|---" * (11 if side else 10) + "|")
    rows: dict[bool, list[Measured]] = {False: [], True: []}
    for scene in large_shots() if side else scenes(options.footage):
        rows[scene.held_out].append(measure(scene, options.blur, side, band_px))
    print()
    for held_out, part in rows.items():
        lost, left, areas = np.array(part).T
        half = (lost - left >= lost / 2)[lost > 0.05]
        print(
            f"{'held out' if held_out else 'lowest step chosen on these'}: {lost.mean():.2f} dB lost, "
            f"{left.mean():.2f} after sharpening ({100 * (1 - left.mean() / lost.mean()):.0f} % won back), "
            f"at least half on {half.sum()} of {len(half)}, holes {areas.min():.2f} to {areas.max():.2f}"
        )


def measure(scene: Scene, sigma: float, short_side: int | None, band_px: int) -> Measured:
    """Print the row of a scene."""
    fill = make_inpainter("fill", None, "cpu")
    radius_px = round(0.001 * scene.disparity.shape[-1])
    small = blur(reduce(scene.disparity, short_side) if short_side else scene.disparity, sigma)
    tight = erode(scene.disparity)
    start = time.perf_counter()
    sharpened = sharpen(small, scene.left)
    milliseconds = 1000 * (time.perf_counter() - start) / len(small)
    with patch.object(edges, "dilate", lambda plane, **_: plane):
        undilated = sharpen(small, scene.left)
    cases = {
        "exact": scene.disparity,
        "dilated": dilate(scene.disparity, radius_px=radius_px),
        "tight": tight,
        "tight, dilated": dilate(tight, radius_px=radius_px),
        "blurred": upsample(small, scene.left),
        "undilated": undilated,
        "sharpened": sharpened,
    }
    band = hole_band(scene.disparity, scene.left, band_px)
    score = {name: quality(scene, disparity, band, fill) for name, disparity in cases.items()}
    area = {name: hole_area(scene.left, cases[name]) for name in ("exact", "blurred", "sharpened")}
    lost, left = score["exact"] - score["blurred"], score["exact"] - score["sharpened"]
    print(
        f"| {scene.name}{', held out' if scene.held_out else ''} | {score['exact']:.2f} "
        f"| {score['dilated'] - score['exact']:+.2f} | {score['tight, dilated'] - score['tight']:+.2f} "
        f"| {-lost:+.2f} | {-left:+.2f} | {f'{100 * (1 - left / lost):.0f} %' if lost > 0.05 else '-'} "
        f"| {score['sharpened'] - score['undilated']:+.2f} | {area['blurred'] / area['exact']:.2f} "
        f"| {area['sharpened'] / area['exact']:.2f} |" + (f" {milliseconds:.0f} |" if short_side else ""),
        flush=True,
    )
    return Measured(lost, left, area["sharpened"] / area["exact"])


def scenes(footage: Path | None) -> Iterator[Scene]:
    """Yield synthetic shots, and pairs of the footage."""
    for seeds, held_out in ((SEEDS, False), (HELD_OUT_SEEDS, True)):
        for seed in seeds:
            yield rendered(f"synthetic {seed}", seed, FRAMES, SIZE, held_out)
    if footage is None:
        return
    folder = footage / "pair_motorcycle"
    exact = np.load(folder / "disp.npz")["arr_0"].astype(np.float32)
    yield pair("motorcycle", folder / "left.png", folder / "right.png", exact)
    yield from film_frames(footage / CANDLE, (20, 140, 260), 128)
    folder = footage / "pair_cones"
    exact = read_image(folder / "disp2.png")[:, :, 0].astype(np.float32) / 4
    exact[exact == 0] = np.inf
    yield pair("cones", folder / "im2.png", folder / "im6.png", exact)._replace(held_out=True)
    for scene in film_frames(footage / TOON, (5, 20, 40, 55), 64):
        yield scene._replace(held_out=True)
    kitti, creste = footage / "sq_kitti1", footage / "pair_creste"
    for name, one, other, reach_px in (
        ("kitti 0", kitti / "image_l/000000.png", kitti / "image_r/000000.png", 128),
        ("kitti 10", kitti / "image_l/000010.png", kitti / "image_r/000010.png", 128),
        ("creste", creste / "left.png", creste / "right.png", 64),
    ):
        yield matched(name, read_rgb(one), read_rgb(other), reach_px)._replace(held_out=True)


def large_shots() -> Iterator[Scene]:
    """Yield frames of 3840x2160."""
    for seeds, held_out in ((LARGE_SEEDS, False), (HELD_OUT_LARGE_SEEDS, True)):
        for seed in seeds:
            yield rendered(f"synthetic {seed}", seed, 1, LARGE_SIZE, held_out)


def rendered(name: str, seed: int, frames: int, size: tuple[int, int], held_out: bool) -> Scene:
    """Render a synthetic shot."""
    shot = render_shot(seed, frames, *size)
    left, right = frames_to_uint8(shot.left), frames_to_uint8(shot.right)
    return Scene(name, left, right, shot.disparity, held_out)


def film_frames(film: Path, numbers: tuple[int, ...], reach_px: int) -> Iterator[Scene]:
    """Yield frames of a side-by-side film with the disparity that SGBM finds."""
    for number, frame in enumerate(islice(decode_film(film), max(numbers) + 1)):
        if number in numbers:
            left, right = np.split(frame.rgb, 2, axis=1)
            yield matched(f"{film.parent.name.split('_')[1]}, frame {number}", left, right, reach_px)


def matched(
    name: str,
    left: np.ndarray,  # uint8 [H, W, 3]
    right: np.ndarray,  # uint8 [H, W, 3]
    reach_px: int,  # largest disparity of the search, a multiple of 16
) -> Scene:
    """Return a pair with the disparity that SGBM finds."""
    matcher = cv2.StereoSGBM.create(0, reach_px, 5, 600, 2400, 1, 63, 10, 100, 2, cv2.STEREO_SGBM_MODE_HH)
    views = np.ascontiguousarray(left), np.ascontiguousarray(right)
    disparity = matcher.compute(*(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in views))
    disparity = disparity.astype(np.float32) / 16
    disparity[disparity < 0] = np.inf
    one, other = (torch.from_numpy(view)[None] for view in views)
    return Scene(name, one, other, torch.from_numpy(fill_unknown(disparity))[None, None])


def pair(name: str, left: Path, right: Path, disparity: np.ndarray) -> Scene:
    """Return a still pair; unknown disparity becomes that of the farther neighbour in its row."""
    views = [torch.from_numpy(read_rgb(path))[None] for path in (left, right)]
    return Scene(name, views[0], views[1], torch.from_numpy(fill_unknown(disparity))[None, None])


def read_image(path: Path) -> np.ndarray:  # uint8 [H, W, 3] BGR
    """Read an image. Raises UserError if it cannot be read."""
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path}: cannot be read as an image")
    return image


def read_rgb(path: Path) -> np.ndarray:  # uint8 [H, W, 3]
    """Read an image as RGB."""
    return np.ascontiguousarray(read_image(path)[:, :, ::-1])


def fill_unknown(disparity: np.ndarray) -> np.ndarray:
    """Fill runs of unknown values in a row with the smaller of the values beside them."""
    filled = disparity.copy()
    for row in filled:
        known = np.flatnonzero(np.isfinite(row))
        for x in np.flatnonzero(~np.isfinite(row)):
            after = np.searchsorted(known, x)
            beside = [row[known[n]] for n in (after - 1, after) if 0 <= n < len(known)]
            row[x] = min(beside) if beside else 0
    return filled


def blur(disparity: Tensor, sigma: float) -> Tensor:
    """Blur each map."""
    planes = [cv2.GaussianBlur(plane, (0, 0), sigma) for plane in disparity[:, 0].contiguous().numpy()]
    return torch.from_numpy(np.stack(planes))[:, None]


def reduce(disparity: Tensor, short_side: int) -> Tensor:
    """Reduce each map to a height by averages over areas, as px of its former width."""
    height, width = disparity.shape[2:]
    size = round(width * short_side / height), short_side
    planes = disparity[:, 0].contiguous().numpy()
    return torch.from_numpy(np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in planes]))[
        :, None
    ]


def erode(disparity: Tensor) -> Tensor:
    """Shrink nearer surfaces by 1 px to the left and right."""
    return -dilate(-disparity, radius_px=1)


def hole_band(disparity: Tensor, left: Tensor, band_px: int) -> np.ndarray:
    """Return where disocclusions of the true disparity are, and the pixels around them, [T, H, W]."""
    holes = occlusion_mask(warp(left, disparity).coverage)[:, 0].numpy().astype(np.uint8)
    square = np.ones((2 * band_px + 1, 2 * band_px + 1), np.uint8)
    return np.stack([cv2.dilate(hole, square) for hole in holes]).astype(bool)


def hole_area(left: Tensor, disparity: Tensor) -> float:
    """Return the share of the right view that is a hole."""
    return float(occlusion_mask(warp(left, disparity).coverage).float().mean())


def quality(scene: Scene, disparity: Tensor, band: np.ndarray, fill: Inpainter) -> float:
    """Return the PSNR in the band, dB."""
    windows = [warped_window(scene.left, disparity, "warp")]
    made = torch.cat([right for right, _ in fill(iter(windows))])
    error = (made.numpy().astype(np.float64) - scene.right.numpy())[band] / 255
    return decibels(float((error**2).mean()))


if __name__ == "__main__":
    run(main)
