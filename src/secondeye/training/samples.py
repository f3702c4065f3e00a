"""What inpainters learn from: the second eye's view with holes, and the truth behind the holes.

Stereo clips and the synthetic world have a second eye: the left view is warped and the right view is the
truth. A film with one eye has none, so its own frames are taken for the second eye's: they are warped to the
left eye and back, and what is lost on the way is the mask.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.arrays import depth_to_disparity
from secondeye.clips import clip_file, frames_from_pictures, read_disparity, read_frames
from secondeye.conversion.plan import make_plan
from secondeye.conversion.render import sharpen
from secondeye.depth import make_depth_estimator
from secondeye.depth.edges import upsample
from secondeye.inpaint.fill import Memory, fill
from secondeye.packing import fit
from secondeye.process import is_main_process
from secondeye.refusal import Refusal
from secondeye.rows import Kept, Matched, Rendered, Shifted
from secondeye.sources import list_mono
from secondeye.tables import read_table
from secondeye.training.crops import column_range, offset_range
from secondeye.training.provenance import train_clips
from secondeye.video.probe import probe
from secondeye.video.read import ShotReader
from secondeye.views import load
from secondeye.warp import Warp, warp

MONO_SCALE = (0.7, 1.4)  # of a clip's own disparity, when one of its eyes is used as a film with one eye
MONO_STRENGTH_PERCENT = (1.5, 5.0)  # of the width, between nearest and farthest point of a film with one eye
FAR_SHARE, NEAR_SHARE = 0.01, 0.99  # of depths become 0 and 1, as a conversion has it
MONO_SEED = 0  # of the disparities that films with one eye are warped with
RUN_FRAMES = 8  # consecutive frames taken from a film with one eye, or as many as a sample has
LARGEST_RUNS = 6  # of one film
HELD_OUT = 10  # one film in ten is not learnt from; models are judged on it
CUT_THRESHOLD = 2.0  # PySceneDetect's adaptive_threshold, as conversion has it
CANDIDATES = 6  # crops of which the one with most holes is taken
CANDIDATES_SHARE = 0.8  # of draws that choose; the others take any crop
LARGEST_HOLE = 0.05  # of a crop's width, that opens at its border beside what has the median disparity
GAIN = (0.85, 1.1)  # of each colour channel; black stays black, so holes stay holes


class Scene(NamedTuple):
    """Consecutive frames of one shot with their truth: float32, or stored to take little memory."""

    left: Tensor
    """[T, 3, H, W] in [0, 1] what the first eye saw; stored: uint8, of 255."""
    right: Tensor
    """[T, 3, H, W] in [0, 1] what the second eye saw, the truth; stored: uint8, of 255."""
    warped: Tensor
    """[T, 3, H, W] in [0, 1] the first eye's picture in the second's place; stored: uint8, of 255."""
    coverage: Tensor
    """[T, 1, H, W] in [0, 1] how much of each pixel the first eye saw; stored: uint8, of 255."""
    disparity: Tensor
    """[T, 1, H, W] px, of the second eye's view, 0 where coverage is 0; stored: float16."""
    film: str = ""
    """Whose shot it is; films are held out whole. A shot of the synthetic world is a film of its own."""

    @property
    def planes(self) -> tuple[Tensor, ...]:
        """The five above, in their order."""
        return self.left, self.right, self.warped, self.coverage, self.disparity


class Window(NamedTuple):
    """Where a sample lies: which scene, which part of it, and how its pictures are changed."""

    scene: int  # place in [*stereo, *mono]
    start: int  # first frame
    frames: int
    top: int  # px
    left: int  # px
    height: int  # px
    width: int  # px
    flipped: bool  # upside down; left to right would swap the eyes
    gain: tuple[float, float, float]  # of red, green and blue


Kinds = tuple[list[Scene], list[Scene]]  # with two eyes, with one


def load_all(
    folders: Sequence[Path],  # raw, split, shift, match, filter, world
    least: tuple[int, int, int],  # frames, height and width of a sample
) -> Kinds:  # stored
    """Everything there is to learn from. Raises Refusal when every clip is held out."""
    raw, split, shift, match, filter, world = folders
    kept = train_clips(filter)
    stereo = load_scenes(split, shift, match, world, kept)
    single = load_mono_scenes(split, shift, match, kept, MONO_SEED)
    height, width = (max(sides) for sides in zip(stereo[0].left.shape[-2:], least[1:], strict=True))
    films = [film.path for film in list_mono(raw)]
    return stereo, [*single, *mono_films(films, max(RUN_FRAMES, least[0]), height, width, MONO_SEED)]


