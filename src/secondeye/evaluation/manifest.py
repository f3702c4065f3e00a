"""The evaluation manifest: which clips are held out, and the region map of each."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from secondeye.dataset.clip_files import write_plane
from secondeye.dataset.clip_paths import clip_file
from secondeye.dataset.ground_truth import ground_truth_file, read_ground_truth, shift_ground_truth
from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import AcceptedClip, EvalClip
from secondeye.dataset.tables import write_table
from secondeye.evaluation.regions import regions_from_match, regions_from_truth
from secondeye.evaluation.score import region_shares
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.matching import make_matcher
from secondeye.params import Regions
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

_BYTES_PER_PIXEL = 0.3  # upper bound: a map of four values in FFV1


def freeze_manifest(dataset: Dataset, settings: Regions) -> list[EvalClip]:
    """Compute the region map of every held-out clip and write the manifest; finished maps are kept.

    Raises UserError if no clip is held out.
    """
    clips = dataset.clips("test")
    if not clips:
        raise UserError(
            f"{dataset.path(AcceptedClip)}: no clip is held out; set split to test for a film in sources.csv"
        )
    jobs = []
    for clip in clips:
        truth = ground_truth_file(dataset.folder("raw") / clip.film.name)
        truth_hash = hash_file(truth) if truth.exists() and _is_unaltered(clip) else ""
        key = make_key("evaluate", EvalClip, [settings], [clip.disparity.key, truth_hash])
        arguments = (dataset, clip, truth if truth_hash else None, settings)
        jobs.append(Job(clip.id, key, arguments, clip.clip.pixels * _BYTES_PER_PIXEL))
    table = dataset.path(EvalClip)
    table.parent.mkdir(exist_ok=True)
    done = build_missing(table.parent, jobs, _build_regions, EvalClip, label="regions", max_bad_fraction=0.0)
    write_table(table, done.rows, EvalClip)
    return sorted(done.rows, key=lambda row: row.id)


def manifest_hash(clips: Sequence[EvalClip]) -> str:
    """Return a hash of what methods are scored on: clips, their keys, and the content of their regions."""
    lines = sorted(f"{clip.id} {clip.key} {clip.digest}" for clip in clips)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _build_regions(
    out: Path, name: str, key: str, dataset: Dataset, clip: DatasetClip, truth: Path | None, settings: Regions
) -> tuple[EvalClip, list[Path]]:
    regions = _read_true_regions(truth, clip) if truth else None
    reference = "match" if regions is None else "truth"
    if regions is None:
        left, right = dataset.views(clip)
        search_px = round(left.shape[-1] * settings.max_disparity_percent / 100)
        matcher = make_matcher(settings.matcher, search_px)
        regions = regions_from_match(matcher, left, right, tolerance_px=settings.tolerance_px)
    path = clip_file(out, name, "regions")
    write_plane(path, regions)
    digest = hashlib.sha256(regions.numpy().tobytes()).hexdigest()[:16]
    return EvalClip(name, key, clip.film.id, reference, digest, **region_shares(regions)), [path]


def _is_unaltered(clip: DatasetClip) -> bool:
    """Return whether the clip's frames are the film's, horizontal shift aside, as ground truth requires."""
    film, correction = clip.film, clip.correction
    cropped = film.crop_top or film.crop_bottom or film.crop_left or film.crop_right
    rectified = correction.rectify_focal_widths
    same_size = (film.height, film.width) == (clip.clip.height, clip.clip.width)
    return same_size and not (cropped or correction.swapped or correction.vertical_px or rectified)


def _read_true_regions(path: Path, clip: DatasetClip) -> Tensor | None:
    """Return the region map from ground truth; None if its arrays differ in size from the clip."""
    piece = clip.clip
    truth = read_ground_truth(path, piece.start, piece.stop)
    if truth.right_disparity.shape != (piece.stop - piece.start, 1, piece.height, piece.width):
        return None
    return regions_from_truth(*shift_ground_truth(truth, clip.correction.shift_px))
