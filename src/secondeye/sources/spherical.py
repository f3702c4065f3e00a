"""Detect spherical films (360, VR180, fisheye), whose disparity does not lie along rows."""

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
_HEIGHT_PX = 128  # at which a view is examined
_ASPECT_TOLERANCE = 0.03  # relative, around 1:1, 2:1 and 4:1
_POLE_DEVIATION = 3.0  # levels of 255 along the outermost row of a sphere, at most
_SEAM_RATIO = 0.5  # of the step across the seam to the step to a column further in, at most
_BORDER_DEVIATION = 8.0  # levels of 255 along a border column, below which it is not conclusive


def spherical_reason(source: Source) -> str:
    """Return why a film is spherical, by metadata, name or pixels; "" for a flat film."""
    path = source.paths[0]
    if not path.is_dir():
        if projection := read_metadata(path).projection:
            return f"spherical by its metadata: {projection}"
        if tag := spherical_tag(source):
            return f"spherical by the tag {tag} in its name; rename it if it is flat"
    if not path.is_dir() and source.packing in (*PACKED, PAIR):
        return _spherical_by_pixels(source)
    return ""


def spherical_tag(source: Source) -> str:
    """Return the tag of a spherical projection in a film's name; "" if there is none."""
    path = source.paths[0]
    found = None if path.is_dir() else _TAG.search(path.stem.lower())
    return found[1] if found else ""


def _spherical_by_pixels(source: Source) -> str:
    try:
        aspect = float(display_aspect(source.paths[0])) * {"sbs": 0.5, "tb": 2.0}.get(
            packing_axis(source.packing), 1.0
        )
        # A sphere has aspect 2; squeezed halves have 1 or 4.
        if not any(abs(aspect / sphere - 1) < _ASPECT_TOLERANCE for sphere in (1, 2, 4)):
            return ""
        views = _sample_left_views(source)
    except UnreadableFilm:
        return ""  # reported by its reader
    if views and all(_is_sphere(view) for view in views):
        return (
            "spherical by its pixels: the left and right border continue each other and the poles are uniform"
        )
    return ""


def _sample_left_views(source: Source) -> list[np.ndarray]:  # uint8 [_HEIGHT_PX, 2 _HEIGHT_PX, 3] each
    axis = packing_axis(source.packing)
    height = _HEIGHT_PX * (2 if axis == "tb" else 1)
    width = 2 * _HEIGHT_PX * (2 if axis == "sbs" else 1)
    images = sample_images(source.paths[0], height, width)
    return [unpack(image, source.packing)[0] if axis in ("sbs", "tb") else image for image in images]


def _is_sphere(view: np.ndarray) -> bool:
    """Whether a view is a full sphere: uniform poles, and textured borders that continue each other."""
    gray = view.astype(np.float64).mean(2)
    poles = max(gray[0].std(), gray[-1].std())
    seam = np.abs(gray[:, 0] - gray[:, -1]).mean()
    inside = np.abs(gray[:, 0] - gray[:, gray.shape[1] // 8]).mean()
    textured = gray[:, 0].std() > _BORDER_DEVIATION
    return bool(poles < _POLE_DEVIATION and textured and seam < _SEAM_RATIO * inside)
