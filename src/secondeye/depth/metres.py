"""Depth in metres, which metric networks estimate, as inverse depth."""

from torch import Tensor

MIN_DEPTH_M = 0.1  # smaller depths are clipped, so that their inverse stays finite


def invert_metres(
    depth: Tensor,  # of any shape, larger is farther
) -> Tensor:  # like `depth`, larger is nearer
    """Return the inverse depth."""
    return 1 / depth.clamp_min(MIN_DEPTH_M)