def keep_usable(
    name: str,  # of the model
    stereo: Sequence[Scene],
    mono: Sequence[Scene],
    least: tuple[int, int, int],  # frames, height and width of a sample
) -> Kinds:
    """The scenes that are large and long enough; prints how many. Raises Refusal when there are none."""
    usable = [[scene for scene in scenes if _weight(scene, least)] for scenes in (stereo, mono)]
    count = sum(map(len, usable))
    told = (
        f"{name}: {count} of {len(stereo) + len(mono)} scenes have {least[0]} frames of {least[2]}x{least[1]}"
    )
    if not count:
        raise Refusal(f"{told}; lower train_inpaint.{name}'s frames, height or width in params.yaml")
    if is_main_process():
        print(told, file=sys.stderr)
    return usable[0], usable[1]


def hold_out(stereo: list[Scene], mono: list[Scene]) -> tuple[Kinds, Kinds]:
    """What is held out, every tenth film with all its scenes, and what is learnt from; too few are both."""
    films = list(dict.fromkeys(scene.film for scene in (*stereo, *mono)))
    if len(films) < 2 * HELD_OUT:
        return (stereo, mono), (stereo, mono)
    held = set(films[HELD_OUT - 1 :: HELD_OUT])  # not the first: often all the real film there is comes first

    def those(are_held: bool) -> Kinds:
        first, second = (
            [scene for scene in kind if (scene.film in held) == are_held] for kind in (stereo, mono)
        )
        return first, second

    return those(True), those(False)


def load_scenes(
    split: Path,
    shift: Path,
    match: Path,
    world: Path,
    kept: Sequence[Kept],  # of the training split
) -> list[Scene]:  # stored
    """Stereo clips, warped with their matched disparity, and all shots of the world, with the exact one."""
    scenes = []
    for row, (left, right, disparity) in zip(kept, _load_clips(split, shift, match, kept), strict=True):
        scenes.append(store(Scene(left, right, *warp(left, disparity), film=row.film)))
    for shot in read_table(world / "world.parquet", Rendered):
        left, right = (read_frames(clip_file(world, shot.id, kind)) for kind in ("left", "right"))
        disparity = read_disparity(clip_file(world, shot.id, "disparity"), shot.offset_px)
        scenes.append(store(Scene(left, right, *warp(left, disparity), film=shot.id)))
    return scenes


def load_mono_scenes(
    split: Path,
    shift: Path,
    match: Path,
    kept: Sequence[Kept],  # of the training split
    seed: int,
) -> list[Scene]:  # stored
    """The left eyes of stereo clips as films with one eye; their matched disparity is scaled at random."""
    rng = np.random.default_rng(seed)
    scenes = []
    for row, (left, _, disparity) in zip(kept, _load_clips(split, shift, match, kept), strict=True):
        scene = double_warp(left, disparity * float(rng.uniform(*MONO_SCALE)))
        scenes.append(store(scene._replace(film=row.film)))
    return scenes


def mono_films(
    films: Sequence[Path],
    frames: int,  # of a run
    height: int,
    width: int,
    seed: int,
) -> list[Scene]:  # stored
    """Films with one eye, by double warping with a plausible disparity.

    At most six runs of consecutive frames of a film, each of one shot, spread evenly. Raises BadFilm when one
    can not be read.
    """
    rng = np.random.default_rng(seed)
    runs = ((film, run) for film in films for run in _read_runs(film, frames, height, width))
    return [
        store(double_warp(run, plausible_disparity(run, rng))._replace(film=film.name)) for film, run in runs
    ]


def double_warp(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], taken for the second eye's
    disparity: Tensor,  # [T, 1, H, W] px, of these frames: x_left = x + disparity
) -> Scene:  # float32
    """Warp to the first eye and back: what the way loses is what a first eye would not have seen (ours).

    The view on the way plays `left`, its own holes filled. Zero disparity loses nothing and changes nothing.
    Raises ValueError for arrays that are not finite float32 of these shapes.
    """
    on_the_way = _warp_left(frames, disparity)
    left, surface = fill_shot(*on_the_way)
    return Scene(left, frames, *warp(left, surface))


