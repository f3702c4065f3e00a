"""The command line: one function per command, which parses arguments and prints the result."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from secondeye import __version__
from secondeye.system.errors import UserError
from secondeye.system.process import wait_without_spinning
from secondeye.system.text import pluralize

RUNS, MODELS, DATA, REPORTS = Path(".runs"), Path("models"), Path("data"), Path("reports")
EXIT_DAMAGED = 3  # the film is damaged; what decodes was converted
EXIT_UNREACHABLE = 4  # MLflow cannot be reached; nothing is lost
EXIT_INTERRUPTED = 130  # the shells' convention for Ctrl-C

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True)
model = typer.Typer(no_args_is_help=True)
report = typer.Typer(no_args_is_help=True)
_diffusion = partial(typer.Option, rich_help_panel="Diffusion")
_output = partial(typer.Option, rich_help_panel="Output")
_resources = partial(typer.Option, rich_help_panel="Resources")
app.add_typer(
    data,
    name="data",
    help="Manage the dataset: sample films, presets, export, drift, cleaning, films converted elsewhere.",
)
app.add_typer(
    model, name="model", help="Manage trained models: publish, gate, promote, roll back, veto, history."
)
app.add_typer(report, name="report", help="Compare methods: the paper's figures, and user studies.")


def main() -> None:
    """Run the command line. A UserError is printed as one line on stderr; the exit code is 1.

    The exit code is 4 if MLflow cannot be reached.
    """
    wait_without_spinning()
    try:
        app()
    except UserError as error:
        from secondeye.registry.server import ServerUnreachable

        print(f"secondeye: {error}", file=sys.stderr)
        sys.exit(EXIT_UNREACHABLE if isinstance(error, ServerUnreachable) else 1)
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        where = f"{str(error.filename).removeprefix('file:')}: " if error.filename else ""
        sys.exit(f"secondeye: {where}{error.strerror}")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"secondeye {__version__}")
        raise typer.Exit


def _ask_no_network(offline: bool) -> None:
    """Keep this process and those that it starts offline; the variable is read on import."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _use_registered_code(model: str | None, module: str | None = None) -> None:
    """Run this command with the code of a registered model, if one is given, and do not return."""
    if model is not None and model.startswith("models:"):
        from secondeye.registry.models import run_registered_code

        # The code of an older version obeys the variable, but may not have the option.
        given = [each for each in sys.argv[1:] if each != "--offline"]
        run_registered_code(model, given, module=module)


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Convert 2D film to stereoscopic 3D, and build, train and evaluate the model that does it."""


@app.command()
def convert(
    film: Annotated[Path, typer.Argument(help="any film FFmpeg can read")],
    output: Annotated[
        Path | None,
        typer.Option(help="the film to write: .mp4, .mov or .mkv (default: FILM_LRF_Full_SBS.mp4)"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="models:/secondeye@champion, or the folder of a bundle"),
    ] = None,
    strength_percent: Annotated[
        float | None,
        typer.Option(
            help="disparity range from nearest to farthest point, % of the width, 0 to 10 "
            "(default: from the model, else chosen for each shot)"
        ),
    ] = None,
    convergence: Annotated[
        float | None,
        typer.Option(
            help="depth of the screen plane: 0 is the farthest point, 1 the nearest "
            "(default: from the model, else chosen for each shot)"
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="views to synthesise: right, or both, each shifted by half as much "
            "(default: from the model, else right)"
        ),
    ] = None,
    depth: Annotated[
        str,
        typer.Option(
            help="auto, motion, student, depth-anything-v2, depthcrafter[:FOLDER], "
            "video-depth-anything[:SOURCE]; hf:ORG/NAME or hf:FOLDER, any depth model of Hugging Face; "
            "exported:FILE.onnx or .pt2"
        ),
    ] = "auto",
    depth_maps: Annotated[
        Path | None,
        typer.Option(
            help="depth of the film instead of an estimate: a folder of images, .npz, .npy or a video"
        ),
    ] = None,
    depth_orientation: Annotated[
        str | None,
        typer.Option(
            help="what larger values of the maps are: near or far (default: as they say, else near)"
        ),
    ] = None,
    inpainter: Annotated[
        str,
        typer.Option(
            help="auto, fill, propagation, light or diffusion; 'command:PROGRAM {frames} {masks} {output}', "
            "any program that inpaints folders of images"
        ),
    ] = "auto",
    deinterlace: Annotated[
        str, typer.Option(help="auto, or off: keep the fields of interlaced film")
    ] = "auto",
    input_layout: Annotated[
        str | None,
        typer.Option(help="convert the left view of a stereo film: sbs, half-sbs, tb, half-tb ..."),
    ] = None,
    mono: Annotated[
        bool, typer.Option("--mono", help="convert the whole picture of what looks like a stereo film")
    ] = False,
    layout: Annotated[
        str,
        _output(help="sbs, half-sbs, tb, half-tb, anaglyph, interleaved, left-right-files or right"),
    ] = "sbs",
    first: Annotated[str, _output(help="the view in the left or top half, or in the first row")] = "left",
    no_stereo_tag: Annotated[
        bool, _output("--no-stereo-tag", help="do not say in the film how its views are packed")
    ] = False,
    codec: Annotated[
        str, _output(help="h264, hevc, av1 or ffv1 (lossless), or a hardware encoder that doctor lists")
    ] = "h264",
    bit_depth: Annotated[int, _output(help="8 or 10 bits per channel of the encoded film")] = 8,
    exact_size: Annotated[
        bool, _output("--exact-size", help="keep odd sizes, with 4:4:4 chroma, which few devices decode")
    ] = False,
    crf: Annotated[
        int | None, _output(help="quality of the encoder, smaller is better (default: by codec, h264: 16)")
    ] = None,
    preset: Annotated[str, _output(help="speed of the encoder, ultrafast to veryslow")] = "veryfast",
    preview: Annotated[
        Path | None, typer.Option(help="also write an image of the intermediate results (.png)")
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="strength and convergence of every shot (.yaml): written, or read if it exists; after an "
            "edit only changed shots are converted again. --strength-percent and --convergence win over it"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing output")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="never ask a network for weights; use what is on this machine")
    ] = False,
    sidecar: Annotated[
        bool,
        typer.Option("--sidecar", help="also write OUTPUT.json: version, weights, licences and settings"),
    ] = False,
    tiles: Annotated[
        str | None,
        _diffusion(
            help="tiles per side of the frame: auto, or 1 to 16 (default: from the model, else auto)",
            metavar="auto|N",
        ),
    ] = None,
    steps: Annotated[
        int | None, _diffusion(help="sampling steps, 1 to 100 (default: from the model)")
    ] = None,
    compile: Annotated[bool, _diffusion("--compile", help="compile the network: slow start, faster")] = False,
    offload: Annotated[
        bool,
        _diffusion(
            "--offload",
            help="keep idle parts of networks off the GPU: less memory, slower; also depthcrafter",
        ),
    ] = False,
    max_memory_gb: Annotated[
        float | None, _resources(help="memory to use, GiB (default: a share of what is free)")
    ] = None,
    workers: Annotated[
        str | None,
        _resources(help="processes that convert shots in parallel (default: one per GPU)", metavar="auto|N"),
    ] = None,
    depth_resolution: Annotated[
        int | None,
        _diffusion(help="longest side that depthcrafter works at, px, a multiple of 64 (default: 1024)"),
    ] = None,
) -> None:
    """Convert a film to stereoscopic 3D, with its sound. Run it again to resume.

    A registered model converts with the code that it was registered with. The exit code is 3 if the film is
    damaged; what decodes of it was converted.
    """
    _ask_no_network(offline)
    _use_registered_code(model)
    from secondeye.conversion.bundle import settings_from_bundle
    from secondeye.conversion.convert import convert as convert_film

    settings = settings_from_bundle(
        Path(model) if model is not None else None,
        strength_percent,
        convergence,
        views=views,
        depth=depth,
        inpainter=inpainter,
        crf=crf,
        deinterlace=deinterlace,
        input_layout=input_layout,
        mono=mono,
        layout=layout,
        first=first,
        no_stereo_tag=no_stereo_tag,
        codec=codec,
        bit_depth=bit_depth,
        exact_size=exact_size,
        preset=preset,
        tiles=tiles,
        steps=steps,
        compile=compile,
        offload=offload,
        max_memory_gb=max_memory_gb,
        workers=workers,
        depth_resolution=depth_resolution,
    )
    if depth_maps is not None or depth_orientation is not None:
        # A bundle's estimator is replaced, not chosen.
        unused = settings.depth if depth != "auto" else "auto"
        settings = replace(settings, depth=unused, depth_maps=depth_maps, depth_orientation=depth_orientation)
    with _resumable():
        made = convert_film(
            film,
            output,
            settings,
            preview=preview,
            plan_file=plan,
            over_plan=[
                name
                for name, value in (("strength_percent", strength_percent), ("convergence", convergence))
                if value is not None
            ],
            overwrite=overwrite,
            sidecar=sidecar,
        )
    for path in made.outputs:
        print(f"{path}: {pluralize(made.frames, 'frame')}, {layout}")
    _exit_if_damaged(made.damage)


@contextmanager
def _resumable() -> Iterator[None]:
    """Say after Ctrl-C that the same command continues the work."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nsecondeye: interrupted; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _exit_if_damaged(damage: str) -> None:
    if damage:
        print(f"secondeye: warning: {damage}", file=sys.stderr)
        raise typer.Exit(EXIT_DAMAGED)


