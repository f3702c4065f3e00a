"""Compute the quality scores of one clip, and an image of its middle frame."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipQuality
from secondeye.imaging.arrays import disparity_ends
from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, dense_flow, flow_magnitude, to_gray
from secondeye.metrics.image_quality import best_psnr_db, gradient_levels, mean_where, psnr_db, ssim_map
from secondeye.report.contact_sheet import HOLE_COLOUR, disparity_map, frame_to_image, write_image


def score_clip(
    out: Path, clip_id: str, key: str, reader: Dataset, clip: DatasetClip
) -> tuple[ClipQuality, list[Path]]:
    """Return the scores; write the image to `out` and return its path, too."""
    left, right = reader.views(clip)
    warped, occlusion = reader.splat(clip)
    disparity = reader.disparity(clip)
    height, width = right.shape[-2:]
    far_px, near_px = disparity_ends(disparity.numpy())
    sharpness = gradient_levels(left)
    # Fill holes with the true right view, so that SSIM windows around them see no false edge.
    filled = torch.where(occlusion, right, warped)
    image = _middle_image(left, right, warped, occlusion, disparity, (far_px, near_px))
    write_image(out / f"{clip_id}.middle.png", image)
    return ClipQuality(
        id=clip_id,
        key=key,
        psnr_db=round(psnr_db(warped, right, ~occlusion), 3),
        agreement_psnr_db=round(best_psnr_db(warped, right, ~occlusion, clip.disparity.matched_share), 3),
        ssim=round(mean_where(ssim_map(filled, right), ~occlusion), 4),
        occlusion_share=clip.occlusion.occlusion_share,
        matched_share=clip.disparity.matched_share,
        disparity_min_percent=round(far_px * 100 / width, 3),
        disparity_max_percent=round(near_px * 100 / width, 3),
        motion_percent=round(median_motion_px(left) * 100 / width, 3),
        sharpness=round(sharpness, 3),
        sharpness_ratio=round(gradient_levels(right) / max(sharpness, 1e-6), 3),
        colour_difference=round(colour_difference(warped, right, ~occlusion), 3),
        height=height,
        width=width,
    ), [out / f"{clip_id}.middle.png"]


def median_motion_px(
    frames: Tensor,  # [T, 3, H, W]
) -> float:
    """Return the median optical flow between consecutive frames, px; 0 for one frame or tiny frames."""
    if len(frames) < 2 or min(frames.shape[-2:]) < MIN_FLOW_SIZE_PX:
        return 0.0
    lengths = [flow_magnitude(dense_flow(*pair)) for pair in pairwise(to_gray(frames))]
    return float(np.median(np.stack(lengths)))


def colour_difference(
    frames: Tensor,  # [T, 3, H, W]
    truth: Tensor,  # [T, 3, H, W]
    where: Tensor,  # bool [T, 1, H, W]
) -> float:
    """Return the largest difference between channel means, levels of 255."""
    difference = (frames - truth).double()
    return max(abs(mean_where(difference[:, c : c + 1], where)) for c in range(3)) * 255


def _middle_image(
    left: Tensor,
    right: Tensor,
    warped: Tensor,
    occlusion: Tensor,
    disparity: Tensor,
    disparity_range_px: tuple[float, float],
) -> np.ndarray:  # uint8 [H, 4 W, 3]
    """Render the middle frame: left, right, warped left view with holes marked, disparity."""
    middle = slice(len(left) // 2, len(left) // 2 + 1)
    views = [frame_to_image(frames[middle]) for frames in (left, right, warped)]
    views[2] = np.where(occlusion[middle][0, 0].numpy()[..., None], np.array(HOLE_COLOUR, np.uint8), views[2])
    return np.concatenate(
        [*views, disparity_map(disparity[middle][0, 0].numpy(), *disparity_range_px)], axis=1
    )
