"""Convert the shots of a film, in this process or spread over processes, GPUs and machines.

Shots are independent of each other: each process writes the segments of its shots into the one checkpoint,
and the bytes are the same.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import astuple, dataclass, replace
from functools import cache, partial
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from secondeye.conversion.bundle_parts import weights_folder
from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.comfort import StereoRequest
from secondeye.conversion.depth_maps import DepthMaps, open_depth_maps, require_length
from secondeye.conversion.memory import parent_bytes, reserved_bytes
from secondeye.conversion.output_format import choose_format
from secondeye.conversion.picture import Picture
from secondeye.conversion.segments import ShotRenderer, read_windows, segment_frames
from secondeye.conversion.settings import GIB, ConversionSettings
from secondeye.conversion.shot_depth import estimate_shot
from secondeye.conversion.shot_record import choose_shot, save_record
from secondeye.depth import DepthEstimator, MemoryCheckedEstimator, SmallFrameEstimator
from secondeye.depth.estimators import make_depth_estimator
from secondeye.execution import parallel
from secondeye.execution.parallel import WorkerCrashed
from secondeye.film.shots import ShotPlan
from secondeye.film.still_parts import NOTHING_STILL
from secondeye.film.view import frame_decoder
from secondeye.inpaint import Inpainter, PlannedInpainter, make_inpainter
from secondeye.system.errors import UserError
from secondeye.system.memory import return_freed_arrays
from secondeye.system.process import best_device, count_gpus, hold_shared_lock, one_thread
from secondeye.system.threads import prefetch
from secondeye.video.probe import FilmInfo
from secondeye.video.read import ShotReader

_COUNTED_PX = 16  # side of the frames beside which depth maps are read
_PROGRESS_SECONDS = 2.0  # between looks at what the workers have finished


class Models(NamedTuple):
    """The loaded parts of a converter."""

    estimator: DepthEstimator | None  # None: depth maps replace it
    inpainter: Inpainter


def load_models(settings: ConversionSettings) -> Models:
    """Load both parts on the best device. Raises UserError if their weights cannot be loaded."""
    device, options = best_device(), settings.inpaint_options
    if device == "cpu":  # the inpainter and the rest of the conversion share one budget
        if settings.inpainter == "diffusion":
            return_freed_arrays()
        reserved = partial(reserved_bytes, encoding=settings.encoding, views=options.shots)
        options = replace(options, reserved_bytes=reserved)
    return Models(
        load_estimator(settings),
        make_inpainter(settings.inpainter, weights_folder(settings.model, "inpaint"), device, options),
    )


def load_estimator(settings: ConversionSettings) -> DepthEstimator | None:
    """Load the depth estimator on the best device; None if depth maps replace it."""
    if settings.depth_maps is not None:
        return None
    weights = weights_folder(settings.model, "depth")
    return make_depth_estimator(settings.depth, weights, best_device(), settings.depth_options)


def require_memory(estimator: DepthEstimator | None, sizes: Iterable[tuple[int, int]]) -> None:
    """Raise UserError unless the memory suffices for an estimator of frames of these heights and widths."""
    if isinstance(estimator, MemoryCheckedEstimator):
        for size in sizes:
            estimator.require_memory(*size)


def picture_sizes(plan: ShotPlan) -> list[tuple[int, int]]:
    """Return height and width of the pictures inside the letterbox, that of most frames first."""
    counts: Counter[tuple[int, int]] = Counter()
    for number, (start, stop) in enumerate(plan.shots):
        counts[picture_of(plan, number).size] += stop - start
    return [size for size, _ in counts.most_common()]


def picture_of(plan: ShotPlan, number: int) -> Picture:
    """Return the picture of a shot."""
    return Picture(plan.still[number], plan.info.height, plan.info.width)


@dataclass(frozen=True)
class FilmJob:
    """What a process needs to know of a film to convert any shot of it."""

    info: FilmInfo
    checkpoint: Checkpoint
    settings: ConversionSettings
    window_frames: int


def depth_reader(info: FilmInfo, plan: ShotPlan, estimator: DepthEstimator | None) -> ShotReader:
    """Return a reader of the film at the size that the estimator works on; small if there is none.

    Of a film with a letterbox, text or logos it returns whole frames, from which the picture is taken.
    """
    size = None
    if estimator is None:
        size = _COUNTED_PX, _COUNTED_PX
    elif isinstance(estimator, SmallFrameEstimator) and set(plan.still) == {NOTHING_STILL}:
        size = estimator.working_size(info.height, info.width)
    return _reader(info, plan, size)


def _reader(info: FilmInfo, plan: ShotPlan, size: tuple[int, int] | None = None) -> ShotReader:
    decode = frame_decoder(info)
    return ShotReader(info.path, plan.timestamps, size, decode=decode, seeks=not plan.damage)


class ShotConverter:
    """Converts shots of one film with loaded models."""

    def __init__(self, job: FilmJob, plan: ShotPlan, models: Models) -> None:
        self.job, self.plan, self.models = job, plan, models
        self._depth_maps: DepthMaps | None = None
        if job.settings.depth_maps is not None:
            self._depth_maps = open_depth_maps(
                job.settings.depth_maps, job.settings.depth_orientation, job.info
            )
            require_length(self._depth_maps, len(plan.timestamps))
        self._depth_reader = depth_reader(job.info, plan, models.estimator)
        self._render_reader = _reader(job.info, plan)
        output = choose_format(job.info, job.settings)
        self._renderer = ShotRenderer(
            job.checkpoint, plan, job.settings, output, models.inpainter, job.window_frames
        )

    def run(
        self,
        number: int,
        request: StereoRequest,
        log: Callable[[str], object],
        on_frames: Callable[[int], object] = lambda frames: None,  # every frame counts once in each pass
    ) -> None:
        """Convert the rest of a shot."""
        shot = start, stop = self.plan.shots[number]
        picture = picture_of(self.plan, number)
        maps = self._depth_maps
        estimator = self.models.estimator if maps is None else maps.estimator(shot, picture)
        assert estimator is not None
        depth = estimate_shot(
            partial(
                frames_from,
                self._depth_reader,
                shot,
                picture if maps is None else None,
                self.job.window_frames,
            ),
            estimator,
            self.job.checkpoint.raw_depth(start),
            save_every=segment_frames(self.job.info.fps),
            on_frames=on_frames,
        )
        if maps is not None and maps.normalised:
            depth = replace(depth, low=0.0, high=1.0)
        record = choose_shot(depth, request)
        save_record(self.job.checkpoint, start, record)
        log(
            f"shot {number + 1}, frames {start} to {stop - 1}: depth confidence {depth.confidence:.2f}, "
            f"strength {record.stereo.strength_percent:.2f} %, convergence {record.stereo.convergence:.2f}"
        )
        # Warping, inpainting and encoding run side by side, with one thread each: more would mostly wait for
        # each other. A diffusion network keeps all threads.
        threads = nullcontext() if isinstance(self.models.inpainter, PlannedInpainter) else one_thread()
        with threads:
            self._renderer.run(shot, picture, depth, record.stereo, self._render_reader, on_frames)
        depth.delete()


def worker_count(settings: ConversionSettings) -> int:
    """Return the number of processes for shots: as set, or one per GPU."""
    return settings.workers or max(1, count_gpus())


def share_memory(settings: ConversionSettings) -> ConversionSettings:
    """Return the settings of one process: the inpainter's budget divided by those that share a device."""
    workers, gpus = worker_count(settings), count_gpus()
    sharing = ceil(workers / max(1, gpus))
    if sharing == 1 or settings.inpainter != "diffusion":
        return settings
    from secondeye.inpaint.memory import FREE_SHARE, free_bytes

    usable_bytes = settings.max_memory_bytes or FREE_SHARE * free_bytes(torch.device(best_device()))
    usable_bytes -= 0 if gpus else parent_bytes(settings, workers)
    return replace(settings, max_memory_gb=max(1, usable_bytes) / GIB / sharing)


