"""Train the autoencoder of the diffusion inpainter, unless it is pretrained."""

from dataclasses import replace
from pathlib import Path

from secondeye.dataset.reader import Dataset
from secondeye.params import TrainDiffusion
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.training.provenance import hash_inpaint_inputs, join_inpaint_licences


def run(data: Path, out: Path, runs: Path, *, train_diffusion: TrainDiffusion) -> None:
    """Write the weights to `out`, training them in `runs` unless a run with their key is finished."""
    dataset, settings = Dataset(data), _own_settings(train_diffusion)
    inputs = hash_inpaint_inputs(dataset, settings.conditioning)
    key = make_run_key("secondeye.training.autoencoder", [settings], inputs)
    tags = inputs | {"dataset": dataset.validated_hash, "licences": join_inpaint_licences(dataset)}

    def train(run: Run) -> None:
        from secondeye.training import autoencoder

        autoencoder.train(run, data, settings)

    finish_model(out, open_run(runs, key, "train_autoencoder", settings, tags), train)


def _own_settings(settings: TrainDiffusion) -> TrainDiffusion:
    """Return the settings with fixed values for what only the network uses."""
    return replace(
        settings,
        method="many_steps",
        max_stride=1,
        first_frames="ground_truth",
        conditioning_dropout=0.0,
        cached_samples=0,
        vgg_weights="",
        network=settings.autoencoder,
    )
