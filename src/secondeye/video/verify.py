"""Verify a muxed film: its frames, streams and duration, and that its first and last frame decode."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from secondeye.system.errors import UserError
from secondeye.video.mux import COPIED, Track
from secondeye.video.probe import UnreadableFilm, open_film, video_stream

_TRACK_TOLERANCE_SECONDS = Fraction(1, 2)  # muxers divide PCM into packets of their own length


def verify_film(
    path: Path,
    *,
    width: int,
    height: int,
    seconds: Sequence[Fraction],  # display time of every frame
    tracks: Sequence[Track],  # of sound and subtitles, as written
) -> None:
    """Read the whole file, decoding only both ends. Raises UserError with what is wrong.

    Matroska shifts all tracks together if the sound starts before the first frame.
    """
    try:
        with open_film(path) as container:
            stream = video_stream(container, path)
            found = _read_packets(container)
            tick = Fraction(stream.time_base or 1)
            frames = sorted(found.pop(stream.index))
            shift = frames[0] - seconds[0] if frames else Fraction(0)
            _check_frames(path, frames, [at + shift for at in seconds], tick)
            _check_tracks(path, container, found, tracks, shift)
            _check_images(path, container, stream, (width, height), (frames[0], frames[-1]))
    except UnreadableFilm as error:
        raise _damaged(path, str(error).removeprefix(f"{path}: ")) from error


def _read_packets(container: InputContainer) -> dict[int, list[Fraction]]:
    """Return the display times of all packets by stream index."""
    found: dict[int, list[Fraction]] = {stream.index: [] for stream in container.streams}
    for packet in container.demux():
        if packet.size and packet.pts is not None:
            found[packet.stream.index].append(packet.pts * packet.time_base)
    return found


def _check_frames(
    path: Path, found: Sequence[Fraction], expected: Sequence[Fraction], tick: Fraction
) -> None:
    if len(found) != len(expected):
        raise _damaged(path, f"{len(found)} of {len(expected)} frames")
    for number, (is_at, should) in enumerate(zip(found, expected, strict=True)):
        if abs(is_at - should) > tick:
            raise _damaged(path, f"frame {number} is at {float(is_at):.3f} s, not {float(should):.3f} s")


def _check_tracks(
    path: Path,
    container: InputContainer,
    found: dict[int, list[Fraction]],  # display times by stream
    tracks: Sequence[Track],
    shift: Fraction,  # seconds
) -> None:
    # A track without packets is not written to mp4.
    copies = [stream for stream in container.streams if stream.type in COPIED and found[stream.index]]
    if [stream.type for stream in copies] != [track.kind for track in tracks]:
        raise _damaged(path, f"{len(copies)} of {len(tracks)} tracks of sound and subtitles")
    for stream, track in zip(copies, tracks, strict=True):
        last = max(found[stream.index]) - shift
        # Muxers add empty subtitles of their own.
        if track.kind == "audio" and abs(last - track.last_seconds) > _TRACK_TOLERANCE_SECONDS:
            raise _damaged(
                path,
                f"{track.kind} track {stream.index} ends at {float(last):.1f} s, "
                f"not {float(track.last_seconds):.1f} s",
            )


def _check_images(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    size: tuple[int, int],
    ends: tuple[Fraction, Fraction],  # display times of the first and the last frame
) -> None:
    tick = Fraction(stream.time_base or 1)
    stream.codec_context.thread_count = 2  # each more would hold a frame
    stream.codec_context.thread_type = "AUTO"
    for name, seconds in zip(("first", "last"), ends, strict=True):
        container.seek(round(seconds / tick), stream=stream, backward=True)
        until = (frame for frame in container.decode(stream) if (frame.pts or 0) * tick >= seconds - tick)
        frame = next(until, None)
        if frame is None or (frame.width, frame.height) != size:
            shape = f"{size[0]}x{size[1]}"
            raise _damaged(path, f"its {name} frame, at {float(seconds):.3f} s, does not decode to {shape}")


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: the finished film is not as it should be ({reason}); check the disk and run the same "
        "command again, which only joins the finished parts"
    )
