"""`secondeye ...`: thin commands over stages, conversion and the synthetic world."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated

import typer

from secondeye import __version__
from secondeye.system.errors import UserError

RUNS, MODELS, DATA, REPORTS = Path(".runs"), Path("models"), Path("data"), Path("reports")
PARTIAL = 3  # exit code: the film breaks off, its good part was converted
AWAY = 4  # exit code: MLflow can not be reached; nothing is lost
INTERRUPTED = 130  # exit code: as shells have it for Ctrl-C

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and a non-zero exit.

    Where MLflow can not be reached the exit code is 4.
    """
    try:
        app()
    except UserError as refusal:
        from secondeye.registry.server import ServerAway

        print(f"secondeye: {refusal}", file=sys.stderr)
        sys.exit(AWAY if isinstance(refusal, ServerAway) else 1)
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        where = f"{str(error.filename).removeprefix('file:')}: " if error.filename else ""
        sys.exit(f"secondeye: {where}{error.strerror}")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"secondeye {__version__}")
        raise typer.Exit


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Gives a monocular film its second eye."""


@app.command()
def convert(
    film: Annotated[Path, typer.Argument(help="any film FFmpeg can read")],
    output: Annotated[
        Path | None, typer.Option(help="the film to write: .mp4, .mov or .mkv (default: FILM_sbs.mp4)")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="what was trained: models:/secondeye@champion, or a bundle's folder")
    ] = None,
    strength_percent: Annotated[
        float | None,
        typer.Option(
            help="disparity between nearest and farthest, % of the width, 0 to 10 "
            "(default: as the model says, or 3)"
        ),
    ] = None,
    convergence: Annotated[
        float | None,
        typer.Option(
            help="the depth that lies on the screen: 0 farthest, 1 nearest "
            "(default: as the model says, or 0.5)"
        ),
    ] = None,
    depth: Annotated[str, typer.Option(help="auto, motion, student or depth-anything-v2")] = "auto",
    inpainter: Annotated[str, typer.Option(help="auto, fill, light or diffusion")] = "auto",
    crf: Annotated[int, typer.Option(help="x264's quality, 0 (lossless) to 51")] = 16,
    preset: Annotated[str, typer.Option(help="x264's preset, ultrafast to veryslow")] = "veryfast",
    sheet: Annotated[Path | None, typer.Option(help="also write a picture of what was done (.png)")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an output that is there")] = False,
) -> None:
    """Convert a film to full side-by-side 3D, with its sound. The same command continues a broken run.

    A registered model converts with the code that it was registered with. Ends with 3 when the film breaks
    off and only its good part was converted.
    """
    if model is not None and model.startswith("models:"):
        _go_on_as(model)
    from secondeye.conversion.bundle import settings_from_bundle
    from secondeye.conversion.convert import convert as convert_film

    settings = settings_from_bundle(
        Path(model) if model is not None else None,
        strength_percent,
        convergence,
        depth=depth,
        inpainter=inpainter,
        crf=crf,
        preset=preset,
    )
    try:
        made = convert_film(film, output, settings, sheet=sheet, overwrite=overwrite)
    except KeyboardInterrupt:
        print("\nsecondeye: interrupted; the same command continues", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    print(f"{made.output}: {made.frames} frames, both eyes")
    if made.error:
        print(f"secondeye: warning: {made.error}", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def _go_on_as(model: str) -> None:
    """Let the code of a registered version do what this command line asks; never returns."""
    from secondeye.registry.models import command_for, resolve

    fetched = resolve(model)
    print(f"model: {fetched}", flush=True)
    command, environment = command_for(fetched)
    arguments = [str(fetched.bundle) if argument == model else argument for argument in sys.argv[1:]]
    arguments = [a.replace(f"--model={model}", f"--model={fetched.bundle}") for a in arguments]
    os.execve(command[0], [*command, *arguments], environment)


@app.command()
def score(
    left: Annotated[Path, typer.Argument(help="the film, or its left eye")],
    right: Annotated[Path, typer.Argument(help="the right eye to judge, or a film of both eyes")],
    truth: Annotated[
        Path | None, typer.Option(help="the true right eye, or a film of both (default: score without it)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    every: Annotated[int, typer.Option(help="score 8 frames of every 8 times this many", min=1)] = 1,
) -> None:
    """Score a stereo film, whoever made it, beside the film's own right eye or without it.

    A film whose name is tagged as packed (_sbs, _half-sbs, _tb ...) gives the eye that is asked for.
    """
    from secondeye.evaluation.film_score import describe, score_films, to_json

    found = score_films(left, right, truth, every=every, say=partial(print, file=sys.stderr))
    print(to_json(found) if as_json else describe(found))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="one of dvc.yaml's stages")],
    paths: Annotated[list[Path], typer.Argument(help="the stage's folders, as dvc.yaml gives them")],
) -> None:
    """Run one stage, as DVC does. What trains or evaluates is mirrored into MLflow while it runs."""
    from secondeye.system.process import die_with_parent

    die_with_parent(os.getppid())
    from secondeye.params import load_params
    from secondeye.stages import STAGES

    if name not in STAGES:
        raise UserError(f"stage must be one of {', '.join(STAGES)}, got {name!r}")
    run = import_module(f"secondeye.stages.{name}").run
    arguments = signature(run).parameters.values()
    folders = [a.name for a in arguments if a.kind is not Parameter.KEYWORD_ONLY]
    sections = [a.name for a in arguments if a.kind is Parameter.KEYWORD_ONLY]
    if len(paths) != len(folders):
        raise UserError(f"stage {name} takes {len(folders)} folders ({', '.join(folders)}), got {len(paths)}")
    params = load_params()
    with _mirrored(folders, paths):
        run(*paths, **{section: getattr(params, section) for section in sections})


def _mirrored(folders: list[str], paths: list[Path]) -> AbstractContextManager[None]:
    """Publish the runs of a stage that has any."""
    from secondeye.system.process import is_main_process

    if "runs" not in folders or not is_main_process():
        return nullcontext()
    from secondeye.registry.live_sync import following

    return following(paths[folders.index("runs")])


@app.command()
def publish(
    folders: Annotated[list[Path] | None, typer.Argument(help="where run folders lie (default: all)")] = None,
) -> None:
    """Mirror run folders into MLflow; what is there already is left as it is.

    Ends with 4 when MLflow can not be reached: the runs stay, publish again.
    """
    from secondeye.registry.publish import publish_all
    from secondeye.registry.server import shown, tracking_uri

    roots = folders or [RUNS, MODELS, DATA / "evaluate"]
    done = publish_all([root for root in roots if root.is_dir()])
    new = sum(run.changed for run in done)
    print(f"{len(done)} runs, {new} of them brought up to date in {shown(tracking_uri())}")


@app.command()
def gate() -> None:
    """Let what was trained challenge the champion, on the clips that evaluation has frozen.

    It becomes champion only where it wins; reports/gate.md says why or why not.
    """
    from secondeye.gate import pass_gate, sentence
    from secondeye.params import load_params
    from secondeye.registry.server import ServerAway

    params = load_params()
    outcome = pass_gate(DATA, MODELS, REPORTS, RUNS, params.gate, params.evaluate)
    for verdict in outcome.verdicts:
        print(sentence(verdict))
    if not outcome.verdicts:
        print("nothing new to compare")
    print(f"champion: version {outcome.champion}; the report is {REPORTS / 'gate.md'}")
    try:
        publish([RUNS])
    except ServerAway as away:  # the gate itself is done
        print(f"secondeye: {away}", file=sys.stderr)


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="the version to make champion")],
) -> None:
    """Make a registered version champion by hand, past the gate."""
    from secondeye.registry.models import set_champion

    set_champion(version)
    print(f"champion: version {version}")


@app.command()
def rollback() -> None:
    """Make the champion before the present one champion again."""
    from secondeye.registry.models import rollback as go_back

    print(f"champion: version {go_back()}")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="where to write; data/raw feeds `dvc repro`")],
    films: Annotated[int, typer.Option(help="stereo films to write", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="another seed, other films", min=0)] = 7,
    exact: Annotated[bool, typer.Option(help="also write the exact disparity and occlusion arrays")] = False,
) -> None:
    """Write films of a synthetic world: stereo ones with sources.csv, and a monocular one with sound."""
    from tqdm import tqdm

    from secondeye.dataset.sample_films import write_sample_films

    own = {f"film_{number:02d}.mp4" for number in range(films)}
    own |= {"mono.mp4", "sources.csv", "exact", "truth"}
    there = {path.name for path in folder.glob("[!.]*")}
    if (folder / "sources.csv").is_file():
        lines = (folder / "sources.csv").read_text().splitlines()[1:]
        there |= {line.split(",")[0] for line in lines}
    if strangers := sorted(there - own):
        raise UserError(f"{folder}: {strangers[0]} is no film of this sample; give an empty folder")
    with tqdm(total=films + 1, desc="sample", unit="film") as bar:
        write_sample_films(folder, films, seed, exact=exact, progress=lambda name: bar.update())
    print(f"{folder}: {films} stereo films, mono.mp4 and sources.csv")


@app.command()
def doctor() -> None:
    """Say what this machine has, and what each missing thing disables."""
    from secondeye.maintenance.doctor import examine

    print("\n".join(examine()))


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="an empty folder, or one with the same export")],
    split: Annotated[str, typer.Option(help="train or test")] = "train",
    windows: Annotated[int | None, typer.Option(help="how many (default: one a clip)", min=1)] = None,
    frames: Annotated[int, typer.Option(help="of a window", min=1)] = 25,
    max_stride: Annotated[int, typer.Option(help="take every frame, or up to every so many", min=1)] = 6,
    height: Annotated[
        int | None, typer.Option(help="px (default: the largest multiple of 64 nearly all clips have)", min=1)
    ] = None,
    width: Annotated[int | None, typer.Option(help="px (default: likewise)", min=1)] = None,
    max_offset_percent: Annotated[
        float, typer.Option(help="of the width, the widest border hole wanted", min=0, max=50)
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="another seed, other windows", min=0)] = 0,
    shard_megabytes: Annotated[float, typer.Option(help="the most a shard may have", min=1)] = 1000,
) -> None:
    """Write the dataset's training samples as WebDataset shards. The same command continues a broken run."""
    from secondeye.params import load_params
    from secondeye.system.text import pluralize
    from secondeye.training.clip_windows import WindowSettings, choose_size, keep_fitting, list_clips
    from secondeye.training.export import export as export_shards
    from secondeye.training.export import plan_export

    weight = load_params().splat.weight_exponent_per_px
    clips = list_clips(DATA, split)
    chosen = choose_size(clips)
    settings = WindowSettings(
        height or chosen[0], width or chosen[1], weight, frames, max_stride, max_offset_percent
    )
    fitting = keep_fitting(clips, settings)
    index = export_shards(
        DATA, out, plan_export(DATA, split, fitting, settings, seed, windows, shard_megabytes)
    )
    size = f"{pluralize(settings.frames, 'frame')} of {settings.width}x{settings.height}"
    shards = pluralize(len(index["shards"]), "shard")
    print(f"{out}: {pluralize(index['samples'], 'window')} of {size} in {shards}")
    print(f"from {pluralize(index['clips'], 'clip')}; too short or too small: {len(clips) - len(fitting)}")


