import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from conftest import moving_images

from secondeye.video import stereo_metadata, stereo_tag
from secondeye.video.probe import UnreadableFilm
from secondeye.video.stereo_metadata import StereoMetadata, read_stereo_metadata
from secondeye.video.write import FilmWriter

IMAGES = moving_images(3, 32, 64)


def write_mp4(path: Path, *, side_by_side: bool = False) -> Path:
    with FilmWriter(
        path, 64, 32, fps=Fraction(25), time_base=Fraction(1, 25), frame_packing=3 if side_by_side else None
    ) as film:
        for index, image in enumerate(IMAGES):
            film.write(image, index)
    return path


def write_mkv(path: Path, codec: str, pixels: str, stereo_mode: str, width: int = 64) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, width, pixels
        if stereo_mode:
            stream.metadata["stereo_mode"] = stereo_mode
        for image in np.ascontiguousarray(IMAGES[:, :, :width]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image).reformat(format=pixels)))
        container.mux(stream.encode(None))
    return path


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize(
    ("mode", "axis", "right_first"),
    [
        ("", "", False),
        ("left_right", "sbs", False),
        ("right_left", "sbs", True),
        ("top_bottom", "tb", False),
        ("bottom_top", "tb", True),
        ("row_interleaved_lr", "interleaved", False),
    ],
)
def test_matroska_stereo_mode_is_read(tmp_path: Path, mode: str, axis: str, right_first: bool) -> None:
    film = write_mkv(tmp_path / "film.mkv", "ffv1", "bgr0", mode)
    assert read_stereo_metadata(film) == StereoMetadata(axis, right_first, "", 1)


def test_written_stereo_metadata_reads_back(tmp_path: Path) -> None:
    assert read_stereo_metadata(write_mp4(tmp_path / "plain.mp4")).axis == ""
    assert read_stereo_metadata(write_mp4(tmp_path / "sei.mp4", side_by_side=True)).axis == "sbs"
    stereo_tag.write_st3d(write_mp4(tmp_path / "st3d.mp4"), 2)
    assert read_stereo_metadata(tmp_path / "st3d.mp4").axis == "sbs"


def test_spherical_projection_is_read(tmp_path: Path) -> None:
    projection = box(b"prhd", bytes(16)) + box(b"equi", bytes(20))
    sphere = box(b"sv3d", box(b"svhd", bytes(4) + b"made by hand\0") + box(b"proj", projection))
    stereo_tag.append_box(write_mp4(tmp_path / "film.mp4"), sphere)
    assert read_stereo_metadata(tmp_path / "film.mp4").projection == "equirectangular"


def test_view_count_comes_from_the_parameter_set() -> None:
    """vps_max_layers_minus1 is 1; an HEVC film of one view says 0."""
    for layers, name, wanted in ((1, "hevc", 2), (0, "hevc", 1), (1, "h264", 1)):
        content = b"\1\0\0\0\1\x40\x01" + (0xC00F | layers << 4).to_bytes(2, "big")
        stream = SimpleNamespace(codec_context=SimpleNamespace(name=name, extradata=content))
        assert stereo_metadata._views(stream) == wanted  # type: ignore[arg-type]


def test_invalid_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "film.mkv").write_bytes(b"no film")
    with pytest.raises(UnreadableFilm, match="not a film"):
        read_stereo_metadata(tmp_path / "film.mkv")
