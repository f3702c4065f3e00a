"""Spherical films (360, VR180, fisheye), which have no disparity along their rows."""

import re

import numpy as np

from secondeye.film.packing import PACKED, PAIR, packing_axis, unpack
from secondeye.sources.packing_detection import display_aspect, read_metadata
from secondeye.sources.packing_from_pixels import sample_images
from secondeye.sources.source import Source
from secondeye.video.probe import UnreadableFilm

_TAG = re.compile(
    r"(?:^|[-_. ])"
    r"((mono|vr|eac)?360|(vr)?180|(180|360)x(180|90)|(rf52|mkx\d+|fisheye)\d*|equirect\w*)"
    r"(?:$|[-_. ])"
)
_HEIGHT = 128  # px of an eye as it is looked at
_ROUND = 0.03  # how far an eye's shape may be from 2:1 or 1:1
_STILL_POLE = 3.0  # levels of 255 that the outermost row of a sphere varies along
_SEAM = 0.5  # the step over the border, as a share of that to a column further in
_TEXTURE = 8.0  # levels of 255 that a border column must vary, or it says nothing


def spherical_reason(source: Source) -> str:
    """Empty for a flat film, else one line why it is spherical: by metadata, name or pictures."""
    path = source.paths[0]
    if not path.is_dir():
        if projection := read_metadata(path).projection:
            return f"spherical by its metadata: {projection}"
        if tag := spherical_tag(source):
            return f"spherical by the tag {tag} in its name; rename it if it is flat"
    if not path.is_dir() and source.packing in (*PACKED, PAIR):
        return _why_not_flat_by_content(source)
    return ""


def spherical_tag(source: Source) -> str:
    """What of a film's name says that it is spherical; "" for nothing."""
    path = source.paths[0]
    found = None if path.is_dir() else _TAG.search(path.stem.lower())
    return found[1] if found else ""


def _why_not_flat_by_content(source: Source) -> str:
    try:
        aspect = float(display_aspect(source.paths[0])) * {"sbs": 0.5, "tb": 2.0}.get(
            packing_axis(source.packing), 1.0
        )
        # Squeezed halves of a sphere are as wide as high, or four times as wide.
        if not any(abs(aspect / whole - 1) < _ROUND for whole in (1, 2, 4)):
            return ""
        eyes = _left_eyes(source)
    except UnreadableFilm:
        return ""  # its reader will tell
    if eyes and all(_wraps(eye) for eye in eyes):
        return (
            "spherical by its pictures: their left and right border continue each other, their poles are even"
        )
    return ""


def _left_eyes(source: Source) -> list[np.ndarray]:  # uint8 [_HEIGHT, 2 _HEIGHT, 3] each
    axis = packing_axis(source.packing)
    height = _HEIGHT * (2 if axis == "tb" else 1)
    width = 2 * _HEIGHT * (2 if axis == "sbs" else 1)
    pictures = sample_images(source.paths[0], height, width)
    return [
        unpack(picture, source.packing)[0] if source.packing in PACKED else picture for picture in pictures
    ]


def _wraps(eye: np.ndarray) -> bool:
    """Whether a picture is a whole sphere: even poles, and textured borders that continue each other."""
    grey = eye.astype(np.float64).mean(2)
    poles = max(grey[0].std(), grey[-1].std())
    seam = np.abs(grey[:, 0] - grey[:, -1]).mean()
    inside = np.abs(grey[:, 0] - grey[:, grey.shape[1] // 8]).mean()
    return bool(poles < _STILL_POLE and grey[:, 0].std() > _TEXTURE and seam < _SEAM * inside)