def fill_shot(
    frames: Tensor,  # [T, 3, H, W] a warped view
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px, of the warped view
) -> tuple[Tensor, Tensor]:  # [T, 3, H, W] whole pictures, [T, 1, H, W] px with the background's in the holes
    """`fill` over a shot, and the disparity it assumed."""
    memory: Memory | None = None
    pictures, surfaces = [], []
    for t in range(len(frames)):
        now = slice(t, t + 1)
        picture, memory = fill(frames[now], coverage[now], disparity[now], memory)
        pictures.append(picture)
        surfaces.append(torch.from_numpy(memory.disparity)[None, None])
    return torch.cat(pictures), torch.cat(surfaces)


def plausible_disparity(
    frames: Tensor,  # [T, 3, H, W] of one shot
    rng: np.random.Generator,
) -> Tensor:  # [T, 1, H, W] px
    """A disparity these frames could have: weight-free depth, of random strength and convergence (ours)."""
    estimates = make_depth_estimator("motion", None, "cpu")([frames])
    raw = torch.cat([estimate.depth for estimate in estimates])
    low, high = np.quantile(raw.numpy(), [FAR_SHARE, NEAR_SHARE])
    depth = ((raw - float(low)) / max(float(high - low), 1e-6)).clamp(0, 1)
    strength_percent, convergence = float(rng.uniform(*MONO_STRENGTH_PERCENT)), float(rng.uniform(0, 1))
    return sharpen(depth_to_disparity(upsample(depth, frames), strength_percent, convergence), frames)


def draw_scene(
    stereo: Sequence[Scene],  # stored
    mono: Sequence[Scene],  # stored
    mono_share: float,  # [0, 1] of the draws; where one kind is missing the other is taken
    height: int,  # px of the crop
    width: int,  # px
    frames: int,  # consecutive
    rng: np.random.Generator,
) -> Scene:  # float32 [frames, C, height, width]
    """A random part of a random scene, likely one with holes; depends on the generator alone.

    The first eye's part lies apart from the second's, so that holes open at either border. Raises ValueError
    when no scene is as large and as long as that.
    """
    window = draw_window(stereo, mono, mono_share, height, width, frames, rng)
    scene = [*stereo, *mono][window.scene]
    return cut_apart(scene, *draw_apart(scene, window, rng))


def draw_window(
    stereo: Sequence[Scene],
    mono: Sequence[Scene],
    mono_share: float,
    height: int,
    width: int,
    frames: int,
    rng: np.random.Generator,
) -> Window:
    """A part of both eyes' views; scenes are drawn as often as they have frames."""
    scenes = [*stereo, *mono]
    number = _draw_number(stereo, mono, mono_share, (frames, height, width), rng)
    coverage = scenes[number].coverage
    start = int(rng.integers(len(coverage) - frames + 1))
    wanted = CANDIDATES if rng.random() < CANDIDATES_SHARE else 1
    tops = rng.integers(coverage.shape[2] - height + 1, size=wanted)
    lefts = rng.integers(coverage.shape[3] - width + 1, size=wanted)
    last = coverage[start + frames - 1, 0].numpy()
    holes = [
        np.count_nonzero(last[top : top + height, left : left + width] < 128)
        for top, left in zip(tops, lefts, strict=True)
    ]
    best = int(np.argmax(holes))
    flipped = bool(rng.random() < 0.5)
    red, green, blue = (float(gain) for gain in rng.uniform(*GAIN, size=3))
    return Window(
        number, start, frames, int(tops[best]), int(lefts[best]), height, width, flipped, (red, green, blue)
    )


def draw_apart(
    scene: Scene,  # stored
    window: Window,
    rng: np.random.Generator,
) -> tuple[Window, int]:  # px
    """How far the first eye's part begins to the right of the second's, which moves if there is no room."""
    disparity = cut(scene.disparity, window)[cut(scene.coverage, window) > 0]
    middle = float(disparity.median()) if len(disparity) else 0.0
    room = scene.coverage.shape[-1] - window.width
    low, high = offset_range(middle, room, LARGEST_HOLE * window.width)
    offset = int(rng.integers(low, high + 1))
    first, last = column_range(offset, room)
    return window._replace(left=min(max(window.left, first), last)), offset


