"""Train the depth student on clips, synthetic shots and, if asked to, monocular films."""

from pathlib import Path

from secondeye.dataset.reader import Dataset
from secondeye.depth.efficientnet_lite import LICENCE, find_imagenet_weights
from secondeye.params import TrainDepth
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.system.files import hash_file
from secondeye.training.provenance import hash_inputs, hash_mono_films, join_licences, mono_films


def run(data: Path, out: Path, runs: Path, *, train_depth: TrainDepth) -> None:
    """Write the student's weights to `out`, training it in `runs` unless a run with its key is finished."""
    dataset = Dataset(data)
    inputs, licences = hash_inputs(dataset), []
    if train_depth.mono_share:
        inputs |= hash_mono_films(dataset)
        licences += [film.licence for film in mono_films(dataset)]
    if train_depth.initial_weights == "imagenet":
        inputs |= {"initial": hash_file(find_imagenet_weights())}
        licences += [LICENCE]
    key = make_run_key("secondeye.training.depth", [train_depth], inputs)
    tags = inputs | {"dataset": dataset.validated_hash, "licences": join_licences(dataset, licences)}

    def train(run: Run) -> None:
        from secondeye.training import depth

        depth.train(run, data, train_depth)

    finish_model(out, open_run(runs, key, "train_depth", train_depth, tags), train)
