"""Write the pages of all figures: HTML with pictures and tables, pictures as PNG, text as Markdown."""

import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import Score
from secondeye.evaluation.aggregate import mean_over_films
from secondeye.evaluation.block_scores import Blocks
from secondeye.evaluation.comparison import PROTOCOLS, Protocol, differs, protocol_rows
from secondeye.evaluation.methods import Method, load_inpainter
from secondeye.evaluation.report import clip_section, protocol_section
from secondeye.inpaint.diffusion import Diffusion
from secondeye.metrics.learned import load_learned_metrics
from secondeye.paper_figures.clips import FigureClip, UnusableFilm, dataset_clips, film_clips
from secondeye.paper_figures.methods import (
    conversion_tiles,
    inpainting_tiles,
    make_row,
    missing_weights,
    run_methods,
)
from secondeye.paper_figures.tiles import PlanResult, compare_tiles, describe_tiles
from secondeye.paper_figures.windows import WINDOWS, WindowErrors, compare_windows
from secondeye.params import Params
from secondeye.report.contact_sheet import Tile, write_contact_sheet
from secondeye.report.document import Bold, Image, Section, Table, to_markdown
from secondeye.report.html import write_page
from secondeye.stages.evaluate import evaluated_methods
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.system.process import best_device, lock_dir
from secondeye.system.text import pluralize

MAX_PICTURED = 8  # films with pictures; tables are of all
_TILE_WIDTH = 480  # px
_TITLE = "The paper's comparisons"
_TITLES = {
    "figure_7": "Figure 7: whole conversions",
    "figure_8": "Figure 8: inpainters on the same warped view",
    "figure_9": "Figure 9: windows with and without overlap",
    "figure_10": "Figure 10: tiles against reduction",
}
_NUMBERS = "Numbers beside the pictures are those of the whole clip."
_ABOUT = {
    "figure_7": "Each method's right view of a clip's middle frame, the two places with the largest "
    "disocclusions enlarged, and the disparity that a matcher finds between the left view and it: a "
    f"consistent conversion shows the true one, up to strength and convergence. {_NUMBERS}",
    "figure_8": "Every inpainter gets the left view warped with the disparity of the true pair. The right "
    f"view that it completes, the two places with the largest disocclusions, and its error. {_NUMBERS}",
    "figure_9": "Shots inpainted by the diffusion network window by window: each window alone, or beginning "
    "with the last frames of the one before. The temporal error of the holes is measured from the last frame "
    "of a window to the first new one of the next, and between all other frames.",
    "figure_10": "One window inpainted by the diffusion network at full size, cut into tiles, and reduced to "
    "one tile and enlarged again, which may take as much memory as the tiles.",
}
_PROTOCOLS = {
    figure: next(protocol for protocol in PROTOCOLS if protocol.name == name)
    for figure, name in (("figure_7", "end-to-end"), ("figure_8", "inpaint-only"))
}
_TILED, _REDUCED = "tiled", "reduced to one tile"
_TILES = Protocol("tiles", "Scores", ("inpainter",), _REDUCED, True)
_OWN_FILES = ("index.html", "figures.md", *(f"{name}.html" for name in _TITLES))


class _Found(NamedTuple):
    """What all clips together gave."""

    scores: list[Score]
    windows: list[tuple[FigureClip, list[WindowErrors]]]
    tiles: list[tuple[FigureClip, list[PlanResult]]]
    tile_scores: list[Score]
    blocks: dict[str, Blocks]  # Score.id -> scores of blocks
    images: dict[str, list[Image]]  # by figure
    remarks: dict[str, list[str]]  # by figure: sentences on what is not shown


def write_figures(
    films: Sequence[Path],  # stereo films and folders of them; none: the dataset's held-out clips
    output: Path,
    *,
    data: Path,
    models: Path,
    params: Params,
    per_film: int,  # clips
    max_width: int,  # px of the views of `films`
    overwrite: bool,
) -> list[Path]:
    """Write index.html, a page for each figure, figures.md and PNGs to a folder; return the pages.

    The folder appears under its name when it is complete. Raises UserError if it exists, unless it holds
    figures and is to be overwritten; if there is no clip; and for unreadable films and weights.
    """
    _check_output(output, overwrite)
    dataset = None if films else Dataset(data)
    methods = evaluated_methods(dataset, models, params.evaluate)
    if dataset is None:
        clips = film_clips(films, params, per_film, max_width)
    else:
        clips = dataset_clips(dataset, params, per_film)
    with _complete_folder(output) as part:
        found = _run(part, clips, methods, params)
        if films:
            sentence = "External conversions are shown for the held-out clips of the dataset only."
            found.remarks["figure_7"].append(sentence)
        names = {clip.film: clip.name for clip in clips}
        sections = {
            figure: [_about(figure, found), *_pictures(found, figure), *tables]
            for figure, tables in _tables(found, names, params).items()
        }
        for figure, shown in sections.items():
            write_page(part / f"{figure}.html", _TITLES[figure], shown, {})
        pages = {f"{figure}.html": _TITLES[figure] for figure in sections}
        clip_list = Table("", ("film", "clips"), _count_clips(found, names), "")
        write_page(part / "index.html", _TITLE, [Section("Clips", [clip_list])], pages)
        text = [each for figure in sections for each in (Section(_TITLES[figure], []), *sections[figure])]
        write_atomic(part / "figures.md", to_markdown(_TITLE, text))
    return [output / "index.html", *(output / page for page in pages)]


