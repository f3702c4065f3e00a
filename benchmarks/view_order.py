"""Count how often the stage `shift` keeps, exchanges or doubts the views of pairs given in both orders.

    SECONDEYE_FOOTAGE=... python benchmarks/view_order.py [--shots 30]

Every pair is a film of its own; then the clips of a real film, and every three synthetic shots, are one film.
The rule before: exchange if the median evidence of the occlusion strips is at most -0.15, of one clip -0.5.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from command import make_parser, run
from machine import machine
from torch import Tensor

from secondeye.alignment.order_cues import OrderCues, judge_order
from secondeye.film.packing import crop_and_resize, unpack
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.params import load_params
from secondeye.report.contact_sheet import read_image
from secondeye.stages.film_alignment import align_clips, sample_clip
from secondeye.synthetic.render import render_shot
from secondeye.video.read import decode_film

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml").shift
HEIGHT, WIDTH = 256, 448
SHOTS, FIRST_SEED, FRAMES = 30, 100, 6
SHOTS_OF_FILM = 3
SCREENS_PX = 0, 6, 9  # by which the right view is shifted, in turn
CLIP_FRAMES = 12
FILMS = {  # place: step between its clips, frames used
    "sv_candle_ego/candle_ego_sbs_2560x720.mp4": (48, 252),
    "sv_toon_shot/shot_sbs.mp4": (24, 60),
}
STILLS = (
    ("pair_motorcycle/left.png", "pair_motorcycle/right.png"),
    ("pair_cones/im2.png", "pair_cones/im6.png"),
    ("pair_creste/left.png", "pair_creste/right.png"),
)
Pair = tuple[str, int, Tensor, Tensor]  # film, shot, views [T, 3, H, W]


def table(shots: int = SHOTS) -> str:
    """Return the table as Markdown."""
    films: dict[str, list[tuple[int, OrderCues, OrderCues]]] = {}
    for film, shot, left, right in (*_real_pairs(), *_synthetic_pairs(shots)):
        films.setdefault(film, []).append((shot, _cues(left, right, shot), _cues(right, left, shot)))
    real = [clips for film, clips in films.items() if not film.startswith("synthetic")]
    synthetic = [clips for film, clips in films.items() if film.startswith("synthetic")]
    groups = {
        "real clips and stills": [[clip] for clips in real for clip in clips],
        "synthetic shots": [[clip] for clips in synthetic for clip in clips],
        "real films": [clips for clips in real if len(clips) > 1],
        f"synthetic films of {SHOTS_OF_FILM} shots": synthetic,
    }
    columns = "in order: kept, uncertain, exchanged | swapped: exchanged, uncertain, kept"
    lines = [f"| pairs | number | rule | {columns} |", "|---|---|---|---|---|"]
    for kind, group in groups.items():
        for rule, judge in (("before", _judge_before), ("now", _judge)):
            there = Counter(judge([(shot, cues) for shot, cues, _ in clips]) for clips in group)
            back = Counter(judge([(shot, cues) for shot, _, cues in clips]) for clips in group)
            kept = ", ".join(str(there[verdict]) for verdict in ("kept", "uncertain", "exchanged"))
            swapped = ", ".join(str(back[verdict]) for verdict in ("exchanged", "uncertain", "kept"))
            lines.append(f"| {kind} | {len(group)} | {rule} | {kept} | {swapped} |")
    return "\n".join(lines)


def _cues(left: Tensor, right: Tensor, shot: int) -> OrderCues:
    clip = sample_clip(left, right, shot, PARAMS)
    return align_clips([clip] if clip else [], PARAMS, stated=False).order.cues


def _judge(clips: Sequence[tuple[int, OrderCues]]) -> str:
    found = judge_order([cues for _, cues in clips], [shot for shot, _ in clips], stated=False)
    return "exchanged" if found.swapped else "uncertain" if found.uncertain else "kept"


def _judge_before(clips: Sequence[tuple[int, OrderCues]]) -> str:
    median = np.median([cues.strips for _, cues in clips])
    return "exchanged" if median <= (-0.15 if len(clips) > 1 else -0.5) else "kept"


def _real_pairs() -> Iterator[Pair]:
    root = Path(os.environ.get("SECONDEYE_FOOTAGE", ""))
    if not os.environ.get("SECONDEYE_FOOTAGE"):
        return
    for place, (step, count) in FILMS.items():
        pairs = [unpack(frame.rgb, "sbs") for frame in islice(decode_film(root / place), count)]
        for start in range(0, count - CLIP_FRAMES + 1, step):
            left, right = (_frames([pair[eye] for pair in pairs[start:][:CLIP_FRAMES]]) for eye in (0, 1))
            yield place, 0, left, right
    eyes = [sorted((root / "sq_kitti1" / name).glob("*.png")) for name in ("image_l", "image_r")]
    for start in (0, 10):
        left, right = (_frames([read_image(path) for path in eye[start:][:8]]) for eye in eyes)
        yield "kitti", 0, left, right
    for left_place, right_place in STILLS:
        left, right = (_frames([read_image(root / place)]) for place in (left_place, right_place))
        yield left_place, 0, left, right


def _synthetic_pairs(shots: int) -> Iterator[Pair]:
    for number in range(shots):
        screen_px = SCREENS_PX[number % len(SCREENS_PX)]
        shot = render_shot(FIRST_SEED + number, FRAMES, HEIGHT, WIDTH, screen_px=screen_px)
        yield f"synthetic {number // SHOTS_OF_FILM}", number, shot.left, shot.right


def _frames(images: Sequence[np.ndarray]) -> Tensor:
    fitted = np.stack([crop_and_resize(image, HEIGHT, WIDTH, Fraction(1)) for image in images])
    return frames_from_uint8(torch.from_numpy(fitted))


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--shots", type=int, default=SHOTS, help="synthetic shots")
    print(f"{machine()}\n\n{table(**vars(parser.parse_args()))}")


if __name__ == "__main__":
    run(main)
