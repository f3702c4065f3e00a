"""Stereo matching: from a stereo pair to the disparity of the left view."""

from collections.abc import Callable

from torch import Tensor

# left, right [T, 3, H, W] -> disparity [T, 1, H, W] px of the left view, NaN where unmatched
Matcher = Callable[[Tensor, Tensor], Tensor]


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
