"""Find burnt-in text and logos in real films, as they are and with a caption and a logo laid over.

    python benchmarks/still_parts.py FILM...

Both films are decoded by what plans a conversion; the second is encoded with x264 at crf 23 before. Columns:
shots; shots whose caption and whose logo is found, at least 95 % of its pixels; shots of the unchanged film
in which something is found, and the pixels of it, % of the frame; the same beside caption and logo.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from command import existing, make_parser

from secondeye.film.cuts import CUT_THRESHOLD, shortest_shot_frames
from secondeye.film.overlays import unpack_mask
from secondeye.film.shots import ShotPlan, plan_shots
from secondeye.film.view import frame_decoder
from secondeye.video.probe import probe
from secondeye.video.write import write_film

COLUMNS = ("film", "shots", "caption", "logo", "invented in", "% of the frame", "beside caption and logo, %")
CRF = 23
FOUND_SHARE = 0.95  # of the pixels of a caption or logo
LEVEL, OPACITY = 235, 0.95
NEAR_SHARE = 0.015  # of the width: what belongs to a caption or logo


def main() -> None:
    """Measure the films and print a row for each."""
    parser = make_parser(__doc__)
    parser.add_argument("films", nargs="+", type=existing)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for film in parser.parse_args().films:
        print(f"| {film.name} | {measure(film)} |", flush=True)


def measure(film: Path) -> str:
    """Return the row of a film."""
    plain = plan(film)
    size = plain.info.height, plain.info.width
    caption, logo = lettering(*size)
    with tempfile.TemporaryDirectory() as folder:
        burnt = Path(folder) / "burnt.mp4"
        write_film(burnt, lay_over(film, caption | logo), plain.info.fps, crf=CRF)
        masks = overlays(plan(burnt))
    invented = overlays(plain)
    near = round(NEAR_SHARE * size[1])
    around = cv2.dilate((caption | logo).view(np.uint8), np.ones((2 * near + 1, 2 * near + 1), np.uint8)) > 0
    found = [sum(bool(mask[part].mean() >= FOUND_SHARE) for mask in masks) for part in (caption, logo)]
    beside = 100 * float(np.mean([mask[~around].mean() for mask in masks]))
    share = 100 * float(np.mean([mask.mean() for mask in invented]))
    counts = " | ".join(f"{count} of {len(masks)}" for count in found)
    wrong = sum(bool(mask.any()) for mask in invented)
    return f"{len(masks)} | {counts} | {wrong} of {len(invented)} | {share:.3f} | {beside:.3f}"


def plan(film: Path) -> ShotPlan:
    """Plan the shots of a film as a conversion does."""
    info = probe(film)
    return plan_shots(info, cut_threshold=CUT_THRESHOLD, min_shot_frames=shortest_shot_frames(info.fps))


def overlays(plan: ShotPlan) -> list[np.ndarray]:  # bool [H, W] of each shot
    """Return the overlay of every shot."""
    size = plan.info.height, plan.info.width
    return [
        unpack_mask(still.overlay, *size) if still.overlay else np.zeros(size, np.bool_)
        for still in plan.still
    ]


def lettering(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:  # bool [H, W] each
    """Return the pixels of a caption in the lower third and of a logo in the upper right corner."""
    scale = height / 480
    caption, logo = (np.zeros((height, width), np.uint8) for _ in range(2))
    place, thick = (round(0.2 * width), round(0.78 * height)), max(1, round(2 * scale))
    cv2.putText(caption, "Chapter One", place, cv2.FONT_HERSHEY_DUPLEX, 1.1 * scale, 255, thick)
    place = round(0.86 * width), round(0.22 * height)
    cv2.putText(logo, "TV5", place, cv2.FONT_HERSHEY_DUPLEX, 0.9 * scale, 255, max(2, round(3 * scale)))
    return caption > 0, logo > 0


def lay_over(film: Path, letters: np.ndarray) -> Iterator[np.ndarray]:  # uint8 [H, W, 3]
    """Yield the frames of a film with white letters that have a dark, soft outline."""
    white = letters.astype(np.float32)
    wide = cv2.dilate(white, np.ones((3, 3), np.uint8))
    strength, outline = (cv2.GaussianBlur(each, (0, 0), 0.6)[..., None] for each in (white, wide))
    for frame in frame_decoder(probe(film))(film):
        darkened = frame.rgb * (1 - 0.8 * outline)
        yield np.round(darkened + OPACITY * strength * (LEVEL - darkened)).astype(np.uint8)


if __name__ == "__main__":
    main()
