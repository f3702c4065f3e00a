"""Keep the clips that are good enough, and each picture once. Numbers only; all thresholds are asked here."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from secondeye.dataset.perceptual_hash import find_duplicates
from secondeye.dataset.schema import (
    AcceptedClip,
    Clip,
    ClipQuality,
    FailedItem,
    Film,
    RejectedClip,
    SkippedClip,
)
from secondeye.dataset.tables import read_table, write_table
from secondeye.params import Filter
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize

_FEW_FILMS = 3  # with fewer, whole films can not be held out


def run(
    split: Path, shift: Path, match: Path, splat: Path, quality: Path, out: Path, *, filter: Filter
) -> None:
    """Write `accepted.parquet` and `rejected.parquet`; every clip of the split stage is in exactly one.

    The pieces that the split stage dropped are rejected, too. Raises Refusal where sources.csv puts films
    that show the same into different splits.
    """
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    films = {film.id: film for film in read_table(split / "films.parquet", Film)}
    pairs = find_duplicates(list(clips.values()), filter.duplicate_bits)
    deciding = deciding_films(films, pairs)
    rejected = _rejected_before(
        split, {"shift": shift, "match": match, "splat": splat, "quality": quality}, clips
    )
    good = []
    for scored in read_table(quality / "quality.parquet", ClipQuality):
        clip = clips[scored.id]
        if fault := rejection_reason(scored, filter):
            rejected.append(RejectedClip(clip.id, clip.film, "filter", *fault))
        else:
            good.append(clip)
    copies = find_copies(good, films, pairs)
    rejected += [
        RejectedClip(clip.id, clip.film, "filter", "duplicate", _told(copies[clip.id], films))
        for clip in good
        if clip.id in copies
    ]
    kept = [
        AcceptedClip(
            clip.id, clip.film, choose_split(clip, deciding[clip.film], len(films), filter.test_share)
        )
        for clip in good
        if clip.id not in copies
    ]
    with lock_dir(out):
        write_table(out / "accepted.parquet", kept, AcceptedClip)
        write_table(out / "rejected.parquet", rejected, RejectedClip)
    print(f"filter: {pluralize(len(kept), 'clip')} kept, {len(rejected)} rejected")
    if len(films) < _FEW_FILMS:
        share = f"the last {filter.test_share:.0%} of each is held out instead"
        print(f"filter: only {pluralize(len(films), 'film')}; {share}")


def _rejected_before(
    split: Path, stages: Mapping[str, Path], clips: Mapping[str, Clip]
) -> list[RejectedClip]:
    dropped = [
        RejectedClip(piece.id, piece.film, "split", piece.reason, piece.detail)
        for piece in read_table(split / "skipped.parquet", SkippedClip)
    ]
    return dropped + [
        RejectedClip(bad.id, clips[bad.id].film, stage, bad.reason, bad.detail)
        for stage, folder in stages.items()
        for bad in read_table(folder / "failed.parquet", FailedItem)
    ]


def rejection_reason(scored: ClipQuality, filter: Filter) -> tuple[str, str] | None:
    """The first threshold a clip fails, as (reason, detail); None where it passes all. NaN fails."""
    reach = scored.disparity_max_percent - scored.disparity_min_percent
    factor = filter.max_sharpness_ratio
    checks = (
        (
            scored.psnr_db >= filter.min_psnr_db,
            "eyes differ",
            f"PSNR {scored.psnr_db:.1f} dB over visible pixels, {filter.min_psnr_db:g} needed",
        ),
        (
            scored.ssim >= filter.min_ssim,
            "eyes differ",
            f"SSIM {scored.ssim:.2f} over visible pixels, {filter.min_ssim:g} needed",
        ),
        (
            scored.colour_difference <= filter.max_colour_difference,
            "colours differ",
            f"by {scored.colour_difference:.1f} levels, {filter.max_colour_difference:g} allowed",
        ),
        (
            scored.sharpness >= filter.min_sharpness,
            "blurred",
            f"mean gradient {scored.sharpness:.2f} levels, {filter.min_sharpness:g} needed",
        ),
        (
            1 / factor <= scored.sharpness_ratio <= factor,
            "one eye sharper",
            f"right to left {scored.sharpness_ratio:.2f}, {1 / factor:.2f} to {factor:g} allowed",
        ),
        (
            scored.matched_share >= filter.min_matched_share,
            "few matches",
            f"{scored.matched_share:.0%} matched, {filter.min_matched_share:.0%} needed",
        ),
        (
            scored.occlusion_share <= filter.max_occlusion_share,
            "mostly hidden",
            f"{scored.occlusion_share:.0%} hidden, {filter.max_occlusion_share:.0%} allowed",
        ),
        (
            reach >= filter.min_disparity_range_percent,
            "flat",
            f"disparities span {reach:.2f} % of the width, {filter.min_disparity_range_percent:g} needed",
        ),
    )
    return next(((reason, detail) for passed, reason, detail in checks if not passed), None)


def find_copies(
    clips: Iterable[Clip],
    films: Mapping[str, Film],
    pairs: Sequence[tuple[Clip, Clip]],  # that show the same
) -> dict[str, Clip]:  # id of a clip to leave out: the clip that stays in its place
    """Of clips that show the same, the one of the film with more frames stays (then the smaller film id)."""
    alike: dict[str, set[str]] = {}
    for first, second in pairs:
        alike.setdefault(first.id, set()).add(second.id)
        alike.setdefault(second.id, set()).add(first.id)
    staying: dict[str, Clip] = {}
    copies: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: (-films[clip.film].frames, clip.film, clip.start)):
        others = [staying[other] for other in alike.get(clip.id, ()) if other in staying]
        if others:
            copies[clip.id] = min(others, key=lambda other: (other.film, other.start))
        else:
            staying[clip.id] = clip
    return copies


def _told(clip: Clip, films: Mapping[str, Film]) -> str:
    return f"shows what {films[clip.film].name} shows in frames {clip.start} to {clip.stop - 1}"


def deciding_films(
    films: Mapping[str, Film], pairs: Sequence[tuple[Clip, Clip]]
) -> dict[str, Film]:  # by film id: the group's smallest id, with the group's split
    """Films that show the same are one group: they lie in one split.

    Raises Refusal where sources.csv says train of one film of a group and test of another.
    """
    groups = {film: {film} for film in films}
    for first, second in pairs:
        joined = groups[first.film] | groups[second.film]
        groups |= dict.fromkeys(joined, joined)
    deciding = {}
    for film, group in groups.items():
        said = {films[one].split: films[one].name for one in sorted(group) if films[one].split}
        if len(said) > 1:
            raise UserError(
                f"sources.csv: {said['train']} is for train and {said['test']} for test, but they show the "
                "same pictures; put them in one split or remove one"
            )
        deciding[film] = replace(films[min(group)], split="".join(said))
    return deciding


def is_split_by_time(film: Film, films: int) -> bool:
    """Whether a film gives clips to both splits: nothing says its split and too few films are there."""
    return not film.split and films < _FEW_FILMS


def choose_split(clip: Clip, film: Film, films: int, test_share: float) -> str:
    """train or test: as sources.csv says, else by film; by time when there are fewer than three films.

    `film` decides for the clip's film: itself, or one that shows the same (`deciding_films`).
    """
    if film.split:
        return film.split
    if is_split_by_time(film, films):
        return "test" if clip.start_share >= 1 - test_share else "train"
    place = int(hashlib.sha256(film.id.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return "test" if place < test_share else "train"
