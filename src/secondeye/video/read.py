"""Pictures out of a film, one after the other, with their time stamps."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from secondeye.video.probe import FilmBroke, colour_of, open_film, picture_stream


class Picture(NamedTuple):
    pts: int  # in ticks of the film's time base
    rgb: np.ndarray  # uint8 [H, W, 3], upright


def read_pictures(
    path: Path,
    *,
    start_pts: int | None = None,  # begin with the picture of this time stamp, found by seeking
    size: tuple[int, int] | None = None,  # height, width to scale to, after rotation; None keeps the film's
) -> Iterator[Picture]:
    """Yield the pictures of a film in order of display; memory does not grow with its length.

    Raises BadFilm when it can not be opened, FilmBroke where decoding fails or the picture changes its size.
    """
    if start_pts is not None:
        pictures = _read(path, start_pts, size)
        first = next(pictures, None)
        if first is not None and first.pts == start_pts:
            yield first
            yield from pictures
            return
    # From the beginning; also where the film's index led past the wanted picture.
    for picture in _read(path, None, size):
        if start_pts is None or picture.pts >= start_pts:
            yield picture


def _read(path: Path, seek_pts: int | None, size: tuple[int, int] | None) -> Iterator[Picture]:
    with open_film(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        if seek_pts is not None:
            container.seek(seek_pts, stream=stream, backward=True)
        shape: tuple[int, int] | None = None
        for count, (pts, frame) in enumerate(_stamped(container, stream, path)):
            shape = shape or (frame.width, frame.height)
            if (frame.width, frame.height) != shape:
                raise FilmBroke(path, count, f"the picture changes its size to {frame.width}x{frame.height}")
            if seek_pts is None or pts >= seek_pts:
                yield Picture(pts, _upright_rgb(frame, size))


def _stamped(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[tuple[int, VideoFrame]]:
    """Frames with strictly growing time stamps; a missing one continues at the average rate."""
    count, last = 0, None
    step = max(1, round(1 / ((stream.average_rate or 25) * (stream.time_base or 1))))
    try:
        for frame in container.decode(stream):
            pts = frame.pts if frame.pts is not None else (0 if last is None else last + step)
            if last is not None and pts <= last:
                continue  # shown for no time at all: no player would show it either
            last, count = pts, count + 1
            yield pts, frame
    except av.FFmpegError as error:
        raise FilmBroke(path, count, error.strerror or "no reason given") from error


def _upright_rgb(frame: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    turns = round(frame.rotation / 90) % 4
    height, width = size or (None, None)
    if turns % 2:
        height, width = width, height
    colour = colour_of(frame)
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=colour.scaler_matrix,
        src_color_range=colour.scaler_range,
        interpolation="AREA" if size else "BICUBIC",
    ).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb
