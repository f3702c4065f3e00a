"""Mux encoded segments into one film with the source's sound and subtitles, copied or stored as FLAC."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Stream
from av.video.stream import VideoStream

from secondeye.video.encoders import APPLE_HEVC
from secondeye.video.probe import (
    Losses,
    decode_packet,
    demux_film,
    ffmpeg_url,
    open_container,
    open_film,
    probe,
)
from secondeye.video.stereo_tag import NO_TAG, StereoTag, write_st3d

COPIED = ("audio", "subtitle")  # kinds of tracks that are taken from the source


class Track(NamedTuple):
    """A track of the source that had packets."""

    kind: str  # one of COPIED
    last_seconds: Fraction  # display time of its last packet


class MuxedTracks(NamedTuple):
    """The source's tracks in a muxed film."""

    tracks: list[Track]
    lost: int  # parts of the sound that could not be read or decoded


def mux_film(
    segments: Sequence[tuple[Path, Fraction]],  # encoded files in order, and the second each starts at
    source: Path,  # audio, subtitles, chapters and tags are copied from it
    output: Path,  # .mp4, .mov or .mkv
    *,
    until: Fraction | None = None,  # seconds; later packets of the source are not copied
    comment: str | None = None,  # tag of the container, in place of the source's
    stereo: StereoTag = NO_TAG,  # says how the views are packed
    stream: int = 0,  # video stream of the segments
) -> MuxedTracks:
    """Write `output`, not atomically, with the tracks of the source as in `plan_tracks`.

    Timestamps are exactly the segments' own plus their start.
    """
    plan = plan_tracks(source, output.suffix)
    with ExitStack() as stack:
        film = stack.enter_context(open_container(source))
        target: OutputContainer = stack.enter_context(
            av.open(ffmpeg_url(output), "w", container_options=_options(output, segments[0][0]))
        )
        first = stack.enter_context(av.open(ffmpeg_url(segments[0][0])))
        template = first.streams.video[stream]
        # Without `opaque` PyAV looks for an encoder that is called as the decoder is: AV1 has none.
        video = target.add_stream_from_template(template, opaque=True)
        if output.suffix != ".mkv" and template.codec_context.name == "hevc":
            video.codec_context.codec_tag = APPLE_HEVC
        # The template does not carry the frame rate, which Matroska stores.
        video.framerate = template.average_rate or video.framerate
        # With stereo_mode FFmpeg writes a display size for square pixels; other films rely on the SEI and
        # the record in their comment.
        if output.suffix == ".mkv" and stereo.matroska and template.sample_aspect_ratio in (None, 1):
            video.metadata["stereo_mode"] = stereo.matroska
        copies: dict[Stream, Stream] = {}
        for track in film.streams:
            if isinstance(track, AttachmentStream):
                if track.index in plan.copied:
                    name = track.metadata.get("filename", f"attachment {track.index}")
                    target.add_attachment(name, track.mimetype or "application/octet-stream", track.data)
                continue
            if track.index in plan.copied:
                copies[track] = target.add_stream_from_template(track)
            elif track.index in plan.encoded:
                copies[track] = _add_flac(cast(AudioStream, track), target)
            else:
                continue
            copies[track].metadata.update(track.metadata)
        target.metadata.update(film.metadata)
        if timecode := _timecode(film):
            video.metadata["timecode"] = timecode  # mp4 and mov get a track of it
        if comment is not None:
            target.metadata.update({"comment": comment})
        if chapters := film.chapters():
            target.set_chapters(chapters)
        ends: dict[int, Fraction] = {}
        losses = Losses()
        video_packets = _video_packets(segments, stream, video)
        for packet in merge(
            video_packets, _source_packets(film, copies, plan, until, losses), key=_decode_time
        ):
            if packet.stream.index != video.index and packet.pts is not None:
                at = _display_time(packet)
                ends[packet.stream.index] = max(at, ends.get(packet.stream.index, at))
            target.mux(packet)
    if output.suffix in (".mp4", ".mov") and stereo.st3d is not None:
        write_st3d(output, stereo.st3d)
    tracks = [Track(copy.type, ends[copy.index]) for copy in copies.values() if copy.index in ends]
    return MuxedTracks(tracks, len(losses.timestamps))


def _timecode(film: InputContainer) -> str:
    """Return the timecode of the first frame, which may stand in any stream; "" if there is none."""
    tags = [film.metadata, *(stream.metadata for stream in film.streams)]
    return next((each["timecode"] for each in tags if "timecode" in each), "")


def _options(output: Path, segment: Path) -> dict[str, str]:
    """Return muxer options: mp4 stores track starts in movie ticks, by default only milliseconds."""
    if output.suffix == ".mkv":
        return {}
    return {"movie_timescale": str(probe(segment).time_base.denominator)}


