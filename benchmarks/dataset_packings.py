"""Check that every packing of a film yields the same views, and measure the cost of unpacking.

    python benchmarks/dataset_packings.py

The film is synthetic and stored losslessly (FFV1; PNG for folders). The baseline is plain decoding of the
same files with the same reader, into whole frames.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from command import make_parser, run
from machine import machine

from secondeye.film.packing import PACKED, packing_axis
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.sources import Source
from secondeye.sources.stills import list_images, read_still
from secondeye.sources.views import read_stereo_frames
from secondeye.synthetic import two_planes
from secondeye.video.read import decode_film
from secondeye.video.write import write_lossless

HEIGHT, WIDTH, FRAMES, REPEATS = 180, 320, 16, 5


def table() -> str:
    """Return a Markdown table with a row per packing."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(Path(folder), packing) for packing in (*PACKED, "pair of films", "pair of folders")]
    head = "| packing | views identical | ms per frame | plain decoding, ms per frame |\n|---|---|---|---|\n"
    what = f"{FRAMES} frames, {WIDTH}x{HEIGHT} per view as stored, best of {REPEATS}"
    return f"{what}\n\n{head}" + "\n".join(rows)


def _row(folder: Path, packing: str) -> str:
    left, right = eyes()
    source = store(folder, packing, left, right)
    identical = all(
        np.array_equal(pair.left, one) and np.array_equal(pair.right, other)
        for pair, one, other in zip(read_stereo_frames(source), left, right, strict=True)
    )
    turns = [
        (_ms(lambda: sum(1 for _ in read_stereo_frames(source))), _ms(lambda: decode(source)))
        for _ in range(REPEATS)
    ]
    reading, plain = (min(times) for times in zip(*turns, strict=True))
    return f"| {packing} | {'yes' if identical else 'no'} | {reading:.2f} | {plain:.2f} |"


def eyes() -> tuple[np.ndarray, np.ndarray]:  # uint8 [FRAMES, HEIGHT, WIDTH, 3] each
    """Render both views of two planes at different depths."""
    shot = two_planes(frames=FRAMES, height=HEIGHT, width=WIDTH, near_px=20, far_px=4, card_px=100, seed=0)
    return frames_to_uint8(shot.left).numpy(), frames_to_uint8(shot.right).numpy()


def store(folder: Path, packing: str, left: np.ndarray, right: np.ndarray) -> Source:
    """Write the film losslessly; half packings contain the same images and only claim to be squeezed."""
    if packing == "pair of folders":
        paths = tuple(_store_folder(folder / name, eye) for name, eye in (("l", left), ("r", right)))
        return Source("l", paths, "pair", "", "", "")
    if packing == "pair of films":
        write_lossless(folder / "l.mkv", left)
        write_lossless(folder / "r.mkv", right)
        return Source("l.mkv", (folder / "l.mkv", folder / "r.mkv"), "pair", "", "", "")
    path = folder / f"{packing}.mkv"
    order = (right, left) if packing.endswith("right-first") else (left, right)
    write_lossless(path, np.concatenate(order, axis=2 if packing_axis(packing) == "sbs" else 1))
    return Source(path.name, (path,), packing, "", "", "")


def _store_folder(folder: Path, eye: np.ndarray) -> Path:
    folder.mkdir()
    for index, image in enumerate(eye):
        cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
    return folder


def decode(source: Source) -> None:
    """Decode every frame of every file."""
    for path in source.paths:
        if path.is_dir():
            for file in list_images(path):
                read_still(file)
        else:
            for _ in decode_film(path):
                pass


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / FRAMES * 1000


def main() -> None:
    """Print the table."""
    make_parser(__doc__).parse_args()
    print(f"{machine()}\n\n{table()}")


if __name__ == "__main__":
    run(main)
