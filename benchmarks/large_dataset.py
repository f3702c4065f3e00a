"""Write a large dataset for benchmarks: real tables and side entries, placeholders instead of pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from presets import load_preset
from secondeye.dataset.clip_files import write_disparity, write_frames
from secondeye.dataset.clip_paths import clip_id
from secondeye.dataset.reader import CLIP_ROWS, SKIPPED_FILMS, Dataset
from secondeye.dataset.schema import (
    Clip,
    ClipDisparity,
    ClipOcclusion,
    ClipQuality,
    Correction,
    FailedItem,
    Film,
    SkippedClip,
    SyntheticShot,
)
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.synthetic import two_planes

CLIPS_PER_FILM = 60
FRAMES = (128, 151)  # of a clip: 139 on average, so that 180 000 clips have 25 million frames
FRAMES_OF_FILM = 130_000
COPIED_SHARE = 0.01  # of the films are other releases of films in the dataset
LOGO_SHARE, LOGOS = 0.1, 20  # of the films begin with the clip of a studio
SKIPPED_PER_FILM = 20
FAILED_SHARE = 0.01  # of the clips, in the stages `shift` and `match`
HASHED_FRAMES = 10  # five of each view
CHANGED_BITS = 0.03  # of 64, between the hashes of two frames of a shot
FILES: dict[str, tuple[str, ...]] = {  # stage -> what it writes for each clip beside its side entry
    "split": ("left.mkv", "right.mkv"),
    "shift": (),
    "match": ("disparity.mkv",),
    "splat": ("warped.mkv", "occlusion.mkv"),
    "quality": ("middle.png",),
}
ROW_TYPES = dict(zip(FILES, (Clip, *CLIP_ROWS), strict=True))


def write_tables(data: Path, clip_count: int) -> None:
    """Write the tables that the stages from `split` to `quality` and `synthetic` leave behind."""
    dataset, rng = Dataset(data), np.random.default_rng(0)
    for stage in ("raw", "split/films", *FILES, "filter", "synthetic"):
        dataset.folder(stage).mkdir(parents=True, exist_ok=True)
    films = [_film(number) for number in range(max(3, round(clip_count / CLIPS_PER_FILM)))]
    clips = _clips(films, clip_count, rng)
    tables = _clip_tables(clips, rng)
    tables |= {Film: films, Clip: clips, SkippedClip: _skipped(films)}
    tables[SyntheticShot] = [_write_shot(dataset)]
    for row_type, rows in tables.items():
        write_table(dataset.path(row_type), rows, row_type)
    write_table(dataset.folder("split") / SKIPPED_FILMS, [], FailedItem)


def build_stage(data: Path, stage: str) -> int:
    """Build the missing items of a stage, with placeholders; returns the number of its clips.

    Jobs have what those of the real stage have, and the whole of its scheduling and records is used.
    """
    dataset = Dataset(data)
    row_type: Any = ROW_TYPES[stage]
    inputs = CLIP_ROWS[: max(0, list(FILES).index(stage) - 1)]
    rows: dict[str, Any] = {row.id: row for row in dataset.rows(row_type)}
    jobs = []
    for clip in dataset.join(*inputs):
        row = rows.get(clip.id)
        key = row.key if row else key_of(clip.id, stage)
        jobs.append(Job(clip.id, key, (dataset, clip, row, FILES[stage]), 0.0))
    out = dataset.folder(stage)
    build_missing(out, jobs, write_placeholders, row_type, label=stage, max_bad_fraction=0.1)
    return len(jobs)


def write_placeholders(
    out: Path, name: str, key: str, dataset: Dataset, clip: Any, row: Any, kinds: Sequence[str]
) -> tuple[Any, list[Path]]:
    """Write files of a few bytes as a stage would write a clip's; a clip without a row fails."""
    if row is None:
        raise BadClip("no stereo pair", "10% of the textured corners match, 20% needed")
    files = [out / f"{name}.{kind}" for kind in kinds]
    for file in files:
        content = _PICTURE if file.suffix == ".png" else f"{name} {file.suffixes[0]}".encode()
        file.write_bytes(content)
    return row, files


def _encode_picture() -> bytes:
    done, content = cv2.imencode(".png", np.full((9, 64, 3), 128, np.uint8))
    assert done
    return bytes(content.tobytes())


_PICTURE = _encode_picture()


def _film(number: int) -> Film:
    return Film(
        id=f"{hash_of(number):016x}",
        name=f"film {number:05d} (2011) half-sbs.mkv",
        packing="half-sbs",
        split="",
        licence="CC-BY-4.0",
        height=1080,
        width=1920,
        pixel_aspect=1.0,
        fps=23.976,
        frames=FRAMES_OF_FILM + number % 1000,
        shots=1500,
        clips=CLIPS_PER_FILM,
        crop_top=140,
        crop_bottom=140,
        crop_left=0,
        crop_right=0,
        bit_rate=8e6,
        remark="packing: half-sbs by its name",
    )


def hash_of(number: int) -> int:
    """Return 64 bits that depend on a number."""
    return int(np.random.SeedSequence(number).generate_state(1, np.uint64)[0])


