"""Score columns: name, heading with unit, better direction, digits."""

from typing import NamedTuple


class Column(NamedTuple):
    """One score of `dataset.schema.Score`."""

    name: str
    heading: str  # in tables, with the unit
    better: str  # "higher", "lower", "one" (closer to 1), or "" (neither)
    digits: int


PRIMARY = "haarpsi"
GROUPS: dict[str, tuple[Column, ...]] = {
    "Inpainting, in and around disocclusions": (
        Column("haarpsi", "HaarPSI", "higher", 4),
        Column("vif", "VIF", "higher", 4),
        Column("lpips", "LPIPS", "lower", 4),
        Column("dists", "DISTS", "lower", 4),
        Column("psnr_disoccluded_db", "PSNR, dB", "higher", 2),
        Column("gradient_ratio", "gradient ratio", "one", 3),
        Column("temporal_error", "temporal error, levels", "lower", 2),
        Column("seam_ratio", "seam ratio", "one", 3),
    ),
    "Outliers, in disocclusions and at the border": (
        Column("worst_block", "worst block", "lower", 2),
        Column("chroma_excess", "chroma excess, levels", "lower", 1),
    ),
    "Image quality, by region": (
        Column("psnr_db", "PSNR, dB", "higher", 2),
        Column("psnr_visible_db", "visible", "higher", 2),
        Column("psnr_disoccluded_db", "disoccluded", "higher", 2),
        Column("psnr_border_db", "border", "higher", 2),
        Column("ssim", "SSIM", "higher", 4),
        Column("ssim_visible", "visible", "higher", 4),
        Column("ssim_disoccluded", "disoccluded", "higher", 4),
        Column("ssim_border", "border", "higher", 4),
        Column("ms_ssim", "MS-SSIM", "higher", 4),
        Column("ms_ssim_visible", "visible", "higher", 4),
        Column("ms_ssim_disoccluded", "disoccluded", "higher", 4),
        Column("ms_ssim_border", "border", "higher", 4),
    ),
    "Stereo": (
        Column("siou", "SIoU", "higher", 3),
        Column("epe_px", "EPE, px", "lower", 3),
        Column("d1_percent", "D1, %", "lower", 2),
        Column("tepe_px", "TEPE, px", "lower", 3),
        Column("disparity_correlation", "disparity correlation", "higher", 3),
        Column("vertical_px", "vertical, px", "lower", 3),
        Column("sharpness_ratio", "sharpness ratio", "one", 3),
    ),
    "Temporal stability": (
        Column("warping_ratio", "warping ratio", "one", 3),
        Column("flicker", "flicker, levels", "lower", 3),
        Column("worst_jump", "worst jump, levels", "lower", 2),
    ),
    "Comfort": (
        Column("far_percent", "far, % of width", "", 2),
        Column("near_percent", "near, % of width", "", 2),
        Column("window_violation_percent", "window violation, %", "", 2),
    ),
    "Depth": (
        Column("rank_correlation", "rank correlation", "higher", 3),
        Column("disparity_error_percent", "disparity error, %", "lower", 3),
        Column("edge_f_score", "edge F-score", "higher", 3),
        Column("hole_area_ratio", "hole area ratio", "one", 3),
    ),
    "Alignment": (
        Column("strength_ratio", "strength, of the true one", "", 2),
        Column("convergence_shift_percent", "shift, % of width", "", 2),
    ),
}
COLUMNS = {column.name: column for group in GROUPS.values() for column in group}
