"""Segments of a converted film into one file, with the source's sound copied packet by packet."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from heapq import merge
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from secondeye.system.errors import UserError
from secondeye.video.probe import ffmpeg_url, open_film, probe
from secondeye.video.stereo_tag import tag_side_by_side

_COPIED = ("audio", "subtitle")


def mux_film(
    segments: Sequence[tuple[Path, Fraction]],  # H.264 files in order, with the second each one starts at
    source: Path,  # where sound, subtitles, chapters and tags come from
    output: Path,  # .mp4, .mov or .mkv
    *,
    until: Fraction | None = None,  # seconds; what the source has after this is not copied
) -> list[str]:
    """Write `output` (not atomically: the caller renames); return what could not be taken along.

    Time stamps are the segments' own plus their start, exactly. Raises Refusal where the container can not
    hold the source's sound.
    """
    left_out: list[str] = []
    with ExitStack() as stack:
        film = stack.enter_context(open_film(source))
        target: OutputContainer = stack.enter_context(
            av.open(ffmpeg_url(output), "w", container_options=_options(output, segments[0][0]))
        )
        first = stack.enter_context(av.open(ffmpeg_url(segments[0][0])))
        template = first.streams.video[0]
        picture = target.add_stream_from_template(template)
        # A template leaves it behind, and Matroska writes it.
        picture.framerate = template.average_rate or picture.framerate
        # With this mark FFmpeg's Matroska states a display size of square pixels; the SEI must do then.
        if output.suffix == ".mkv" and template.sample_aspect_ratio in (None, 1):
            picture.metadata["stereo_mode"] = "left_right"
        copies = {}
        for stream in film.streams:
            if stream.type in _COPIED:
                copy = _copy_of(stream, target, output)
                if copy is None:
                    left_out.append(f"{stream.type} track {stream.index}")
                else:
                    copies[stream] = copy
        target.metadata.update(film.metadata)
        if chapters := film.chapters():
            target.set_chapters(chapters)
        pictures = _picture_packets(segments, picture)
        for packet in merge(pictures, _source_packets(film, copies, until), key=_decoded_at):
            target.mux(packet)
    if output.suffix in (".mp4", ".mov"):
        tag_side_by_side(output)
    return left_out


def _options(output: Path, segment: Path) -> dict[str, str]:
    """mp4 keeps the moment a track begins in ticks of the movie, which FFmpeg makes milliseconds."""
    if output.suffix == ".mkv":
        return {}
    return {"movie_timescale": str(probe(segment).time_base.denominator)}


def can_hold_audio(source: Path, suffix: str) -> bool:
    """Whether a container of this suffix can hold the source's sound tracks as they are."""
    with open_film(source) as film, av.open("/dev/null", "w", format=_FORMATS[suffix]) as target:
        tracks = [track.codec_context.name for track in film.streams.audio if track.codec_context]
        return all(_sound_name(name) in _sounds_of(suffix, target) for name in tracks)


_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# FFmpeg would also write PCM and others into mp4, where hardly any player looks for them.
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}


def _sounds_of(suffix: str, target: OutputContainer) -> set[str]:
    return _MP4_SOUND if suffix == ".mp4" else set(target.supported_codecs)


def _sound_name(decoder: str) -> str:
    return {"mp3float": "mp3", "libopus": "opus", "ac3_fixed": "ac3"}.get(decoder, decoder)


def _copy_of(stream: Stream, target: OutputContainer, output: Path) -> Stream | None:
    try:
        copy = target.add_stream_from_template(stream)
    except (av.FFmpegError, ValueError) as error:
        if stream.type == "audio":
            raise UserError(
                f"{output}: can not hold the source's sound; give --output a name in .mkv"
            ) from error
        return None
    copy.metadata.update(stream.metadata)
    return copy


def _source_packets(
    film: InputContainer, copies: dict[Stream, Stream], until: Fraction | None
) -> Iterator[Packet]:
    if not copies:
        return
    try:
        for packet in film.demux(list(copies)):
            if packet.dts is None:
                continue
            if until is None or _decoded_at(packet) < until:
                packet.stream = copies[packet.stream]
                yield packet
    except av.FFmpegError:
        return  # a file cut short: its sound ends here, and the caller has said so for the pictures


def _picture_packets(segments: Sequence[tuple[Path, Fraction]], stream: VideoStream) -> Iterator[Packet]:
    """Packets of all segments on one clock.

    Each segment's decoding times begin before its first picture is shown. Delaying the sorted display times
    by the longest such lead gives one sequence that never runs backwards, whatever the frame rate does.
    """
    lead = 0
    shown: list[Fraction] = []
    for path, start in segments:
        with av.open(ffmpeg_url(path)) as container:
            times = [_shown_at(packet) for packet in container.demux(video=0) if packet.size]
        ordered = sorted(times)
        lead = max(lead, _reordering(times, ordered))
        shown += [start + pts for pts in ordered]
    step = shown[1] - shown[0] if len(shown) > 1 else Fraction(1, 25)
    decoded = iter([shown[0] - step * k for k in range(lead, 0, -1)] + shown)
    for path, start in segments:
        with av.open(ffmpeg_url(path)) as container:
            for packet in container.demux(video=0):
                if not packet.size:
                    continue
                packet.pts = round((start + _shown_at(packet)) / packet.time_base)
                packet.dts = round(next(decoded) / packet.time_base)
                packet.stream = stream
                yield packet


def _reordering(decode_order: list[Fraction], display_order: list[Fraction]) -> int:
    """By how many places the decoding order runs ahead of the display order, at most."""
    place = {pts: index for index, pts in enumerate(display_order)}
    return max(index - place[pts] for index, pts in enumerate(decode_order))


def _shown_at(packet: Packet) -> Fraction:
    assert packet.pts is not None
    return packet.pts * packet.time_base


def _decoded_at(packet: Packet) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base
