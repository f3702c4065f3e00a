"""Mux encoded segments into one film with the source's audio and subtitles, without re-encoding."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from secondeye.system.errors import UserError
from secondeye.video.probe import Losses, demux_film, ffmpeg_url, open_container, open_film, probe
from secondeye.video.stereo_tag import tag_side_by_side

COPIED = ("audio", "subtitle")  # kinds of tracks that are taken from the source


class Track(NamedTuple):
    """A track that was copied from the source, and had packets."""

    kind: str  # one of COPIED
    last_seconds: Fraction  # display time of its last packet


class MuxedTracks(NamedTuple):
    """What became of the source's tracks."""

    copied: list[Track]
    dropped: list[str]  # the container cannot hold them


def mux_film(
    segments: Sequence[tuple[Path, Fraction]],  # H.264 files in order, and the second each starts at
    source: Path,  # audio, subtitles, chapters and tags are copied from it
    output: Path,  # .mp4, .mov or .mkv
    *,
    until: Fraction | None = None,  # seconds; later packets of the source are not copied
    comment: str | None = None,  # tag of the container, in place of the source's
) -> MuxedTracks:
    """Write `output`, not atomically, and return what became of the source's tracks.

    Timestamps are exactly the segments' own plus their start. Raises UserError if the container cannot hold
    the source's audio.
    """
    dropped: list[str] = []
    with ExitStack() as stack:
        film = stack.enter_context(open_container(source))
        target: OutputContainer = stack.enter_context(
            av.open(ffmpeg_url(output), "w", container_options=_options(output, segments[0][0]))
        )
        first = stack.enter_context(av.open(ffmpeg_url(segments[0][0])))
        template = first.streams.video[0]
        video = target.add_stream_from_template(template)
        # The template does not carry the frame rate, which Matroska stores.
        video.framerate = template.average_rate or video.framerate
        # With stereo_mode FFmpeg writes a display size for square pixels; other films rely on the SEI.
        if output.suffix == ".mkv" and template.sample_aspect_ratio in (None, 1):
            video.metadata["stereo_mode"] = "left_right"
        copies = {}
        for stream in film.streams:
            if stream.type in COPIED:
                copy = _add_copy(stream, target, output)
                if copy is None:
                    dropped.append(f"{stream.type} track {stream.index}")
                else:
                    copies[stream] = copy
        target.metadata.update(film.metadata)
        if comment is not None:
            target.metadata.update({"comment": comment})
        if chapters := film.chapters():
            target.set_chapters(chapters)
        ends: dict[int, Fraction] = {}
        video_packets = _video_packets(segments, video)
        for packet in merge(video_packets, _source_packets(film, copies, until), key=_decode_time):
            if packet.stream.index != video.index and packet.pts is not None:
                at = _display_time(packet)
                ends[packet.stream.index] = max(at, ends.get(packet.stream.index, at))
            target.mux(packet)
    if output.suffix in (".mp4", ".mov"):
        tag_side_by_side(output)
    tracks = [Track(copy.type, ends[copy.index]) for copy in copies.values() if copy.index in ends]
    return MuxedTracks(tracks, dropped)


def _options(output: Path, segment: Path) -> dict[str, str]:
    """Return muxer options: mp4 stores track starts in movie ticks, by default only milliseconds."""
    if output.suffix == ".mkv":
        return {}
    return {"movie_timescale": str(probe(segment).time_base.denominator)}


def can_hold_audio(source: Path, suffix: str) -> bool:
    """Whether a container of this suffix can hold the source's audio tracks without re-encoding."""
    with open_film(source) as film, av.open("/dev/null", "w", format=_FORMATS[suffix]) as target:
        tracks = [track.codec_context.name for track in film.streams.audio if track.codec_context]
        return all(_encoder_name(name) in _audio_codecs(suffix, target) for name in tracks)


_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# FFmpeg also writes PCM and others into mp4, but few players support them there.
_MP4_AUDIO = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}


def _audio_codecs(suffix: str, target: OutputContainer) -> set[str]:
    return _MP4_AUDIO if suffix == ".mp4" else set(target.supported_codecs)


def _encoder_name(decoder: str) -> str:
    return {"mp3float": "mp3", "libopus": "opus", "ac3_fixed": "ac3"}.get(decoder, decoder)


def _add_copy(stream: Stream, target: OutputContainer, output: Path) -> Stream | None:
    try:
        copy = target.add_stream_from_template(stream)
    except (av.FFmpegError, ValueError) as error:
        if stream.type == "audio":
            raise UserError(
                f"{output}: cannot hold the film's audio; give --output a name in .mkv"
            ) from error
        return None
    copy.metadata.update(stream.metadata)
    return copy


def _source_packets(
    film: InputContainer, copies: dict[Stream, Stream], until: Fraction | None
) -> Iterator[Packet]:
    if not copies:
        return
    # Damage has been reported by the caller already.
    for packet in demux_film(film, list(copies), Losses()):
        if packet.dts is not None and (until is None or _decode_time(packet) < until):
            packet.stream = copies[packet.stream]
            yield packet


def _video_packets(segments: Sequence[tuple[Path, Fraction]], stream: VideoStream) -> Iterator[Packet]:
    """Yield the packets of all segments with timestamps on one clock.

    Each segment starts decoding before its first frame is displayed. The sorted display times, delayed by
    the longest such lead, are valid decoding times that never decrease, also at a variable frame rate.
    """
    lead = 0
    display_times: list[Fraction] = []
    for path, start in segments:
        with av.open(ffmpeg_url(path)) as container:
            times = [_display_time(packet) for packet in container.demux(video=0) if packet.size]
        ordered = sorted(times)
        lead = max(lead, _max_reordering(times, ordered))
        display_times += [start + pts for pts in ordered]
    step = display_times[1] - display_times[0] if len(display_times) > 1 else Fraction(1, 25)
    decode_times = iter([display_times[0] - step * k for k in range(lead, 0, -1)] + display_times)
    for path, start in segments:
        with av.open(ffmpeg_url(path)) as container:
            for packet in container.demux(video=0):
                if not packet.size:
                    continue
                packet.pts = round((start + _display_time(packet)) / packet.time_base)
                packet.dts = round(next(decode_times) / packet.time_base)
                packet.stream = stream
                yield packet


def _max_reordering(decode_order: list[Fraction], display_order: list[Fraction]) -> int:
    """Return the largest number of places by which decoding order runs ahead of display order."""
    place = {pts: index for index, pts in enumerate(display_order)}
    return max(index - place[pts] for index, pts in enumerate(decode_order))


def _display_time(packet: Packet) -> Fraction:
    assert packet.pts is not None
    return packet.pts * packet.time_base


def _decode_time(packet: Packet) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base
