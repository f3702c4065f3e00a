"""Build the dataset from real stereo films and list every clip, accepted or rejected, with the reason.

    SECONDEYE_FOOTAGE=... python benchmarks/dataset_real.py [FOLDER]

Uses the laptop preset at a width of 512 px. FOLDER keeps the dataset for inspection (default: temporary).
"""

import inspect
import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import machine

from secondeye.dataset.schema import AcceptedClip, Clip, ClipQuality, Correction, Film, RejectedClip
from secondeye.dataset.tables import read_table
from secondeye.params import load_params

PROJECT = Path(__file__).resolve().parent.parent
FILMS = {  # name in data/raw: where it lies in the footage
    "candle_ego_sbs.mp4": "sv_candle_ego/candle_ego_sbs_2560x720.mp4",
    "shot_sbs.mp4": "sv_toon_shot/shot_sbs.mp4",
    "kitti1_L": "sq_kitti1/image_l",
    "kitti1_R": "sq_kitti1/image_r",
}
STAGES = ("split", "shift", "match", "splat", "quality", "filter")


def table(root: Path | None = None) -> str:
    """Return the table, or the reason why there is none."""
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if not footage:
        return "Left out: SECONDEYE_FOOTAGE is not set."
    with TemporaryDirectory() as temporary:
        return _table(Path(footage), root or Path(temporary))


def _table(footage: Path, root: Path) -> str:
    raw = root / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, place in FILMS.items():
        if not (raw / name).exists():
            (raw / name).symlink_to(footage / place)
    params = load_params(PROJECT / "presets" / "laptop.yaml")
    params = replace(params, split=replace(params.split, height=288, width=512))
    for stage in STAGES:
        build(stage, root, params)
    return "\n".join(_lines(root))


def build(stage: str, root: Path, params: object) -> None:
    """Run one dataset stage below `root` with the folders and sections of its signature."""
    run = import_module(f"secondeye.stages.{stage}").run
    asked = inspect.signature(run).parameters.values()
    folders = [root / (stage if a.name == "out" else a.name) for a in asked if a.kind is not a.KEYWORD_ONLY]
    run(*folders, **{a.name: getattr(params, a.name) for a in asked if a.kind is a.KEYWORD_ONLY})


def _lines(root: Path) -> list[str]:
    films = {row.id: row.name for row in read_table(root / "split" / "films.parquet", Film)}
    clips = {row.id: row for row in read_table(root / "split" / "clips.parquet", Clip)}
    shifted = {row.id: row for row in read_table(root / "shift" / "shift.parquet", Correction)}
    scored = {row.id: row for row in read_table(root / "quality" / "quality.parquet", ClipQuality)}
    verdicts = {row.id: "kept" for row in read_table(root / "filter" / "accepted.parquet", AcceptedClip)}
    rejected = read_table(root / "filter" / "rejected.parquet", RejectedClip)
    verdicts |= {row.id: f"{row.stage}: {row.reason} ({row.detail})" for row in rejected}
    lines = ["| film | frames | shift | disparity, % | PSNR, dB | verdict |", "|---|---|---|---|---|---|"]
    for clip in sorted(clips.values(), key=lambda clip: (films[clip.film], clip.start)):
        shift, score = shifted.get(clip.id), scored.get(clip.id)
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
    dropped = sorted((films[row.film], row.reason, row.detail) for row in rejected if row.stage == "split")
    return lines + [
        f"| {film} | - | - | - | - | split: {reason} ({detail}) |" for film, reason, detail in dropped
    ]


def main() -> None:
    """Print the table."""
    print(f"{machine()}\n\n{table(Path(sys.argv[1]) if len(sys.argv) > 1 else None)}")


if __name__ == "__main__":
    main()