def is_spread(settings: ConversionSettings) -> bool:
    """Return whether shots are converted by other processes than this one."""
    return worker_count(settings) > 1 or parallel.on_cluster()


def spread_shots(job: FilmJob, plan: ShotPlan, requests: Sequence[StereoRequest], bar: "tqdm[Any]") -> str:
    """Convert all unfinished shots in other processes; return what the inpainter counted, or "".

    Raises UserError if a shot cannot be converted because its process crashes.
    """
    frames = [stop - start for start, stop in plan.shots]
    # The longest first, so that the workers finish together.
    numbers = sorted(job.checkpoint.unfinished(plan), key=lambda number: -frames[number])
    workers = worker_count(job.settings)
    results = parallel.map(
        partial(_convert_shot, job),
        [(number, requests[number]) for number in numbers],
        workers=workers,
        threads=max(1, (os.cpu_count() or 1) // workers),
        on_gpu=True,
    )
    counted: list[Any] = []
    with closing(results), _show_progress(job.checkpoint, plan, bar):
        for position, result in results:
            if isinstance(result, WorkerCrashed):
                raise UserError(
                    f"{job.info.path}: shot {numbers[position] + 1} cannot be converted: {result.detail}; "
                    "run the same command with fewer workers to continue"
                )
            bar.write(result.line)
            counted += [result.stats] if result.stats else []
    return str(type(counted[0])(*map(sum, zip(*map(astuple, counted), strict=True)))) if counted else ""


class _ShotReport(NamedTuple):
    line: str  # for the log
    stats: Any  # of an inpainter that counts what it does; None of others


def _convert_shot(job: FilmJob, shot: tuple[int, StereoRequest]) -> _ShotReport:
    """Convert the shot of a number in a process that may convert others of the same film later."""
    converter = _load_converter(job)
    lines: list[str] = []
    inpainter: Any = converter.models.inpainter
    counts_work = hasattr(inpainter, "stats")
    if counts_work:
        inpainter.stats = type(inpainter.stats)()
    with hold_shared_lock(job.checkpoint.workers_lock):
        converter.run(*shot, lines.append)
    return _ShotReport("\n".join(lines), inpainter.stats if counts_work else None)


@cache
def _load_converter(job: FilmJob) -> ShotConverter:
    """Load models and plans, once in a process."""
    plan = job.checkpoint.load_plan(job.info)
    assert plan is not None, job.checkpoint.folder
    models = load_models(job.settings)
    if isinstance(models.inpainter, PlannedInpainter):
        for inpaint_plan in job.checkpoint.load_inpaint_plans():
            models.inpainter.reuse(inpaint_plan)
    return ShotConverter(job, plan, models)


@contextmanager
def _show_progress(checkpoint: Checkpoint, plan: ShotPlan, bar: "tqdm[Any]") -> Iterator[None]:
    """Advance the bar by the segments that other processes finish."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_PROGRESS_SECONDS):
            _advance(bar, 2 * checkpoint.frames_done(plan.shots))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _advance(bar, 2 * checkpoint.frames_done(plan.shots))


def _advance(bar: "tqdm[Any]", done: int) -> None:
    bar.update(done - bar.n)


def frames_from(
    reader: ShotReader,
    shot: tuple[int, int],
    picture: Picture | None,  # to take of the frames; None: they are only counted
    window_frames: int,
    first: int,
) -> Iterator[Tensor]:  # uint8 [t, h, w, 3]
    """Yield the windows of a shot from its frame `first` on, decoded in a thread."""
    start, stop = shot
    windows = read_windows(reader, start + first, stop, window_frames)
    return prefetch(windows if picture is None else (picture.take(window) for window in windows), 1)
