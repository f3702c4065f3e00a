"""Convert every film of a folder once, and print what became of it.

    python benchmarks/odd_films.py FOLDER [--pattern 'odd_*']

Columns: frames that decode and frames written; the largest difference of a timestamp, relative to the first
frame, ms; whether the packets of sound are the same bytes; the exit code; the last line on stderr, or the
first warning. Films are converted with depth `motion` and holes by `fill`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import av
from command import existing, make_parser, run

from secondeye.sources import FILM_SUFFIXES
from secondeye.system.errors import UserError
from secondeye.video.probe import TruncatedFilm, probe
from secondeye.video.read import decode_film

COLUMNS = ("film", "frames", "written", "largest error, ms", "sound", "exit code", "message")


def main() -> None:
    """Convert the films and print a row for each."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=existing)
    parser.add_argument("--pattern", default="*", help="of sub-folders or files")
    options = parser.parse_args()
    found = [path for top in options.folder.glob(options.pattern) for path in [top, *top.rglob("*")]]
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for film in sorted(path for path in found if path.suffix.lower() in FILM_SUFFIXES):
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {film.relative_to(options.folder)} | {convert(film, Path(folder))} |", flush=True)


def convert(film: Path, folder: Path) -> str:
    """Convert a film and return the rest of its row."""
    link = folder / film.name
    link.symlink_to(film.resolve())
    command = [sys.executable, "-m", "secondeye", "convert", str(link)]
    options = ["--depth", "motion", "--inpainter", "fill", "--preset", "ultrafast"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    errors = done.stderr.splitlines()[-1:] if done.returncode else []
    message = next(iter([line for line in lines if "warning: " in line] + errors), "")
    message = message.replace(f"{folder}/", "").removeprefix("secondeye: ").replace("|", " ")
    outputs = sorted(folder.glob("*_LRF_Full_SBS.*"))
    source = seconds_of(film)
    if not outputs:
        return f"{len(source)} | 0 | | | {done.returncode} | {message}"
    made = seconds_of(outputs[0])
    error_ms = 1000 * max((abs(a - b) for a, b in zip(source, made, strict=False)), default=0.0)
    given, stored = sound(film), sound(outputs[0])
    tracks = "none" if not given[0] else "same" if given == stored else stored[0] or "lost"
    return f"{len(source)} | {len(made)} | {error_ms:.2f} | {tracks} | {done.returncode} | {message}"


def seconds_of(film: Path) -> list[float]:
    """Return the times of the frames that decode, relative to the first."""
    times: list[float] = []
    try:
        base = probe(film).time_base
        for frame in decode_film(film, size=(2, 2)):
            times.append(float(frame.pts * base))
    except TruncatedFilm:
        pass
    except UserError:
        return []
    return [time - times[0] for time in times]


def sound(film: Path) -> tuple[str, list[bytes]]:
    """Return the codec and the packets of the first track of sound."""
    with av.open(str(film)) as container:
        if not container.streams.audio:
            return "", []
        name = container.streams.audio[0].codec_context.name
        return name, [bytes(packet) for packet in container.demux(audio=0) if packet.size]


if __name__ == "__main__":
    run(main)
