"""Inpainting by a program of the user's, such as ProPainter: `command:PROGRAM ARGUMENTS...`.

The program gets folders of images in place of {frames}, {masks} and {output}, or as three more arguments:

frames   00000.png, 00001.png ...: the warped view, RGB, 8 bits, black in holes
masks    files of the same names: 255 where a pixel is to be inpainted, else 0
output   empty: it writes as many images of the same size (PNG, in it or in a folder below, in the natural
         order of their paths: 2.png before 10.png) and exits with 0

Only pixels in holes are taken back. The program runs without a shell, once for each window of WINDOW_FRAMES
frames that has a hole. Windows overlap as those of the diffusion inpainter do: their first frames are
inpainted already, and have empty masks. The command comes from the user's own command line or params.yaml,
never from a model.
"""

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8, occlusion_mask
from secondeye.inpaint.frame_windows import stream_windows
from secondeye.inpaint.interface import Inpainted, Inpainter, InpainterState, Warped
from secondeye.inpaint.open_frame import OpenFrame
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file
from secondeye.system.program import GuardedFolder, guarded_folder
from secondeye.system.text import pluralize

WINDOW_FRAMES = 25  # that the program gets together, at most
OVERLAP_FRAMES = 3  # of them, at least, inpainted by the window before
TIMEOUT_SECONDS = 3600  # for one window

_PLACEHOLDERS = ("{frames}", "{masks}", "{output}")
_ESCAPE_CODE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and the like, of terminals
_SHOWN_CHARACTERS = 200  # of what a program says
_FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


class _Buffered(NamedTuple):
    """A frame that waits for its window."""

    open_frame: OpenFrame
    image: np.ndarray  # uint8 [H, W, 3]
    hole: np.ndarray  # bool [H, W]

    @classmethod
    def of_warped(cls, warped: Warped) -> Self:
        """Take what the program and composing need of one warped frame."""
        image = _to_bytes(warped.frames)[0].numpy()
        return cls(OpenFrame.of_warped(warped), image, occlusion_mask(warped.coverage)[0, 0].numpy())


def parse_command(command: str) -> list[str]:
    """Split a command into its arguments as a shell does, with all three placeholders.

    Raises UserError if it is empty, has an open quote or only some placeholders, or the program is missing.
    """
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise UserError(f"command:{command}: cannot be split into arguments ({error}); close it") from error
    if not arguments:
        raise UserError("command: names no program; give command:PROGRAM ARGUMENTS, in quotes")
    given = [name for name in _PLACEHOLDERS if any(name in argument for argument in arguments)]
    if 0 < len(given) < len(_PLACEHOLDERS):
        missing = ", ".join(name for name in _PLACEHOLDERS if name not in given)
        raise UserError(f"command:{command}: {missing} is missing; give all of them, or none")
    if shutil.which(arguments[0]) is None:
        raise UserError(
            f"command:{command}: there is no program {arguments[0]}; install it, or give its path"
        )
    return arguments if given else [*arguments, *_PLACEHOLDERS]


def program_of(command: str) -> str:
    """Return the file name of the command's program."""
    return Path(parse_command(command)[0]).name


