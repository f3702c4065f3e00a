"""Stereo matching: from a stereo pair to the disparity of the left view."""

from secondeye.matching.matcher import Matcher

__all__ = ["Matcher", "make_matcher"]


def make_matcher(
    name: str,  # block or flow
    max_disparity_px: int,  # block searches [0, this], flow [-this, this]
) -> Matcher:
    """Return the matcher of this name; raise ValueError for an unknown name."""
    match name:
        case "block":
            from secondeye.matching.block_matcher import make_block_matcher

            return make_block_matcher(max_disparity_px)
        case "flow":
            from secondeye.matching.flow_matcher import make_flow_matcher

            return make_flow_matcher(max_disparity_px)
    raise ValueError(f"matcher must be block or flow, got {name!r}")
