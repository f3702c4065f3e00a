"""Pass 2: render one shot and encode it in segments of about 10 s, continuing after the last finished one.

Segments end at fixed frames, or at the first one after that for which the inpainter's state is known: at
22-frame steps for the diffusion inpainter. They depend neither on interruptions nor on the windows' length.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.comfort import ShotStereo
from secondeye.conversion.memory import is_pipelined
from secondeye.conversion.output_format import OutputFormat
from secondeye.conversion.picture import Picture
from secondeye.conversion.preview import write_preview
from secondeye.conversion.render import RenderedWindow, SourceWindow, in_turn, render
from secondeye.conversion.settings import ConversionSettings
from secondeye.conversion.shot_depth import ShotDepth
from secondeye.film.shots import ShotPlan
from secondeye.inpaint import Inpainter
from secondeye.system.process import best_device
from secondeye.system.threads import prefetch
from secondeye.video.read import DecodedFrame, ShotReader
from secondeye.video.write import FilmWriter, container_time_base

Window = TypeVar("Window")

SEGMENT_SECONDS = 10
_MAX_SEGMENT_FRAMES = 1200  # of films whose header states an absurd frame rate


def segment_frames(fps: Fraction) -> int:
    """Return the length of a segment in frames."""
    return max(1, min(round(SEGMENT_SECONDS * fps), _MAX_SEGMENT_FRAMES))


def read_windows(
    reader: ShotReader,
    start: int,
    stop: int,
    frames: int,  # in a window, at most
    border: int = 0,  # a window ends at every multiple of this many frames after `origin`; 0: at none
    origin: int = 0,
) -> Iterator[Tensor]:
    """Yield frames `start` to `stop - 1` of a film in windows, uint8 [t, H, W, 3]."""
    decoded = reader.read(start, stop)
    while start < stop:
        most = min(frames, border - (start - origin) % border) if border else frames
        window = list(islice(decoded, most))
        yield stack(window)
        start += len(window)


def stack(frames: list[DecodedFrame]) -> Tensor:  # uint8 [t, H, W, 3]
    """Return frames as one tensor; a single one shares its memory."""
    if len(frames) == 1:
        return torch.from_numpy(frames[0].rgb)[None]
    return torch.from_numpy(np.stack([frame.rgb for frame in frames]))


@dataclass(frozen=True)
class ShotRenderer:
    """Renders and encodes the shots of one film into the segments of its checkpoint."""

    checkpoint: Checkpoint
    plan: ShotPlan
    settings: ConversionSettings
    output: OutputFormat
    inpainter: Inpainter
    window_frames: int

    def run(
        self,
        shot: tuple[int, int],  # first frame, one past the last
        picture: Picture,
        depth: ShotDepth,
        stereo: ShotStereo,
        reader: ShotReader,
        on_frames: Callable[[int], object] = lambda frames: None,  # called with the number of new frames
    ) -> None:
        """Render the rest of a shot, segment by segment."""
        start, stop = shot
        length = segment_frames(self.plan.info.fps)
        first, state = self.checkpoint.resume(start, stop)
        # Decoding with warping, inpainting and encoding overlap. Inpainting stays in this thread, so that an
        # interrupt need not wait for a network. A GPU warps in turn with it: both need its memory.
        device = best_device()
        source = self._source_windows(reader, shot, first, depth, length)
        windows = source if device == "cpu" else self._ahead(source)
        rendered = render(
            windows,
            self.inpainter,
            picture=picture,
            strength_percent=stereo.strength_percent,
            convergence=stereo.convergence,
            holds_borders=stereo.holds_borders,
            device=device,
            views=self.settings.views,
            state=state,
            ahead=self._ahead if device == "cpu" else in_turn,
        )
        with closing(windows), closing(rendered):
            while first < stop:
                border = start + ((first - start) // length + 1) * length
                first = self._encode_segment(rendered, first, min(border, stop), stop, on_frames)

    def _ahead(self, windows: Generator[Window]) -> Generator[Window]:
        """Compute the next window in a thread, unless frames are so large that memory is short."""
        return prefetch(windows, 1) if self._is_pipelined else windows

    @property
    def _is_pipelined(self) -> bool:
        return is_pipelined(self.plan.info.width * self.plan.info.height)

    def _source_windows(
        self, reader: ShotReader, shot: tuple[int, int], first: int, depth: ShotDepth, length: int
    ) -> Generator[SourceWindow]:
        start, stop = shot
        at = first - start
        for frames in read_windows(reader, first, stop, self.window_frames, length, start):
            yield SourceWindow(frames, depth.read(at, at + len(frames)))
            at += len(frames)

    def _encode_segment(
        self,
        rendered: Iterator[RenderedWindow],
        first: int,
        border: int,  # the segment ends with the first window that reaches this frame
        stop: int,  # of the shot
        on_frames: Callable[[int], object],
    ) -> int:  # one past its last frame
        """Encode one segment; it appears in the checkpoint when it is complete."""
        frame = first
        part = _open_segment(self.checkpoint.part(first), self.plan, self.output)
        with part as writer, ThreadPoolExecutor(1) as encoder:
            written: Future[None] | None = None
            while frame < border:
                window = next(rendered)
                self._preview(window, frame)
                if written is not None:
                    written.result()
                written = encoder.submit(self._write, writer, window, frame, first)
                if not self._is_pipelined:
                    written.result()
                frame += len(window.left)
                on_frames(len(window.left))
                state = window.state
                del window  # or it would be kept while the next one is inpainted
            if written is not None:
                written.result()
        self.checkpoint.finish_segment(first, frame, state if frame < stop else None)
        return frame

    def _write(self, writer: FilmWriter, window: RenderedWindow, frame: int, first: int) -> None:
        timestamps, time_base = self.plan.timestamps, self.plan.info.time_base
        for at, (left, right) in enumerate(
            zip(window.left.numpy(), window.right.numpy(), strict=True), frame
        ):
            seconds = (timestamps[at] - timestamps[first]) * time_base
            pts = round(seconds / writer.time_base)
            for stream, image in enumerate(self.output.frames(left, right)):
                writer.write(image, pts, stream)

    def _preview(self, window: RenderedWindow, frame: int) -> None:
        k = len(self.plan.timestamps) // 2 - frame
        if 0 <= k < len(window.left):
            views = window.source[k], window.left[k], window.right[k]
            write_preview(self.checkpoint.preview, *views, *window.warp_again(k))


def _open_segment(path: Path, plan: ShotPlan, output: OutputFormat) -> FilmWriter:
    info = plan.info
    return FilmWriter(
        path,
        output.width,
        output.height,
        fps=info.fps,
        time_base=container_time_base(info.time_base, plan.timestamps),
        colour=info.colour,
        pixel_aspect=info.pixel_aspect,
        encoding=output.encoding,
        frame_packing=output.stereo.frame_packing,
        streams=output.layout.files,
    )
