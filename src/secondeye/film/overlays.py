"""Find burnt-in text and logos: edges that stay where they are while everything else moves (ours).

An edge is still if it keeps its direction in nearly all frames of a shot. Still edges that lie close together
form an overlay if they are small, run in several directions, and lie in a changing part of the picture. If
many other edges of the shot are still, or most edges belong to overlays, the camera does not move, and there
is no overlay. An overlay of an earlier shot is also found by its edges in later shots, whatever they show.

The letters of a title card, a shot of nothing but letters on a plain background, are an overlay, too, if they
stand still.
"""

import zlib
from collections import deque
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from secondeye.film.cuts import cut_detection_size
from secondeye.film.frame_checks import check_frame

# Levels are of 255; shares of a side are of the width.
_EDGE_STEP = 24  # between the two neighbours of a pixel on an edge
_STILL_SHARE = 0.9  # of the frames in which an edge must have its direction
_MIN_FRAMES = 6  # one and a half seconds: less says nothing of what is still
_JOIN_X_SHARE, _JOIN_Y_SHARE = 0.012, 0.006  # edges this close belong together: letters of a line
_MIN_EDGES_SHARE, _MIN_EDGES = 5e-4, 40  # of the frame's pixels that are edges of an overlay, and how many
_MAX_HEIGHT_SHARE, _MAX_AREA_SHARE = 0.2, 0.1  # of the frame's height and area that an overlay's box has
_MIN_ACROSS_SHARE = 0.2  # of its edges in one direction, across that: a line may slide along itself
_RING_SHARE = 0.02  # of the width: what is looked at around it
_CHANGE, _MIN_CHANGED_SHARE = 25, 0.5  # levels, and the share of that ring that changes by as much
_MAX_OTHER_SHARE = 0.1  # of the edges elsewhere that may be still, too
_MAX_OWN_SHARE = 0.6  # of all edges that overlays have: else the camera stands still before few objects
_MAX_COUNT = 65535  # frames of a shot that are measured: counters have 16 bits
_SAME_LEVELS = 40  # by which the inside of a letter changes, at most
_GROW_SHARE = 0.0015  # of the width: soft borders of letters
_KNOWN_SHARE = 0.7  # of the edges of a known overlay that a shot must have
MAX_KNOWN = 16  # overlays that are looked for in later shots
_BORDER_PX = 3  # where the picture ends: the edge of a band
_AROUND_PX = 16  # what an overlay is replaced from
_TITLE_SHARE = 0.75  # of a title card's frames: others fade
_MAX_LETTERS_RATIO = 1.5  # of all pixels that were letters to those of a frame: more, and they move
_LETTER_CONTRAST = 8  # levels between a title card's letters and its background, as in `frame_checks`


class KnownOverlay(NamedTuple):
    """An overlay that was found in a shot."""

    edges: NDArray[np.int64]  # indices into [4, H, W] of its edges
    mask: bytes  # from `pack_mask`


