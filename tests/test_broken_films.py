"""Films broken on purpose: no traceback, no half of an output, and no good frame is lost in silence."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import frame_seconds, moving_images
from test_cli import Run, secondeye  # noqa: F401

# ruff: noqa: F811  # parameters have the names of the fixtures

FRAMES, HEIGHT, WIDTH = 60, 48, 64


def write(path: Path, options: dict[str, str] | None = None) -> Path:
    """Write 60 frames with a key frame every 12, and sound."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", container_options=options or {}) as container:
        video = container.add_stream("libx264", rate=24, options={"g": "12", "crf": "12"})
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        audio = container.add_stream("aac", rate=48000)
        audio.codec_context.layout = "stereo"
        for image in moving_images(FRAMES, HEIGHT, WIDTH):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        noise = rng.uniform(-0.3, 0.3, (2, 48000 * FRAMES // 24)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux([*video.encode(None), *audio.encode(frame), *audio.encode(None)])
    return path


def packets(film: Path, kind: str) -> list[tuple[int, int]]:
    """Return place and size of each packet in the file, without what the container writes around it."""
    content = film.read_bytes()
    with av.open(str(film)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        found = [bytes(packet) for packet in container.demux(stream) if packet.size]
        return [(content.index(packet), len(packet)) for packet in found]


def overwrite(film: Path, place: int, content: bytes) -> None:
    data = bytearray(film.read_bytes())
    data[place : place + len(content)] = content
    film.write_bytes(data)


def zero_packet(film: Path) -> None:
    place, size = packets(film, "video")[30]
    overwrite(film, place, bytes(size))


def zero_first_packet(film: Path) -> None:
    place, size = packets(film, "video")[0]
    overwrite(film, place, bytes(size))


def flip_bits(film: Path) -> None:
    data = film.read_bytes()
    for place, size in packets(film, "video")[20:23]:
        middle = place + size // 2
        overwrite(film, middle, bytes(byte ^ 0xFF for byte in data[middle : middle + 8]))


def break_sound(film: Path) -> None:
    for place, size in packets(film, "audio")[20:30]:
        overwrite(film, place, bytes(size))


def cut(film: Path) -> None:
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])


def drop_ts_packets(film: Path) -> None:
    data = film.read_bytes()
    middle = len(data) // 188 // 2 * 188
    film.write_bytes(data[:middle] + data[middle + 4 * 188 :])


def shift_offsets(film: Path) -> None:
    """Let the first chunk of every track begin 7 bytes too late."""
    data = bytearray(film.read_bytes())
    at = data.find(b"stco")
    while at >= 0:
        offset = struct.unpack_from(">I", data, at + 12)[0]
        struct.pack_into(">I", data, at + 12, offset + 7)
        at = data.find(b"stco", at + 4)
    film.write_bytes(data)


def unknown_codec(film: Path) -> None:
    data = film.read_bytes()
    film.write_bytes(data.replace(b"avc1", b"qqqq").replace(b"avcC", b"qqqC"))


def wrong_size(film: Path) -> None:
    """Say 640x480 in the headers of the container; the stream has 64x48."""
    data = bytearray(film.read_bytes())
    at = data.find(b"avc1", data.find(b"stsd"))
    struct.pack_into(">HH", data, at + 28, 640, 480)
    film.write_bytes(data)


def no_timescale(film: Path) -> None:
    data = bytearray(film.read_bytes())
    at = data.find(b"mdhd")
    struct.pack_into(">I", data, at + 16, 0)
    film.write_bytes(data)


def no_durations(film: Path) -> None:
    """Give every frame a duration of 0 ticks."""
    data = bytearray(film.read_bytes())
    at = data.find(b"stts")
    for entry in range(struct.unpack_from(">I", data, at + 8)[0]):
        struct.pack_into(">I", data, at + 16 + 8 * entry, 0)
    film.write_bytes(data)


def fill_with_noise(film: Path) -> None:
    film.write_bytes(np.random.default_rng(0).bytes(20000))


BREAKS: list[tuple[str, Callable[[Path], None], int, int, str]] = [
    ("film.mp4", zero_packet, 3, 59, "frames that do not decode: 1"),
    ("film.mkv", zero_packet, 3, 59, "frames that do not decode: 1"),
    ("film.mp4", zero_first_packet, 3, 48, "frames that do not decode: 12"),
    ("film.mp4", flip_bits, 3, 58, "do not decode: 2, skipped before 0.33, 0.92 s; "),
    ("film.mp4", break_sound, 0, 60, ""),  # its packets are copied as they are
    ("film.mp4", cut, 1, 0, "not a film"),
    ("fast.mp4", cut, 3, 36, "24 frames of its index lie beyond the end of the file"),
    ("film.mkv", cut, 3, 36, "1.5 of the 2.5 seconds in its header"),
    ("film.ts", drop_ts_packets, 3, 59, "frames that decode in part: 1, at 1.17 s"),
    ("film.mp4", shift_offsets, 3, 48, "frames that do not decode: 12, skipped before 0.50 s"),
    ("film.mp4", unknown_codec, 1, 0, "no decoder for its video"),
    ("film.mp4", wrong_size, 0, 60, ""),
    ("film.mp4", no_timescale, 1, 0, "60 frames into 3 ticks of 1 s"),
    ("film.mp4", no_durations, 3, 31, "ends early after 31 frames (0.2 of the 2.5 seconds in its header)"),
    ("film.mp4", fill_with_noise, 1, 0, "not a film"),
]


@pytest.mark.parametrize(
    ("name", "break_film", "code", "frames", "said"),
    BREAKS,
    ids=[f"{break_film.__name__}-{name}" for name, break_film, *_ in BREAKS],
)
def test_a_broken_film_loses_nothing_in_silence(
    tmp_path: Path,
    secondeye: Run,
    name: str,
    break_film: Callable[[Path], None],
    code: int,
    frames: int,
    said: str,
) -> None:
    film = write(tmp_path / name, {"movflags": "faststart"} if name == "fast.mp4" else None)
    break_film(film)
    output = tmp_path / "made.mkv"
    done = secondeye("convert", film, "--depth", "motion", "--inpainter", "fill", "--output", output)
    errors = [line for line in done.stderr.splitlines() if line.startswith("secondeye:")]
    made = len(frame_seconds(output)) if output.exists() else 0
    assert (done.returncode, made) == (code, frames), done.stderr
    assert "Traceback" not in done.stderr and len(errors) == bool(code), done.stderr
    assert said in "".join(errors)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name] + ["made.mkv"] * bool(made))
