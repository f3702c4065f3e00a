"""Keep the clips whose scores are good enough. Numbers only; thresholds stand nowhere else."""

import hashlib
from pathlib import Path

from secondeye.params import Filter
from secondeye.process import alone_in
from secondeye.rows import Bad, Clip, Film, Kept, Rejected, Scored
from secondeye.tables import read_table, write_table

_FEW_FILMS = 3  # with fewer, whole films can not be held out


def run(
    split: Path, shift: Path, match: Path, splat: Path, quality: Path, out: Path, *, filter: Filter
) -> None:
    """Write `kept.parquet` and `rejected.parquet`; every clip of the split stage is in exactly one."""
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    films = {film.id: film for film in read_table(split / "films.parquet", Film)}
    folders = {"shift": shift, "match": match, "splat": splat, "quality": quality}
    rejected = [
        Rejected(bad.id, clips[bad.id].film, stage, bad.reason, bad.detail)
        for stage, folder in folders.items()
        for bad in read_table(folder / "bad.parquet", Bad)
    ]
    kept = []
    for scored in read_table(quality / "quality.parquet", Scored):
        clip = clips[scored.id]
        fault = find_fault(scored, filter)
        if fault:
            rejected.append(Rejected(clip.id, clip.film, "filter", *fault))
        else:
            side = choose_split(clip, films[clip.film], len(films), filter.test_share)
            kept.append(Kept(clip.id, clip.film, side))
    with alone_in(out):
        write_table(out / "kept.parquet", kept, Kept)
        write_table(out / "rejected.parquet", rejected, Rejected)
    print(f"filter: {len(kept)} clips kept, {len(rejected)} rejected")
    if len(films) < _FEW_FILMS:
        print(
            f"filter: only {len(films)} films; the last {filter.test_share:.0%} of each is held out instead"
        )


def find_fault(scored: Scored, filter: Filter) -> tuple[str, str] | None:
    """The first threshold a clip fails, as (reason, detail); None where it passes all."""
    reach = scored.disparity_max_percent - scored.disparity_min_percent
    if not scored.psnr_db >= filter.min_psnr_db:  # NaN fails, too
        return (
            "eyes differ",
            f"PSNR {scored.psnr_db:.1f} dB over visible pixels, {filter.min_psnr_db:g} needed",
        )
    if scored.matched_share < filter.min_matched_share:
        return "few matches", f"{scored.matched_share:.0%} matched, {filter.min_matched_share:.0%} needed"
    if scored.occlusion_share > filter.max_occlusion_share:
        return (
            "mostly hidden",
            f"{scored.occlusion_share:.0%} hidden, {filter.max_occlusion_share:.0%} allowed",
        )
    if reach < filter.min_disparity_range_percent:
        return (
            "flat",
            f"disparities span {reach:.2f} % of the width, {filter.min_disparity_range_percent:g} needed",
        )
    return None


def is_split_by_time(film: Film, films: int) -> bool:
    """Whether a film gives clips to both splits: nothing says its split and too few films are there."""
    return not film.split and films < _FEW_FILMS


def choose_split(clip: Clip, film: Film, films: int, test_share: float) -> str:
    """train or test: as sources.csv says, else by film; by time when there are fewer than three films."""
    if film.split:
        return film.split
    if is_split_by_time(film, films):
        return "test" if clip.start_share >= 1 - test_share else "train"
    place = int(hashlib.sha256(film.id.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return "test" if place < test_share else "train"
