"""Both views of a film whose one stream holds them as layers (MV-HEVC: films of headsets and phones).

Not run on a real sample: none was at hand. What FFmpeg documents is followed: `view_ids` -1 makes its HEVC
decoder give out every view of a moment, the base view first, under one time stamp.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from secondeye.video.probe import BadFilm, FilmBroke, open_film, picture_stream
from secondeye.video.read import DECODER_THREADS, every, upright_rgb


class Views(NamedTuple):
    pts: int  # in ticks of the film's time base
    base: np.ndarray  # uint8 [H, W, 3], upright
    second: np.ndarray  # uint8 [H, W, 3]
    damaged: bool  # the decoder concealed parts of one


def read_views(
    path: Path,
    *,
    start_pts: int | None = None,  # begin with this time stamp
    size: tuple[int, int] | None = None,  # height, width to scale to
    wants: Callable[[int], bool] = every,  # which time stamps; others are only decoded
) -> Iterator[Views]:
    """Yield both views of every moment, from the film's beginning on: layers are not sought.

    Raises BadFilm when there is no second view; FilmBroke where decoding fails.
    """
    with open_film(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "SLICE"  # views of one moment belong to one decoder
        stream.codec_context.thread_count = DECODER_THREADS
        if stream.codec_context.name == "hevc":
            stream.codec_context.options = {"view_ids": "-1"}
        base, count = None, 0
        try:
            for frame in container.decode(stream):
                if base is None:
                    base = frame
                    continue
                if base.pts != frame.pts:
                    if not count:
                        break
                    raise FilmBroke(path, count, "a picture has no second view")
                pts = count if frame.pts is None else frame.pts
                if (start_pts is None or pts >= start_pts) and wants(pts):
                    damaged = base.is_corrupt or frame.is_corrupt
                    yield Views(pts, upright_rgb(base, size), upright_rgb(frame, size), damaged)
                base, count = None, count + 1
        except av.FFmpegError as error:
            raise FilmBroke(path, count, error.strerror or "no reason given") from error
        if not count:
            raise BadFilm(f"{path}: holds no second view; give its packing in sources.csv")
