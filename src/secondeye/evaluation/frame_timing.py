"""Whether a converted film shows its original's frames at the same time, without lead, slip or doubled frame.

A view that is the original up to its codec is compared directly. Another one is compared at the best parallax
of each place, which also forgives a horizontal pan: such films may be unclear. Ours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secondeye.evaluation.same_frames import (
    MAX_SHARE,
    has_parallax,
    is_clearly_less,
    parallax_difference,
    picture_share,
)
from secondeye.system.errors import UserError

_PART = 8  # frames that have one lead
_LEAD = 60  # frames that a film may be late or early
_LEAD_OTHER_EYE = 8  # the same after the first part, of a view that is not the original
_EVERY = 4  # frames of a view that is not the original, of which one is compared
_MOVES, _REPEATS = 0.5, 0.2  # levels from frame to frame of the original; share of it, of a doubled frame

Span = tuple[int, list[np.ndarray], np.ndarray]
"""First frame, in the original; float32 [T, h, w] thumbnails of each view of the film; of the original."""


def check_timing(
    film: Path,
    original: str,  # name
    spans: Sequence[Span],  # the first one is the start
    skip: int,  # leading frames of the film that its original lacks
) -> bool:  # False: the motion does not show the time
    """Raise UserError if the film, or a part of it, shows the original's frames early or late."""
    is_clear, is_first = False, True
    for start, views, truth in spans:
        last = max(0, min(len(views[0]), len(truth)) - _PART)
        for at in sorted({*range(0, last, _PART), last}):
            found = _differences(views, truth, at, _LEAD if is_first else _LEAD_OTHER_EYE)
            lead = min(found, key=lambda lead: (found[lead], abs(lead)))
            if lead and is_clearly_less(found[lead], found[0]) and _is_same(views, truth, at, lead):
                raise UserError(f"{film}: {_describe(original, start + at + skip, lead, skip, is_first)}")
            apart = min(found[-1], found[1])
            is_clear |= np.isfinite(apart) and is_clearly_less(found[0], apart)  # by one frame
            is_first = False
    return is_clear


def check_doubled(film: Path, original: str, spans: Sequence[Span], skip: int) -> None:
    """Raise UserError if the last view repeats a frame while the original moves; arguments as above."""
    for start, views, truth in spans:
        for frame in _doubled_frames(views[-1], truth):
            raise UserError(
                f"{film}: its frame {start + frame + skip} repeats the one before, unlike in {original}; "
                "convert without doubled, dropped or interpolated frames"
            )


def _describe(original: str, at: int, lead: int, skip: int, is_first: bool) -> str:
    if not is_first:
        return (
            f"from about frame {at} on, it shows frames of {original} {abs(lead)} too "
            f"{'late' if lead > 0 else 'early'}; convert without doubled, dropped or interpolated frames"
        )
    total = skip + lead
    remedy = f"pack it with --skip-frames {total}" if total >= 0 else "convert all of its frames"
    return f"its frame {max(total, 0)} is frame {max(-total, 0)} of {original}; {remedy}"


def _differences(
    views: Sequence[np.ndarray], truth: np.ndarray, at: int, reach: int
) -> dict[int, float]:  # lead -> levels of 255
    """Return how much the part at a frame differs from the original at each lead, in the better view."""
    leads = range(-_LEAD, _LEAD + 1)
    found = {lead: min(_plain(*_part(view, truth, at, lead)) for view in views) for lead in leads}
    best = min(leads, key=lambda lead: (found[lead], abs(lead)))
    if found[best] == np.inf:  # too short
        return found
    # The right view alone is never the original; in a pan it may equal another frame of it.
    if len(views) > 1 and not all(has_parallax(*_part(view, truth, at, best)) for view in views):
        return found
    leads = range(-reach, reach + 1)
    return {lead: min(_tolerant(*_part(view, truth, at, lead)) for view in views) for lead in leads}


def _part(view: np.ndarray, truth: np.ndarray, at: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Return as many frames of both, at a lead; none if less than half a part is left."""
    start = max(at, lead)
    made, true = view[start : start + _PART], truth[start - lead : start - lead + _PART]
    frames = min(len(made), len(true))
    if frames < min(_PART // 2, len(truth)):
        frames = 0
    return made[:frames], true[:frames]


def _plain(made: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(made - true).mean()) if len(made) else np.inf


def _tolerant(made: np.ndarray, true: np.ndarray) -> float:
    pairs = zip(made[::_EVERY], true[::_EVERY], strict=True)
    return float(np.mean([parallax_difference(*pair) for pair in pairs])) if len(made) else np.inf


def _is_same(views: Sequence[np.ndarray], truth: np.ndarray, at: int, lead: int) -> bool:
    """Return whether a view shows the original at a lead, and is not just less unlike it."""
    parts = [_part(view, truth, at, lead) for view in views]
    shares = [picture_share(made[0], true[0]) for made, true in parts]
    return any(share is not None and share < MAX_SHARE for share in shares)


def _doubled_frames(view: np.ndarray, truth: np.ndarray) -> list[int]:
    """Return the frames that repeat the one before although the original moves."""
    frames = min(len(view), len(truth))
    made, true = (np.abs(np.diff(images[:frames], axis=0)).mean((1, 2)) for images in (view, truth))
    return [int(frame) + 1 for frame in np.flatnonzero((true > _MOVES) & (made < _REPEATS * true))]
