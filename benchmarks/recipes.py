"""Compare many-step and one-step diffusion at equal data, initial weights and time, and `fill`.

    python benchmarks/recipes.py [--seconds 120] [--shots 24]

Both networks have the size of the laptop preset and share one trained autoencoder; the one-step network
starts from the other's weights, with zeros for its added channels. A few steps of each are timed, and each
then trains as many steps as fit into the given time. Both are scored like in the evaluation, on synthetic
shots that neither was trained on, with exact disparity.
"""

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from command import make_parser, run
from machine import machine

from presets import load_preset
from secondeye.evaluation.regions import regions_from_truth
from secondeye.evaluation.score import compute, prepare, update
from secondeye.inpaint import Inpainter, InpaintOptions, Warped, inpaint_shot
from secondeye.inpaint.diffusion import Diffusion
from secondeye.inpaint.fill import fill_shot
from secondeye.inpaint.module_checks import IN_CHANNELS, LATENT_CHANNELS, ONE_STEP_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_tiny
from secondeye.params import TrainDiffusion
from secondeye.run_folder import open_run
from secondeye.synthetic import Shot, render_shot
from secondeye.training import autoencoder
from secondeye.training.autoencoder import fit_autoencoder
from secondeye.training.diffusion import train_network
from secondeye.training.shot_crops import draw_views
from secondeye.training.stereo_shot import StereoShot, quantize
from secondeye.warp import warp

PARAMS = load_preset("laptop")
TRAIN_SEED, VALIDATION_SEED, TEST_SEED = 80_001, 80_901, 80_951  # first seeds; no preset uses them
VALIDATION_SHOTS, TEST_SHOTS = 2, 6
TIMED_STEPS = 6
SAMPLING_STEPS = {"many_steps": (8, 2), "one_step": (1,)}  # sampling steps; a conversion uses 8
COLUMNS = {
    "haarpsi": "HaarPSI",
    "psnr_disoccluded_db": "PSNR in holes, dB",
    "temporal_error": "flicker in holes",
}
Draw = Callable[[int, np.random.Generator], StereoShot]


class Trained(NamedTuple):
    """A trained network."""

    pipeline: StereoInpaintPipeline
    steps: int
    seconds: float


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of each network")
    parser.add_argument("--shots", type=int, default=24, help="number of training shots")
    parser.add_argument("--autoencoder-steps", type=int, default=None, help="default: the preset's")
    options = parser.parse_args()
    settings = PARAMS.train_diffusion
    if options.autoencoder_steps is not None:
        autoencoder = replace(settings.autoencoder, steps=options.autoencoder_steps)
        settings = replace(settings, autoencoder=autoencoder)
    print(f"{machine()}\n\n{table(settings, options.seconds, options.shots)}")


def table(settings: TrainDiffusion, seconds: float, shots: int) -> str:
    """Return a Markdown table of both recipes and `fill`."""
    with tempfile.TemporaryDirectory() as folder:
        trained_networks = train_both(settings, seconds, shots, Path(folder))
    test = [render(TEST_SEED + k) for k in range(TEST_SHOTS)]
    rows = [row("fill", "", fill_shot, test)]
    for method, (pipeline, steps, elapsed_s) in trained_networks.items():
        for sampling_steps in SAMPLING_STEPS[method]:
            inpainter = Diffusion(pipeline, InpaintOptions(sampling_steps, 1))
            rows.append(
                row(
                    f"{method.replace('_', ' ')}, sampled in {sampling_steps}",
                    f"{steps} in {elapsed_s:.0f} s",
                    inpainter,
                    test,
                )
            )
    shape = PARAMS.synthetic
    return "\n".join(
        [
            f"{shots} shots of {shape.width}x{shape.height} and {shape.frames} frames for training, crops "
            f"of {settings.width}x{settings.height}, batches of {settings.network.batch_size}; tested on "
            f"{len(test)} others; {torch.get_num_threads()} threads.\n",
            f"| recipe | training steps | seconds per frame | {' | '.join(COLUMNS.values())} |",
            "|---" * (3 + len(COLUMNS)) + "|",
            *rows,
        ]
    )


