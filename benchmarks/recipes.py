"""Many steps against one, at equal data, equal first weights and equal time; and `fill`, which learns none.

    python benchmarks/recipes.py [--seconds 120] [--shots 24]

Both networks are the laptop preset's and share one trained autoencoder; the one-step network begins with the
other's weights, and zeros for its added channels. A few steps of each are timed, and each then trains as many
as fit into the seconds. Shots of the synthetic world that neither saw judge them, with exact disparity, by
the evaluation's ruler.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import machine

from secondeye.evaluation.regions import regions_from_truth
from secondeye.evaluation.score import compute, prepare, update
from secondeye.inpaint import Inpainter, Warped
from secondeye.inpaint.diffusion import SEED, Diffusion
from secondeye.inpaint.fill import fill_warped
from secondeye.inpaint.pipeline import IN_CHANNELS, LATENT_CHANNELS, ONE_STEP_CHANNELS, StereoInpaintPipeline
from secondeye.inpaint.tiny import make_tiny
from secondeye.params import TrainDiffusion, load_params
from secondeye.run_folder import open_run
from secondeye.synthetic import Shot, render_shot
from secondeye.training.diffusion import AUTOENCODER_FRAMES, train_autoencoder, train_network
from secondeye.training.shot_crops import draw_shot
from secondeye.training.stereo_shot import StereoShot, quantize
from secondeye.warp import warp

PARAMS = load_params(Path(__file__).parents[1] / "presets" / "laptop.yaml")
LEARNT, CHECKED, JUDGED = 80_001, 80_901, 80_951  # seeds of the first shots; no preset's world holds them
CHECKED_SHOTS, JUDGED_SHOTS = 2, 6
TIMED_STEPS = 6
PAINTED_IN = {"many_steps": (8, 2), "one_step": (1,)}  # steps; a conversion takes 8, fewer may do
COLUMNS = {
    "haarpsi": "HaarPSI",
    "psnr_disoccluded_db": "PSNR in holes, dB",
    "temporal_error": "flicker in holes",
}
Draw = Callable[[np.random.Generator], StereoShot]


class Taught(NamedTuple):
    """A network after its training."""

    pipeline: StereoInpaintPipeline
    steps: int
    seconds: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="that each network trains")
    parser.add_argument("--shots", type=int, default=24, help="to learn from")
    parser.add_argument("--autoencoder-steps", type=int, default=None, help="if not the preset's")
    options = parser.parse_args()
    settings = PARAMS.train_inpaint.diffusion
    if options.autoencoder_steps is not None:
        autoencoder = replace(settings.autoencoder, steps=options.autoencoder_steps)
        settings = replace(settings, autoencoder=autoencoder)
    print(f"{machine()}\n\n{table(settings, options.seconds, options.shots)}")


def table(settings: TrainDiffusion, seconds: float, shots: int) -> str:
    """What each recipe comes to, beside `fill`; Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        taught = teach_both(settings, seconds, shots, Path(folder))
    judged = [render(JUDGED + k) for k in range(JUDGED_SHOTS)]
    rows = [row("fill", "", fill_warped, judged)]
    for method, (pipeline, steps, spent) in taught.items():
        for painted_in in PAINTED_IN[method]:
            inpainter = Diffusion(pipeline, painted_in, 1, SEED)
            rows.append(
                row(f"{method}, painted in {painted_in}", f"{steps} in {spent:.0f} s", inpainter, judged)
            )
    world = PARAMS.world
    return "\n".join(
        [
            f"{shots} shots of {world.width}x{world.height} and {world.frames} frames to learn from, crops "
            f"of {settings.width}x{settings.height}, batches of {settings.network.batch_size}; judged on "
            f"{len(judged)} others; {torch.get_num_threads()} threads.\n",
            f"| recipe | training steps | seconds a frame | {' | '.join(COLUMNS.values())} |",
            "|---" * (3 + len(COLUMNS)) + "|",
            *rows,
        ]
    )


