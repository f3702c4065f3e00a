"""Measure how well the stage `shift` finds stereo misalignment, against the 1st percentile of SGBM.

    python benchmarks/dataset_shift.py [--scenes 3] [--shots 24]

Rendered scenes 1280 px wide whose farthest point is textured are misaligned by known amounts; the ground
truth is the 1st percentile of the exact disparity. Then synthetic shots at working size, each in both view
orders, and real footage if SECONDEYE_FOOTAGE is set.
"""

import os
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from command import make_parser, run
from machine import machine
from torch import Tensor

from secondeye.dataset.corrections import apply_vertical
from secondeye.dataset.schema import Correction
from secondeye.execution.incremental import BadClip
from secondeye.film.packing import crop_and_resize, unpack
from secondeye.imaging.arrays import frames_from_uint8, resize
from secondeye.imaging.optical_flow import to_gray
from secondeye.params import Shift, load_params
from secondeye.report.contact_sheet import read_image
from secondeye.stages.film_alignment import align_clips, sample_clip
from secondeye.stages.stereo_pair import find_corrections
from secondeye.synthetic import Shot
from secondeye.synthetic.render import render_shot
from secondeye.video.read import decode_film

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml").shift
WIDE_SEEDS = (7, 10, 12)
OFFSETS, ROWS, CASTS = (-80, -13, 0, 37, 80), (-8, 3), (0.85, 1.0, 1.15)
SAMPLE_SHOTS = 24
HEIGHT, WIDTH = 256, 448


def table(scenes: int = len(WIDE_SEEDS), shots: int = SAMPLE_SHOTS) -> str:
    """Return all tables as Markdown."""
    return "\n\n".join([_grid(scenes), _sample(shots), *_footage()])


def _grid(scenes: int) -> str:
    columns = "shift error, px | SGBM error, px | row error, px | gain error | swapped views detected"
    lines = [f"| offset, px | {columns} |", "|---|---|---|---|---|---|"]
    shots = [render_shot(seed, 1, 360, 1280) for seed in WIDE_SEEDS[:scenes]]
    for offset_px in OFFSETS:
        errors = np.array(
            [_errors(shot, offset_px, down_px, cast) for shot in shots for down_px in ROWS for cast in CASTS]
        )
        worst, found = errors[:, :4].max(0), errors[:, 4].mean()
        figures = " | ".join(f"{value:.0f}" for value in worst[:3])
        lines.append(f"| {offset_px} | {figures} | {worst[3]:.2f} | {found:.0%} |")
    cases = len(shots) * len(ROWS) * len(CASTS)
    return "\n".join([f"Each row is the worst of {cases} cases, 1280 px wide.", "", *lines])


def _errors(shot: Shot, offset_px: int, down_px: int, cast: float) -> tuple[float, ...]:
    truth = int(torch.quantile(shot.disparity[..., ::2, ::2], 0.01)) - PARAMS.margin_px + offset_px
    left, right = apply_vertical(shot.left, shot.right, -down_px)
    colours = torch.tensor([cast, 1.0, 1 / cast]).view(3, 1, 1)
    right = (torch.roll(right, -offset_px, dims=-1) * colours).clamp(0, 1)
    found = _row(left, right)
    assert isinstance(found, Correction), found
    back = _row(right, left)
    return (
        abs(found.shift_px - truth),
        abs(_sgbm_shift(left, right) - truth),
        abs(found.vertical_px - down_px),
        abs(found.red_gain * cast - 1),
        float(isinstance(back, Correction) and back.swapped and not found.swapped),
    )


def _row(left: Tensor, right: Tensor, shift: Shift = PARAMS) -> Correction | str:
    try:
        clips = [clip for shot in range(2) if (clip := sample_clip(left, right, shot, shift))]
        found = align_clips(clips, shift, stated=False)  # as for a film with two such shots
        return find_corrections(left, right, shift, "", "", rectification=None, order=found.order)
    except BadClip as bad:
        return bad.reason


