"""What the scores say, for people: tables over all clips and per clip, and a sheet of pictures."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from secondeye.clips import pictures_from_frames
from secondeye.rows import Evaluated

COLUMNS = (
    ("PSNR, dB", "psnr_db", 2),
    ("visible", "psnr_visible_db", 2),
    ("disoccluded", "psnr_disoccluded_db", 2),
    ("border", "psnr_border_db", 2),
    ("SSIM", "ssim", 4),
    ("visible", "ssim_visible", 4),
    ("disoccluded", "ssim_disoccluded", 4),
    ("border", "ssim_border", 4),
    ("rank correlation", "rank_correlation", 3),
    ("disparity error, %", "disparity_error_percent", 3),
)
_TILE_WIDTH = 360  # px


def film_means(rows: Iterable[Evaluated], column: str) -> dict[str, float]:
    """Mean over each film's clips, without those where nothing was to score; by film."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = getattr(row, column)
        if not math.isnan(value):
            values[row.film].append(value)
    return {film: float(np.mean(found)) for film, found in sorted(values.items())}


def mean_of_films(rows: Sequence[Evaluated], column: str) -> float:
    """Every film counts once; NaN where no clip has a score."""
    means = film_means(rows, column)
    return float(np.mean(list(means.values()))) if means else float("nan")


def by_method(rows: Iterable[Evaluated]) -> dict[str, list[Evaluated]]:
    """Rows of each method, in the order in which methods come."""
    groups: dict[str, list[Evaluated]] = defaultdict(list)
    for row in rows:
        groups[row.method].append(row)
    return dict(groups)


def describe(rows: Sequence[Evaluated], films: Mapping[str, str], manifest: str, frames: int) -> str:
    """The report in Markdown; `films` names film ids, `manifest` is the hash of what was judged on."""
    clips = {row.clip for row in rows}
    held = {row.film for row in rows}
    parts = [
        "# Evaluation",
        f"{len(clips)} clips of {len(held)} held-out films, up to {frames} frames each; "
        f"manifest `{manifest}`. PSNR and SSIM against the film's own right eye. Each film counts once. "
        "The regions are one frozen map per clip, the same for every method: pixels that the left eye saw, "
        "that something nearer hid from it, that lay beyond its frame.",
    ]
    headings = {
        "floor": "## Floors",
        "inpainter": "## Inpainters, with the clip's own disparity",
        "model": "## Models, with their own depth brought to the clip's disparity by one scale and one shift",
    }
    for kind, heading in headings.items():
        chosen = [row for row in rows if row.kind == kind]
        if chosen:
            parts += [heading, _table(by_method(chosen), kind)]
    parts += ["## Clip by clip", _clip_table(rows, films)]
    return "\n\n".join(parts) + "\n"


def _columns(kind: str) -> tuple[tuple[str, str, int], ...]:
    return COLUMNS if kind == "model" else COLUMNS[:8]


def _table(groups: Mapping[str, Sequence[Evaluated]], kind: str) -> str:
    lines = [
        [method, *(_number(mean_of_films(rows, column), digits) for _, column, digits in _columns(kind))]
        for method, rows in groups.items()
    ]
    return _markdown(["method", *(heading for heading, _, _ in _columns(kind))], lines)


def _clip_table(rows: Sequence[Evaluated], films: Mapping[str, str]) -> str:
    lines = [
        [films.get(row.film, row.film), row.clip, row.method]
        + [_number(getattr(row, column), digits) for _, column, digits in COLUMNS]
        for row in sorted(rows, key=lambda row: (films.get(row.film, row.film), row.clip))
    ]
    return _markdown(["film", "clip", "method", *(heading for heading, _, _ in COLUMNS)], lines)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_sheet(
    path: Path,
    columns: Mapping[str, Callable[[str], np.ndarray]],  # heading -> picture uint8 [H, W, 3] of a clip
    clips: Sequence[str],
) -> None:
    """Write one row of labelled pictures a clip, as PNG."""
    rows = [cv2.hconcat([_tile(picture(clip), name) for name, picture in columns.items()]) for clip in clips]
    width = max(row.shape[1] for row in rows)
    padded = [cv2.copyMakeBorder(row, 0, 4, 0, width - row.shape[1], cv2.BORDER_CONSTANT) for row in rows]
    cv2.imwrite(str(path), cv2.vconcat(padded)[..., ::-1])


def picture_of(
    frames: Tensor,  # [1, 3, H, W] in [0, 1]
) -> np.ndarray:  # uint8 [H, W, 3]
    """One frame as pixels."""
    return pictures_from_frames(frames[:1])[0].numpy()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB [H, W, 3] as PNG."""
    cv2.imwrite(str(path), picture[..., ::-1])


def read_picture(path: Path) -> np.ndarray:  # uint8 [H, W, 3]
    """Read it back."""
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture[..., ::-1]


def _tile(picture: np.ndarray, label: str) -> np.ndarray:
    height = round(picture.shape[0] * _TILE_WIDTH / picture.shape[1])
    tile = cv2.resize(np.ascontiguousarray(picture), (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
    bar = np.zeros((22, _TILE_WIDTH, 3), np.uint8)
    cv2.putText(bar, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return cv2.vconcat([bar, tile])