def cut_apart(
    scene: Scene,  # stored
    window: Window,  # of the second eye's view
    offset_px: int,
) -> Scene:  # float32 [frames, C, window.height, window.width]
    """What two eyes saw that were framed apart; what lies beside the first one's frame is a hole."""
    left = cut(scene.left, window._replace(left=window.left + offset_px))
    right, warped, coverage, disparity = (cut(plane, window) for plane in scene.planes[1:])
    disparity = disparity - offset_px
    source = torch.arange(window.width) + disparity  # column of the first eye's frame
    seen = (source >= -0.5) & (source < window.width - 0.5)
    coverage = coverage * seen
    return Scene(left, right, warped * seen, coverage, disparity * (coverage > 0), scene.film)


def cut(
    plane: Tensor,  # [T, C, H, W], a plane of the window's scene, stored
    window: Window,
) -> Tensor:  # float32 [frames, C, height, width]
    """The part of a plane that a window shows; pictures (three channels) in its colours."""
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    part = plane[window.start : window.start + window.frames, :, rows, columns]
    part = part.float() / 255 if part.dtype == torch.uint8 else part.float()
    part = part.flip(-2) if window.flipped else part
    if part.shape[1] == 3:
        part = (part * torch.tensor(window.gain).view(1, 3, 1, 1)).clamp(0, 1)
    return part.contiguous()


def store(
    scene: Scene,  # float32
) -> Scene:
    """The same scene in a quarter of the memory."""
    left, right, warped, coverage = (store_picture(plane) for plane in scene.planes[:4])
    return Scene(left, right, warped, coverage, scene.disparity.to(torch.float16), scene.film)


def store_picture(
    plane: Tensor,  # [T, C, H, W] in [0, 1]
) -> Tensor:  # uint8, of 255
    """Pictures or coverage in 8 bits."""
    return (plane.clamp(0, 1) * 255).round().to(torch.uint8)


def _load_clips(
    split: Path, shift: Path, match: Path, kept: Sequence[Kept]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Left, right and left disparity of every clip, one clip in memory at a time."""
    shifted = {row.id: row for row in read_table(shift / "shift.parquet", Shifted)}
    matched = {row.id: row for row in read_table(match / "match.parquet", Matched)}
    for row in kept:
        left, right = load(split, shifted[row.id])
        path = clip_file(match, row.id, "disparity")
        yield left, right, read_disparity(path, matched[row.id].offset_px)


def _warp_left(frames: Tensor, disparity: Tensor) -> Warp:
    """Warp a second eye's view to the first eye's place: the mirror image of a warp to the right."""
    return Warp(*(plane.flip(-1) for plane in warp(frames.flip(-1), disparity.flip(-1))))


def _read_runs(film: Path, frames: int, height: int, width: int) -> list[Tensor]:
    """Runs of consecutive frames [frames, 3, height, width], each within one shot."""
    info = probe(film)
    plan = make_plan(info, cut_threshold=CUT_THRESHOLD, min_shot_frames=RUN_FRAMES, seen=lambda: None)
    starts = [s for first, stop in plan.shots for s in range(first, stop - frames + 1, frames)]
    places = np.linspace(0, len(starts) - 1, min(LARGEST_RUNS, len(starts))).round().astype(int)
    reader = ShotReader(film, plan.stamps)
    runs = []
    for start in (starts[place] for place in places):
        pictures = reader.read(start, start + frames)
        fitted = [fit(picture.rgb, height, width, info.pixel_aspect) for picture in pictures]
        runs.append(frames_from_pictures(torch.from_numpy(np.stack(fitted))))
    return runs


def _draw_number(
    stereo: Sequence[Scene],
    mono: Sequence[Scene],
    mono_share: float,
    least: tuple[int, int, int],  # frames, height, width
    rng: np.random.Generator,
) -> int:
    """Choose a scene that is large enough, as its place in [*stereo, *mono]."""
    weights = np.array([_weight(scene, least) for scene in (*stereo, *mono)], np.float64)
    if not weights.any():
        raise ValueError(
            f"no scene of {len(weights)} has {least[0]} frames of at least {least[2]}x{least[1]}"
        )
    if weights[: len(stereo)].any() and weights[len(stereo) :].any():
        weights[: len(stereo)] *= (1 - mono_share) / weights[: len(stereo)].sum()
        weights[len(stereo) :] *= mono_share / weights[len(stereo) :].sum()
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _weight(scene: Scene, least: tuple[int, int, int]) -> int:
    frames, _, height, width = scene.coverage.shape
    return frames if (frames >= least[0] and height >= least[1] and width >= least[2]) else 0