def _sgbm_shift(left: Tensor, right: Tensor) -> int:
    """Return the baseline's shift: the 1st percentile of SGBM at a quarter of the size."""
    height, width = left.shape[-2:]
    reach = 16 * -(-width // 4 * 25 // 1600)
    matcher = cv2.StereoSGBM.create(-reach, 2 * reach, 5, 200, 800, 1, 31, 10, 30, 1)
    found = []
    for pair in zip(*(to_gray(resize(eye, height // 4, width // 4)) for eye in (left, right)), strict=True):
        padded = (np.pad(picture, ((0, 0), (reach, reach)), "edge") for picture in pair)
        sixteenths = matcher.compute(*padded)[:, reach:-reach]
        found.append(sixteenths[sixteenths >= -reach * 16] / 16)
    return int(np.floor(np.percentile(np.concatenate(found), 1) * 4)) - PARAMS.margin_px


def _sample(shots: int) -> str:
    """Return a table for synthetic shots at working size: view order, and stability under noise."""
    right, lost, false, moved, seconds = 0, 0, 0, [], []
    for seed in range(shots):
        shot = render_shot(seed, 2, HEIGHT, WIDTH)
        start = time.perf_counter()
        there = _row(shot.left, shot.right)
        seconds.append(time.perf_counter() - start)
        back = _row(shot.right, shot.left)
        if isinstance(there, str) or isinstance(back, str):
            lost += 1
            continue
        right, false = right + (back.swapped and not there.swapped), false + there.swapped
        noise = torch.randn(2, *shot.left.shape, generator=torch.Generator().manual_seed(seed)) * 8 / 255
        again = _row((shot.left + noise[0]).clamp(0, 1), (shot.right + noise[1]).clamp(0, 1))
        moved.append(abs(again.shift_px - there.shift_px) if isinstance(again, Correction) else 99)
    columns = "rejected | swapped detected | swapped falsely | noise moves by 0, 1, more px | ms per clip"
    lines = [f"| shots | {columns} |"]
    counts = f"{moved.count(0)}, {moved.count(1)}, {sum(px > 1 for px in moved)}"
    lines += ["|---|---|---|---|---|---|"]
    lines += [f"| {shots} | {lost} | {right} | {false} | {counts} | {np.median(seconds) * 1000:.0f} |"]
    return "\n".join([f"Synthetic shots, 2 frames, {WIDTH} px wide; noise of 8 levels.", "", *lines])


def _footage() -> Iterator[str]:
    root = os.environ.get("SECONDEYE_FOOTAGE")
    if not root:
        return
    lines = ["| film | shift, px | near, px | rows, px | evidence | of swapped views | ms per clip |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, left, right in _films(Path(root)):
        start = time.perf_counter()
        there = _row(left, right)
        seconds = time.perf_counter() - start
        back = _row(right, left)
        if isinstance(there, str) or isinstance(back, str):
            lines.append(f"| {name} | {there if isinstance(there, str) else back} | | | | | |")
            continue
        lines.append(
            f"| {name} | {there.shift_px} | {there.near_px:.1f} | {there.vertical_px} | "
            f"{there.view_order_evidence:+.2f} | {back.view_order_evidence:+.2f} | {seconds * 1000:.0f} |"
        )
    yield "\n".join([f"Real footage, {WIDTH} px wide.", "", *lines])


def _films(root: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    for path in ("sv_candle_ego/candle_ego_sbs_2560x720.mp4", "sv_toon_shot/shot_sbs.mp4"):
        pairs = [unpack(picture.rgb, "sbs") for picture in islice(decode_film(root / path), 25)]
        left, right = (_frames([pair[side] for pair in pairs]) for side in (0, 1))
        yield Path(path).stem, left, right
    left, right = (
        _frames([read_image(path) for path in sorted((root / "sq_kitti1" / name).glob("*.png"))])
        for name in ("image_l", "image_r")
    )
    yield "kitti1", left, right


def _frames(pictures: list[np.ndarray]) -> Tensor:
    fitted = np.stack([crop_and_resize(picture, HEIGHT, WIDTH, Fraction(1)) for picture in pictures])
    return frames_from_uint8(torch.from_numpy(fitted))


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=int, default=len(WIDE_SEEDS), choices=(1, 2, 3))
    parser.add_argument("--shots", type=int, default=SAMPLE_SHOTS, help="synthetic shots at working size")
    print(f"{machine()}\n\n{table(**vars(parser.parse_args()))}")


if __name__ == "__main__":
    run(main)