def _run(part: Path, clips: Sequence[FigureClip], methods: Sequence[Method], params: Params) -> _Found:
    """Run all methods on all clips, one clip in memory at a time, and write the pictures."""
    found = _Found([], [], [], [], {}, {name: [] for name in _TITLES}, {name: [] for name in _TITLES})
    kinds = {kind: figure for figure, protocol in _PROTOCOLS.items() for kind in protocol.kinds}
    shown = [method for method in methods if method.kind in kinds and missing_weights(method) is None]
    for method in methods:
        if method.kind in kinds and method not in shown:
            found.remarks[kinds[method.kind]].append(_describe_missing(method))
    diffusion = _find_diffusion(methods, found)
    vgg = params.evaluate.vgg_weights
    learned = load_learned_metrics(vgg, best_device()) if vgg else None
    pictured: dict[str, str] = {}  # film -> the number in its file names
    with tqdm(total=len(clips) * (len(shown) + 2), desc="figures", unit="result") as bar:
        for clip in clips:
            try:
                frames = clip.load(params.evaluate.max_frames)
            except UnusableFilm as error:
                bar.write(f"{error}; it is left out")
                for remarks in found.remarks.values():
                    remarks.append(f"{error}; it is left out.")
                bar.update(len(shown) + 2)
                continue
            draws = clip.film not in pictured and len(pictured) < MAX_PICTURED
            if draws:
                pictured[clip.film] = str(len(pictured) + 1)
            number = pictured[clip.film] if draws else ""
            made = run_methods(clip, frames, shown, learned, bar.update)
            found.scores.extend(made.scores)
            found.blocks.update(made.blocks)
            for figure, draw in (("figure_7", conversion_tiles), ("figure_8", inpainting_tiles)):
                rows = draw(made, _PROTOCOLS[figure]) if draws else []
                _draw(part, found, figure, clip, number, rows)
            del frames, made
            if diffusion is not None:
                _run_diffusion(part, diffusion, clip, number, found)
            bar.update(2)
    if not found.scores:
        raise UserError("none of the films can be used; the reasons are listed above")
    return found


def _find_diffusion(methods: Sequence[Method], found: _Found) -> Diffusion | None:
    """Load the diffusion network among the inpainters; without one, remark how to get it."""
    method = next(m for m in methods if m.kind == "inpainter" and m.inpainter == "diffusion")
    folder = missing_weights(method)
    if folder is None:
        diffusion = load_inpainter(method, method.content)  # once for all figures
        assert isinstance(diffusion, Diffusion)
        return diffusion
    for figure in ("figure_9", "figure_10"):
        found.remarks[figure].append(
            f"This figure needs a diffusion network, and `{folder}` does not exist: train one with "
            "`dvc repro train_diffusion`, put released weights there (docs/usage.md), or name the folder of "
            "your models with `--models`."
        )
    return None


def _run_diffusion(part: Path, diffusion: Diffusion, clip: FigureClip, number: str, found: _Found) -> None:
    """Compare windows and tiles on one clip."""
    frames = clip.load(WINDOWS * diffusion.pipeline.unet.config.num_frames)
    height, width = frames.left.shape[-2:]
    plan = diffusion.plan(height, width)
    windows = compare_windows(diffusion, plan, frames)
    if windows is None:
        found.remarks["figure_9"].append(
            f"{clip.name} is not shown: the shot has {pluralize(len(frames.left), 'frame')}, two windows of "
            f"the network take {2 * plan.window_frames}."
        )
    else:
        found.windows.append((clip, windows.errors))
        _draw(part, found, "figure_9", clip, number, windows.rows)
    tiles = compare_tiles(diffusion, plan, frames)
    if tiles is None:
        found.remarks["figure_10"].append(
            f"{clip.name} is not shown: its frames, {width}x{height} px, fit one tile. With films instead of "
            "the dataset, raise `--max-width`."
        )
        return
    found.tiles.append((clip, tiles.results))
    for name, result in zip((_TILED, _REDUCED), tiles.results, strict=True):
        found.tile_scores.append(make_row(clip, name, "inpainter", result.scores))
        found.blocks[found.tile_scores[-1].id] = result.blocks
    _draw(part, found, "figure_10", clip, number, tiles.rows)


def _draw(
    part: Path, found: _Found, figure: str, clip: FigureClip, number: str, rows: list[list[Tile]]
) -> None:
    """Write the picture of a figure of a clip that has a number."""
    if number and rows:
        path = part / f"{figure}_{number}.png"
        write_contact_sheet(path, rows, _TILE_WIDTH)
        found.images[figure].append(Image(clip.name, path))