@app.command()
def depth(
    film: Annotated[Path, typer.Argument(help="any film FFmpeg can read")],
    output: Annotated[
        Path, typer.Option(help="a folder (16-bit PNG), or a file: .npz, or .mkv (FFV1, 16 bits)")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="models:/secondeye@champion, or the folder of a bundle: its estimator is used"),
    ] = None,
    estimator: Annotated[str, typer.Option("--depth", help="as of secondeye convert")] = "auto",
    input_layout: Annotated[str | None, typer.Option(help="as of secondeye convert")] = None,
    mono: Annotated[bool, typer.Option("--mono", help="as of secondeye convert")] = False,
    deinterlace: Annotated[str, typer.Option(help="as of secondeye convert")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing maps")] = False,
    depth_resolution: Annotated[int | None, _diffusion(help="as of secondeye convert")] = None,
    offload: Annotated[bool, _diffusion("--offload", help="as of secondeye convert")] = False,
    max_memory_gb: Annotated[float | None, _resources(help="as of secondeye convert")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="never ask a network for weights")] = False,
) -> None:
    """Write the depth of a film, for `secondeye convert --depth-maps` and other programs.

    Run it again to resume. A registered model estimates with the code that it was registered with. The exit
    code is 3 if the film is damaged.
    """
    _ask_no_network(offline)
    _use_registered_code(model, module="conversion/depth_film.py")
    from secondeye.conversion.bundle import settings_from_bundle
    from secondeye.conversion.depth_film import write_depth

    settings = settings_from_bundle(
        Path(model) if model is not None else None,
        depth=estimator,
        input_layout=input_layout,
        mono=mono,
        deinterlace=deinterlace,
        depth_resolution=depth_resolution,
        offload=offload,
        max_memory_gb=max_memory_gb,
    )
    with _resumable():
        made = write_depth(film, output, settings, overwrite=overwrite)
    print(f"{made.output}: depth of {pluralize(made.frames, 'frame')}")
    _exit_if_damaged(made.damage)


