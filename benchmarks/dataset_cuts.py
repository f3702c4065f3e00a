"""Count the cuts that the split stage finds, misses and invents, compared with PySceneDetect's defaults.

The cuts of synthetic films are known. Those of real films were annotated by eye; real films are read from
SECONDEYE_FOOTAGE and omitted if it is unset. Blank frames between two shots (a fade to black) belong to no
shot, so a fade counts as one cut that may lie anywhere in it.

    python benchmarks/dataset_cuts.py
"""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from command import make_parser, run
from machine import machine
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from secondeye.dataset.sample_films import write_sample_films
from secondeye.film.cuts import find_cuts
from secondeye.film.frame_checks import check_frame
from secondeye.film.shots import find_shots
from secondeye.params import load_params
from secondeye.video.probe import probe
from secondeye.video.read import decode_film

WIDTH = 256  # px, the analysis width of the split stage
SHOTS, FRAMES, FILMS = 6, 10, 6
SHORTEST = 4  # frames of a shot, as in the presets
Span = tuple[int, int]  # first and last frame that may start the next shot
REAL: dict[str, list[Span]] = {
    "mono_bikes/bikes.mp4": [(cut, cut) for cut in (30, 76, 137, 187, 242)],
    "mono_sintel_30s/test_video_30s.mp4": [
        *((cut, cut) for cut in (286, 356, 523, 573, 610)),  # hard cuts
        (75, 79),  # fade through gray
        *((174, 177), (225, 238), (336, 348), (372, 388), (469, 478), (624, 631)),  # fades through black
    ],
    "mono_bbb/bigbuckbunny.mp4": [],
    "mono_rollercoaster/rollercoaster.mp4": [],
    "mono_rabbit/rabbit320.mp4": [],
}


def table() -> str:
    """Return a Markdown table with a row per detector and kind of film."""
    kinds = {f"{FILMS} synthetic films": synthetic(), **real()}
    lines = [
        "| film | detector | cuts | found | missed | invented |",
        "|---|---|---|---|---|---|",
    ]
    for kind, films in kinds.items():
        for name, detect in DETECTORS.items():
            counts = np.sum(
                [count_cuts(detect(pictures, fps), true) for pictures, fps, true in films], axis=0
            )
            lines.append(f"| {kind} | {name} | {counts[0] + counts[1]} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def synthetic() -> list[tuple[np.ndarray, Fraction, list[Span]]]:
    """Return left views of synthetic films with a cut every few frames."""
    true = [(FRAMES * shot, FRAMES * shot) for shot in range(1, SHOTS)]
    with TemporaryDirectory() as folder:
        films = write_sample_films(
            Path(folder),
            FILMS,
            7,
            height=128,
            width=224,
            frames_per_shot=FRAMES,
            shots_per_film=SHOTS,
            mono_size=(32, 64),
        )[:-1]
        return [(*pictures_of(film, eyes=2), true) for film in films]


def real() -> dict[str, list[tuple[np.ndarray, Fraction, list[Span]]]]:
    """Return the real films by name."""
    folder = os.environ.get("SECONDEYE_FOOTAGE")
    if not folder:
        return {}
    return {name.split("/")[0]: [(*pictures_of(Path(folder) / name), true)] for name, true in REAL.items()}


def pictures_of(film: Path, eyes: int = 1) -> tuple[np.ndarray, Fraction]:
    """Return the first view's frames at analysis size, and the frame rate."""
    info = probe(film)
    size = round(info.height * WIDTH * eyes / info.width), WIDTH * eyes
    return np.stack([picture.rgb[:, :WIDTH] for picture in decode_film(film, size=size)]), info.fps


def count_cuts(found: Sequence[Span], true: Sequence[Span]) -> tuple[int, int, int]:
    """Return the number of cuts found, missed and invented. A detected cut may be a span of blank frames."""
    hit = [any(a <= last and first <= b for a, b in found) for first, last in true]
    invented = [not any(a <= last and first <= b for first, last in true) for a, b in found]
    return sum(hit), len(hit) - sum(hit), sum(invented)


def ours(pictures: np.ndarray, fps: Fraction) -> list[Span]:
    """Detect cuts like the split stage, with its params."""
    split = load_params(Path(__file__).parent.parent / "params.yaml").split
    cuts, _ = find_cuts(
        iter(pictures), fps, threshold=split.cut_threshold, min_shot_frames=split.min_shot_frames
    )
    blank = [check_frame(picture, None).blank for picture in pictures]
    shots = find_shots(cuts, blank, split.min_shot_frames)
    return [(before[1], after[0]) for before, after in pairwise(shots)]


def scenedetect_baseline(
    make: Callable[[], AdaptiveDetector | ContentDetector],
) -> Callable[[np.ndarray, Fraction], list[Span]]:
    """Return a PySceneDetect detector with its default threshold and our minimum shot length."""

    def detect(pictures: np.ndarray, fps: Fraction) -> list[Span]:
        detector, cuts = make(), set()
        for number, picture in enumerate(pictures):
            bgr = np.ascontiguousarray(picture[..., ::-1])
            cuts.update(detector.process_frame(FrameTimecode(number, fps=fps), bgr))
        cuts.update(detector.post_process(FrameTimecode(len(pictures) - 1, fps=fps)))
        return [(cut.frame_num, cut.frame_num) for cut in cuts]

    return detect


DETECTORS = {
    "secondeye": ours,
    "PySceneDetect adaptive": scenedetect_baseline(lambda: AdaptiveDetector(min_scene_len=SHORTEST)),
    "PySceneDetect content": scenedetect_baseline(lambda: ContentDetector(min_scene_len=SHORTEST)),
}


def main() -> None:
    """Print the table."""
    make_parser(__doc__).parse_args()
    print(f"{machine()}\n\n{table()}")


if __name__ == "__main__":
    run(main)
