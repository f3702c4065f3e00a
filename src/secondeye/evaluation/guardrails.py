"""What a painter may not fall below, however well it does on the score that decides (ours)."""

import math
from collections.abc import Mapping

LEAST_GRADIENT_RATIO, MOST_GRADIENT_RATIO = 0.6, 1.4  # blurred below, noise above; nearer to 1 will do, too
LOST_HOLE_DB = 0.5  # PSNR inside disocclusions, against what it is compared with
LOST_DB = 0.05  # PSNR of the whole picture
MORE_TEMPORAL_ERROR = 1.1  # times what it is compared with


def find_violation(
    ours: Mapping[str, float],  # mean scores over films, by column
    theirs: Mapping[str, float],  # of what it is compared with
) -> str:
    """The first floor that is missed, in words; "" where all hold. What neither side has is no floor."""
    lost_db = theirs["psnr_disoccluded_db"] - ours["psnr_disoccluded_db"]
    ratio, before = ours["gradient_ratio"], theirs["gradient_ratio"]
    temporal, steadier = ours["temporal_error"], theirs["temporal_error"]
    checks = (
        ("psnr_disoccluded_db", lost_db <= LOST_HOLE_DB, f"holes lose {lost_db:.2f} dB"),
        (
            "gradient_ratio",
            LEAST_GRADIENT_RATIO <= ratio <= MOST_GRADIENT_RATIO or _is_nearer_to_one(ratio, before),
            f"the gradient ratio in holes, {ratio:.2f}, is outside "
            f"[{LEAST_GRADIENT_RATIO:g}, {MOST_GRADIENT_RATIO:g}]",
        ),
        (
            "temporal_error",
            temporal <= MORE_TEMPORAL_ERROR * steadier,
            f"the temporal error in holes is {temporal:.2f} levels against {steadier:.2f}",
        ),
    )
    for name, holds, words in checks:
        if not holds and not (math.isnan(ours[name]) and math.isnan(theirs[name])):
            return words
    return find_loss(ours, theirs)


def _is_nearer_to_one(ratio: float, other: float) -> bool:
    """As a ratio: 2 is as far as a half. Who is blurred or noisy may be replaced by who is less so."""
    return ratio > 0 and other > 0 and abs(math.log(ratio)) <= abs(math.log(other))


def find_loss(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """That the whole picture is worse, in words; "" where it is not."""
    lost_db = theirs["psnr_db"] - ours["psnr_db"]
    return "" if lost_db <= LOST_DB else f"the whole picture loses {lost_db:.2f} dB, {LOST_DB:g} are allowed"
