"""Register bundles as versions of the one registered model, `secondeye`.

A version contains a bundle (weights as safetensors), the code of this package and the versions of its
libraries. Its tags name the hashes of code (secondeye.code), of the bundle (secondeye.weights) and of the
weights of each part (depth_weights, inpainter_weights), beside what the caller says of the parts.
"""

import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from secondeye.execution import code_hash
from secondeye.registry.history import NAME, all_versions, refresh
from secondeye.registry.models import CODE, default_server, hash_tags
from secondeye.registry.server import connected, experiment_of
from secondeye.system.files import hash_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature
    from pandas import DataFrame

# What predict(params=...) takes, as MLflow type and default: options of `secondeye convert`.
PARAMS: Mapping[str, tuple[str, bool | None]] = {
    "strength_percent": ("double", None),
    "convergence": ("double", None),
    "views": ("string", None),
    "depth": ("string", None),
    "deinterlace": ("string", None),
    "input_layout": ("string", None),
    "mono": ("boolean", False),
    "layout": ("string", None),
    "first": ("string", None),
    "no_stereo_tag": ("boolean", False),
    "codec": ("string", None),
    "bit_depth": ("long", None),
    "exact_size": ("boolean", False),
    "crf": ("long", None),
    "preset": ("string", None),
    "tiles": ("string", None),
    "steps": ("long", None),
    "compile": ("boolean", False),
    "offload": ("boolean", False),
    "max_memory_gb": ("double", None),
    "workers": ("string", None),
    "depth_resolution": ("long", None),
    "overwrite": ("boolean", False),
}
_SOURCE = "secondeye.source"  # tag of the run that stands for weights without a training run
_PACKAGE = code_hash.ROOT
_ALLOWED_SUFFIXES = (".json", ".safetensors", ".txt", ".md", ".model")  # allowed in a bundle: no pickle
_NOT_NEEDED_FOR_CONVERSION = ("dvc", "prefect", "great_expectations", "fastapi", "tzlocal")


@dataclass(frozen=True)
class VersionFacts:
    """What MLflow shows of a version beside its files."""

    tags: Mapping[str, str]  # about the parts that it contains
    description: str  # Markdown
    source_run: str | None = None  # id of the MLflow run that made it; its page links to it
    scores: Mapping[str, float] = field(default_factory=dict)  # on the held-out clips; need a source run


def register_bundle(client: "MlflowClient", bundle: Path, facts: VersionFacts) -> int:
    """Register a bundle (secondeye.conversion.bundle) as the next version and return its number.

    The same bundle with the same code and tags gives the version that exists. Raises ValueError if a file of
    it may contain code (pickle).
    """
    if unsafe := [
        path for path in sorted(bundle.rglob("*")) if path.is_file() and path.suffix not in _ALLOWED_SUFFIXES
    ]:
        raise ValueError(f"{unsafe[0]}: not allowed in a bundle; allowed are {', '.join(_ALLOWED_SUFFIXES)}")
    tags = {**facts.tags, **hash_tags(bundle), CODE: _code_hash()}
    for known in all_versions(client):
        if tags.items() <= known.tags.items():  # registered by a process that was then killed
            return int(known.version)
    model_id = _log_model(client, bundle, facts)
    _ensure_model(client)
    # One call with all tags: a version without them cannot exist.
    with default_server(client):
        made = client.create_model_version(
            NAME,
            f"models:/{model_id}",
            facts.source_run,
            tags,
            description=facts.description,
            model_id=model_id,
        )
    refresh(client)
    return int(made.version)


def publish_source(model_card: Path, bundle: Path) -> str:
    """Return the id of the MLflow run that stands for weights made elsewhere: it shows their model card."""
    with connected() as client:
        digest, experiment = hash_folder(bundle), experiment_of(client)
        if found := client.search_runs([experiment], f"tags.`{_SOURCE}` = '{digest}'", max_results=1):
            return str(found[0].info.run_id)
        # The tag comes last, so that an interrupted run is not found.
        run_id = str(client.create_run(experiment, run_name="shipped model").info.run_id)
        client.set_tag(run_id, "mlflow.note.content", model_card.read_text())
        client.log_artifact(run_id, str(model_card))
        client.set_tag(run_id, _SOURCE, digest)
        client.set_terminated(run_id)
        return run_id


def _ensure_model(client: "MlflowClient") -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_model(client: "MlflowClient", bundle: Path, facts: VersionFacts) -> str:
    """Send the files of a version to MLflow and return the id of its logged model.

    mlflow.pyfunc.log_model would do the same, but run the input example.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    run_id = facts.source_run
    logged = client.create_logged_model(experiment_of(client), NAME, run_id)
    with default_server(client), _without_warnings(), tempfile.TemporaryDirectory() as temporary:
        staged, saved = Path(temporary) / "bundle", Path(temporary) / "model"
        shutil.copytree(bundle, staged)  # the name becomes part of the version
        mlflow.pyfunc.save_model(
            saved,
            python_model=str(_PACKAGE / "registry" / "pyfunc_model.py"),
            artifacts={"bundle": str(staged)},
            code_paths=[str(_PACKAGE)],
            mlflow_model=Model(logged.artifact_location, run_id, model_id=logged.model_id),
            signature=_signature(),
            input_example=_input_example(),
            pip_requirements=requirements(),
        )
        for cache in list(saved.rglob("__pycache__")):
            shutil.rmtree(cache)
        client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    if run_id:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        for name, value in facts.scores.items():
            client.log_metric(run_id, name, value, step=0, model_id=logged.model_id)
    return str(logged.model_id)


def _input_example() -> "DataFrame":
    from pandas import DataFrame

    return DataFrame({"input_path": ["film.mp4"], "output_path": ["film_LRF_Full_SBS.mp4"]})


def requirements() -> list[str]:
    """Return the dependencies that conversion needs, pinned to the installed versions."""
    wanted = (re.split(r"[^\w.-]", line)[0] for line in requires(NAME) or () if "extra ==" not in line)
    return [
        f"{name}=={version(name).partition('+')[0]}"
        for name in wanted
        if name not in _NOT_NEEDED_FOR_CONVERSION
    ]


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string", "input_path"), ColSpec("string", "output_path")]),
        outputs=Schema([ColSpec("string", "output_path"), ColSpec("long", "frames")]),
        params=ParamSchema([ParamSpec(name, kind, default) for name, (kind, default) in PARAMS.items()]),
    )


@cache
def _code_hash() -> str:
    """Return a short hash of the code of the whole package."""
    files = (path.relative_to(_PACKAGE.parent).with_suffix("") for path in _PACKAGE.rglob("*.py"))
    return code_hash.code_hash(".".join(file.parts).removesuffix(".__init__") for file in files)[:12]


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence MLflow's request for type hints, and what it does to columns that pandas deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Operation with range is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*Any type hint", UserWarning)
        yield