class OverlayMeter:
    """Counts the edges of the frames of one shot."""

    def __init__(self) -> None:
        self._frames = 0
        self._edges = 0  # of all frames together

    def add(
        self,
        gray: np.ndarray,  # uint8 [H, W]
    ) -> None:
        """Count the edges of a frame."""
        if self._frames == _MAX_COUNT:
            return
        if not self._frames:
            self._counts = np.zeros((4, *gray.shape), np.uint16)  # of each direction
            self._darkest, self._brightest = gray.copy(), gray.copy()
        directions = _edges(gray)
        self._counts += directions
        self._edges += int(directions.any(0).sum())
        np.minimum(self._darkest, gray, out=self._darkest)
        np.maximum(self._brightest, gray, out=self._brightest)
        self._frames += 1

    def find(
        self,
        picture: tuple[slice, slice],  # rows and columns inside the letterbox
        known: deque[KnownOverlay],  # of earlier shots; what is new is appended
    ) -> bytes:  # from `pack_mask`; empty without any
        """Return the pixels of all overlays."""
        still = np.zeros(self._counts.shape, np.bool_)
        inside = (slice(None), *(slice(side.start + _BORDER_PX, side.stop - _BORDER_PX) for side in picture))
        still[inside] = self._counts[inside] >= ceil(_STILL_SHARE * self._frames)
        mask = np.zeros(still.shape[1:], np.bool_)
        for overlay in known:
            if still.ravel()[overlay.edges].mean() >= _KNOWN_SHARE:
                mask |= unpack_mask(overlay.mask, *mask.shape)
        if self._frames >= _MIN_FRAMES:
            for box, inner in self._find_new(still & ~mask):
                edges = np.zeros_like(still)
                edges[:, *box] = inner
                found = self._fill(edges.max(0))
                known.append(KnownOverlay(np.flatnonzero(edges), pack_mask(found)))
                mask |= found
        return pack_mask(mask) if mask.any() else b""

    def _find_new(
        self,
        still: NDArray[np.bool_],  # [4, H, W]
    ) -> list[tuple[tuple[slice, slice], NDArray[np.bool_]]]:  # box of each, and its edges [4, h, w]
        anywhere: NDArray[np.bool_] = still.max(0)
        across, down = (2 * round(share * still.shape[2]) + 1 for share in (_JOIN_X_SHARE, _JOIN_Y_SHARE))
        joined = cv2.dilate(anywhere.view(np.uint8), np.ones((down, across), np.uint8))
        count, labels, boxes, _ = cv2.connectedComponentsWithStats(joined)
        found = []
        for number in range(1, count):
            left, top, width, height, _ = boxes[number]
            box = slice(top, top + height), slice(left, left + width)
            edges = still[:, *box] & (labels[box] == number)
            if self._looks_laid_over(edges) and self._changes_around(labels == number, box):
                found.append((box, edges))
        own = sum(int(edges.any(0).sum()) for _, edges in found)
        edges_of_a_frame = self._edges / self._frames
        few_others = anywhere.sum() - own <= _MAX_OTHER_SHARE * (edges_of_a_frame - own)
        return found if few_others and own <= _MAX_OWN_SHARE * edges_of_a_frame else []

    def _looks_laid_over(
        self,
        edges: NDArray[np.bool_],  # [4, h, w] in their box
    ) -> bool:
        """Return whether edges are small, and neither few nor all of one direction.

        Their directions make a structure tensor, whose eigenvalues are compared.
        """
        height, width = self._darkest.shape
        count = int(edges.any(0).sum())
        right, left, down, up = edges
        upright, level = int((right | left).sum()), int((down | up).sum())
        falling = int(((right & down) | (left & up)).sum()) - int(((right & up) | (left & down)).sum())
        mean, spread = (upright + level) / 2, float(np.hypot((upright - level) / 2, falling))
        return (
            edges.shape[1] <= _MAX_HEIGHT_SHARE * height
            and edges.shape[1] * edges.shape[2] <= _MAX_AREA_SHARE * height * width
            and count >= max(_MIN_EDGES, _MIN_EDGES_SHARE * height * width)
            and mean - spread >= _MIN_ACROSS_SHARE * (mean + spread)
        )

    def _changes_around(
        self,
        part: NDArray[np.bool_],  # [H, W]
        box: tuple[slice, slice],  # around it
    ) -> bool:
        """Return whether the picture beside a part of it changes."""
        reach = max(1, round(_RING_SHARE * part.shape[1]))
        wide = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
        inside = part[wide]
        near = cv2.dilate(inside.view(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
        changed = self._brightest[wide] - self._darkest[wide] > _CHANGE
        return bool(changed[near & ~inside].mean() >= _MIN_CHANGED_SHARE)

    def _fill(
        self,
        edges: NDArray[np.bool_],  # [H, W]
    ) -> NDArray[np.bool_]:  # [H, W]
        """Return the pixels of an overlay: its edges, their soft borders, and what is still between them."""
        across = 2 * round(_JOIN_X_SHARE * edges.shape[1]) + 1
        planes = edges.view(np.uint8)
        closed = cv2.morphologyEx(planes, cv2.MORPH_CLOSE, np.ones((across, across), np.uint8)) > 0
        return _grow(edges | (closed & (self._brightest - self._darkest <= _SAME_LEVELS)))


class TitleMeter:
    """Collects the letters of one shot."""

    def __init__(self) -> None:
        self._frames, self._titles, self._pixels = 0, 0, 0
        self._letters: NDArray[np.bool_] | None = None

    def add(
        self,
        image: np.ndarray,  # uint8 [H, W, 3]
    ) -> None:
        """Add the letters of a frame; a blank one, as before and after a fade, does not count."""
        height, width = cut_detection_size(*image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        check = check_frame(small, None)
        self._frames += not check.blank
        if not check.title:
            return
        self._titles += 1
        background = np.median(small.reshape(-1, 3), axis=0).astype(np.uint8)
        difference = np.maximum(image, background) - np.minimum(image, background)
        letters = (difference > _LETTER_CONTRAST).any(2)
        self._pixels += int(letters.sum())
        self._letters = letters if self._letters is None else self._letters | letters

    def find(self) -> bytes:  # from `pack_mask`; empty if this is no title card
        """Return the pixels of all letters; empty if they move, as birds in a sky or lights at night do."""
        if self._letters is None or self._titles < _TITLE_SHARE * self._frames:
            return b""
        moves = self._letters.sum() * self._titles > _MAX_LETTERS_RATIO * self._pixels
        return b"" if moves else pack_mask(_grow(self._letters))


def _grow(
    mask: NDArray[np.bool_],  # [H, W]
) -> NDArray[np.bool_]:  # [H, W]
    """Add the soft borders of letters."""
    side = 2 * round(_GROW_SHARE * mask.shape[1]) + 1
    return cv2.dilate(mask.view(np.uint8), np.ones((side, side), np.uint8)) > 0


def _edges(
    gray: np.ndarray,  # uint8 [H, W]
) -> NDArray[np.bool_]:  # [4, H, W]: brighter to the right, to the left, downwards, upwards
    """Return where the two neighbours of a pixel differ."""
    edges = np.zeros((4, *gray.shape), np.bool_)
    for first, (low, high) in ((0, (gray[:, :-2], gray[:, 2:])), (2, (gray[:-2], gray[2:]))):
        step = cv2.subtract(high, low), cv2.subtract(low, high)  # below 0 they are 0
        for offset, difference in enumerate(step):
            plane = edges[first + offset]
            (plane[:, 1:-1] if first == 0 else plane[1:-1])[...] = difference >= _EDGE_STEP
    return edges


def pack_mask(
    mask: NDArray[np.bool_],  # [H, W]
) -> bytes:
    """Return a mask in few bytes."""
    return zlib.compress(np.packbits(mask).tobytes())


def unpack_mask(packed: bytes, height: int, width: int) -> NDArray[np.bool_]:  # [H, W]
    """Return the mask that `pack_mask` gave."""
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=height * width).reshape(height, width).view(np.bool_)


def remove(
    images: np.ndarray,  # uint8 [T, H, W, 3]
    mask: NDArray[np.bool_],  # [H, W]
) -> np.ndarray:  # uint8 [T, H, W, 3]
    """Return images in which an overlay is replaced by what is around it, blurred more with distance."""
    removed = images.copy()
    around = np.ones((2 * _AROUND_PX + 1, 2 * _AROUND_PX + 1), np.uint8)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask.view(np.uint8), around))
    for left, top, width, height, _ in boxes[1:]:
        box = slice(top, top + height), slice(left, left + width)
        hole = mask[box]
        if hole.all():  # nothing is around it
            continue
        for image in removed:
            image[box][hole] = _spread(image[box].astype(np.float32), ~hole)[hole] + np.float32(0.5)
    return removed


def _spread(
    image: np.ndarray,  # float32 [H, W, 3]
    known: NDArray[np.bool_],  # [H, W], at least one
) -> np.ndarray:  # float32 [H, W, 3]
    """Fill what is not known from a smaller copy, which is filled alike."""
    if known.all():
        return image
    height, width = known.shape
    half = (width + 1) // 2, (height + 1) // 2
    weight = known.astype(np.float32)
    share = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image * weight[..., None], half, interpolation=cv2.INTER_AREA)
    small = _spread(small / np.maximum(share, 1e-6)[..., None], share > 0)
    return np.where(known[..., None], image, cv2.resize(small, (width, height)))
