"""Which views of a film are synthesised, and how far each is shifted (ours).

right   the source is the left view, and the right one is shifted by the whole disparity
both    the source lies midway between the views: each is shifted by half the disparity, so that the widest
        hole is half as wide, but no view is the source any more
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # commands that only read the record of a film start without torch
    from torch import Tensor

RIGHT, BOTH = "right", "both"
VIEWS = (RIGHT, BOTH)


class View(NamedTuple):
    """A view to synthesise."""

    name: str  # left or right
    share: float  # of the disparity, by which the view is shifted from the source

    def turn(
        self,
        array: "Tensor",  # [T, C, H, W], or uint8 [T, H, W, C]
    ) -> "Tensor":
        """Mirror what belongs to the left view, there and back: mirrored, it is a right view.

        So warp and inpainters know right views only, and both views are made alike.
        """
        from secondeye.imaging.arrays import mirror

        return mirror(array) if self.name == "left" else array


def views_to_make(
    views: str,  # one of VIEWS
) -> tuple[View, ...]:  # the right view is the last
    """Return the views that are synthesised."""
    return (View("right", 1.0),) if views == RIGHT else (View("left", 0.5), View("right", 0.5))
