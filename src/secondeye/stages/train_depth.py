"""The depth student, taught by the dataset's disparity and the synthetic's exact depth."""

from pathlib import Path

from secondeye.dataset.stamp import read_stamp
from secondeye.params import TrainDepth
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.training.provenance import inputs_of, licences_of


def run(
    split: Path,
    shift: Path,
    match: Path,
    filter: Path,
    validate: Path,
    synthetic: Path,
    out: Path,
    runs: Path,
    *,
    train_depth: TrainDepth,
) -> None:
    """Have `out` hold the student's weights, trained in `runs` unless it was before."""
    inputs = inputs_of(match, filter, synthetic)
    key = make_run_key("secondeye.training.depth", [train_depth], inputs)
    tags = inputs | {"dataset": read_stamp(validate), "licences": licences_of(split, filter, [])}

    def teach(run: Run) -> None:
        from secondeye.training import depth

        depth.train(run, split, shift, match, filter, synthetic, train_depth)

    finish_model(out, open_run(runs, key, "train_depth", train_depth, tags), teach)
