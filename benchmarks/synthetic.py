"""Measure the rendering speed of synthetic shots against encoding them, and the statistics of the shots.

python benchmarks/synthetic.py [--shots 12] [--frames 8]
"""

import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from command import make_parser, run
from machine import machine

from secondeye.imaging.arrays import frames_to_uint8
from secondeye.synthetic import render_shot
from secondeye.video.write import write_film

HEIGHT, WIDTH = 256, 448


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--shots", type=int, default=12)
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    render_shot(0, 1, HEIGHT, WIDTH)  # compiles
    rendering, encoding, reach, hidden = [], [], [], []
    for seed in range(1, options.shots + 1):
        start = time.perf_counter()
        shot = render_shot(seed, options.frames, HEIGHT, WIDTH)
        rendering.append((time.perf_counter() - start) / options.frames)
        pictures = frames_to_uint8(torch.cat([shot.left, shot.right], -1)).numpy()
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_film(Path(folder) / "f.mp4", iter(pictures), Fraction(24))
            encoding.append((time.perf_counter() - start) / options.frames)
        far, near = np.percentile(shot.disparity.numpy(), [1, 99])
        reach.append(100 * (near - far) / WIDTH)
        hidden.append(100 * float(shot.right_occlusion.float().mean()))
    print(
        f"{machine()}\n{options.shots} shots of {options.frames} stereo frames, {WIDTH}x{HEIGHT} per view\n"
    )
    print("| quantity | mean | minimum | maximum |\n|---|---|---|---|")
    rate = 1 / np.array(rendering)
    print(
        f"| stereo frames per second | {1 / np.mean(rendering):.1f} | {rate.min():.1f} | {rate.max():.1f} |"
    )
    ratio = np.mean(rendering) / np.mean(encoding)
    print(f"| time relative to encoding (x264 veryfast, baseline) | {ratio:.1f} | | |")
    print(f"| disparity range, % of the width | {np.mean(reach):.1f} | {min(reach):.1f} | {max(reach):.1f} |")
    print(f"| hidden from the left view, % | {np.mean(hidden):.1f} | {min(hidden):.1f} | {max(hidden):.1f} |")


if __name__ == "__main__":
    run(main)