def _clips(films: Sequence[Film], count: int, rng: np.random.Generator) -> list[Clip]:
    """Cut films into clips, whose perceptual hashes are alike within a shot, a logo, and a copy of a film."""
    splits = load_preset("paper").split
    hashes = _hashes(rng.integers(2**64, size=count, dtype=np.uint64), rng)
    copied, logos = (
        round(COPIED_SHARE * count),
        _hashes(rng.integers(2**64, size=LOGOS, dtype=np.uint64), rng),
    )
    if copied:
        hashes[-copied:] = hashes[:copied]
    lengths, clips = rng.integers(*FRAMES, size=count), []
    for number in range(count):
        film = films[number % len(films)]
        place = number // len(films)
        if place == 0 and rng.random() < LOGO_SHARE:
            hashes[number] = logos[rng.integers(LOGOS)]
        start = place * 2000 + 7
        stop = start + int(lengths[number])
        name = clip_id(film.id, start, stop)
        clips.append(
            Clip(
                id=name,
                key=key_of(name, "split"),
                film=film.id,
                shot=place,
                start=start,
                stop=stop,
                start_share=start / film.frames,
                stride=min(splits.max_stride, (stop - start - 1) // (splits.window_frames - 1)),
                height=splits.height,
                width=splits.width,
                perceptual_hash="".join(f"{value:016x}" for value in hashes[number].tolist()),
            )
        )
    return sorted(clips, key=lambda clip: clip.id)


def _hashes(
    shots: np.ndarray,  # uint64 [n]
    rng: np.random.Generator,
) -> np.ndarray:  # uint64 [n, HASHED_FRAMES]
    bits = (rng.random((len(shots), HASHED_FRAMES, 64)) < CHANGED_BITS).astype(np.uint8)
    changed = np.packbits(bits, axis=-1).view(np.uint64)[..., 0]
    return shots[:, None] ^ changed


def key_of(name: str, stage: str) -> str:
    """Return a key as long as a real one."""
    return f"{hash_of(int(name, 16) ^ len(stage)):016x}" * 4


def _clip_tables(clips: Sequence[Clip], rng: np.random.Generator) -> dict[type, list[Any]]:
    paper = load_preset("paper")
    tables: dict[type, list[Any]] = {row_type: [] for row_type in CLIP_ROWS}
    for clip in clips:
        lost = int(rng.integers(round(2 / FAILED_SHARE)))
        if lost == 0:
            continue
        shift_px, evidence = int(rng.integers(60)), round(float(rng.uniform(-0.1, 0.9)), 4)
        unrectified = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        colours: Any = rng.uniform(0.97, 1.03, 6).tolist()
        key = key_of(clip.id, "shift")
        row = (
            clip.id,
            key,
            *unrectified,
            False,
            *colours,
            0,
            shift_px,
            40.125,
            0.8125,
            evidence,
            False,
            f"strips {evidence:+.2f}",
        )
        tables[Correction].append(Correction(*row))
        if lost == 1:
            continue
        shares = rng.uniform((0.5, 0.01), (1.0, 0.08)).round(4).tolist()
        disparity = ClipDisparity(clip.id, key_of(clip.id, "match"), float(rng.integers(-4, 1)), shares[0])
        key = make_key("splat", ClipOcclusion, [paper.splat], [disparity.key])
        tables[ClipDisparity].append(disparity)
        tables[ClipOcclusion].append(ClipOcclusion(clip.id, key, shares[1]))
        tables[ClipQuality].append(_score(clip, shares, shift_px, rng))
    return tables


def _score(clip: Clip, shares: Sequence[float], shift_px: int, rng: np.random.Generator) -> ClipQuality:
    number: Callable[[float, float], float] = lambda low, high: round(float(rng.uniform(low, high)), 3)  # noqa: E731
    return ClipQuality(
        id=clip.id,
        key=key_of(clip.id, "quality"),
        psnr_db=number(23, 40),
        agreement_psnr_db=number(40, 50),
        ssim=number(0.6, 0.99),
        occlusion_share=shares[1],
        matched_share=shares[0],
        disparity_min_percent=number(-0.2, 0.5),
        disparity_max_percent=number(0.6, 8),
        motion_percent=number(0, 3),
        sharpness=number(0.5, 9),
        sharpness_ratio=number(0.9, 1.1),
        colour_difference=number(0, 9),
        height=clip.height,
        width=clip.width - shift_px,
    )


def _skipped(films: Sequence[Film]) -> list[SkippedClip]:
    return [
        SkippedClip(
            clip_id(film.id, start, start + 20), film.id, start, start + 20, "too short", "20 frames left, 25"
        )
        for film in films
        for start in range(1000, 1000 + 2000 * SKIPPED_PER_FILM, 2000)
    ]


def _write_shot(dataset: Dataset) -> SyntheticShot:
    """Write the one real shot, whose size a training reads."""
    name, shot = "5" * 16, two_planes(frames=8, height=16, width=64, seed=1)
    for kind, view in (("left", shot.left), ("right", shot.right)):
        write_frames(dataset.file("synthetic", name, kind), view)
    offset_px = write_disparity(dataset.file("synthetic", name, "disparity"), shot.disparity)
    return SyntheticShot(name, key_of(name, "synthetic"), 8, offset_px, 0.0)