@app.command()
def score(
    left: Annotated[Path, typer.Argument(help="the left view, or the stereo film")],
    right: Annotated[Path, typer.Argument(help="the right view to score, or a stereo film")],
    truth: Annotated[
        Path | None,
        typer.Option(help="the true right view, or a stereo film (default: score without reference)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    every: Annotated[int, typer.Option(help="score 8 consecutive frames out of every 8 N", min=1)] = 1,
    align: Annotated[
        bool,
        typer.Option(
            "--align", help="also score against the true right view at RIGHT's own strength and convergence"
        ),
    ] = False,
) -> None:
    """Score a stereo film from any source, with or without the true right view.

    Of a film that is packed, by its metadata or a tag in its name (_sbs, _half-sbs, _tb ...), the requested
    view is used.
    """
    from secondeye.evaluation.film_report import to_json, to_text
    from secondeye.evaluation.film_score import score_films

    found = score_films(left, right, truth, every=every, align=align, log=partial(print, file=sys.stderr))
    print(to_json(found) if as_json else to_text(found))


@app.command(rich_help_panel="Called by DVC")
def stage(
    name: Annotated[str, typer.Argument(help="a stage of dvc.yaml")],
    paths: Annotated[list[Path], typer.Argument(help="the folders of the stage, as in dvc.yaml")],
) -> None:
    """Run one stage of dvc.yaml. Training and evaluation runs are published to MLflow while they run."""
    from secondeye.system.process import die_with_parent

    die_with_parent(os.getppid())
    from secondeye.stages.runner import bind_stage

    bound = bind_stage(name, paths)
    with _publishing(bound.runs):
        bound.run()


def _publishing(runs: Path | None) -> AbstractContextManager[None]:
    """Publish run folders to MLflow while a stage writes them."""
    from secondeye.system.process import is_main_process

    if runs is None or not is_main_process():
        return nullcontext()
    from secondeye.registry.live_sync import live_sync

    return live_sync(runs)


@model.command()
def publish(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="folders that contain run folders (default: all)")
    ] = None,
) -> None:
    """Copy run folders to MLflow. Content that MLflow already has is not sent again.

    The exit code is 4 if MLflow cannot be reached; run it again later.
    """
    from secondeye.registry.publish import publish_all
    from secondeye.registry.server import redact_password, tracking_uri

    roots = folders or [RUNS, MODELS, DATA / "evaluate"]
    done = publish_all([root for root in roots if root.is_dir()])
    new = sum(run.changed for run in done)
    print(f"{pluralize(len(done), 'run')}, {new} of them updated in {redact_password(tracking_uri())}")


