"""Measure how far frames of the same and of other films differ, and what `data external` finds on real films.

    SECONDEYE_FOOTAGE=... python benchmarks/same_frames.py

First table: `picture_share` of right views against the left view of the same frame, against other films, and
against the mirrored left view. The thresholds of pictures were set with all of these films in view, those of
timing before any of them was tried.
Second table: films that come back, as H.264 of crf 28, whole or with an error; packed or a right view alone.
"""

import os
import tempfile
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from command import run
from machine import machine
from real_films import FILMS

from secondeye.evaluation.pack_external import pack_films
from secondeye.evaluation.same_frames import MAX_SHARE, picture_share, thumbnail
from secondeye.film.packing import crop_and_resize, pack
from secondeye.sources.source import Source
from secondeye.sources.views import read_stereo_frames
from secondeye.system.errors import UserError
from secondeye.video.write import write_film, write_lossless_film

FRAMES, WIDTH, FPS = 60, 480, Fraction(25)
Images = list[np.ndarray]
ERRORS: dict[str, Callable[[Images, Images], Images]] = {  # of a film's images and another film's
    "none": lambda film, other: film,
    "one frame late": lambda film, other: film[:1] + film[:-1],
    "doubled in the middle": lambda film, other: film[: len(film) // 2 + 1] + film[len(film) // 2 : -1],
    "dropped in the middle": lambda film, other: (
        film[: len(film) // 2] + film[len(film) // 2 + 1 :] + film[-1:]
    ),
    "another film": lambda film, other: (other * len(film))[: len(film)],
    "black": lambda film, other: [np.zeros_like(image) for image in film],
    "mirrored": lambda film, other: [image[:, ::-1] for image in film],
}


def views_of(footage: Path, name: str) -> tuple[Images, Images]:
    film = next(film for film in FILMS if film.name == name)
    source = Source(film.name, tuple(footage / path for path in film.paths), film.packing, "", "", "")
    height, width = next(iter(read_stereo_frames(source))).left.shape[:2]
    size = round(height * WIDTH / width / 2) * 2, WIDTH
    frames = list(islice(read_stereo_frames(source, size=size), FRAMES))
    return [frame.left for frame in frames], [frame.right for frame in frames]


def shares(views: dict[str, tuple[Images, Images]]) -> list[str]:
    small = {
        name: [[thumbnail(image) for image in view[:: max(1, len(view) // 10)]] for view in pair]
        for name, pair in views.items()
    }
    lines = [
        "| film | same frame: median, highest | other films: lowest | mirrored: lowest |",
        "|---|---|---|---|",
    ]
    for name, (lefts, rights) in small.items():
        others = [left for other, (found, _) in small.items() if other != name for left in found[:3]]
        same, foreign, mirrored = (
            [share for share in found if share is not None]
            for found in (
                [picture_share(*pair) for pair in zip(rights, lefts, strict=True)],
                [picture_share(right, other) for right in rights[:3] for other in others],
                [picture_share(right[:, ::-1], left) for right, left in zip(rights, lefts, strict=True)],
            )
        )
        lines.append(
            f"| {name} | {np.median(same):.2f}, {max(same):.2f} | {min(foreign):.2f} | {min(mirrored):.2f} |"
        )
    return lines


def verdict(folder: Path, name: str, views: tuple[Images, Images], packed: bool, images: Images) -> str:
    """Return what `data external` says of a film: filed, unclear, or why it is refused."""
    raw, film, said = folder / f"{name}_sbs.mkv", folder / f"{name}.mp4", list[str]()
    if not raw.exists():
        pairs = zip(*views, strict=True)
        write_lossless_film(raw, (pack(*pair, "sbs") for pair in pairs), FPS, Fraction(1))
    write_film(film, iter(images), FPS, crf=28)
    source = Source(raw.name, (raw,), "sbs", "", "", "")
    packing = "sbs" if packed else "right"
    try:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            options = {"original": name, "packing": packing, "skip_frames": 0, "log": said.append}
            pack_films([film], [source], Path(out), "x", **options)  # type: ignore[arg-type]
    except UserError as error:
        return str(error).removeprefix(f"{film}: ").split(";")[0]
    return "filed; unclear" if any("motion does not show" in line for line in said) else "filed"


def table(footage: Path) -> str:
    views = {film.name: views_of(footage, film.name) for film in FILMS}
    lines = [machine(), "", *shares(views), "", f"Threshold: {MAX_SHARE}.", ""]
    lines += ["| film | error | packed | right view alone |", "|---|---|---|---|"]
    moving = [name for name in views if len(views[name][0]) > 1]
    with tempfile.TemporaryDirectory() as folder:
        for name in moving:
            other = views[moving[moving.index(name) - 1]]
            packed = [pack(*pair, "sbs") for pair in zip(*views[name], strict=True)]
            height = packed[0].shape[0]
            foreign = [
                [crop_and_resize(image, height, WIDTH, Fraction(1)) for image in view] for view in other
            ]
            foreign_packed = [pack(left, right, "sbs") for left, right in zip(*foreign, strict=True)]
            for error, made in ERRORS.items():
                cells = (
                    verdict(Path(folder), name, views[name], True, made(packed, foreign_packed)),
                    verdict(Path(folder), name, views[name], False, made(views[name][1], foreign[1])),
                )
                lines.append(f"| {name} | {error} | {cells[0]} | {cells[1]} |")
            cell = verdict(Path(folder), name, views[name], False, views[name][0])
            lines.append(f"| {name} | the left view | | {cell} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(lambda: print(table(Path(os.environ["SECONDEYE_FOOTAGE"]))))