def teach_both(settings: TrainDiffusion, seconds: float, shots: int, folder: Path) -> dict[str, Taught]:
    """Both recipes, from the same autoencoder and the same first weights."""
    size = (settings.height, settings.width)
    learnt, checked = (
        [training_shot(first + k) for k in range(count)]
        for first, count in ((LEARNT, shots), (CHECKED, CHECKED_SHOTS))
    )
    draws = [partial(draw_shot, scenes, [], 0.0, *size, settings.frames) for scenes in (learnt, checked)]
    stills = [partial(draw_shot, scenes, [], 0.0, *size, AUTOENCODER_FRAMES) for scenes in (learnt, checked)]
    torch.manual_seed(settings.network.seed)
    many = make_tiny(settings.frames)
    train_autoencoder(many, open_run(folder, "autoencoder", "recipes", settings, {}), settings, *stills)
    first = {"many_steps": many, "one_step": with_left(many)}
    return {
        method: teach(pipeline, replace(settings, method=method), seconds, folder, *draws)
        for method, pipeline in first.items()
    }


def teach(
    pipeline: StereoInpaintPipeline,
    settings: TrainDiffusion,
    seconds: float,
    folder: Path,
    draw: Draw,
    draw_held: Draw,
) -> Taught:
    """Train the network for so long, by as many steps as a short trial says."""

    def train(steps: int, pipeline: StereoInpaintPipeline) -> list[float]:
        """When each step began, and when the last one ended, s."""
        began: list[float] = []

        def stamped(rng: np.random.Generator) -> StereoShot:
            began.append(time.perf_counter())
            return draw(rng)

        network = replace(settings.network, steps=steps, checkpoint_every=steps)
        name = f"{settings.method}-{steps}"
        run = open_run(folder, name, "recipes", settings, {})
        train_network(pipeline, run, replace(settings, network=network), stamped, draw_held)
        return began[:: settings.network.batch_size]

    trial = np.diff(train(TIMED_STEPS, copy.deepcopy(pipeline)))[1:]  # the first warms up
    steps = max(1, round(seconds / float(np.median(trial))))
    began = train(steps, pipeline)
    return Taught(pipeline, steps, (began[-1] - began[0]) * steps / max(1, steps - 1))


def with_left(many: StereoInpaintPipeline) -> StereoInpaintPipeline:
    """The same modules and weights, with zeros for what the network is told of the left view."""
    unet = type(many.unet).from_config({**many.unet.config, "in_channels": ONE_STEP_CHANNELS})
    weights = many.unet.state_dict()
    noisy, given = weights["conv_in.weight"].split((LATENT_CHANNELS, IN_CHANNELS - LATENT_CHANNELS), dim=1)
    left = torch.zeros_like(given[:, :LATENT_CHANNELS])
    unet.load_state_dict(weights | {"conv_in.weight": torch.cat([noisy, left, given], dim=1)})
    return StereoInpaintPipeline(many.vae, many.image_encoder, unet.eval(), many.scheduler)


def row(name: str, trained: str, inpainter: Inpainter, shots: list[Shot]) -> str:
    """Means over shots; a first one is painted before time is taken."""
    warped = [Warped(shot.left, *warp(shot.left, shot.disparity)) for shot in shots]
    inpainter(warped[0], None)
    start = time.perf_counter()
    made = [inpainter(view, None)[0] for view in warped]
    seconds = (time.perf_counter() - start) / sum(map(len, made))
    found = [score(shot, right) for shot, right in zip(shots, made, strict=True)]
    means = " | ".join(f"{np.mean([scores[column] for scores in found]):.4g}" for column in COLUMNS)
    return f"| {name} | {trained} | {seconds:.3f} | {means} |"


def score(shot: Shot, right: torch.Tensor) -> dict[str, float]:
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    return compute(update(prepare(shot.left, shot.right, regions), right, overlap=0, learned=None))


def render(seed: int) -> Shot:
    return render_shot(seed, PARAMS.world.frames, PARAMS.world.height, PARAMS.world.width)


def training_shot(seed: int) -> StereoShot:
    """A shot to learn from, stored."""
    shot = render(seed)
    return quantize(StereoShot(shot.left, shot.right, *warp(shot.left, shot.disparity)))


if __name__ == "__main__":
    main()
