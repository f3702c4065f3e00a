"""Match a clip: a disparity for every pixel and where both views agree, with any matcher."""

from typing import TYPE_CHECKING

from secondeye.matching import make_matcher
from secondeye.params import Match

if TYPE_CHECKING:  # imported only to match: `network_identity` is needed when all clips are matched, too
    from torch import Tensor


def match_clip(
    match: Match,
    left: "Tensor",  # [T, 3, H, W]
    right: "Tensor",  # [T, 3, H, W]
) -> tuple["Tensor", "Tensor"]:  # disparity [T, 1, H, W] px, finite; consistent bool [T, 1, H, W]
    """Match with `match.matcher`; a pixel is consistent where both views give the same answer.

    block and flow: frame by frame, gaps filled along rows. video: see `video_matcher`. exported: the
    network's own answer, also for hidden pixels; raises UserError if its file cannot be used.
    """
    from secondeye.matching.consistency import fill_from_background, match_both_ways

    largest_px = _search_px(match, left.shape[-1])
    match match.matcher:
        case "video":
            from secondeye.matching.video_matcher import match_video

            return match_video(left, right, max_disparity_px=largest_px, tolerance_px=match.tolerance_px)
        case "exported":
            from secondeye.matching.exported_matcher import make_exported_matcher

            network = make_exported_matcher(match.exported)
            return match_both_ways(network, left, right, tolerance_px=match.tolerance_px)
    matcher = make_matcher(match.matcher, largest_px)
    disparity, consistent = match_both_ways(matcher, left, right, tolerance_px=match.tolerance_px)
    return fill_from_background(disparity, consistent), consistent


def _search_px(match: Match, width: int) -> int:
    return round(width * match.max_disparity_percent / 100)


def share_at_bound(
    match: Match,
    disparity: "Tensor",  # [T, 1, H, W] px, by `match_clip` with the same params
    consistent: "Tensor",  # bool [T, 1, H, W]
) -> float:
    """Return the share of pixels that matched at the end of the search range, [0, 1].

    0 for an exported network, which has no range.
    """
    if match.matcher == "exported":
        return 0.0
    last_px = _search_px(match, disparity.shape[-1]) - 1
    return float((consistent & (disparity >= last_px)).double().mean())


def network_identity(match: Match) -> list[str]:
    """Return what results depend on besides the params: the exported network's identity, if it is used.

    Raises UserError if its file cannot be used.
    """
    if match.matcher != "exported":
        return []
    from secondeye.matching.exported_matcher import file_identity

    return file_identity(match.exported)
