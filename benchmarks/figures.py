"""Make the paper's figures from films and print their main tables, with the time that they took.

    python benchmarks/figures.py FILM... [--models FOLDER] [--untrained] [--sample N] [--max-width PX]
                                 [--output FOLDER]

FILM is a stereo film or a folder of them. `--sample` adds synthetic films. `--untrained` adds a diffusion
network of random weights that runs in one step: it shows that figures 9 and 10 are made, not their quality.
"""

import re
import shutil
import tempfile
import time
from pathlib import Path

import torch
from command import existing, make_parser, run
from machine import machine

from secondeye.dataset.sample_films import write_sample_films
from secondeye.inpaint.module_checks import ONE_STEP_CHANNELS
from secondeye.inpaint.tiny import make_tiny
from secondeye.paper_figures.pages import write_figures
from secondeye.params import load_params

SHOWN = (
    "Verdicts",
    "Scores",
    "Plans",
    "Temporal error at the borders",
)  # headings of the tables that are printed
UNTRAINED_FRAMES = 4  # of a window


def main() -> None:
    """Write the figures and print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("films", nargs="*", type=existing)
    parser.add_argument("--models", type=existing)
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--max-width", type=int, default=640)
    parser.add_argument("--output", type=Path, default=Path("reports/figures"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models, films = folder / "models", list(arguments.films)
        models.mkdir()
        if arguments.models is not None:
            shutil.copytree(arguments.models, models, dirs_exist_ok=True)
        if arguments.untrained:
            torch.manual_seed(0)
            make_tiny(UNTRAINED_FRAMES, ONE_STEP_CHANNELS).save_pretrained(models / "inpaint" / "diffusion")
        if arguments.sample:
            films.append(folder / "sample")
            write_sample_films(folder / "sample", arguments.sample, 7, shots_per_film=1)
        start = time.monotonic()
        write_figures(
            films,
            arguments.output,
            data=Path("data"),
            models=models,
            params=load_params(),
            per_film=1,
            max_width=arguments.max_width,
            overwrite=True,
        )
        minutes = (time.monotonic() - start) / 60
    print(f"{machine()}; {minutes:.1f} minutes\n")
    print("\n\n".join(main_tables((arguments.output / "figures.md").read_text())))


def main_tables(text: str) -> list[str]:
    """Return the tables below the headings SHOWN, with the figure they belong to."""
    found, figure, heading = [], "", ""
    for block in re.split(r"\n\n+", text):
        if block.startswith("#"):
            heading = block.lstrip("# ")
            figure = heading if heading.startswith("Figure") else figure
        elif block.startswith("|") and heading in SHOWN:
            found.append(f"{figure}\n\n{block}")
    return found


if __name__ == "__main__":
    run(main)
