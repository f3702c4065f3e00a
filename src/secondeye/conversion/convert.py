"""Convert a film to stereo, shot by shot, resuming after the last finished segment."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.conversion.checkpoint import Checkpoint, open_checkpoint, remove_if_published
from secondeye.conversion.comfort import StereoRequest
from secondeye.conversion.depth_maps import open_depth_maps
from secondeye.conversion.destination import (
    check_output,
    check_plan_file,
    check_preview,
    choose_outputs,
)
from secondeye.conversion.memory import choose_window_frames
from secondeye.conversion.output_format import OutputFormat, choose_format, describe_format
from secondeye.conversion.plan_file import read_plan_file
from secondeye.conversion.provenance import (
    describe_conversion,
    describe_depth,
    has_synthesised_left,
    own_comment,
    to_comment,
    write_sidecar,
)
from secondeye.conversion.settings import AUTO, GIB, ConversionSettings
from secondeye.conversion.shot_record import forget_changed, write_plan
from secondeye.conversion.shot_requests import StereoSource
from secondeye.conversion.shots import (
    FilmJob,
    ShotConverter,
    is_spread,
    load_models,
    picture_sizes,
    require_memory,
    share_memory,
    spread_shots,
    worker_count,
)
from secondeye.depth.estimators import FALLBACK, choose_best, max_map_pixels
from secondeye.film.cuts import CUT_THRESHOLD, shortest_shot_frames
from secondeye.film.letterbox import NO_LETTERBOX
from secondeye.film.packing import MULTIVIEW
from secondeye.film.shots import ShotPlan, plan_shots
from secondeye.film.view import left_view_info
from secondeye.inpaint import Inpainter, PlannedInpainter
from secondeye.sources.packing_detection import UnclearPacking, find_packing
from secondeye.system.disk import explain_full_disk, require_free_space
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.system.process import best_device
from secondeye.system.text import pluralize
from secondeye.video.mux import mux_film, plan_tracks
from secondeye.video.probe import FilmInfo, UnreadableFilm, probe
from secondeye.video.read import container_and_frame_count
from secondeye.video.verify import verify_film

Log = Callable[[str], None]


@dataclass(frozen=True)
class ConversionResult:
    """A finished conversion."""

    outputs: tuple[Path, ...]  # one film, or those of the left and the right view
    frames: int
    damage: str  # what of the film could not be decoded; "" for a whole film

    @property
    def output(self) -> Path:
        """The film, or that of the left view."""
        return self.outputs[0]


def convert(
    film: Path,
    output: Path | None,  # None: the name of `choose_outputs`, beside the film
    settings: ConversionSettings,
    *,
    preview: Path | None = None,  # .png to write a preview of the middle frame to
    plan_file: Path
    | None = None,  # .yaml with the strength and convergence of every shot; a new one is written
    over_plan: Collection[str] = (),  # of strength_percent and convergence: settings that win over the plan
    overwrite: bool = False,  # replace an existing output
    sidecar: bool = False,  # also write OUTPUT.json, the record that the film's tag holds
    log: Log = print,
) -> ConversionResult:
    """Convert a film to stereo; the output appears under its name when it is complete.

    Frame count, timestamps, pixel aspect, audio and subtitles are those of the source. After an interruption
    the same call resumes after the last finished segment, to the same bytes. With a plan file, what is
    encoded is kept, and another call converts only the shots whose values have changed. Raises UserError for
    unusable input or output, for too little memory, and when the disk is full.
    """
    info = probe_source(film, settings)
    output_format = choose_format(info, settings)
    outputs = choose_outputs(film, output, settings)
    # Through links, so that two names of one output share a checkpoint.
    targets = [each.resolve() for each in outputs]
    if remove_if_published(*targets, keep=overwrite or plan_file is not None):
        if not overwrite and plan_file is None:
            return ConversionResult(tuple(outputs), container_and_frame_count(outputs[0])[1], "")
        overwrite = True  # what this conversion wrote itself
    for each in outputs:
        check_output(each, film, settings.encoding.encoder.codec, overwrite)
    if preview is not None:
        check_preview(preview, film, overwrite)
    planned = None
    if plan_file is not None:
        check_plan_file(plan_file, film)
        planned = read_plan_file(plan_file) if plan_file.exists() else None
    if settings.depth_maps is not None:
        open_depth_maps(settings.depth_maps, settings.depth_orientation, info)  # raises if they do not fit
    _log_tracks(film, outputs[0], log)
    for line in describe_format(info, output_format, outputs[0].suffix):
        log(line)
    if has_synthesised_left(film):
        log(f"warning: {film}: its left view is not the source but synthesised; convert the source instead")
    settings = choose_depth(settings, log)
    source = StereoSource(settings, plan_file, planned, over_plan)
    if planned is not None and (other := planned.mismatch(film.name, describe_depth(settings)["name"])):
        log(f"warning: {plan_file}: was written for {other}")
    window_frames = choose_window_frames(info, settings, worker_count(settings))
    models = load_models(share_memory(settings))
    require_memory(models.estimator, [(info.height, info.width)])
    folder = targets[0].parent
    full_disk = explain_full_disk(folder, "free some and run the same command again, to continue")
    with full_disk, open_checkpoint(targets[0], info, settings) as checkpoint:
        if not overwrite and (written := [each for each in targets if each.exists()]):
            checkpoint.remove()
            raise UserError(f"{written[0]}: was written by another process; add --overwrite to replace it")
        _require_inpainting_memory(checkpoint, info, settings, models.inpainter)
        plan = load_or_plan_shots(checkpoint, info)
        require_memory(models.estimator, picture_sizes(plan))
        _plan_inpainting(checkpoint, plan, settings, models.inpainter, log)
        _log_film(plan, log)
        requests = source.requests(plan.shots)
        for line in source.describe():
            log(line)
        if changed := forget_changed(checkpoint, plan, requests):
            log(f"{pluralize(changed, 'shot')} with other values: converted again")
        _require_free_space(checkpoint, plan, folder, settings, output_format)
        job = FilmJob(info, checkpoint, settings, window_frames)
        converter = None if is_spread(settings) else ShotConverter(job, plan, models)
        del models  # not to be held while other processes load their own
        _convert_shots(job, plan, requests, converter, log)
        record = describe_conversion(
            film,
            settings,
            output_format,
            checkpoint.load_inpaint_plans(),
            own_comment(film),
            source.planned_names,
        )
        if sidecar:
            for target in targets:
                write_sidecar(target, record)
        if plan_file is not None and planned is None:
            if plan_file.exists():
                remedy = "to write the values of this film, add --overwrite and another --plan"
                log(f"warning: {plan_file}: was written by another process and stays; {remedy}")
            else:
                write_plan(checkpoint, plan, plan_file, record["depth"]["name"])
        lost_sound = _mux(checkpoint, plan, targets, output_format, record)
        if preview:
            write_atomic(preview, checkpoint.preview.read_bytes())
        if plan_file is None:
            checkpoint.remove()
        else:
            kept = f"{checkpoint.folder}: {checkpoint.keep() / 2**20:.0f} MiB, kept for edits of {plan_file}"
            log(f"{kept}; delete it when the film is right")
    damage = "; ".join(filter(None, [plan.damage, lost_sound]))
    return ConversionResult(tuple(outputs), len(plan.timestamps), damage)


def probe_source(film: Path, settings: ConversionSettings) -> FilmInfo:
    """Return the properties of the picture to convert.

    With `--deinterlace off` it counts as progressive; with `--input-layout` it is the left view. Raises
    UserError for a film that is stereo already, unless `--mono` says that it is not.
    """
    info = probe(film)
    if settings.input_layout is not None:
        info = left_view_info(info, settings.input_layout)
    elif not settings.mono and (found := _stereo_evidence(film)):
        packing, evidence = found
        remedy = "" if packing == MULTIVIEW else f"--input-layout {packing} converts its left view again, "
        raise UserError(f"{film}: is a stereo film already ({evidence}); {remedy}--mono the whole picture")
    return replace(info, interlaced=info.interlaced and settings.deinterlace == AUTO)


def _stereo_evidence(film: Path) -> tuple[str, str] | None:
    """Return the packing of a film that is stereo already, and what says so."""
    try:
        return find_packing(film)
    except UnclearPacking as error:
        return "LAYOUT", error.reason


def choose_depth(
    settings: ConversionSettings,
    log: Log,
    *,
    inpaints: bool = True,  # False: only depth is made
) -> ConversionSettings:
    """Replace the depth `auto` by the best estimator here, and log the models to use and their licence.

    Weights that are missing are downloaded.
    """
    depth, note, chosen = settings.depth, "", settings.depth == AUTO
    if settings.depth_maps is not None:
        depth = f"maps from {settings.depth_maps}"
    elif chosen:
        depth, note = choose_best(log)
    if settings.depth_maps is None:
        settings = replace(settings, depth=depth)
        if settings.depth not in (FALLBACK, "student"):
            note = f"licence: {describe_depth(settings)['licences']}"
            if chosen and best_device() == "cpu":
                note += "; takes seconds per frame without a GPU, --depth motion is faster"
    model = f"; model: {settings.model}" if settings.model not in (None, SHIPPED) else ""
    inpainting = f"; inpainting: {settings.inpainter}" if inpaints else ""
    log(f"depth: {depth}{f' ({note})' if note else ''}{inpainting}{model}")
    if unused := settings.unused_options():
        used = f"the inpainter is {settings.inpainter} and depth {depth}" if inpaints else f"depth is {depth}"
        log(f"warning: {', '.join(unused)}: no effect, since {used}")
    return settings


def load_or_plan_shots(checkpoint: Checkpoint, info: FilmInfo) -> ShotPlan:
    plan = checkpoint.load_plan(info)
    if plan is None:
        with tqdm(total=info.frames or None, desc="finding cuts", unit="frame", leave=False) as bar:
            try:
                plan = plan_shots(
                    info,
                    cut_threshold=CUT_THRESHOLD,
                    min_shot_frames=shortest_shot_frames(info.fps),
                    on_frame=bar.update,
                )
            except UnreadableFilm:
                checkpoint.remove()
                raise
        checkpoint.save_plan(plan)
    return plan


def _log_tracks(film: Path, output: Path, log: Log) -> None:
    """Say which tracks the container cannot hold as they are."""
    plan = plan_tracks(film, output.suffix)
    for number, codec in plan.encoded.items():
        stored = "it is stored as FLAC of up to 24 bits"
        log(f"{output.suffix} cannot hold sound track {number} ({codec}); {stored}")
    for track in plan.dropped.values():
        other = "" if output.suffix == ".mkv" else "; try --output with a name in .mkv"
        log(f"warning: {output.suffix} cannot hold the film's {track}; it is dropped{other}")


def _require_inpainting_memory(
    checkpoint: Checkpoint, info: FilmInfo, settings: ConversionSettings, inpainter: Inpainter
) -> None:
    """Raise UserError unless the memory suffices for the recorded plans of the inpainter, or for any plan."""
    if not isinstance(inpainter, PlannedInpainter):
        return
    plans, most = checkpoint.load_inpaint_plans(), share_memory(settings).max_memory_bytes
    need = max((plan.memory_bytes for plan in plans), default=0)
    if settings.max_memory_gb is not None and most is not None and need > most:
        raise UserError(
            f"{checkpoint.folder}: the unfinished conversion needs {need / GIB:.1f} GiB in each "
            "process; raise --max-memory-gb, or delete the folder to start over"
        )
    if not plans:
        try:
            inpainter.plan(info.height, info.width)
        except UserError as error:
            checkpoint.remove()
            raise UserError(f"{info.path}: {error}") from error


def _plan_inpainting(
    checkpoint: Checkpoint, shots: ShotPlan, settings: ConversionSettings, inpainter: Inpainter, log: Log
) -> None:
    """Reuse the recorded plans of the inpainter, or make and record them, and log them.

    A plan may depend on free memory, and the pixels depend on the plan: all pictures of one size have one.
    """
    if not isinstance(inpainter, PlannedInpainter):
        return
    plans = checkpoint.load_inpaint_plans()
    for plan in plans:
        inpainter.reuse(plan)
    if not plans:
        plans = [inpainter.plan(*size) for size in picture_sizes(shots)]
        checkpoint.save_inpaint_plans(plans)
    steps = plans[0].steps
    if settings.steps not in (None, steps):
        log(f"warning: --steps: no effect, since the network inpaints in {pluralize(steps, 'step')}")
    for plan in plans:
        log(str(plan))


def _log_film(plan: ShotPlan, log: Log) -> None:
    info = plan.info
    audio = ", ".join(info.audio) or "none"
    log(f"{info.path}: {info.width}x{info.height}, {float(info.fps):.3f} fps, audio: {audio}")
    if info.interlaced:
        log(f"{info.path}: interlaced, is deinterlaced; --deinterlace off keeps it")
    if info.bit_depth > 8:
        log(f"{info.path}: has {info.bit_depth} bits per channel; is dithered to 8")
    if info.hdr:
        log(f"{info.path}: HDR ({info.hdr}), is tone-mapped to SDR (BT.709)")
    if letterboxed := sum(still.letterbox != NO_LETTERBOX for still in plan.still):
        shots = pluralize(len(plan.shots), "shot")
        log(f"{info.path}: letterbox in {letterboxed} of {shots}, is kept")
    if overlaid := sum(still.overlay != b"" for still in plan.still):
        shots = pluralize(len(plan.shots), "shot")
        log(f"{info.path}: text or logo in {overlaid} of {shots}, stays on the screen")
    if plan.damage:
        log(f"warning: {plan.damage}; converting what decodes")


def _require_free_space(
    checkpoint: Checkpoint,
    plan: ShotPlan,
    folder: Path,
    settings: ConversionSettings,
    output_format: OutputFormat,
) -> None:
    """Raise UserError unless the unfinished shots, the muxed film and the depth in use fit on the disk."""
    missing = len(plan.timestamps) - checkpoint.frames_done(plan.shots)
    longest = sorted(stop - start for start, stop in plan.shots)[-worker_count(settings) :]
    # An upper bound.
    audio_bytes = output_format.layout.files * plan.info.path.stat().st_size if plan.info.audio else 0
    depth_bytes = 4 * sum(longest) * max(largest_map(settings, *size) for size in picture_sizes(plan))
    film_bytes = (missing + len(plan.timestamps)) * output_format.frame_bytes
    require_free_space(folder, film_bytes + audio_bytes + depth_bytes, "convert")


def largest_map(settings: ConversionSettings, height: int, width: int) -> int:
    """Return the pixels of a depth map of a picture of this size, estimated or given, at most."""
    pixels = height * width
    if settings.depth_maps is not None:
        return pixels
    largest = max_map_pixels(settings.located_depth, height, width)
    return min(pixels, max(largest, (settings.depth_resolution or 0) ** 2))


def _convert_shots(
    job: FilmJob,
    plan: ShotPlan,
    requests: Sequence[StereoRequest],
    converter: ShotConverter | None,
    log: Log,
) -> None:
    """Convert all unfinished shots; without a converter, in other processes."""
    checkpoint = job.checkpoint
    done = checkpoint.frames_done(plan.shots)
    resumed = f", {pluralize(done, 'frame')} already converted" if done else ""
    frames, shots = pluralize(len(plan.timestamps), "frame"), pluralize(len(plan.shots), "shot")
    log(f"{frames} in {shots}{resumed}")
    # Every frame counts twice: once in the depth pass, once in the render pass. The depth pass of an
    # unfinished shot also counts the frames that it has already.
    unfinished = [plan.shots[number] for number in checkpoint.unfinished(plan)]
    initial = done + len(plan.timestamps) - sum(stop - start for start, stop in unfinished)
    with tqdm(total=2 * len(plan.timestamps), initial=initial, desc="converting", unit="frame") as bar:
        if converter is None:
            counted = spread_shots(job, plan, requests, bar)
        else:
            for number in checkpoint.unfinished(plan):
                converter.run(number, requests[number], bar.write, bar.update)
            # Some inpainters count what they do.
            stats = getattr(converter.models.inpainter, "stats", None)
            counted = str(stats) if stats else ""
    if counted:
        log(counted)


def _mux(
    checkpoint: Checkpoint,
    plan: ShotPlan,
    outputs: Sequence[Path],
    output_format: OutputFormat,
    record: Mapping[str, Any],
) -> str:
    """Join all segments with the source's audio, verify the films and move them to their outputs.

    Returns what of the sound was lost; "" if the film ends early, as its sound then does, too.
    """
    info, lost = plan.info, 0
    seconds = [timestamp * info.time_base for timestamp in plan.timestamps]
    segments = [segment for chain in checkpoint.segments(plan.shots) for segment in chain]
    for stream, output in enumerate(outputs):
        muxed = checkpoint.film(output)
        tracks, lost = mux_film(
            [(segment.path, seconds[segment.start]) for segment in segments],
            info.path,
            muxed,
            until=plan.end_seconds if plan.error else None,
            comment=to_comment(record),
            stereo=output_format.stereo,
            stream=stream,
        )
        size = {"width": output_format.width, "height": output_format.height}
        verify_film(muxed, **size, seconds=seconds, tracks=tracks)
    checkpoint.publish_films(outputs)
    if not lost or plan.error:
        return ""
    return f"{info.path}: parts of the sound that do not decode: {lost}, skipped"
