"""What a film says about its eyes and its projection: in its container, and in its first picture."""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from secondeye.video.probe import decode_first_frame, open_film, video_stream

# FFmpeg's AVStereo3DType and AVSphericalProjection, by number. What is not here says nothing.
_AXES = {1: "sbs", 2: "tb", 3: "frame by frame", 4: "checkerboard", 5: "quincunx", 6: "lines", 7: "columns"}
_PROJECTIONS = {
    0: "equirectangular",
    1: "cube map",
    2: "equirectangular",
    3: "half equirectangular",
    5: "fisheye",
    6: "parametric immersive",
}
_INVERTED = 1  # AV_STEREO3D_FLAG_INVERT
_VIEW_ID = 29  # AV_FRAME_DATA_VIEW_ID: which of a stream's views a picture is
_VPS = re.compile(rb"\x40\x01..", re.DOTALL)  # header of HEVC's video parameter set, and its first 16 bits


@dataclass(frozen=True)
class StereoMetadata:
    """Empty where the film says nothing."""

    axis: str  # sbs, tb, or how else the eyes share a picture
    right_first: bool
    projection: str  # of a spherical film
    views: int  # pictures that the stream holds for each moment; 2 in MV-HEVC


def read_stereo_metadata(path: Path) -> StereoMetadata:
    """Read a film's header and decode its first picture.

    FFmpeg hands what it finds in st3d, sv3d and vexu boxes, Matroska's StereoMode and Projection, and the
    frame-packing SEI down to the picture. Raises UnreadableFilm when there is no picture.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        told = _side_data(decode_first_frame(container, stream, path), stream)
        kind, flags = struct.unpack_from("ii", told.get("STEREO3D", bytes(8)))
        (projection,) = struct.unpack_from("i", told["SPHERICAL"]) if "SPHERICAL" in told else (None,)
        return StereoMetadata(
            axis=_AXES.get(kind, ""),
            right_first=bool(flags & _INVERTED),
            projection=_PROJECTIONS.get(projection, ""),
            views=_views(stream),
        )


def _side_data(frame: VideoFrame, stream: VideoStream) -> dict[str, bytes]:
    """What hangs on a picture, by FFmpeg's name of its kind.

    PyAV knows fewer kinds than FFmpeg, and shows none where there is one that it does not know.
    """
    try:
        told = cast(Iterable[SideData], frame.side_data)  # a mapping that yields its values
    except ValueError:
        try:
            told = cast(Iterable[SideData], _without_view_id(frame, stream).side_data)
        except ValueError:
            return {}
    return {part.type.name: bytes(part) for part in told}


def _without_view_id(frame: VideoFrame, stream: VideoStream) -> VideoFrame:
    graph = Graph()
    delete = graph.add("sidedata", f"mode=delete:type={_VIEW_ID}")
    graph.link_nodes(graph.add_buffer(template=stream), delete, graph.add("buffersink")).configure()
    graph.push(frame)
    return cast(VideoFrame, graph.pull())


def _views(stream: VideoStream) -> int:
    """The layers that HEVC's parameter sets promise (vps_max_layers_minus1, 6 bits); 1 for other codecs."""
    context = stream.codec_context
    found = _VPS.search(context.extradata or b"") if context.name == "hevc" else None
    return 1 if found is None else (int.from_bytes(found[0][2:]) >> 4 & 0x3F) + 1