@model.command()
def record(
    film: Annotated[Path, typer.Argument(help="a film that `secondeye convert` wrote")],
    seconds: Annotated[
        float | None, typer.Option(help="seconds that the conversion took, for its speed", min=0.001)
    ] = None,
) -> None:
    """Publish a conversion to MLflow as a run: film, duration, speed, version, preview.

    The exit code is 4 if MLflow cannot be reached; `secondeye model publish` then adds it later.
    """
    from secondeye.registry.conversion_run import record_conversion
    from secondeye.registry.publish import publish as publish_run

    print(publish_run(record_conversion(RUNS, film, seconds).folder).name)


@model.command()
def init() -> None:
    """Make the shipped model the first champion; the last champion or the oldest version, if there are any.

    A champion stays. The exit code is 4 if MLflow cannot be reached.
    """
    from secondeye.registry.champion import champion

    version = champion()
    if version is None:
        from secondeye.gate.promotion import ensure_champion  # takes longer to import than all of the above

        version = ensure_champion(None)
    print(f"champion: version {version}")


@model.command()
def gate() -> None:
    """Compare the trained models with the champion on the held-out evaluation clips, and promote a winner.

    reports/gate.md explains the decision.
    """
    from secondeye.gate.promotion import run_gate
    from secondeye.gate.report import describe_decision
    from secondeye.params import load_params
    from secondeye.registry.server import ServerUnreachable

    params = load_params()
    outcome = run_gate(DATA, MODELS, REPORTS, RUNS, gate=params.gate, evaluate=params.evaluate)
    for line in [*map(describe_decision, outcome.decisions), *outcome.vetoed] or ["nothing new to compare"]:
        print(line)
    print(f"champion: version {outcome.champion}; the report is {REPORTS / 'gate.md'}")
    try:
        publish([RUNS])
    except ServerUnreachable as error:  # the gate itself has finished
        print(f"secondeye: {error}", file=sys.stderr)


