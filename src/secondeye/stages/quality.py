"""Every score of every clip. Reads pixels; knows no threshold."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.clip_files import clip_file, read_disparity, read_frames, read_occlusion
from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import Clip, ClipDisparity, ClipOcclusion, ClipQuality, Correction
from secondeye.dataset.tables import read_table, write_table
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, dense_flow, flow_magnitude, to_gray
from secondeye.metrics.image_quality import gradient_levels, mean_where, psnr_db, ssim_map
from secondeye.params import DatasetParams
from secondeye.report.contact_sheet import disparity_map, picture_from_frame, write_picture
from secondeye.system.process import lock_dir

_HOLE = np.array([255, 0, 170], np.uint8)
_BYTES_PER_PIXEL = 12  # a bound, of four pictures as PNG


def run(split: Path, shift: Path, match: Path, splat: Path, out: Path, *, dataset: DatasetParams) -> None:
    """Write `quality.parquet` and a picture of each clip's middle frame."""
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    shifted = {row.id: row for row in read_table(shift / "shift.parquet", Correction)}
    matched = {row.id: row for row in read_table(match / "match.parquet", ClipDisparity)}
    jobs = [
        Job(
            row.id,
            make_key("quality", ClipQuality, [], [row.key, matched[row.id].key, shifted[row.id].key]),
            (split, match, splat, shifted[row.id], matched[row.id], row),
            clips[row.id].height * clips[row.id].width * _BYTES_PER_PIXEL,
        )
        for row in read_table(splat / "splat.parquet", ClipOcclusion)
    ]
    with lock_dir(out):
        done = build_missing(
            out, jobs, _score_clip, ClipQuality, label="quality", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(out / "quality.parquet", done.rows, ClipQuality)


def _score_clip(
    out: Path,
    name: str,
    key: str,
    split: Path,
    match: Path,
    splat: Path,
    shifted: Correction,
    matched: ClipDisparity,
    splatted: ClipOcclusion,
) -> tuple[ClipQuality, list[Path]]:
    left, right = load_views(split, shifted)
    warped = read_frames(clip_file(splat, name, "warped"))
    occlusion = read_occlusion(clip_file(splat, name, "occlusion"))
    disparity = read_disparity(clip_file(match, name, "disparity"), matched.offset_px)
    height, width = right.shape[-2:]
    far_px, near_px = (float(end) for end in np.percentile(disparity.numpy(), [1, 99]))
    sharpness = gradient_levels(left)
    # Holes show the truth, so that the windows of SSIM around them see no edge that is none.
    whole = torch.where(occlusion, right, warped)
    picture = _middle_picture(left, right, warped, occlusion, disparity, (far_px, near_px))
    write_picture(out / f"{name}.middle.png", picture)
    return ClipQuality(
        id=name,
        key=key,
        psnr_db=round(psnr_db(warped, right, ~occlusion), 3),
        ssim=round(mean_where(ssim_map(whole, right), ~occlusion), 4),
        occlusion_share=splatted.occlusion_share,
        matched_share=matched.matched_share,
        disparity_min_percent=round(far_px * 100 / width, 3),
        disparity_max_percent=round(near_px * 100 / width, 3),
        motion_percent=round(median_motion_px(left) * 100 / width, 3),
        sharpness=round(sharpness, 3),
        sharpness_ratio=round(gradient_levels(right) / max(sharpness, 1e-6), 3),
        colour_difference=round(colour_difference(warped, right, ~occlusion), 3),
        height=height,
        width=width,
    ), [out / f"{name}.middle.png"]


def median_motion_px(
    frames: Tensor,  # [T, 3, H, W]
) -> float:
    """Median length of the flow from each frame to the next, px; 0 for one frame, or too small pictures."""
    if len(frames) < 2 or min(frames.shape[-2:]) < MIN_FLOW_SIZE_PX:
        return 0.0
    greys = to_gray(frames)
    moved = [flow_magnitude(dense_flow(*pair)) for pair in pairwise(greys)]
    return float(np.median(np.stack(moved)))


def colour_difference(
    frames: Tensor,  # [T, 3, H, W]
    truth: Tensor,  # [T, 3, H, W]
    where: Tensor,  # bool [T, 1, H, W]
) -> float:
    """How far the means of a colour channel lie apart, levels of 255; the largest of the three."""
    difference = (frames - truth).double()
    return max(abs(mean_where(difference[:, c : c + 1], where)) for c in range(3)) * 255


def _middle_picture(
    left: Tensor,
    right: Tensor,
    warped: Tensor,
    occlusion: Tensor,
    disparity: Tensor,
    reach: tuple[float, float],
) -> np.ndarray:  # uint8 [H, 4 W, 3]
    """Of the middle frame: left, right, left warped to the right with holes marked, disparity."""
    middle = slice(len(left) // 2, len(left) // 2 + 1)
    eyes = [picture_from_frame(frames[middle]) for frames in (left, right, warped)]
    eyes[2] = np.where(occlusion[middle][0, 0].numpy()[..., None], _HOLE, eyes[2])
    return np.concatenate([*eyes, disparity_map(disparity[middle][0, 0].numpy(), *reach)], axis=1)
