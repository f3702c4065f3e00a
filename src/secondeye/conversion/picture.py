"""What of a shot's frames is converted: the picture inside its letterbox, without burnt-in text and logos.

All of that is equal in both views. Text and logos are replaced by their surroundings, and laid over the right
view at the end: they lie on the screen. Where the scene is in front of the screen it would stand before what
hides it; it is held back around them, so that it comes forward only with distance. So it can be at the left
and right border of the picture, which cut off what is in front of them: that would be in one view only.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from secondeye.film.overlays import remove, unpack_mask
from secondeye.film.still_parts import NOTHING_STILL, StillParts

_BORDER_SHARE = 0.01  # of the width: at both borders nothing is in front of the screen
# px of disparity per px of distance from there, at most, in front of the screen (ours).
_OVERLAY_SLOPE, _BORDER_SLOPE = 0.25, 0.15


@dataclass(frozen=True)
class Picture:
    """The picture inside the still parts of a shot's frames."""

    still: StillParts
    frame_height: int  # px, of the whole frame
    frame_width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture, px."""
        rows, columns = self._inside
        return rows.stop - rows.start, columns.stop - columns.start

    def take(
        self,
        frames: Tensor,  # uint8 [T, H, W, 3]
    ) -> Tensor:  # uint8 [T, h, w, 3]
        """Return the picture of whole frames."""
        rows, columns = self._inside
        inside = frames[:, rows, columns].contiguous()
        if self._overlay is None:
            return inside
        return torch.from_numpy(remove(inside.numpy(), self._overlay[rows, columns]))

    def put(
        self,
        right: Tensor,  # uint8 [T, h, w, 3]
        left: Tensor,  # uint8 [T, H, W, 3]
    ) -> Tensor:  # uint8 [T, H, W, 3]
        """Return the whole right view: this picture, and what the left view shows around and over it."""
        if self.still == NOTHING_STILL:
            return right
        rows, columns = self._inside
        whole = left.clone()
        whole[:, rows, columns] = right
        if self._overlay is not None:
            laid = torch.from_numpy(self._overlay)
            whole[:, laid] = left[:, laid]
        return whole

    def hold_back(
        self,
        disparity: Tensor,  # [T, 1, h, w] px of the frame, of the picture at any size
        *,
        at_borders: bool = False,  # also at the left and right border
    ) -> Tensor:  # [T, 1, h, w] px
        """Limit the disparity around text, logos and borders: 0 on them; points behind the screen stay."""
        if self._overlay is None and not at_borders:
            return disparity
        rows, columns = self._inside
        height, width = disparity.shape[2:]
        scale = (columns.stop - columns.start) / width  # px of the frame per px of the map
        limit = torch.full((height, width), torch.inf)
        if at_borders:
            column = torch.arange(width, dtype=torch.float32)
            inward = torch.minimum(column, width - 1 - column) - _BORDER_SHARE * width
            limit = limit.minimum(inward.clamp(min=0) * (_BORDER_SLOPE * scale))
        if self._overlay is not None:
            inside = self._overlay[rows, columns].astype(np.float32)
            covered = cv2.resize(inside, (width, height), interpolation=cv2.INTER_AREA) > 0
            distance = cv2.distanceTransform((~covered).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            limit = limit.minimum(torch.from_numpy(distance * np.float32(_OVERLAY_SLOPE * scale)))
        return torch.minimum(disparity, limit.to(disparity.device))

    def pad(
        self,
        plane: Tensor,  # [1, h, w]
    ) -> Tensor:  # [1, H, W], 0 in the bands
        """Return a plane of the picture at the size of the whole frame."""
        top, bottom, left, right = self.still.letterbox
        return F.pad(plane, (left, right, top, bottom))

    def in_map(
        self,
        height: int,  # px, of a depth map of the whole frame
        width: int,
    ) -> tuple[slice, slice]:
        """Return the rows and columns of a depth map that show the picture, at least one of each."""
        rows, columns = self._inside
        scale_y, scale_x = height / self.frame_height, width / self.frame_width
        return _scale(rows, scale_y, height), _scale(columns, scale_x, width)

    @property
    def _inside(self) -> tuple[slice, slice]:
        return self.still.letterbox.inside(self.frame_height, self.frame_width)

    @cached_property
    def _overlay(self) -> NDArray[np.bool_] | None:  # [H, W]
        if not self.still.overlay:
            return None
        return unpack_mask(self.still.overlay, self.frame_height, self.frame_width)


def _scale(part: slice, scale: float, length: int) -> slice:
    size = max(1, round((part.stop - part.start) * scale))
    start = min(round(part.start * scale), length - size)
    return slice(start, start + size)
