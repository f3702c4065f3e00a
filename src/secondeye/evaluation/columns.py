"""What each score is called, in which unit it is given, and which way is better."""

from typing import NamedTuple


class Column(NamedTuple):
    """One score of `Evaluated`."""

    name: str
    heading: str  # as tables have it, with the unit
    better: str  # more, less, or one: nearer to 1
    digits: int


PRIMARY = "haarpsi"
GROUPS: dict[str, tuple[Column, ...]] = {
    "Painting, around and inside disocclusions": (
        Column("haarpsi", "HaarPSI", "more", 4),
        Column("vif", "VIF", "more", 4),
        Column("lpips", "LPIPS", "less", 4),
        Column("dists", "DISTS", "less", 4),
        Column("psnr_disoccluded_db", "PSNR, dB", "more", 2),
        Column("gradient_ratio", "gradient ratio", "one", 3),
        Column("temporal_error", "temporal error, levels", "less", 2),
        Column("seam_ratio", "seam ratio", "one", 3),
    ),
    "Pictures, by region": (
        Column("psnr_db", "PSNR, dB", "more", 2),
        Column("psnr_visible_db", "visible", "more", 2),
        Column("psnr_disoccluded_db", "disoccluded", "more", 2),
        Column("psnr_border_db", "border", "more", 2),
        Column("ssim", "SSIM", "more", 4),
        Column("ssim_visible", "visible", "more", 4),
        Column("ssim_disoccluded", "disoccluded", "more", 4),
        Column("ssim_border", "border", "more", 4),
        Column("ms_ssim", "MS-SSIM", "more", 4),
        Column("ms_ssim_visible", "visible", "more", 4),
        Column("ms_ssim_disoccluded", "disoccluded", "more", 4),
        Column("ms_ssim_border", "border", "more", 4),
    ),
    "The pair": (
        Column("siou", "SIoU", "more", 3),
        Column("epe_px", "EPE, px", "less", 3),
        Column("d1_percent", "D1, %", "less", 2),
        Column("tepe_px", "TEPE, px", "less", 3),
        Column("disparity_correlation", "disparity correlation", "more", 3),
        Column("vertical_px", "vertical, px", "less", 3),
        Column("sharpness_ratio", "sharpness ratio", "one", 3),
    ),
    "Over time": (
        Column("warping_ratio", "warping ratio", "one", 3),
        Column("flicker", "flicker, levels", "less", 3),
        Column("worst_jump", "worst jump, levels", "less", 2),
    ),
    "Comfort": (
        Column("far_percent", "far, % of width", "", 2),
        Column("near_percent", "near, % of width", "", 2),
        Column("window_violation_percent", "window violation, %", "", 2),
    ),
    "Depth": (
        Column("rank_correlation", "rank correlation", "more", 3),
        Column("disparity_error_percent", "disparity error, %", "less", 3),
        Column("edge_f_score", "edge F-score", "more", 3),
        Column("hole_area_ratio", "hole area ratio", "one", 3),
    ),
}
COLUMNS = {column.name: column for group in GROUPS.values() for column in group}
