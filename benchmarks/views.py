"""Compare `convert --views right` and `--views both` at the same disparity between the views.

python benchmarks/views.py [--shots 8] [--footage FOLDER] [--films FILM ...] [--inpainter light]

Synthetic shots are rendered from three cameras in a row: `right` makes the right view from the left one, and
`both` makes both from the middle one, with exact disparity; the true views are known. Of real pairs (with
--footage) the middle view is not known. It is interpolated from both true views, with true disparity or that
of SGBM, so that its pixels are resampled once more; nothing was tuned on them. Films (with --films) have no
true views at all: their first frames are converted with depth from motion.

Columns, `right` and `both` side by side. Holes: % of the pixels of both views, and the width that 99 % of
the hole pixels inside the frame do not exceed, px. PSNR of both views together: of the mean of both views'
squared errors. In the same place: the right view where `right` has its holes. HaarPSI: around these, and
around the holes that `both` has in the left view, which is exact with `right`. Consistency: PSNR of the left
view against the right one at the true correspondence, and of the true views.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from command import existing, make_parser, run
from depth_edges import Scene, fill_unknown, film_frames, matched, pair, read_image
from machine import machine
from torch import Tensor

from secondeye.conversion import render
from secondeye.conversion.bundle import SHIPPED, settings_from_bundle
from secondeye.conversion.bundle_parts import weights_folder
from secondeye.conversion.convert import convert
from secondeye.conversion.views import BOTH, RIGHT, VIEWS, View
from secondeye.conversion.warped_window import warped_window
from secondeye.evaluation.score_crops import extract_crops, find_crops
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8, mirror, occlusion_mask
from secondeye.inpaint import Conditioning, Inpainter, Warped, inpaint_shot, make_inpainter
from secondeye.inpaint.fill import fill_shot
from secondeye.metrics.image_quality import decibels, psnr_db
from secondeye.metrics.perceptual import haarpsi
from secondeye.synthetic import render as rendering
from secondeye.synthetic import render_shot
from secondeye.video.probe import probe
from secondeye.video.read import decode_film
from secondeye.video.write import write_film
from secondeye.warp import warp

SEED, HEIGHT, WIDTH, FRAMES = 90_700, 288, 512, 4  # no preset uses these seeds
SCREEN_PX = 8  # disparity of the screen plane
FILM_FRAMES = 24
STILLS = (  # left, right, largest disparity of the search
    ("crestereo", "pair_creste/left.png", "pair_creste/right.png", 64),
    ("kitti 0", "sq_kitti1/image_l/000000.png", "sq_kitti1/image_r/000000.png", 128),
    ("kitti 19", "sq_kitti1/image_l/000019.png", "sq_kitti1/image_r/000019.png", 128),
)
WIDEST_PERCENTILE = 99
COLUMNS = (
    "scene",
    "holes, %",
    "widest hole, px",
    "PSNR of both views, dB",
    "in the holes, dB",
    "in the same place, dB",
    "HaarPSI, right view",
    "HaarPSI, left view",
    "consistency, dB",
    "of the true views, dB",
)


class Case(NamedTuple):
    """True views, and one midway between them."""

    name: str
    left: Tensor  # uint8 [T, H, W, 3], as are the next two
    middle: Tensor
    right: Tensor
    left_disparity: Tensor  # [T, 1, H, W] px between left and right, of the left view
    middle_disparity: Tensor  # [T, 1, H, W] px between left and right, of the middle view
    right_disparity: Tensor  # [T, 1, H, W] px between left and right, of the right view
    in_both: Tensor  # bool [T, 1, H, W]: pixels of the right view that the left one sees


class Made(NamedTuple):
    """A synthesised view."""

    frames: Tensor  # uint8 [T, H, W, 3]
    holes: Tensor  # bool [T, 1, H, W]


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--footage", type=existing, help="folder of stereo pairs and films")
    parser.add_argument("--films", type=existing, nargs="*", default=[])
    parser.add_argument("--inpainter", choices=("fill", "light"), default="fill")
    options = parser.parse_args()
    print(f"{machine()}, inpainter {options.inpainter}\n")
    inpainter = make_inpainter(options.inpainter, weights_folder(SHIPPED, "inpaint"), "cpu")
    if options.shots or options.footage:
        print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for case in cases(options.shots, options.footage):
        print(f"| {case.name} | {compare(case, inpainter)} |", flush=True)
    if options.films:
        print("\n| film | holes, % | widest hole, px | processor time, ms per frame |\n|---|---|---|---|")
    for film in options.films:
        print(f"| {film.stem} | {convert_both_ways(film, options.inpainter)} |", flush=True)


def cases(shots: int, footage: Path | None) -> Iterator[Case]:
    """Yield synthetic shots, and real pairs with an interpolated middle view."""
    for seed in range(SEED, SEED + shots):
        yield three_cameras(seed)
    for scene in real_pairs(footage) if footage else ():
        yield with_middle(converged(scene))


def three_cameras(seed: int) -> Case:
    """Render a shot from three cameras in a row."""
    whole = render_shot(seed, FRAMES, HEIGHT, WIDTH, screen_px=SCREEN_PX)
    choose = rendering._choose_settings

    def halve(*given: object) -> rendering._ShotSettings:
        chosen = choose(*given)  # type: ignore[arg-type]
        return replace(chosen, baseline_m=chosen.baseline_m / 2)

    with patch.object(rendering, "_choose_settings", halve):
        half = render_shot(seed, FRAMES, HEIGHT, WIDTH, screen_px=SCREEN_PX // 2)
    return Case(
        name=f"synthetic {seed}",
        left=frames_to_uint8(whole.left),
        middle=frames_to_uint8(half.right),
        right=frames_to_uint8(whole.right),
        left_disparity=whole.disparity,
        middle_disparity=2 * half.right_disparity,
        right_disparity=whole.right_disparity,
        in_both=~whole.right_occlusion,
    )


def real_pairs(footage: Path) -> Iterator[Scene]:
    """Yield the stereo pairs and films of the footage."""
    folder = footage / "pair_motorcycle"
    disparity = np.load(folder / "disp.npz")["arr_0"].astype(np.float32)
    yield pair("motorcycle", folder / "left.png", folder / "right.png", disparity)
    folder = footage / "pair_cones"
    disparity = read_image(folder / "disp2.png")[:, :, 0].astype(np.float32) / 4
    disparity[disparity == 0] = np.inf
    yield pair("cones", folder / "im2.png", folder / "im6.png", disparity)
    yield from film_frames(footage / "sv_candle_ego/candle_ego_sbs_2560x720.mp4", (20, 140, 260), 128)
    yield from film_frames(footage / "sv_toon_shot/shot_sbs.mp4", (5, 40), 64)
    for name, left, right, reach_px in STILLS:
        one, other = (read_image(footage / path)[:, :, ::-1] for path in (left, right))
        yield matched(name, one, other, reach_px)


def converged(scene: Scene) -> Scene:
    """Shift the views so that the median disparity lies on the screen, and crop both to what is left."""
    shift = 2 * round(float(scene.disparity.median()) / 2)
    width = scene.disparity.shape[-1] - shift
    left, right = scene.left[:, :, shift:].contiguous(), scene.right[:, :, :width].contiguous()
    return Scene(scene.name, left, right, (scene.disparity[..., shift:] - shift).contiguous())


def with_middle(scene: Scene) -> Case:
    """Interpolate the middle view: from the left view where that sees it, else from the right one."""
    across = warp(scene.left, scene.disparity)
    right_disparity = known_disparity(across.disparity, across.coverage)
    from_left = warp(scene.left, scene.disparity / 2)
    turned = warp(mirror(scene.right), mirror(right_disparity / 2))
    from_right = [mirror(plane) for plane in turned]
    in_left = from_left.coverage == 1
    middle = torch.where(in_left.permute(0, 2, 3, 1), from_left.frames, from_right[0])
    disparity = 2 * torch.where(in_left, from_left.disparity, from_right[2])
    coverage = torch.where(in_left, from_left.coverage, from_right[1])
    disparity = known_disparity(disparity, coverage)
    middle = inpaint_shot(fill_shot, [Warped(middle, middle, coverage, disparity)])
    return Case(
        name=scene.name,
        left=scene.left,
        middle=middle,
        right=scene.right,
        left_disparity=scene.disparity,
        middle_disparity=disparity,
        right_disparity=right_disparity,
        in_both=~occlusion_mask(across.coverage),
    )


def known_disparity(disparity: Tensor, coverage: Tensor) -> Tensor:
    """Continue the background where nothing is covered."""
    planes = torch.where(coverage > 0.5, disparity, torch.inf)[:, 0].numpy()
    return torch.from_numpy(np.stack([fill_unknown(plane) for plane in planes]))[:, None]


def compare(case: Case, inpainter: Inpainter) -> str:
    """Return the row of a case, `right` before `both` in each cell."""
    right_only = synthesise(case.left, case.left_disparity, View("right", 1.0), inpainter)
    exact = Made(case.left, torch.zeros_like(right_only.holes))
    left, right = (
        synthesise(case.middle, case.middle_disparity, View(name, 0.5), inpainter)
        for name in ("left", "right")
    )
    truth = case.left, case.right
    pairs = (exact, right_only), (left, right)
    same = inside(right_only.holes)
    cells = [
        [share_percent(pair) for pair in pairs],
        [widest_px([view.holes for view in pair]) for pair in pairs],
        [pooled_db(pair, truth, whole=True) for pair in pairs],
        [pooled_db(pair, truth, whole=False) for pair in pairs],
        [psnr_db(floats(view.frames), floats(case.right), same) for view in (right_only, right)],
        [haarpsi_around(view, case.right, same) for view in (right_only, right)],
        [haarpsi_around(view, case.left, inside(left.holes)) for view in (exact, left)],
        [consistency_db(pair[0].frames, pair[1].frames, case) for pair in pairs],
    ]
    digits = (2, 0, 2, 2, 2, 3, 3, 2)
    texts = [" / ".join(f"{value:.{n}f}" for value in cell) for cell, n in zip(cells, digits, strict=True)]
    return " | ".join([*texts, f"{consistency_db(*truth, case):.2f}"])


def synthesise(source: Tensor, disparity: Tensor, view: View, inpainter: Inpainter) -> Made:
    """Make one view as a conversion does, from exact disparity."""
    warped = warped_window(view.turn(source), view.turn(view.share * disparity), "warp")
    frames = inpaint_shot(inpainter, [warped])
    return Made(view.turn(frames), view.turn(occlusion_mask(warped.coverage)))


def floats(frames: Tensor) -> Tensor:
    return frames_from_uint8(frames)


def share_percent(views: tuple[Made, Made]) -> float:
    return 100 * float(torch.stack([view.holes for view in views]).float().mean())


def runs(holes: Tensor) -> np.ndarray:  # int [N, 3] row over all frames, first column, one past the last
    """Return the runs of hole pixels in rows."""
    rows = holes.flatten(0, 2).numpy().astype(np.int8)
    steps = np.diff(rows, axis=1, prepend=0, append=0)
    row, start = np.nonzero(steps == 1)
    return np.stack([row, start, np.nonzero(steps == -1)[1]], 1)


def inside(holes: Tensor) -> Tensor:  # bool, like `holes`
    """Return the holes that do not touch the left or right border of the frame."""
    kept, width = holes.clone(), holes.shape[-1]
    rows = kept.flatten(0, 2)
    for row, start, stop in runs(holes):
        if start == 0 or stop == width:
            rows[row, start:stop] = False
    return rows.reshape(holes.shape)


def widest_px(holes: list[Tensor]) -> float:
    """Return the width that WIDEST_PERCENTILE % of the hole pixels inside the frame do not exceed."""
    widths = np.concatenate([np.diff(runs(inside(each))[:, 1:], axis=1)[:, 0] for each in holes])
    return float(np.percentile(np.repeat(widths, widths), WIDEST_PERCENTILE)) if len(widths) else 0.0


def pooled_db(views: tuple[Made, Made], truth: tuple[Tensor, Tensor], *, whole: bool) -> float:
    """Return the PSNR of both views together, of all pixels or of those in holes inside the frame."""
    errors = []
    for view, true in zip(views, truth, strict=True):
        error = (floats(view.frames) - floats(true)).double().square().mean(1, keepdim=True)
        errors.append(error.flatten() if whole else error[inside(view.holes)])
    return decibels(float(torch.cat(errors).mean()))


def haarpsi_around(view: Made, truth: Tensor, holes: Tensor) -> float:
    """Return the mean HaarPSI of crops around holes."""
    crops = find_crops(holes)
    if not len(crops.corners):
        return float("nan")
    scores = haarpsi(*(extract_crops(floats(frames), crops) for frames in (view.frames, truth)))
    return float((scores * crops.weights).sum() / crops.weights.sum())


def consistency_db(left: Tensor, right: Tensor, case: Case) -> float:
    """Return the PSNR of the left view, sampled at the true correspondence, against the right one."""
    height, width = case.right_disparity.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = columns + case.right_disparity[:, 0]
    grid = torch.stack([2 * x / (width - 1) - 1, (2 * rows / (height - 1) - 1).expand_as(x)], -1)
    sampled = F.grid_sample(floats(left), grid, mode="bicubic", align_corners=True).clamp(0, 1)
    return psnr_db(sampled, floats(right), case.in_both & ((x >= 0) & (x <= width - 1))[:, None])


def convert_both_ways(film: Path, inpainter: str) -> str:
    """Convert the first frames of a film with each choice, after a warm-up; return its row."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "film.mkv"
        images = (frame.rgb for frame in islice(decode_film(film), FILM_FRAMES))
        write_film(start, images, probe(film).fps, crf=4)
        for views in (RIGHT, *VIEWS):
            rows.append(convert_and_watch(start, views, inpainter))
    cells = zip(*rows[1:], (2, 0, 0), strict=True)
    return " | ".join(f"{one:.{digits}f} / {other:.{digits}f}" for one, other, digits in cells)


def convert_and_watch(film: Path, views: str, inpainter: str) -> tuple[float, float, float]:
    """Convert a film; return the share of holes, %, the widest, px, and ms of processor time per frame."""
    settings = settings_from_bundle(
        None, 3.0, 0.5, views=views, depth="motion", inpainter=inpainter, mono=True, preset="ultrafast"
    )
    holes: list[Tensor] = []

    def watch(left: Tensor, disparity: Tensor, conditioning: Conditioning) -> Warped:
        warped = warped_window(left, disparity, conditioning)
        holes.append(occlusion_mask(warped.coverage))
        return warped

    with patch.object(render, "warped_window", watch), redirect_stdout(sys.stderr):
        began = time.process_time()
        convert(film, None, settings, overwrite=True, log=lambda line: None)
        took = 1000 * (time.process_time() - began) / FILM_FRAMES
    found, made = sum(int(each.sum()) for each in holes), sum(each.numel() for each in holes)
    both_views = made if views == BOTH else 2 * made
    return 100 * found / both_views, widest_px(holes), took


if __name__ == "__main__":
    run(main)
