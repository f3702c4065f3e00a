"""Stages by name: match the arguments of `secondeye stage` with the parameters of the stage's `run`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path

from secondeye.params import load_params
from secondeye.stages import STAGES
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize


@dataclass(frozen=True)
class BoundStage:
    """A stage with all of its arguments."""

    run: Callable[[], object]
    runs: Path | None  # the folder of its run folders; None if it writes none


def bind_stage(name: str, paths: Sequence[Path]) -> BoundStage:
    """Bind a stage to its folders and to its sections of params.yaml.

    Raises UserError for an unknown stage, a wrong number of folders or an invalid params.yaml.
    """
    if name not in STAGES:
        raise UserError(f"stage must be one of {', '.join(STAGES)}, got {name!r}")
    run = import_module(f"secondeye.stages.{name}").run
    arguments = signature(run).parameters.values()
    folders = [a.name for a in arguments if a.kind is not Parameter.KEYWORD_ONLY]
    sections = [a.name for a in arguments if a.kind is Parameter.KEYWORD_ONLY]
    if len(paths) != len(folders):
        wanted = pluralize(len(folders), "folder")
        raise UserError(f"stage {name} takes {wanted} ({', '.join(folders)}), got {len(paths)}")
    params = load_params()
    values = {section: getattr(params, section) for section in sections}
    return BoundStage(partial(run, *paths, **values), dict(zip(folders, paths, strict=True)).get("runs"))
