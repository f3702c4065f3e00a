"""Deinterlace frames with FFmpeg's bwdif: one picture for each frame, at the time of its first field."""

from collections.abc import Iterable, Iterator
from typing import cast

import av
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream


def deinterlace(frames: Iterable[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield the frames of a stream, those that are marked as interlaced with their second field interpolated.

    The field order is each frame's own. A picture depends on the frames before and after it, so frames come
    one later. All have the size of the first; if the size changes, the rest is yielded as it is.
    """
    graph: Graph | None = None
    times: list[int | None] = []
    remaining = iter(frames)
    for frame in remaining:
        if graph is None:
            graph, size = _make_graph(stream, frame), (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            yield from _flush(graph, times)
            yield frame
            yield from remaining
            return
        times.append(frame.pts)
        graph.push(frame)
        yield from _pull(graph, times)
    if graph is not None:
        yield from _flush(graph, times)


def _make_graph(stream: VideoStream, first: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=first.width, height=first.height, format=first.format, time_base=stream.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _flush(graph: Graph, times: list[int | None]) -> Iterator[VideoFrame]:
    graph.push(None)
    yield from _pull(graph, times)


def _pull(graph: Graph, times: list[int | None]) -> Iterator[VideoFrame]:
    """Yield what is ready, with the timestamps of the frames that went in: the filter doubles the clock."""
    while True:
        try:
            frame = cast(VideoFrame, graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return
        frame.pts = times.pop(0)
        yield frame
