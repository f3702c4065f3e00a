"""Whether two views show the same frames of a film, whatever their parallax (ours)."""

from collections.abc import Sequence

import cv2
import numpy as np

MAX_SHARE = 0.65  # a `picture_share` above is another picture: benchmarks/same_frames.py
_THUMBNAIL = (54, 96)  # height, width
_MAX_SHIFT = 10  # px of a thumbnail: a parallax of a tenth of the width
_BOX = 9  # px of a thumbnail, of what moves together
_PARALLAX_SHARE = 0.9  # of a difference; moves do not explain a codec's errors
_BLANK = 1.0  # levels of 255: a frame that differs less from its mirror image shows nothing
_LESS_LEVELS, _LESS_SHARE = 0.25, 0.7  # one difference is clearly less than another by both


def thumbnail(
    view: np.ndarray,  # uint8 [H, W, 3] RGB
) -> np.ndarray:  # float32 [h, w] gray, in [0, 255]
    """Return a small gray picture of a view."""
    small = cv2.resize(view, _THUMBNAIL[::-1], interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def picture_share(
    view: np.ndarray,  # float32 [h, w]: a thumbnail
    other: np.ndarray,  # float32 [h, w]
) -> float | None:
    """Return the difference of two thumbnails as a share of that to the mirrored and the upturned other.

    Each place may move sideways, as other eyes see it: about 0 for the same frame, 1 for another picture, and
    None if the other is blank.
    """
    scale = min(parallax_difference(other, other[:, ::-1]), parallax_difference(other, other[::-1]))
    if scale < _BLANK:
        return None
    mirrored = min(parallax_difference(view, other[:, ::-1]), parallax_difference(view, other[::-1]))
    return parallax_difference(view, other) / max(mirrored, 1e-6)


def has_parallax(
    views: np.ndarray,  # float32 [T, h, w]: thumbnails
    others: np.ndarray,  # float32 [T, h, w]
) -> bool:
    """Return whether sideways moves explain a part of the difference; a codec's errors stay."""
    plain = float(np.abs(views - others)[..., _MAX_SHIFT:-_MAX_SHIFT].mean())
    moved = np.mean([parallax_difference(*pair) for pair in zip(views, others, strict=True)])
    return bool(moved < _PARALLAX_SHARE * plain)


def median_share(
    views: Sequence[np.ndarray],  # thumbnails
    others: Sequence[np.ndarray],  # as many
) -> float | None:
    """Return the median `picture_share` of pairs of thumbnails; None if all others are blank."""
    pairs = zip(views, others, strict=True)
    shares = [share for view, other in pairs if (share := picture_share(view, other)) is not None]
    return float(np.median(shares)) if shares else None


def difference_at(
    views: np.ndarray,  # float32 [T, h, w]: thumbnails
    others: np.ndarray,  # float32 [t, h, w]
    lead: int,  # frames that the views have before the others' first one; negative: that they lack
) -> float:  # levels of 255
    """Return the mean difference of the frames that both have at a lead, without regard to parallax."""
    views, others = views[max(0, lead) :], others[max(0, -lead) :]
    frames = min(len(views), len(others))
    return float(np.abs(views[:frames] - others[:frames]).mean()) if frames else np.inf


def is_clearly_less(
    one: float,  # levels of 255
    other: float,  # levels of 255
) -> bool:
    """Return whether a difference is less than another one beyond what a codec explains."""
    return one < _LESS_SHARE * other and one < other - _LESS_LEVELS


def parallax_difference(
    one: np.ndarray,  # float32 [h, w]: a thumbnail
    other: np.ndarray,  # float32 [h, w]
) -> float:  # levels of 255
    """Return the mean difference, each place at its best horizontal shift."""
    width = one.shape[1] - 2 * _MAX_SHIFT
    middle = one[:, _MAX_SHIFT : _MAX_SHIFT + width]
    costs = [
        cv2.blur(np.abs(middle - other[:, start : start + width]), (_BOX, _BOX))
        for start in range(2 * _MAX_SHIFT + 1)
    ]
    return float(np.min(costs, 0).mean())
