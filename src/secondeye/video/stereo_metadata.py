"""Read stereo packing and spherical projection from a film's container and first frame."""

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

# FFmpeg's AVStereo3DType and AVSphericalProjection, by number; other values carry no information.
_AXES = {
    1: "sbs",
    2: "tb",
    3: "frame by frame",
    4: "checkerboard",
    5: "quincunx",
    6: "interleaved",
    7: "columns",
}
_PROJECTIONS = {
    0: "equirectangular",
    1: "cube map",
    2: "equirectangular",
    3: "half equirectangular",
    5: "fisheye",
    6: "parametric immersive",
}
_INVERTED = 1  # AV_STEREO3D_FLAG_INVERT
_VIEW_ID = 29  # AV_FRAME_DATA_VIEW_ID: the view a frame belongs to
# NAL header of the HEVC video parameter set, and its first 16 bits.
_VPS = re.compile(rb"\x40\x01..", re.DOTALL)


@dataclass(frozen=True)
class StereoMetadata:
    """Stereo metadata of a film; fields are empty if the film does not state them."""

    axis: str  # sbs, tb, interleaved, or another packing of the views
    right_first: bool
    projection: str  # of a spherical film
    views: int  # per frame of the stream; 2 in MV-HEVC


def read_stereo_metadata(path: Path) -> StereoMetadata:
    """Read the stereo metadata of a film from its header and first frame.

    FFmpeg attaches the content of st3d, sv3d and vexu boxes, Matroska's StereoMode and Projection, and the
    frame-packing SEI to the frame. Raises UnreadableFilm if no frame decodes.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        side_data = _side_data(decode_first_frame(container, stream, path), stream)
        kind, flags = struct.unpack_from("ii", side_data.get("STEREO3D", bytes(8)))
        (projection,) = (
            struct.unpack_from("i", side_data["SPHERICAL"]) if "SPHERICAL" in side_data else (None,)
        )
        return StereoMetadata(
            axis=_AXES.get(kind, ""),
            right_first=bool(flags & _INVERTED),
            projection=_PROJECTIONS.get(projection, ""),
            views=_views(stream),
        )


def _side_data(frame: VideoFrame, stream: VideoStream) -> dict[str, bytes]:
    """Return a frame's side data by FFmpeg's name of its type.

    PyAV raises for all side data when one of its types, such as the view id, is unknown to it.
    """
    try:
        found = cast(Iterable[SideData], frame.side_data)  # a mapping that yields its values
    except ValueError:
        try:
            found = cast(Iterable[SideData], _without_view_id(frame, stream).side_data)
        except ValueError:
            return {}
    return {part.type.name: bytes(part) for part in found}


def _without_view_id(frame: VideoFrame, stream: VideoStream) -> VideoFrame:
    graph = Graph()
    delete = graph.add("sidedata", f"mode=delete:type={_VIEW_ID}")
    graph.link_nodes(graph.add_buffer(template=stream), delete, graph.add("buffersink")).configure()
    graph.push(frame)
    return cast(VideoFrame, graph.pull())


def _views(stream: VideoStream) -> int:
    """Return the number of layers in HEVC's parameter sets (vps_max_layers_minus1); 1 for other codecs."""
    context = stream.codec_context
    found = _VPS.search(context.extradata or b"") if context.name == "hevc" else None
    return 1 if found is None else (int.from_bytes(found[0][2:]) >> 4 & 0x3F) + 1
