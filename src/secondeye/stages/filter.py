"""Stage `filter`: accept the clips that pass every threshold, without duplicates, and assign their splits.

Reads tables only and takes seconds; every threshold of the dataset is applied here.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from secondeye.dataset.duplicates import find_duplicates
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import (
    AcceptedClip,
    Clip,
    ClipQuality,
    Correction,
    Film,
    RejectedClip,
    SkippedClip,
)
from secondeye.dataset.tables import write_table
from secondeye.dataset.train_test_split import MIN_FILMS, choose_split, deciding_films, is_split_by_time
from secondeye.params import Filter
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize


def run(data: Path, *, filter: Filter) -> None:
    """Read `split` to `quality`; write `accepted.parquet` and `rejected.parquet`.

    Every clip and every skipped piece of the stage `split` is in exactly one of them. Raises UserError if
    sources.csv puts films that show the same images into different splits.
    """
    reader = Dataset(data)
    clips = {clip.id: clip for clip in reader.rows(Clip)}
    films = reader.films
    pairs = find_duplicates(list(clips.values()), filter.duplicate_bits)
    deciding = deciding_films(films, pairs)
    rejected = _rejected_earlier(reader, clips)
    orders = {row.id: row for row in reader.rows(Correction)}
    good = []
    for quality in reader.rows(ClipQuality):
        clip = clips[quality.id]
        side = choose_split(clip, deciding[clip.film], len(films), filter.test_share)
        if reason := rejection_reason(quality, filter):
            rejected.append(RejectedClip(clip.id, clip.film, "filter", *reason))
        elif side == "test" and (found := orders[clip.id]).order_uncertain:
            detail = f"{found.order_cues}; set split to train, or state the packing in sources.csv"
            rejected.append(RejectedClip(clip.id, clip.film, "filter", "order uncertain", detail))
        else:
            good.append(clip)
    copies = find_copies(good, films, pairs)
    accepted = []
    for clip in good:
        if original := copies.get(clip.id):
            detail = f"shows frames {original.start} to {original.stop - 1} of {films[original.film].name}"
            rejected.append(RejectedClip(clip.id, clip.film, "filter", "duplicate", detail))
            continue
        side = choose_split(clip, deciding[clip.film], len(films), filter.test_share)
        accepted.append(AcceptedClip(clip.id, clip.film, side))
    with lock_dir(reader.folder("filter")):
        write_table(reader.path(AcceptedClip), accepted, AcceptedClip)
        write_table(reader.path(RejectedClip), rejected, RejectedClip)
    print(f"filter: {pluralize(len(accepted), 'clip')} accepted, {len(rejected)} rejected")
    if by_time := sorted(films[f].name for f in films if is_split_by_time(deciding[f], len(films))):
        print(
            f"filter: {', '.join(by_time)}: sources.csv names no split and there are fewer than "
            f"{MIN_FILMS} films; the last {filter.test_share:.0%} of each film is the test split"
        )


def _rejected_earlier(reader: Dataset, clips: Mapping[str, Clip]) -> list[RejectedClip]:
    """Return what the stages before this one rejected."""
    skipped = [
        RejectedClip(piece.id, piece.film, "split", piece.reason, piece.detail)
        for piece in reader.rows(SkippedClip)
    ]
    return skipped + [
        RejectedClip(item.id, clips[item.id].film, stage, item.reason, item.detail)
        for stage in ("shift", "match", "splat", "quality")
        for item in reader.failed(stage)
    ]


def rejection_reason(quality: ClipQuality, filter: Filter) -> tuple[str, str] | None:
    """Return (reason, detail) of the first threshold a clip fails, or None if it passes all. NaN fails."""
    disparity_range = quality.disparity_max_percent - quality.disparity_min_percent
    factor = filter.max_sharpness_ratio
    psnr = f"PSNR {quality.psnr_db:.1f} dB over visible pixels, {quality.agreement_psnr_db:.1f} dB over the "
    psnr += f"{quality.matched_share:.0%} that agree best, {filter.min_psnr_db:g} needed"
    # The causes first: each of them lowers the PSNR, which tells them not apart.
    checks = (
        (
            quality.colour_difference <= filter.max_colour_difference,
            "colours differ",
            f"by {quality.colour_difference:.1f} levels, {filter.max_colour_difference:g} allowed",
        ),
        (
            quality.occlusion_share <= filter.max_occlusion_share,
            "mostly occluded",
            f"{quality.occlusion_share:.0%} occluded, {filter.max_occlusion_share:.0%} allowed",
        ),
        (
            quality.matched_share >= filter.min_matched_share,
            "few matches",
            f"{quality.matched_share:.0%} matched, {filter.min_matched_share:.0%} needed",
        ),
        (quality.agreement_psnr_db >= filter.min_psnr_db, "views differ", psnr),
        (
            quality.psnr_db >= filter.min_psnr_db or quality.matched_share >= filter.well_matched_share,
            "mismatched",
            psnr,
        ),
        (
            quality.ssim >= filter.min_ssim,
            "views differ",
            f"SSIM {quality.ssim:.2f} over visible pixels, {filter.min_ssim:g} needed",
        ),
        (
            quality.sharpness >= filter.min_sharpness,
            "blurred",
            f"mean gradient {quality.sharpness:.2f} levels, {filter.min_sharpness:g} needed",
        ),
        (
            1 / factor <= quality.sharpness_ratio <= factor,
            "one view sharper",
            f"right to left {quality.sharpness_ratio:.2f}, {1 / factor:.2f} to {factor:g} allowed",
        ),
        (
            disparity_range >= filter.min_disparity_range_percent,
            "flat",
            f"disparity range {disparity_range:.2f} % of the width, "
            f"{filter.min_disparity_range_percent:g} needed",
        ),
    )
    return next(((reason, detail) for passed, reason, detail in checks if not passed), None)


def find_copies(
    clips: Iterable[Clip],
    films: Mapping[str, Film],
    pairs: Sequence[tuple[Clip, Clip]],  # that show the same images
) -> dict[str, Clip]:  # id of a duplicate -> the clip that is accepted instead
    """Find duplicates: of equal clips the one with the best picture stays.

    Better is the film with more pixels, then the higher bit rate, then more frames (ties: the smallest id).
    """
    alike: dict[str, set[str]] = {}
    for first, second in pairs:
        alike.setdefault(first.id, set()).add(second.id)
        alike.setdefault(second.id, set()).add(first.id)
    staying: dict[str, Clip] = {}
    copies: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: (*_worse(films[clip.film]), clip.start)):
        others = [staying[other] for other in alike.get(clip.id, ()) if other in staying]
        if others:
            copies[clip.id] = min(others, key=lambda other: (other.film, other.start))
        else:
            staying[clip.id] = clip
    return copies


def _worse(film: Film) -> tuple[float, float, int, str]:
    """Return a sort key that is smaller for the film with the better picture."""
    return -film.picture_pixels, -film.bit_rate, -film.frames, film.id