@dataclass(frozen=True)
class TrackPlan:
    """What becomes of the source's tracks in a container; their numbers are those of its streams."""

    copied: tuple[int, ...]
    encoded: dict[int, str]  # codecs of sound that the container cannot hold: it is stored as FLAC, 24 bits
    dropped: dict[int, str]  # tracks that it cannot hold, described

    @property
    def losses(self) -> tuple[int, int]:
        """Numbers of tracks that are dropped and that are encoded; the smaller of two plans is better."""
        return len(self.dropped), len(self.encoded)


def plan_tracks(source: Path, suffix: str) -> TrackPlan:
    """Decide what becomes of the source's sound and subtitles in a container of this suffix.

    Tracks of data are in no plan: they belong to the source's own file, and timecodes are made again.
    Raises UnreadableFilm.
    """
    copied: list[int] = []
    encoded: dict[int, str] = {}
    dropped: dict[int, str] = {}
    with (
        open_film(source) as film,
        av.open(os.devnull, "w", format=_FORMATS[suffix]) as target,
    ):
        for stream in film.streams:
            name = stream.codec_context.name if stream.codec_context else "unknown"
            if stream.type not in (*COPIED, "attachment"):
                continue
            if _holds(target, stream, suffix):
                copied.append(stream.index)
            elif isinstance(stream, AudioStream) and _fits_flac(stream):
                encoded[stream.index] = name
            else:
                dropped[stream.index] = f"{stream.type} track {stream.index} ({name})"
    return TrackPlan(tuple(copied), encoded, dropped)


_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
# FFmpeg also writes PCM and others into mp4, but few players support them there.
_FLAC_CHANNELS = 8
_MP4_AUDIO = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}


def _holds(target: OutputContainer, stream: Stream, suffix: str) -> bool:
    if stream.type == "attachment":
        return suffix == ".mkv"
    if stream.codec_context is None:
        return False
    if stream.type == "audio" and suffix == ".mp4":
        return _encoder_name(stream.codec_context.name) in _MP4_AUDIO
    try:
        target.add_stream_from_template(stream)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _fits_flac(stream: AudioStream) -> bool:
    """Whether the sound can be decoded, and has no more channels than FLAC."""
    context = stream.codec_context
    return bool(context and context.format and context.sample_rate and 0 < context.channels <= _FLAC_CHANNELS)


def _encoder_name(decoder: str) -> str:
    return {"mp3float": "mp3", "libopus": "opus", "ac3_fixed": "ac3"}.get(decoder, decoder)


def _add_flac(stream: AudioStream, target: OutputContainer) -> AudioStream:
    """Add a track for the decoded sound of a stream, with all of its bits up to 24."""
    flac = target.add_stream("flac", rate=stream.rate)
    flac.codec_context.layout = stream.layout
    flac.codec_context.format = "s16" if stream.format.bytes == 2 else "s32"
    return flac


def _source_packets(
    film: InputContainer,
    copies: dict[Stream, Stream],
    plan: TrackPlan,
    until: Fraction | None,
    losses: Losses,
) -> Iterator[Packet]:
    if not copies:
        return
    resamplers: dict[tuple[Any, ...], AudioResampler] = {}  # a new one where a track changes its format
    for packet in demux_film(film, list(copies), losses):
        stream, copy = packet.stream, copies[packet.stream]
        if until is not None and packet.dts is not None and _decode_time(packet) >= until:
            continue
        if stream.index in plan.encoded:
            flac = cast(AudioStream, copy)
            for frame in decode_packet(packet, losses):
                form = stream.index, frame.format.name, frame.layout.name, frame.sample_rate
                if form not in resamplers:
                    resamplers[form] = AudioResampler(flac.format, flac.layout, flac.rate)
                for fitted in resamplers[form].resample(frame):
                    yield from flac.encode(fitted)
        elif packet.dts is not None:
            packet.stream = copy
            yield packet
    for stream, copy in copies.items():
        if stream.index in plan.encoded:
            yield from cast(AudioStream, copy).encode(None)


def _video_packets(
    segments: Sequence[tuple[Path, Fraction]], source: int, stream: VideoStream
) -> Iterator[Packet]:
    """Yield the packets of one video stream of all segments with timestamps on one clock.

    Each segment starts decoding before its first frame is displayed. The sorted display times, delayed by
    the longest such lead, are valid decoding times that never decrease, also at a variable frame rate.
    """
    lead = 0
    display_times: list[Fraction] = []
    for path, start in segments:
        with av.open(ffmpeg_url(path)) as container:
            times = [_display_time(packet) for packet in container.demux(video=source) if packet.size]
        ordered = sorted(times)
        lead = max(lead, _max_reordering(times, ordered))
        display_times += [start + pts for pts in ordered]
    step = display_times[1] - display_times[0] if len(display_times) > 1 else Fraction(1, 25)
    decode_times = iter([display_times[0] - step * k for k in range(lead, 0, -1)] + display_times)
    for path, start in segments:
        with av.open(ffmpeg_url(path)) as container:
            for packet in container.demux(video=source):
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