@app.command()
def drift(
    revision: Annotated[str, typer.Argument(help="of Git: a commit, a branch, a tag")] = "HEAD",
) -> None:
    """Say how far the dataset's scores have moved since a revision: Markdown."""
    from secondeye.dataset.drift import describe_drift, read_now, read_revision

    now = read_now()
    print(describe_drift(revision, read_revision(revision), now), end="")


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="remove what the list says could go")] = False,
) -> None:
    """List what nothing refers to: temporary and orphaned files, abandoned conversions, old run folders."""
    from secondeye.maintenance.cleanup import delete as remove
    from secondeye.maintenance.cleanup import describe, find_leftovers

    found = find_leftovers(Path.cwd())
    print("\n".join(describe(Path.cwd(), found)))
    if delete:
        print(f"{len(remove(found))} removed")


data = typer.Typer(no_args_is_help=True, help="Sample films, presets, exports, drift, cleaning.")
app.add_typer(data, name="data")


@data.command()
def preset(
    name: Annotated[str, typer.Argument(help="laptop, small or paper, or the path of a YAML file")],
) -> None:
    """Write the values of a preset into params.yaml."""
    from secondeye.params import apply_preset

    named = Path("presets") / f"{name}.yaml"
    apply_preset(named if named.is_file() else Path(name))
    print(f"params.yaml: preset {name}")
