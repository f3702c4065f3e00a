"""Measure what blurred depth costs around holes, and how much sharpening its edges wins back.

python benchmarks/depth_edges.py [--blur 4] [--footage FOLDER]

True disparity is blurred, sharpened or not, warped and inpainted by `fill`; the result is compared with the
true right view in the band of 8 px around true disocclusions. Also: the area of holes relative to the
truth's, and what dilation costs if the disparity is exact. Scenes are synthetic shots, and with --footage
Middlebury's motorcycle and cones, and frames of stereo films, whose disparity OpenCV's SGBM matches.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from command import existing, make_parser, run
from machine import machine
from torch import Tensor

from secondeye.conversion.warped_window import warped_window
from secondeye.depth.edges import dilate, sharpen
from secondeye.imaging.arrays import frames_to_uint8, occlusion_mask
from secondeye.inpaint import Inpainter, make_inpainter
from secondeye.metrics.image_quality import decibels
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.video.read import decode_film
from secondeye.warp import warp

SEEDS, HEIGHT, WIDTH, FRAMES = range(1, 9), 480, 854, 2
BAND_PX = 8
FILMS = (  # file, frame numbers, largest disparity of the search
    ("sv_candle_ego/candle_ego_sbs_2560x720.mp4", (20, 140, 260), 128),
    ("sv_toon_shot/shot_sbs.mp4", (5, 40), 64),
)


class Scene(NamedTuple):
    """A stereo pair with its true disparity."""

    name: str
    left: Tensor  # uint8 [T, H, W, 3]
    right: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, H, W] px


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--blur", type=float, default=4.0, help="standard deviation, px")
    parser.add_argument("--footage", type=existing, help="folder with pair_motorcycle and pair_cones")
    options = parser.parse_args()
    fill = make_inpainter("fill", None, "cpu")
    print(f"{machine()}\nblur {options.blur:g} px, band of {BAND_PX} px around disocclusions, dB\n")
    print("| scene | exact | dilated | blurred | sharpened | won back | holes, blurred | holes, sharpened |")
    print("|---|---|---|---|---|---|---|---|")
    for scene in scenes(options.footage):
        radius_px = round(0.001 * scene.disparity.shape[-1])
        blurred = blur(scene.disparity, options.blur)
        cases = {
            "exact": scene.disparity,
            "dilated": dilate(scene.disparity, radius_px=radius_px),
            "blurred": blurred,
            "sharpened": sharpen(blurred, scene.left),
        }
        band = hole_band(scene.disparity, scene.left)
        score = {name: quality(scene, disparity, band, fill) for name, disparity in cases.items()}
        area = {name: hole_area(scene.left, disparity) for name, disparity in cases.items()}
        lost = score["exact"] - score["blurred"]
        back = f"{100 * (score['sharpened'] - score['blurred']) / lost:.0f} %" if lost > 0.05 else "-"
        print(
            f"| {scene.name} | {score['exact']:.2f} | {score['dilated'] - score['exact']:+.2f} "
            f"| {-lost:+.2f} | {score['sharpened'] - score['exact']:+.2f} | {back} "
            f"| {area['blurred'] / area['exact']:.2f} | {area['sharpened'] / area['exact']:.2f} |",
            flush=True,
        )


def scenes(footage: Path | None) -> Iterator[Scene]:
    """Yield synthetic shots, and pairs of the footage."""
    for seed in SEEDS:
        shot = render_shot(seed, FRAMES, HEIGHT, WIDTH)
        yield Scene(
            f"synthetic {seed}", frames_to_uint8(shot.left), frames_to_uint8(shot.right), shot.disparity
        )
    if footage is not None:
        folder = footage / "pair_motorcycle"
        disparity = np.load(folder / "disp.npz")["arr_0"].astype(np.float32)
        yield pair("motorcycle", folder / "left.png", folder / "right.png", disparity)
        folder = footage / "pair_cones"
        stored = read_image(folder / "disp2.png")[:, :, 0]
        disparity = stored.astype(np.float32) / 4
        disparity[disparity == 0] = np.inf
        yield pair("cones", folder / "im2.png", folder / "im6.png", disparity)
        for film, numbers, reach_px in FILMS:
            yield from film_frames(footage / film, numbers, reach_px)


def film_frames(film: Path, numbers: tuple[int, ...], reach_px: int) -> Iterator[Scene]:
    """Yield frames of a side-by-side film with the disparity that SGBM finds."""
    for number, frame in enumerate(islice(decode_film(film), max(numbers) + 1)):
        if number in numbers:
            left, right = np.split(frame.rgb, 2, axis=1)
            yield matched(f"{film.stem} {number}", left, right, reach_px)


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
    views = [torch.from_numpy(read_image(path)[None, :, :, ::-1].copy()) for path in (left, right)]
    return Scene(name, views[0], views[1], torch.from_numpy(fill_unknown(disparity))[None, None])


def read_image(path: Path) -> np.ndarray:  # uint8 [H, W, 3] BGR
    """Read an image. Raises UserError if it cannot be read."""
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path}: cannot be read as an image")
    return image


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


def hole_band(disparity: Tensor, left: Tensor) -> np.ndarray:
    """Return where disocclusions of the true disparity are, and the pixels around them, [T, H, W]."""
    holes = occlusion_mask(warp(left, disparity).coverage)[:, 0].numpy().astype(np.uint8)
    square = np.ones((2 * BAND_PX + 1, 2 * BAND_PX + 1), np.uint8)
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
