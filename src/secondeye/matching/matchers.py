"""The matchers of single stereo pairs, by name; `match_clip` adds those that need a whole clip or a file.

To add one, write its module, and add its `case` here and its name in `params.PairMatcher`.
"""

from secondeye.matching.interface import Matcher


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
