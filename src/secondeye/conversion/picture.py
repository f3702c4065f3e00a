"""What of a shot's frames is converted: the picture inside its letterbox. The rest is equal in both views."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from secondeye.film.letterbox import NO_LETTERBOX
from secondeye.film.still_parts import StillParts


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
        if self.still.letterbox == NO_LETTERBOX:
            return frames
        rows, columns = self._inside
        return frames[:, rows, columns].contiguous()

    def put(
        self,
        right: Tensor,  # uint8 [T, h, w, 3]
        left: Tensor,  # uint8 [T, H, W, 3]
    ) -> Tensor:  # uint8 [T, H, W, 3]
        """Return the whole right view: this picture, and around it what the left view shows."""
        if self.still.letterbox == NO_LETTERBOX:
            return right
        rows, columns = self._inside
        whole = left.clone()
        whole[:, rows, columns] = right
        return whole

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
        return _scale(rows, height / self.frame_height, height), _scale(
            columns, width / self.frame_width, width
        )

    @property
    def _inside(self) -> tuple[slice, slice]:
        return self.still.letterbox.inside(self.frame_height, self.frame_width)


def _scale(part: slice, scale: float, length: int) -> slice:
    size = max(1, round((part.stop - part.start) * scale))
    start = min(round(part.start * scale), length - size)
    return slice(start, start + size)
