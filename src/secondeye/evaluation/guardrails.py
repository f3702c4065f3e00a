"""Limits that an inpainter must not violate, whatever its primary score; the bounds are ours."""

import math
from collections.abc import Mapping, Sequence

from secondeye.dataset.schema import Score
from secondeye.evaluation.aggregate import paired_gains
from secondeye.evaluation.block_scores import BlocksOf, largest_block_losses
from secondeye.metrics.outliers import BLOCK_PX

MIN_GRADIENT_RATIO, MAX_GRADIENT_RATIO = 0.6, 1.4  # blurred below, noisy above
MAX_HOLE_LOSS_DB = 0.5  # PSNR inside disocclusions, against the method it is compared with
MAX_LOSS_DB = 0.05  # PSNR of the whole image
MAX_FILM_LOSS_DB = 0.3  # PSNR of the whole image, on any film
MAX_FILM_BORDER_LOSS_DB = 1.0  # PSNR of what enters at the frame's border, on any film
# Of any block of any frame, against the same block of the other method: column -> name, unit, bound. On real
# films the errors of `fill` and `light` differ by up to 0.4 and exceed those of simpler methods by up to 0.6.
MAX_BLOCK_LOSSES = {
    "chroma_excess": ("chroma excess", " levels", 3.0),
    "worst_block": ("error", " of the contrast", 0.6),
}
MAX_TEMPORAL_ERROR_RATIO = 1.1  # temporal error relative to the other method


def find_violation(
    means: Mapping[str, float],  # column -> mean over films
    baseline: Mapping[str, float],  # the same of the method it is compared with
) -> str:
    """Describe the first violated guardrail; "" if none. Scores that neither method has are skipped."""
    loss_db = baseline["psnr_disoccluded_db"] - means["psnr_disoccluded_db"]
    ratio, baseline_ratio = means["gradient_ratio"], baseline["gradient_ratio"]
    error, baseline_error = means["temporal_error"], baseline["temporal_error"]
    checks = (
        ("psnr_disoccluded_db", loss_db <= MAX_HOLE_LOSS_DB, f"holes lose {loss_db:.2f} dB"),
        (
            "gradient_ratio",
            MIN_GRADIENT_RATIO <= ratio <= MAX_GRADIENT_RATIO or _is_closer_to_one(ratio, baseline_ratio),
            f"the gradient ratio in holes, {ratio:.2f}, is outside "
            f"[{MIN_GRADIENT_RATIO:g}, {MAX_GRADIENT_RATIO:g}]",
        ),
        (
            "temporal_error",
            error <= MAX_TEMPORAL_ERROR_RATIO * baseline_error,
            f"the temporal error in holes is {error:.2f} levels against {baseline_error:.2f}",
        ),
    )
    for name, holds, message in checks:
        if not holds and not (math.isnan(means[name]) and math.isnan(baseline[name])):
            return message
    return find_image_loss(means, baseline)


def find_image_loss(means: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """Describe a PSNR loss of the whole image beyond MAX_LOSS_DB; "" if there is none."""
    loss_db = baseline["psnr_db"] - means["psnr_db"]
    return (
        "" if loss_db <= MAX_LOSS_DB else f"the whole image loses {loss_db:.2f} dB, {MAX_LOSS_DB:g} allowed"
    )


def find_film_loss(
    rows: Sequence[Score],
    baseline: Sequence[Score],  # of the method it is compared with, on the same clips
    films: Mapping[str, str],  # Film.id -> name
    blocks_of: BlocksOf,
    *,
    inpainting: bool,  # whether inpainted regions count, too: a method with its own depth shows other ones
) -> str:
    """Describe a loss on one film beyond its bound, which a mean hides; "" if there is none.

    Raises UserError if a file of blocks is missing or damaged.
    """
    # First, because a garbage block explains a loss of PSNR.
    losses = largest_block_losses(rows, baseline, blocks_of) if inpainting else {}
    for column, (score, unit, most) in MAX_BLOCK_LOSSES.items():
        if column in losses and (found := losses[column]).loss > most:
            return (
                f"the {score} in a block of film {films.get(found.film, found.film)} is "
                f"{found.loss:.2f}{unit} worse ({found.place}), {most:g} allowed in any block"
            )
    bounds = {"psnr_db": ("the whole image", MAX_FILM_LOSS_DB)}
    if inpainting:
        bounds["psnr_border_db"] = ("the border", MAX_FILM_BORDER_LOSS_DB)
    for column, (region, most_db) in bounds.items():
        gains = paired_gains(baseline, rows, column)
        film, loss_db = _largest_loss({film: sum(clips) / len(clips) for film, clips in gains.items()}, films)
        if loss_db > most_db:
            return f"{region} of film {film} loses {loss_db:.2f} dB, {most_db:g} allowed on any film"
    return ""


def describe_block_losses() -> str:
    """Return the bounds of MAX_BLOCK_LOSSES for reports."""
    bounds = " and ".join(
        f"the {score} at most {most:g}{unit} worse" for score, unit, most in MAX_BLOCK_LOSSES.values()
    )
    return f"in any block of {BLOCK_PX} px {bounds}"


def _largest_loss(gains: Mapping[str, float], films: Mapping[str, str]) -> tuple[str, float]:
    """Return the name of the film that loses most, and its loss; -inf without films."""
    film = min(gains, key=lambda film: gains[film], default="")
    return films.get(film, film), -gains.get(film, math.inf)


def _is_closer_to_one(ratio: float, other: float) -> bool:
    """Compare on a log scale (2 is as far as 0.5): a blurred model may be replaced by a less blurred one."""
    return ratio > 0 and other > 0 and abs(math.log(ratio)) <= abs(math.log(other))
