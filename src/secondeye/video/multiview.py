"""Both views of a film whose one stream holds them as layers (MV-HEVC: films of headsets and phones).

`view_ids` -1 makes FFmpeg's HEVC decoder give out every view of a moment, the base view first, under one
time stamp. Run on streams that the tests write, in which no view is predicted from the other, and on one by
x265, in which one is; no camera's film was at hand.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from secondeye.video.probe import TruncatedFilm, UnreadableFilm, open_film, video_stream
from secondeye.video.read import DECODER_THREADS, every, upright_rgb, with_timestamps


class MultiviewFrame(NamedTuple):
    pts: int  # in ticks of the film's time base
    base: np.ndarray  # uint8 [H, W, 3], upright
    second: np.ndarray  # uint8 [H, W, 3]
    damaged: bool  # the decoder concealed parts of one


def read_multiview(
    path: Path,
    *,
    start_pts: int | None = None,  # begin with this time stamp
    size: tuple[int, int] | None = None,  # height, width to scale to
    wants: Callable[[int], bool] = every,  # which time stamps; others are only decoded
) -> Iterator[MultiviewFrame]:
    """Yield both views of every moment, from the film's beginning on: layers are not sought.

    Raises UnreadableFilm when there is no second view; TruncatedFilm where decoding fails.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "SLICE"  # views of one moment belong to one decoder
        stream.codec_context.thread_count = DECODER_THREADS
        if stream.codec_context.name == "hevc":
            stream.codec_context.options = {"view_ids": "-1"}
        moments = _moments(container, stream, path)
        for pts, (base, second) in with_timestamps(moments, container, stream, path, whole=True):
            if (start_pts is None or pts >= start_pts) and wants(pts):
                damaged = base.is_corrupt or second.is_corrupt
                yield MultiviewFrame(pts, upright_rgb(base, size), upright_rgb(second, size), damaged)


def _moments(
    container: InputContainer, stream: VideoStream, path: Path
) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    """Both views of each moment: they come out under the time stamp of the packet that held them."""
    raw = container.format.name == "hevc"  # has no time stamps
    base, count = None, 0
    for number, packet in enumerate(container.demux(stream)):
        if raw and packet.size:
            packet.pts = number
        for frame in packet.decode():
            if base is None:
                base = frame
                continue
            if base.pts != frame.pts:
                raise _alone(path, count)
            if raw:
                base.pts = None
            yield base, frame
            base, count = None, count + 1
    if not count:
        raise _alone(path, count)


def _alone(path: Path, count: int) -> UnreadableFilm | TruncatedFilm:
    if count:
        return TruncatedFilm(path, count, "a picture has no second view")
    return UnreadableFilm(f"{path}: holds no second view; give its packing in sources.csv")
