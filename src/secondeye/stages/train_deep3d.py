"""Train the rival Deep3D on the stereo clips and the synthetic shots."""

from pathlib import Path

from secondeye.dataset.reader import Dataset
from secondeye.params import TrainDeep3D
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.training.provenance import hash_inputs, join_licences


def run(data: Path, out: Path, runs: Path, *, train_deep3d: TrainDeep3D) -> None:
    """Write the weights to `out`, training them in `runs` unless a run with their key is finished."""
    dataset = Dataset(data)
    inputs = hash_inputs(dataset)
    key = make_run_key("secondeye.training.deep3d", [train_deep3d], inputs)
    tags = inputs | {"dataset": dataset.validated_hash, "licences": join_licences(dataset, [])}

    def train(run: Run) -> None:
        from secondeye.training import deep3d

        deep3d.train(run, data, train_deep3d)

    finish_model(out, open_run(runs, key, "train_deep3d", train_deep3d, tags), train)