@model.command()
def promote(
    version: Annotated[int, typer.Argument(help="the version to make champion")],
    why: Annotated[str, typer.Option(help="the reason, for the history")] = "promoted by hand",
) -> None:
    """Make a registered version the champion without running the gate. A veto of its weights is lifted."""
    from secondeye.registry.champion import champion
    from secondeye.registry.champion import promote as promote_version

    previous = champion()
    promote_version(version, expected=previous, why=why)
    print(f"champion: version {version}, before: {previous or 'none'}")


@model.command()
def rollback(
    why: Annotated[str, typer.Option(help="the reason, for the history")] = "rolled back by hand",
) -> None:
    """Make the previous champion the champion again. Weights that it did not have are vetoed.

    Done twice, it goes back two champions.
    """
    from secondeye.registry.champion import champion
    from secondeye.registry.champion import rollback as restore_previous

    event = restore_previous(expected=champion(), why=why)
    print(f"champion: version {event.version}, before: {event.previous}; {_vetoed(event.vetoed)}")


@model.command()
def veto(
    version: Annotated[int, typer.Argument(help="the version whose weights must not challenge again")],
    why: Annotated[str, typer.Option(help="the reason, for the history and reports/gate.md")],
) -> None:
    """Keep the weights of a version from challenging again; those that the champion has too are not vetoed.

    The champion itself is not vetoed but rolled back. `secondeye model promote` lifts a veto.
    """
    from secondeye.registry.champion import veto as veto_version

    print(_vetoed(veto_version(version, why=why).vetoed))


def _vetoed(weights: Mapping[str, str]) -> str:
    return f"vetoed: {', '.join(f'{part} {digest[:12]}' for part, digest in weights.items()) or 'nothing'}"


@model.command()
def history(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, with the hashes of weights")] = False,
) -> None:
    """Print all changes of the champion and all vetoes: when, by whom and why."""
    from dataclasses import asdict

    from secondeye.registry.champion import history as read_history

    events = read_history()
    if as_json:
        print(json.dumps([asdict(event) for event in events], indent=1))
        return
    for event in events:
        before = f", before: {event.previous}" if event.previous else ""
        print(f"{event.number:4}  version {event.version}{before}: {event}")
        if event.vetoed:
            print(f"      {_vetoed(event.vetoed)}")


@model.command()
def memory(
    gpus: Annotated[int, typer.Option(help="of one machine, which trains alone", min=1)] = 1,
    gpu_gib: Annotated[float | None, typer.Option(help="memory that is free on each GPU, GiB")] = None,
    machine_gib: Annotated[float | None, typer.Option(help="memory that is free on the machine, GiB")] = None,
    deepspeed: Annotated[
        Path | None,
        typer.Option(help="presets/deepspeed_zero2.json or ..._offload.json (default: none)"),
    ] = None,
    workers: Annotated[int, typer.Option(help="processes that draw the samples of each GPU", min=0)] = 8,
) -> None:
    """Print the memory that training the diffusion network on GPUs takes; exit code 1 if it is too much."""
    from secondeye.params import load_params
    from secondeye.training.diffusion_memory import estimate_memory
    from secondeye.training.memory_table import GIB, make_setup, require_fit

    setup = make_setup(True, gpus, gpus, workers, deepspeed)
    table = estimate_memory(load_params().train_diffusion, setup)
    print("\n".join(table.lines()))
    free = [None if given is None else int(given * GIB) for given in (gpu_gib, machine_gib)]
    require_fit(table, *free)


