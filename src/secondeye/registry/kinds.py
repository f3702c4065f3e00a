"""What MLflow shows for each kind of run: experiment, name, headline metrics.

A kind is the `stage` of a run folder. Each has its own experiment, so that the runs of a table have the same
params and metrics.
"""

import re
from typing import NamedTuple

from secondeye.evaluation.columns import COLUMNS, PRIMARY

_TRAINING = (
    "`loss` and its terms, `gradient_norm` and `held_out_error`: lower is better; `held_out_rank` and names "
    "in `psnr_db`: higher is better. The others describe the training: `learning_rate`, `skipped_steps`, "
    "`samples_per_second`, `memory_mib`."
)


class Kind(NamedTuple):
    """How MLflow shows the runs of one stage."""

    label: str  # begins the names of its runs
    description: str  # of its experiment, Markdown


KINDS = {
    "train_depth": Kind("depth student", f"Trainings of the depth student. {_TRAINING}"),
    "train_light": Kind("light inpainter", f"Trainings of the inpainter `light`. {_TRAINING}"),
    "train_autoencoder": Kind(
        "autoencoder", f"Trainings of the autoencoder of the inpainter `diffusion`. {_TRAINING}"
    ),
    "train_diffusion": Kind(
        "diffusion inpainter", f"Trainings of the network of the inpainter `diffusion`. {_TRAINING}"
    ),
    "train_deep3d": Kind(
        "Deep3D",
        f"Trainings of the rival Deep3D. {_TRAINING} `shift_percent` is the mean absolute shift, in percent "
        "of the width.",
    ),
    "evaluate": Kind(
        "evaluation",
        "Scores of all methods on the held-out clips, means over films. `HaarPSI` around disocclusions "
        "decides between inpainters: higher is better. `disparity error` decides between depth models: "
        "lower is better. Every score is in the artifact `all_scores.json`, the report in "
        "`tables/index.html`.",
    ),
    "gate": Kind(
        "gate",
        "Comparisons of a trained part (challenger) with the champion's. The challenger wins if "
        "`gain_lower_bound` is above 0 and no guardrail is violated; `gain` and `psnr_gain_db` are positive "
        "where the challenger is better.",
    ),
    "convert": Kind(
        "conversion",
        "Films converted by a flow: the version that converted them, and how fast. "
        "`converted_frames_per_second`: higher is better.",
    ),
}
HEADLINES = (PRIMARY, "disparity_error_percent")  # of an evaluation
_BASELINES = ("identity", "best_shift", "nearest", "Telea", "Navier-Stokes")


def experiment_name(stage: str) -> str:
    """Return the name of the experiment for the runs of a stage."""
    return f"secondeye-{stage.replace('_', '-')}"


def metric_name(stage: str, name: str) -> str:
    """Return the name of a metric in MLflow; "" if it only belongs into the table of all scores."""
    if stage != "evaluate":
        return sanitize(name)
    method, _, score = name.rpartition("/")
    if score not in HEADLINES or method in _BASELINES:
        return ""
    column = COLUMNS[score]
    direction = " - lower is better" if column.better == "lower" else ""
    heading = column.heading.replace("%", "percent").replace(",", "")
    return sanitize(f"{heading}{direction}/{method}")


def sanitize(name: str) -> str:
    """Replace characters that MLflow does not allow in names; film names may contain them."""
    return re.sub(r"[^/\w.\- :]", "_", name)
