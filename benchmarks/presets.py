"""Presets and dataset stages for benchmarks."""

import shutil
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from tempfile import TemporaryDirectory

from secondeye.params import Params, apply_preset, load_params

PROJECT = Path(__file__).resolve().parent.parent


def load_preset(name: str) -> Params:
    """Return params.yaml with a preset applied: laptop, small or paper."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        shutil.copyfile(PROJECT / "params.yaml", path)
        apply_preset(PROJECT / "presets" / f"{name}.yaml", path)
        return load_params(path)


def run_stage(stage: str, data: Path, params: Params) -> None:
    """Run a dataset stage on the data root with the sections of its signature."""
    run = import_module(f"secondeye.stages.{stage}").run
    arguments = signature(run).parameters.values()
    sections = {a.name: getattr(params, a.name) for a in arguments if a.kind is Parameter.KEYWORD_ONLY}
    run(data, **sections)
