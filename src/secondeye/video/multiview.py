"""Read both views of a film that stores them as layers of one stream (MV-HEVC, of headsets and phones).

With `view_ids` -1 FFmpeg's HEVC decoder returns every view of a frame under one timestamp, base view first.
Tested on streams that the tests write, without inter-view prediction, and on one by x265 with it; not on
a camera's film.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from secondeye.video.orientation import Orientation, frame_orientation
from secondeye.video.probe import (
    Losses,
    TruncatedFilm,
    UnreadableFilm,
    decode_packet,
    demux_film,
    open_film,
    video_stream,
)
from secondeye.video.read import DECODER_THREADS, select_all, upright_rgb, with_timestamps


class MultiviewFrame(NamedTuple):
    """One frame of both views."""

    pts: int  # ticks of the film's time base
    base: np.ndarray  # uint8 [H, W, 3], upright
    second: np.ndarray  # uint8 [H, W, 3]
    damaged: bool  # the decoder concealed errors in a view
    lost_before: int  # pictures since the previous frame that did not decode


def read_multiview(
    path: Path,
    *,
    start_pts: int | None = None,  # first timestamp to yield
    size: tuple[int, int] | None = None,  # height, width to scale to
    select: Callable[[int], bool] = select_all,  # which timestamps to convert and yield
) -> Iterator[MultiviewFrame]:
    """Yield both views of every frame. Layers cannot be sought, so decoding starts at the beginning.

    Raises UnreadableFilm if there is no second view, and TruncatedFilm if decoding fails.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "SLICE"  # frame threading would split the views of a frame
        stream.codec_context.thread_count = DECODER_THREADS
        if stream.codec_context.name == "hevc":
            stream.codec_context.options = {"view_ids": "-1"}
        losses = Losses()
        pairs = _view_pairs(container, stream, path, losses)
        upright: tuple[Orientation, Orientation] | None = None
        for pts, (base, second), lost in with_timestamps(
            pairs, container, stream, path, losses=losses, whole=True
        ):
            if (start_pts is None or pts >= start_pts) and select(pts):
                damaged = base.is_corrupt or second.is_corrupt
                upright = upright or (frame_orientation(base), frame_orientation(second))
                views = upright_rgb(base, size, upright[0]), upright_rgb(second, size, upright[1])
                yield MultiviewFrame(pts, *views, damaged, lost)


def _view_pairs(
    container: InputContainer, stream: VideoStream, path: Path, losses: Losses
) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    """Yield both views of each frame; both carry the timestamp of their packet.

    A frame of which one view does not decode is lost as a whole.
    """
    raw = container.format.name == "hevc"  # has no timestamps
    base, count = None, 0
    for number, packet in enumerate(demux_film(container, stream, losses)):
        if raw and packet.size:
            packet.pts = number
        for frame in decode_packet(packet, losses):
            if base is None:
                base = frame
                continue
            if base.pts != frame.pts:
                if not losses.timestamps:
                    raise _missing_view(path, count)
                base = frame
                continue
            if raw:
                base.pts = None
            yield base, frame
            base, count = None, count + 1
    if not count:
        raise _missing_view(path, count)


def _missing_view(path: Path, count: int) -> UnreadableFilm | TruncatedFilm:
    if count:
        return TruncatedFilm(path, count, "a frame has no second view")
    return UnreadableFilm(f"{path}: has no second view; set its packing in sources.csv")