@data.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="output folder; `dvc repro` reads data/raw")],
    films: Annotated[int, typer.Option(help="stereo films to write", min=1)] = 8,
    shots: Annotated[int, typer.Option(help="shots of each stereo film", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="random seed", min=0)] = 7,
    exact: Annotated[bool, typer.Option(help="also write the exact disparity and occlusion arrays")] = False,
) -> None:
    """Render synthetic sample films: stereo films with sources.csv, and a monocular film with sound."""
    from tqdm import tqdm

    from secondeye.dataset.sample_films import require_no_other_films, write_sample_films

    require_no_other_films(folder, films)
    with tqdm(total=films + 1, desc="sample", unit="film") as bar:
        write_sample_films(
            folder, films, seed, shots_per_film=shots, exact=exact, progress=lambda name: bar.update()
        )
    print(f"{folder}: {films} stereo films, mono.mp4 and sources.csv")


@app.command()
def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="a converted film; a version (3, models:/secondeye@champion); the key of a run; the hash of "
            "a dataset (8 digits are enough)"
        ),
    ],
) -> None:
    """Print what a film, version or run was made from, down to the dataset's films and their licences.

    The exit code is 1 if a link leads nowhere; its line begins with BROKEN.
    """
    from secondeye.registry.lineage import read_records, trace

    roots = [root for root in (RUNS, MODELS, DATA / "evaluate") if root.is_dir()]
    found = trace(name, read_records(roots))
    print("\n".join(found.lines()))
    if found.is_broken:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Print what this machine provides, and what each missing part disables."""
    from secondeye.maintenance.doctor import examine

    print("\n".join(examine()))


@report.command()
def figures(
    films: Annotated[
        list[Path] | None,
        typer.Argument(help="stereo films, or folders of them (default: the dataset's held-out clips)"),
    ] = None,
    output: Annotated[Path, typer.Option(help="a new folder")] = REPORTS / "figures",
    models: Annotated[Path, typer.Option(help="the folder of trained models")] = MODELS,
    clips: Annotated[int, typer.Option(help="clips of each film", min=1)] = 1,
    max_width: Annotated[
        int, typer.Option(help="width to which larger FILMS are reduced, px of a view", min=64)
    ] = 640,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing figures")] = False,
) -> None:
    """Write the paper's comparisons from your own films and models: methods, inpainters, windows, tiles."""
    from secondeye.paper_figures.pages import write_figures
    from secondeye.params import load_params

    pages = write_figures(
        films or [],
        output,
        data=DATA,
        models=models,
        params=load_params(),
        per_film=clips,
        max_width=max_width,
        overwrite=overwrite,
    )
    print(f"{pages[0]}: {pluralize(len(pages) - 1, 'figure')}")


@data.command()
def export(
    out: Annotated[
        Path, typer.Argument(help="an empty folder, or one with an unfinished export of the same settings")
    ],
    split: Annotated[str, typer.Option(help="train, with the synthetic shots, or test")] = "train",
    shard_megabytes: Annotated[float, typer.Option(help="largest size of a shard", min=1)] = 1000,
) -> None:
    """Write the dataset's clips as WebDataset shards to train from. Run it again to resume."""
    from secondeye.training.export import export_dataset

    print(export_dataset(DATA, out, split=split, shard_megabytes=shard_megabytes))


@data.command()
def left(
    folder: Annotated[Path, typer.Argument(help="output folder")],
    films: Annotated[
        list[str] | None, typer.Argument(help="names of films in data/raw (default: all)")
    ] = None,
) -> None:
    """Write the left views of films in data/raw, to have them converted elsewhere."""
    from secondeye.sources.left_views import select_films, write_left_views

    for path in write_left_views(select_films(DATA / "raw", films or []), folder):
        print(path)


