"""Scores of every block of what a method inpainted, kept in a file beside its score.

The largest value of a clip hides garbage beside a block that is difficult for every method; the difference of
two methods in the same block shows it.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from secondeye.dataset.checksums import verify_checksum
from secondeye.dataset.schema import Score
from secondeye.metrics.outliers import BLOCK_PX
from secondeye.system.files import write_atomic

_DIGITS = 4

Blocks = Mapping[str, np.ndarray]  # column of `Score` -> float32 [T, rows, columns]
BlocksOf = Callable[[Score], Blocks]


class BlockLoss(NamedTuple):
    """The block in which a method is worse than another one by most."""

    loss: float  # in the unit of the column; negative if the method is better in every block
    film: str  # Film.id
    place: str  # clip, frame and pixel, for people


def block_file(scores: Path, score: str) -> Path:
    """Return the file of a score (Score.id) in the folder that holds it."""
    return scores / f"{score}.blocks.npz"


def blocks_in(scores: Path, rows: Sequence[Score]) -> BlocksOf:
    """Return a function that reads the blocks of these scores, which `score_methods` wrote to a folder.

    A score may have got another id and method since; it is found by its key.
    """
    files = {row.key: block_file(scores, row.id) for row in rows}
    return lambda row: read_blocks(files[row.key])


def round_blocks(blocks: Mapping[str, Tensor]) -> Blocks:
    """Return what is written: the same values give the same bytes."""
    return {
        column: values.cpu().numpy().round(_DIGITS).astype(np.float32) for column, values in blocks.items()
    }


def write_blocks(path: Path, blocks: Mapping[str, Tensor]) -> None:
    """Write column of `Score` -> [T, rows, columns]."""
    buffer, arrays = io.BytesIO(), dict[str, Any](round_blocks(blocks))
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def read_blocks(path: Path) -> Blocks:
    """Read what `write_blocks` wrote. Raises UserError if the file is missing or damaged."""
    with np.load(verify_checksum(path), allow_pickle=False) as arrays:
        return dict(arrays)


def largest_block_losses(
    rows: Sequence[Score],
    baseline: Sequence[Score],  # of the method it is compared with, on the same clips
    blocks_of: BlocksOf,
) -> dict[str, BlockLoss]:
    """Return column of `Score` -> the largest loss in a block of any clip; {} if nothing was inpainted.

    Raises UserError if a file of blocks is missing or damaged.
    """
    others = {row.clip: row for row in baseline}
    largest: dict[str, BlockLoss] = {}
    for row in rows:
        other = others.get(row.clip)
        if other is None or math.isnan(row.worst_block) or math.isnan(other.worst_block):
            continue  # no block has enough pixels
        blocks, other_blocks = blocks_of(row), blocks_of(other)
        for column, values in blocks.items():
            losses = values - other_blocks[column]
            frame, y, x = map(int, np.unravel_index(np.nanargmax(losses), losses.shape))
            place = f"clip {row.clip}, frame {frame}, x {x * BLOCK_PX}, y {y * BLOCK_PX}"
            loss = BlockLoss(float(losses[frame, y, x]), row.film, place)
            largest[column] = max(largest.get(column, loss), loss)
    return largest