def train_both(settings: TrainDiffusion, seconds: float, shots: int, folder: Path) -> dict[str, Trained]:
    """Train both recipes from the same autoencoder and initial weights."""
    size = (settings.height, settings.width)
    training, validation = (
        [training_shot(first + k) for k in range(count)]
        for first, count in ((TRAIN_SEED, shots), (VALIDATION_SEED, VALIDATION_SHOTS))
    )
    draws = [partial(draw_crop, shots, *size, settings.frames) for shots in (training, validation)]
    stills = [partial(draw_crop, shots, *size, autoencoder.FRAMES) for shots in (training, validation)]
    torch.manual_seed(settings.network.seed)
    many = make_tiny(settings.frames)
    fit_autoencoder(many, open_run(folder, "autoencoder", "recipes", settings, {}), settings, *stills)
    first: dict[Literal["many_steps", "one_step"], StereoInpaintPipeline] = {
        "many_steps": many,
        "one_step": with_left(many),
    }
    return {
        method: train_for(pipeline, replace(settings, method=method), seconds, folder, *draws)
        for method, pipeline in first.items()
    }


def draw_crop(
    shots: list[StereoShot], height: int, width: int, frames: int, _: int, rng: np.random.Generator
) -> StereoShot:
    """Draw a crop of some frames of any shot."""
    shot = shots[int(rng.integers(len(shots)))]
    start = int(rng.integers(len(shot.left) - frames + 1))
    window = StereoShot(*(plane[start : start + frames] for plane in shot))
    return draw_views(window, height, width, PARAMS.train_diffusion.border_hole_percent, rng)


def train_for(
    pipeline: StereoInpaintPipeline,
    settings: TrainDiffusion,
    seconds: float,
    folder: Path,
    draw: Draw,
    draw_held: Draw,
) -> Trained:
    """Train the network for the given time; a short trial determines the number of steps."""

    def train(steps: int, pipeline: StereoInpaintPipeline) -> list[float]:
        """Return the start time of each step, s."""
        starts: list[float] = []

        def draw_timed(number: int, rng: np.random.Generator) -> StereoShot:
            starts.append(time.perf_counter())
            return draw(number, rng)

        network = replace(settings.network, steps=steps, checkpoint_every=steps)
        name = f"{settings.method}-{steps}"
        run = open_run(folder, name, "recipes", settings, {})
        train_network(pipeline, run, replace(settings, network=network), draw_timed, draw_held)
        return starts[:: settings.network.batch_size]

    trial = np.diff(train(TIMED_STEPS, copy.deepcopy(pipeline)))[1:]  # the first warms up
    steps = max(1, round(seconds / float(np.median(trial))))
    starts = train(steps, pipeline)
    return Trained(pipeline, steps, (starts[-1] - starts[0]) * steps / max(1, steps - 1))


def with_left(many: StereoInpaintPipeline) -> StereoInpaintPipeline:
    """Return a one-step pipeline with the same weights and zeros for the channels of the left view."""
    unet = type(many.unet).from_config({**many.unet.config, "in_channels": ONE_STEP_CHANNELS})
    weights = many.unet.state_dict()
    noisy, given = weights["conv_in.weight"].split((LATENT_CHANNELS, IN_CHANNELS - LATENT_CHANNELS), dim=1)
    left = torch.zeros_like(given[:, :LATENT_CHANNELS])
    unet.load_state_dict(weights | {"conv_in.weight": torch.cat([noisy, left, given], dim=1)})
    return StereoInpaintPipeline(many.vae, many.image_encoder, unet.eval(), many.scheduler)


def row(name: str, trained: str, inpainter: Inpainter, shots: list[Shot]) -> str:
    """Return a table row of means over shots; timed after one warm-up shot."""
    warped = [Warped(shot.left, *warp(shot.left, shot.disparity)) for shot in shots]
    inpaint_shot(inpainter, warped[:1])
    start = time.perf_counter()
    made = [inpaint_shot(inpainter, [view]) for view in warped]
    seconds = (time.perf_counter() - start) / sum(map(len, made))
    found = [score(shot, right) for shot, right in zip(shots, made, strict=True)]
    means = " | ".join(f"{np.mean([scores[column] for scores in found]):.4g}" for column in COLUMNS)
    return f"| {name} | {trained} | {seconds:.3f} | {means} |"


def score(shot: Shot, right: torch.Tensor) -> dict[str, float]:
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    return compute(update(prepare(shot.left, shot.right, regions), right, overlap=0, learned=None))


def render(seed: int) -> Shot:
    return render_shot(seed, PARAMS.synthetic.frames, PARAMS.synthetic.height, PARAMS.synthetic.width)


def training_shot(seed: int) -> StereoShot:
    """Render a training shot and store it as 8-bit arrays."""
    shot = render(seed)
    return quantize(StereoShot(shot.left, shot.right, *warp(shot.left, shot.disparity)))


if __name__ == "__main__":
    run(main)
