"""Train the depth student on the clips' matched disparity and the synthetic shots' exact one."""

from pathlib import Path

from secondeye.dataset.reader import Dataset
from secondeye.params import TrainDepth
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.training.provenance import hash_inputs, join_licences


def run(data: Path, out: Path, runs: Path, *, train_depth: TrainDepth) -> None:
    """Write the student's weights to `out`, training it in `runs` unless a run with its key is finished."""
    dataset = Dataset(data)
    inputs = hash_inputs(dataset)
    key = make_run_key("secondeye.training.depth", [train_depth], inputs)
    tags = inputs | {"dataset": dataset.validated_hash, "licences": join_licences(dataset, [])}

    def train(run: Run) -> None:
        from secondeye.training import depth

        depth.train(run, data, train_depth)

    finish_model(out, open_run(runs, key, "train_depth", train_depth, tags), train)