def _describe_missing(method: Method) -> str:
    return (
        f"`{method.name}` is not shown: `{missing_weights(method)}` does not exist; train it with "
        "`dvc repro`, or name the folder of your models with `--models`."
    )


def _about(figure: str, found: _Found) -> Section:
    clips, films = ({getattr(row, column) for row in found.scores} for column in ("clip", "film"))
    scope = f"{pluralize(len(clips), 'clip')} of {pluralize(len(films), 'film')}, on {best_device()}."
    return Section("What is shown", [_ABOUT[figure], scope, *dict.fromkeys(found.remarks[figure])])


def _pictures(found: _Found, figure: str) -> list[Section]:
    return [Section("Pictures", found.images[figure])] if found.images[figure] else []


def _tables(found: _Found, films: dict[str, str], params: Params) -> dict[str, list[Section]]:
    """Return figure -> sections with its tables."""

    def sections(protocol: Protocol, scores: list[Score]) -> list[Section]:
        rows = protocol_rows(protocol, scores)
        section = protocol_section(protocol, rows, films, lambda row: found.blocks[row.id], params.evaluate)
        return [section, clip_section(rows, films, "")]

    methods = {figure: sections(protocol, found.scores) for figure, protocol in _PROTOCOLS.items()}
    windows = [Section("Temporal error at the borders", [_window_table(found, params)])]
    tiles = [Section("Plans", [_tile_table(found)])]
    if found.tile_scores:
        tiles += sections(_TILES, found.tile_scores)
    return {
        **methods,
        "figure_9": windows if found.windows else [],
        "figure_10": tiles if found.tiles else [],
    }


def _window_table(found: _Found, params: Params) -> Table:
    """Return a row for each clip and overlap, and the means over films, bold beyond chance."""
    lines = []
    gains: dict[str, list[float]] = {}
    by_overlap: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for clip, errors in found.windows:
        for which, each in zip(by_overlap, errors, strict=True):
            lines.append([clip.name, _overlap(each.overlap_frames), str(each.borders), *_numbers(each)])
            if not math.isnan(each.at_borders):
                which.setdefault(clip.film, []).append(each.at_borders)
        gain = errors[0].at_borders - errors[1].at_borders
        if not math.isnan(gain):
            gains.setdefault(clip.film, []).append(gain)
    means = [f"{mean_over_films(values):.2f}" for values in by_overlap]
    with_overlap = Bold(means[1]) if differs(gains, 1, params.evaluate) else means[1]
    lines += [
        ["mean over films", _overlap(0), "", means[0], "", ""],
        ["mean over films", "with overlap", "", with_overlap, "", ""],
    ]
    head = ("film", "windows", "borders", "at borders, levels ↓", "elsewhere, levels ↓", "ratio → 1")
    note = "Bold: the overlap differs beyond chance from none (docs/metrics.md, Bold)."
    return Table("", head, lines, note)


def _overlap(frames: int) -> str:
    return f"overlap of {pluralize(frames, 'frame')}" if frames else "without overlap"


def _numbers(errors: WindowErrors) -> list[str]:
    ratio = errors.at_borders / errors.elsewhere if errors.elsewhere else math.nan
    values = (errors.at_borders, errors.elsewhere, ratio)
    return ["-" if math.isnan(value) else f"{value:.2f}" for value in values]


def _tile_table(found: _Found) -> Table:
    head = ("film", "plan", "memory as planned, GiB", "peak beyond the weights, MiB", "seconds a frame")
    lines = [
        [
            clip.name,
            describe_tiles(result.plan),
            f"{result.plan.memory_bytes / 2**30:.2f}",
            f"{result.cost.peak_mib:.0f}",
            f"{result.cost.seconds:.2f}",
        ]
        for clip, results in found.tiles
        for result in results
    ]
    return Table("", head, lines, "")


def _count_clips(found: _Found, films: dict[str, str]) -> list[list[str]]:
    counts = Counter(film for _, film in {(row.clip, row.film) for row in found.scores})
    return [
        [films[film], str(count)] for film, count in sorted(counts.items(), key=lambda one: films[one[0]])
    ]


def _check_output(output: Path, overwrite: bool) -> None:
    """Raise UserError if the folder exists, or holds what is not ours."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output}: is a file; give --output a new folder")
    if foreign := [path for path in output.iterdir() if not _is_own(path)]:
        raise UserError(f"{output}: holds other files ({foreign[0].name}); give --output a new folder")
    if not overwrite and any(output.iterdir()):
        raise UserError(f"{output}: already exists; give --output another name, or add --overwrite")


def _is_own(path: Path) -> bool:
    return path.name in _OWN_FILES or (path.name.startswith("figure_") and path.suffix == ".png")


@contextmanager
def _complete_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside the output; it replaces the output if the block succeeds."""
    target = output.resolve()
    part, old = (target.with_name(f".{target.name}.{kind}") for kind in ("part", "old"))
    with lock_dir(part):
        for path in part.iterdir():  # of a run that was killed
            path.unlink()
        shutil.rmtree(old, ignore_errors=True)
        try:
            yield part
            if target.exists():
                os.replace(target, old)
            os.replace(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