def hash_named_files(command: str) -> str:
    """Return the SHA-256 of the files that a command names: its program, PATH and NAME=PATH arguments.

    What these files import or read is not included, nor are folders. Raises UserError as `parse_command`.
    """
    program, *arguments = parse_command(command)
    values = [argument.partition("=")[2] for argument in arguments]
    names = [shutil.which(program) or program, *arguments, *values]
    hashes = [hash_file(Path(name)) for name in names if os.path.isfile(name) and os.access(name, os.R_OK)]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def make_command_inpainter(command: str) -> Inpainter:
    """Return the Inpainter that runs the command. Raises UserError as `parse_command` does.

    It raises UserError if the program fails, runs longer than TIMEOUT_SECONDS for a window, or returns other
    images than it should. Its state are the last frames, inpainted, so that results do not depend on where a
    shot is continued.
    """
    arguments = parse_command(command)

    def inpaint(windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
        finished = np.empty((0,)) if state is None else state["frames"].numpy()
        device = torch.device("cpu")

        def buffered() -> Iterator[_Buffered]:
            nonlocal device
            for warped in windows:
                device = warped.frames.device
                for t in range(len(warped.frames)):
                    yield _Buffered.of_warped(warped.take(slice(t, t + 1)).to("cpu"))

        for overlap, new in stream_windows(buffered(), WINDOW_FRAMES, OVERLAP_FRAMES, len(finished)):
            before = finished[len(finished) - overlap :]
            frames = torch.cat(_inpaint_window(arguments, before, new))
            new.clear()
            kept = _to_bytes(frames[1 - WINDOW_FRAMES :]).numpy()
            spare = finished[max(0, len(finished) + len(kept) - WINDOW_FRAMES + 1) :]
            finished = np.concatenate([spare, kept]) if len(spare) else kept
            yield Inpainted(frames.to(device), {"frames": torch.from_numpy(finished)})
            del frames, kept, spare, before

    return inpaint


def _inpaint_window(arguments: list[str], before: np.ndarray, new: Sequence[_Buffered]) -> list[Tensor]:
    """Run the program on a window; return its new frames, composed, each with a time axis."""
    if not any(frame.hole.any() for frame in new):
        return [frame.open_frame.frames for frame in new]
    no_hole = np.zeros(new[0].hole.shape, np.bool_)
    images = [*before, *(frame.image for frame in new)]
    holes = [*(no_hole for _ in before), *(frame.hole for frame in new)]
    with guarded_folder("secondeye-inpaint-") as temporary:
        folders = [temporary.path / name for name in ("frames", "masks", "output")]
        for folder in folders:
            folder.mkdir()
        for number, (image, hole) in enumerate(zip(images, holes, strict=True)):
            _write_png(folders[0] / f"{number:05}.png", image[..., ::-1])
            _write_png(folders[1] / f"{number:05}.png", 255 * hole.astype(np.uint8))
        _run(_fill_in(arguments, folders), temporary)
        made = list(_read_images(arguments[0], folders[2], len(images), no_hole.shape))[len(before) :]
    return [
        frame.open_frame.compose(frames_from_uint8(torch.from_numpy(image[None])))
        for frame, image in zip(new, made, strict=True)
    ]


def _fill_in(arguments: Sequence[str], folders: Sequence[Path]) -> list[str]:
    filled = list(arguments)
    for placeholder, folder in zip(_PLACEHOLDERS, folders, strict=True):
        filled = [argument.replace(placeholder, str(folder)) for argument in filled]
    return filled


def _run(arguments: list[str], folder: GuardedFolder) -> None:
    """Run the program. Raises UserError if it fails or takes too long."""
    program = arguments[0]
    try:
        code, output = folder.run(arguments, TIMEOUT_SECONDS)
    except OSError as error:
        raise UserError(f"command: {program} cannot be started ({error.strerror}); check it") from error
    if code is None:
        raise UserError(
            f"command: {program} was ended after {TIMEOUT_SECONDS} s with one window of at most "
            f"{WINDOW_FRAMES} frames; make it faster, or convert a smaller film"
        )
    if code != 0:
        lines = [line for line in map(_printable, output.splitlines()) if line]
        raise UserError(
            f"command: {program} ended with exit code {code}: {lines[-1] if lines else 'no output'}"
        )


def _printable(line: str) -> str:
    """Return the start of a line without control characters."""
    text = "".join(filter(str.isprintable, _ESCAPE_CODE.sub("", line))).strip()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _read_images(program: str, folder: Path, count: int, size: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the program's images in order, uint8 [H, W, 3]. Raises UserError for images that do not fit."""
    paths = sorted(folder.rglob("*.png"), key=lambda path: _natural_order(path.relative_to(folder)))
    if len(paths) != count:
        raise UserError(
            f"command: {program} wrote {pluralize(len(paths), 'PNG image')} for {pluralize(count, 'frame')}; "
            "it must write one for each"
        )
    for path in paths:
        image = cv2.imread(str(path))
        if image is None or image.shape[:2] != size:
            found = "cannot be read" if image is None else f"has {image.shape[1]}x{image.shape[0]} px"
            raise UserError(
                f"command: {_printable(path.name)} of {program} {found}; "
                f"it must be a PNG image of {size[1]}x{size[0]} px"
            )
        yield np.ascontiguousarray(image[..., ::-1])


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a key that sorts numbers in names by value, however many digits they have."""
    parts = re.split("([0-9]+)", path.as_posix())  # text and numbers in turn
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], path.as_posix()


def _write_png(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image, _FAST_PNG):
        raise UserError(f"{path}: cannot be written; free some disk space")


def _to_bytes(frames: Tensor) -> Tensor:  # uint8 [T, H, W, 3]
    return frames if frames.dtype == torch.uint8 else frames_to_uint8(frames)