@data.command()
def external(
    films: Annotated[list[Path], typer.Argument(help="films that came back, named as their originals")],
    method: Annotated[str, typer.Option(help="name of the converter, as in reports")],
    original: Annotated[
        str | None, typer.Option(help="the film in data/raw that FILMS were made from (default: by name)")
    ] = None,
    packing: Annotated[
        str | None,
        typer.Option(help="sbs, half-sbs, tb ... or right (default: by metadata, name or pixels)"),
    ] = None,
    skip_frames: Annotated[
        int, typer.Option(help="leading frames that the original lacks, as a logo", min=0)
    ] = 0,
) -> None:
    """Check films that another converter made of left views, and file their right views in data/external.

    Nothing is written if there is a problem; each is one line.
    """
    from secondeye.evaluation.pack_external import pack_films
    from secondeye.sources import list_sources

    made = pack_films(
        films,
        list_sources(DATA / "raw"),
        DATA / "external",
        method,
        original=original,
        packing=packing,
        skip_frames=skip_frames,
        log=partial(print, file=sys.stderr),
    )
    for path in made:
        print(f"{path}: right view, {path.stat().st_size / 1e6:.1f} MB")


@data.command()
def drift(
    revision: Annotated[str, typer.Argument(help="a Git commit, branch or tag")] = "HEAD",
) -> None:
    """Print how the scores of the dataset have changed since a Git revision, as Markdown."""
    from secondeye.dataset.drift import describe_drift, read_revision, read_workspace

    now = read_workspace()
    print(describe_drift(revision, read_revision(revision), now), end="")


@data.command()
def clean(
    delete: Annotated[bool, typer.Option("--delete", help="delete the listed files")] = False,
) -> None:
    """List unused files: temporary and orphaned files, abandoned conversions, old run folders."""
    from secondeye.maintenance.cleanup import delete as remove
    from secondeye.maintenance.cleanup import describe, find_leftovers

    found = find_leftovers(Path.cwd())
    print("\n".join(describe(Path.cwd(), found)))
    if delete:
        print(f"{len(remove(found))} deleted")


@report.command("forced-choice")
def forced_choice(
    page: Annotated[Path, typer.Argument(help="the page to write (.html)")],
    methods: Annotated[
        list[str],
        typer.Argument(help="NAME=PATH of each method: a stereo film, or a folder of films named alike"),
    ],
    show: Annotated[str, typer.Option(help="wiggle: both eyes in turn; or anaglyph: red-cyan")] = "wiggle",
    moments: Annotated[int, typer.Option(help="moments of each film", min=1)] = 3,
    frames: Annotated[int, typer.Option(help="frames of each moment", min=1)] = 8,
    width: Annotated[int, typer.Option(help="of a picture on the page, px", min=64)] = 640,
    seed: Annotated[int, typer.Option(help="of the order of trials and sides")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing page")] = False,
) -> None:
    """Write a page on which people choose between conversions of the same moments, for a user study."""
    from secondeye.evaluation.forced_choice import parse_methods, write_study

    trials = write_study(
        page,
        parse_methods(methods),
        show=show,
        moments=moments,
        frames=frames,
        width=width,
        seed=seed,
        overwrite=overwrite,
        log=partial(print, file=sys.stderr),
    )
    print(f"{page}: {pluralize(trials, 'trial')}, {page.stat().st_size / 1e6:.1f} MB")


@report.command()
def preferences(
    answers: Annotated[list[Path], typer.Argument(help="CSV files that participants saved")],
    confidence: Annotated[float, typer.Option(help="of intervals and bold", min=0.5, max=0.999)] = 0.95,
    seed: Annotated[int, typer.Option(help="of the bootstrap", min=0)] = 0,
) -> None:
    """Print the preferences of a forced choice, with intervals, as Markdown."""
    from secondeye.evaluation.preferences import describe_preferences, read_answers

    print(describe_preferences(read_answers(answers), confidence=confidence, seed=seed), end="")


@data.command()
def preset(
    name: Annotated[str, typer.Argument(help="laptop, small, paper, or the path of a YAML file")],
) -> None:
    """Write the values of a preset into params.yaml."""
    from secondeye.params import apply_preset

    named = Path("presets") / f"{name}.yaml"
    apply_preset(named if named.is_file() else Path(name))
    print(f"params.yaml: preset {name}")
