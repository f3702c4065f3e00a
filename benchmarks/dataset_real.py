"""Build the dataset from real stereo films and list every clip, accepted or rejected, with the reason.

    SECONDEYE_FOOTAGE=... python benchmarks/dataset_real.py [FOLDER] [--films candle shot kitti]

Uses the laptop preset at a width of 512 px. FOLDER keeps the dataset for inspection (default: temporary).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from command import make_parser, run
from machine import machine

from presets import load_preset, run_stage
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, Clip, ClipQuality, Correction, RejectedClip
from secondeye.system.errors import UserError

FILMS = {  # name in data/raw: where it lies in the footage
    "candle": {"candle_ego_sbs.mp4": "sv_candle_ego/candle_ego_sbs_2560x720.mp4"},
    "shot": {"shot_sbs.mp4": "sv_toon_shot/shot_sbs.mp4"},
    "kitti": {"kitti1_L": "sq_kitti1/image_l", "kitti1_R": "sq_kitti1/image_r"},
}
STAGES = ("split", "shift", "match", "splat", "quality", "filter")


def table(root: Path | None = None, films: Sequence[str] = tuple(FILMS)) -> str:
    """Return the table, or the reason why there is none."""
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if not footage:
        return "Left out: SECONDEYE_FOOTAGE is not set."
    with TemporaryDirectory() as temporary:
        return _table(Path(footage), root or Path(temporary), films)


def _table(footage: Path, root: Path, films: Sequence[str]) -> str:
    raw = root / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, place in (pair for film in films for pair in FILMS[film].items()):
        if not (raw / name).exists():
            (raw / name).symlink_to(footage / place)
    params = load_preset("laptop")
    params = replace(params, split=replace(params.split, height=288, width=512))
    for stage in STAGES:
        run_stage(stage, root, params)
    return "\n".join(_lines(root))


def _lines(root: Path) -> list[str]:
    dataset = Dataset(root)
    films = {film.id: film.name for film in dataset.films.values()}
    corrections = {row.id: row for row in dataset.rows(Correction)}
    quality = {row.id: row for row in dataset.rows(ClipQuality)}
    verdicts = {row.id: "accepted" for row in dataset.rows(AcceptedClip)}
    rejected = dataset.rows(RejectedClip)
    verdicts |= {row.id: f"{row.stage}: {row.reason} ({row.detail})" for row in rejected}
    lines = ["| film | frames | shift | disparity, % | PSNR, dB | verdict |", "|---|---|---|---|---|---|"]
    for clip in sorted(dataset.rows(Clip), key=lambda clip: (films[clip.film], clip.start)):
        shift, score = corrections.get(clip.id), quality.get(clip.id)
        disparity = (
            f"{score.disparity_min_percent:.1f} to {score.disparity_max_percent:.1f}" if score else "-"
        )
        cells = (
            films[clip.film],
            f"{clip.start}-{clip.stop - 1}",
            f"{shift.shift_px:+d}" if shift else "-",
            disparity,
            f"{score.psnr_db:.1f}" if score else "-",
            verdicts[clip.id],
        )
        lines.append(f"| {' | '.join(cells)} |")
    skipped = sorted((films[row.film], row.reason, row.detail) for row in rejected if row.stage == "split")
    return lines + [
        f"| {film} | - | - | - | - | split: {reason} ({detail}) |" for film, reason, detail in skipped
    ]


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="keeps the dataset (default: temporary)")
    parser.add_argument("--films", nargs="+", choices=tuple(FILMS), default=list(FILMS))
    chosen = parser.parse_args()
    if not os.environ.get("SECONDEYE_FOOTAGE"):
        raise UserError("SECONDEYE_FOOTAGE must name the folder of real films")
    print(f"{machine()}\n\n{table(chosen.folder, chosen.films)}")


if __name__ == "__main__":
    run(main)
