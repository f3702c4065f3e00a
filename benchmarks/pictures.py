"""Make the picture of README.md, and the sheet of six films converted with two revisions of the code.

    python benchmarks/pictures.py bigbuckbunny.mp4 [--before REVISION]

Converts without a network, with what the project contains. The sheet's films are the one given, the film of
`./run demo`, and the left views of four synthetic shots.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from command import existing, make_parser, run
from numpy.typing import NDArray

from secondeye.imaging.arrays import frames_to_uint8
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.video.write import write_film

PROJECT = Path(__file__).resolve().parent.parent
IMAGES = PROJECT / "docs" / "images"
SEEDS, FRAMES, HEIGHT, WIDTH, FPS = (21, 22, 23, 24), 24, 360, 640, 24
TILE_WIDTH_PX, HEADER_HEIGHT_PX, JPEG_QUALITY = 320, 28, 88
INPUT, DEPTH, ANAGLYPH = (0, 0), (0, 1), (1, 1)  # row and column in a preview

Image = NDArray[np.uint8]  # [H, W, 3] BGR


def main() -> None:
    """Write docs/images/big_buck_bunny.jpg, and with --before docs/images/before_and_after.jpg."""
    parser = make_parser(__doc__)
    parser.add_argument("film", type=existing)
    parser.add_argument("--before", metavar="REVISION", help="of this repository, to compare with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_jpeg(IMAGES / "big_buck_bunny.jpg", preview(options.film.resolve(), PROJECT, folder))
        if options.before is None:
            return
        earlier = folder / "earlier"
        git("worktree", "add", "--quiet", "--detach", str(earlier), options.before)
        try:
            films = [options.film.resolve(), PROJECT / "examples" / "clip.mp4", *synthetic_films(folder)]
            rows = [compare(film, earlier, folder) for film in films]
        finally:
            git("worktree", "remove", "--force", str(earlier))
    write_jpeg(IMAGES / "before_and_after.jpg", np.concatenate([header(), *rows]))


def synthetic_films(folder: Path) -> Iterator[Path]:
    """Write the left views of synthetic shots as films."""
    for seed in SEEDS:
        film = folder / f"synthetic_{seed}.mp4"
        left = frames_to_uint8(render_shot(seed, FRAMES, HEIGHT, WIDTH).left).numpy()
        write_film(film, iter(left), Fraction(FPS))
        yield film


def compare(film: Path, earlier: Path, folder: Path) -> Image:
    """Return a row of the sheet: input, depth before and after, anaglyph before and after."""
    before, after = preview(film, earlier, folder), preview(film, PROJECT, folder)
    tiles = [
        tile(after, INPUT),
        tile(before, DEPTH),
        tile(after, DEPTH),
        tile(before, ANAGLYPH),
        tile(after, ANAGLYPH),
    ]
    return np.concatenate(tiles, axis=1)


def header() -> Image:
    """Return the titles of the sheet's columns."""
    titles = ("input", "depth, before", "depth, after", "anaglyph, before", "anaglyph, after")
    bar = np.full((HEADER_HEIGHT_PX, TILE_WIDTH_PX * len(titles), 3), 255, np.uint8)
    for column, title in enumerate(titles):
        place = (column * TILE_WIDTH_PX + 8, HEADER_HEIGHT_PX - 8)
        cv2.putText(bar, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


def preview(film: Path, code: Path, folder: Path) -> Image:
    """Convert a film with the code of a checkout and return the preview of the conversion."""
    picture = folder / "preview.png"
    command = [sys.executable, "-m", "secondeye", "convert", str(film), "--offline", "--overwrite"]
    command += ["--output", str(folder / "converted.mp4"), "--preview", str(picture)]
    environment = {**os.environ, "PYTHONPATH": str(code / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{film}: cannot be converted with {code}: {done.stderr.strip()[-300:]}")
    print(f"{film.name}, {code.name}", flush=True)
    return np.asarray(cv2.imread(str(picture)), np.uint8)


def tile(preview: Image, place: tuple[int, int]) -> Image:
    """Cut a picture out of a preview, at the width of the sheet."""
    height, width = preview.shape[0] // 2, preview.shape[1] // 3
    row, column = place
    cut = preview[row * height : (row + 1) * height, column * width : (column + 1) * width]
    size = (TILE_WIDTH_PX, round(TILE_WIDTH_PX * height / width))
    return np.asarray(cv2.resize(np.ascontiguousarray(cut), size, interpolation=cv2.INTER_AREA), np.uint8)


def write_jpeg(path: Path, picture: Image) -> None:
    """Write a picture."""
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    print(path.relative_to(PROJECT))


def git(*arguments: str) -> None:
    """Run git in the project. Raises UserError if it fails."""
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.strip()}")


if __name__ == "__main__":
    run(main)
