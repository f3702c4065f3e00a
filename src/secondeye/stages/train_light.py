"""Train the inpainter `light` on the stereo clips, the synthetic shots and the monocular films."""

from pathlib import Path

from secondeye.dataset.reader import Dataset
from secondeye.params import TrainLight
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.training.provenance import hash_inpaint_inputs, join_inpaint_licences


def run(data: Path, out: Path, runs: Path, *, train_light: TrainLight) -> None:
    """Write the weights to `out`, training them in `runs` unless a run with their key is finished."""
    dataset = Dataset(data)
    inputs = hash_inpaint_inputs(dataset, "warp")
    key = make_run_key("secondeye.training.light", [train_light], inputs)
    tags = inputs | {"dataset": dataset.validated_hash, "licences": join_inpaint_licences(dataset)}

    def train(run: Run) -> None:
        from secondeye.training import light

        light.train(run, data, train_light)

    finish_model(out, open_run(runs, key, "train_light", train_light, tags), train)
