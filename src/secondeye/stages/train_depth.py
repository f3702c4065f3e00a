"""The depth student, taught by the dataset's disparity and the world's exact depth."""

from pathlib import Path

from secondeye.params import TrainDepth
from secondeye.runs import Run, finish_model, make_run_key, open_run
from secondeye.training.provenance import inputs_of, licences_of
from secondeye.validated import dataset_of


def run(
    split: Path,
    shift: Path,
    match: Path,
    filter: Path,
    validate: Path,
    world: Path,
    out: Path,
    runs: Path,
    *,
    train_depth: TrainDepth,
) -> None:
    """Have `out` hold the student's weights, trained in `runs` unless it was before."""
    inputs = inputs_of(match, filter, world)
    key = make_run_key("secondeye.training.depth", [train_depth], inputs)
    tags = inputs | {"dataset": dataset_of(validate), "licences": licences_of(split, filter, [])}

    def teach(run: Run) -> None:
        from secondeye.training import depth

        depth.teach(run, split, shift, match, filter, world, train_depth)

    finish_model(out, open_run(runs, key, "train_depth", train_depth, tags), teach)
