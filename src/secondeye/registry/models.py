"""Register, fetch and promote versions of the one registered model, `secondeye`.

A version contains a bundle (weights as safetensors), the code of this package and the versions of its
libraries. It converts in a process that does not import this checkout.
"""

import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from secondeye.conversion.version_file import write_version
from secondeye.execution import code_hash
from secondeye.registry.server import connected, experiment_of, home
from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

NAME = "secondeye"
CHAMPION = "champion"
CHAMPIONS = "secondeye.champions"  # tag of the model: all champions so far, the current one last
# What predict(params=...) takes, as MLflow type and default: options of `secondeye convert`.
PARAMS: Mapping[str, tuple[str, bool | None]] = {
    "strength_percent": ("double", None),
    "convergence": ("double", None),
    "depth": ("string", None),
    "crf": ("long", None),
    "preset": ("string", None),
    "tiles": ("string", None),
    "steps": ("long", None),
    "compile": ("boolean", False),
    "offload": ("boolean", False),
    "max_memory_gb": ("double", None),
    "workers": ("string", None),
    "overwrite": ("boolean", False),
}
_CODE = "secondeye.code"  # tag of a version
_PACKAGE = code_hash.ROOT
_ALLOWED_SUFFIXES = (".json", ".safetensors", ".txt", ".md", ".model")  # allowed in a bundle: no pickle
_NOT_NEEDED_FOR_CONVERSION = ("dvc", "prefect", "great_expectations", "fastapi")
_MISSING = (
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_PARAMETER_VALUE",
)  # error codes for a missing version; a missing alias


@dataclass(frozen=True)
class FetchedVersion:
    """A registered version, downloaded to this machine."""

    version: int
    code: str  # short hash of its code
    folder: Path  # contains code/ and artifacts/bundle
    tags: Mapping[str, str]  # given to `register`

    @property
    def bundle(self) -> Path:
        return self.folder / "artifacts" / "bundle"

    def __str__(self) -> str:
        return f"{NAME} version {self.version}, code {self.code}"


def register(
    bundle: Path,  # see secondeye.conversion.bundle
    tags: Mapping[str, str],  # provenance and scores
    description: str,  # Markdown
) -> int:
    """Register a bundle as the next version and return its number.

    Raises ValueError if a file of it may contain code (pickle), and ServerUnreachable.
    """
    if unsafe := [
        path for path in sorted(bundle.rglob("*")) if path.is_file() and path.suffix not in _ALLOWED_SUFFIXES
    ]:
        raise ValueError(f"{unsafe[0]}: not allowed in a bundle; allowed are {', '.join(_ALLOWED_SUFFIXES)}")
    with connected() as client:
        return _register(client, bundle, tags, description)


def ensure_champion(bundle: Path) -> int:
    """Return the champion; without one, promote the lowest version, or register `bundle` if there is none.

    Raises ServerUnreachable.
    """
    with connected() as client:
        if (current := _champion(client)) is not None:
            return current
        versions = [int(found.version) for found in client.search_model_versions(f"name='{NAME}'")]
        description = "First version, shipped with the program."
        number = min(versions) if versions else _register(client, bundle, {}, description)
        _append_champion(client, number)
        return number


def champion() -> int | None:
    """Return the number of the champion, or None."""
    with connected() as client:
        return _champion(client)


def set_champion(number: int) -> None:
    """Make a version the champion. Raises UserError if it does not exist."""
    with connected() as client:
        _version(client, str(number))
        _append_champion(client, number)


def rollback() -> int:
    """Make the previous champion the champion again and return it. Raises UserError if there is none."""
    with connected() as client:
        past = _champions(client)[:-1]
        if not past:
            raise UserError(f"models:/{NAME}@{CHAMPION}: there is no previous champion to go back to")
        _version(client, str(past[-1]))
        _store_champions(client, past)
        return past[-1]


def fetch_version(uri: str) -> FetchedVersion:
    """Download the version named by models:/secondeye@ALIAS or models:/secondeye/NUMBER.

    Raises UserError if it does not exist, and ServerUnreachable.
    """
    named = re.fullmatch(rf"models:/{NAME}(?:@(?P<alias>[\w-]+)|/(?P<number>\d+))", uri)
    if not named:
        raise UserError(f"{uri}: not a model URI; give models:/{NAME}@{CHAMPION} or models:/{NAME}/NUMBER")
    with connected() as client:
        found = (
            _version_by_alias(client, named["alias"]) if named["alias"] else _version(client, named["number"])
        )
        return _fetch(client, found)


def convert_with_registered_code(uri: str, arguments: list[str]) -> NoReturn:
    """Replace this process by `secondeye` with the code of a registered version; `uri` becomes its bundle."""
    fetched = fetch_version(uri)
    print(f"model: {fetched}", flush=True)
    command, environment = command_for(fetched)
    replaced = [str(fetched.bundle) if argument == uri else argument for argument in arguments]
    replaced = [a.replace(f"--model={uri}", f"--model={fetched.bundle}") for a in replaced]
    os.execve(command[0], [*command, *replaced], environment)


def command_for(fetched: FetchedVersion) -> tuple[list[str], dict[str, str]]:
    """Return the command prefix and environment that run `secondeye` with the code of a version."""
    path = [str(fetched.folder / "code"), *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: a folder named secondeye in the working directory must not take precedence.
    return [sys.executable, "-P", "-m", NAME], os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def _register(client: "MlflowClient", bundle: Path, tags: Mapping[str, str], description: str) -> int:
    import mlflow

    with _default_server(client), _without_warnings(), tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "bundle"  # the name becomes part of the version
        shutil.copytree(bundle, staged)
        mlflow.set_experiment(experiment_id=experiment_of(client))
        logged = mlflow.pyfunc.log_model(
            name=NAME,
            python_model=str(_PACKAGE / "registry" / "pyfunc_model.py"),
            artifacts={"bundle": str(staged)},
            code_paths=[str(_PACKAGE)],
            signature=_signature(),
            pip_requirements=requirements(),
            registered_model_name=NAME,
        )
    number = str(logged.registered_model_version)
    for name, value in {**tags, _CODE: _code_hash()}.items():
        client.set_model_version_tag(NAME, number, name, value)
    client.update_model_version(NAME, number, description)
    return int(number)


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


def _code_hash() -> str:
    """Return a short hash of the code of the whole package."""
    files = (path.relative_to(_PACKAGE.parent).with_suffix("") for path in _PACKAGE.rglob("*.py"))
    return code_hash.code_hash(".".join(file.parts).removesuffix(".__init__") for file in files)[:12]


@contextmanager
def _default_server(client: "MlflowClient") -> Iterator[None]:
    """Point MLflow's global functions to the server of the client for the duration of the block."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client.tracking_uri)
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # set_tracking_uri sets it
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence MLflow's requests for an input example (which it would run) and for type hints."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(input example was not provided|Any type hint)", UserWarning)
        yield


def _append_champion(client: "MlflowClient", number: int) -> None:
    champions = _champions(client)
    _store_champions(client, champions if champions[-1:] == [number] else [*champions, number])


def _store_champions(client: "MlflowClient", champions: list[int]) -> None:
    client.set_registered_model_alias(NAME, CHAMPION, str(champions[-1]))
    client.set_registered_model_tag(NAME, CHAMPIONS, ",".join(map(str, champions)))


def _champions(client: "MlflowClient") -> list[int]:
    """Return all champions so far, the current one last, even if it was set in the MLflow UI."""
    tag = client.get_registered_model(NAME).tags.get(CHAMPIONS, "")
    champions = [int(number) for number in tag.split(",") if number]
    current = _champion(client)
    return champions if current is None or champions[-1:] == [current] else [*champions, current]


def _champion(client: "MlflowClient") -> int | None:
    from mlflow.exceptions import MlflowException

    try:
        return int(client.get_model_version_by_alias(NAME, CHAMPION).version)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return None


def _version_by_alias(client: "MlflowClient", alias: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(NAME, alias)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        raise UserError(
            f"models:/{NAME}@{alias}: no version has this alias; run `secondeye model promote NUMBER`"
        ) from error


def _version(client: "MlflowClient", number: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(NAME, number)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        raise UserError(f"models:/{NAME}/{number}: this version does not exist") from error


def _fetch(client: "MlflowClient", found: "ModelVersion") -> FetchedVersion:
    """Download a version to .mlflow/models, in a folder whose name is unique to it."""
    from mlflow.artifacts import download_artifacts

    folder = home() / "models" / f"{found.version}-{found.creation_timestamp}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
            place = Path(temporary) / "version"
            place.mkdir()
            with _default_server(client):
                copy = download_artifacts(f"models:/{NAME}/{found.version}", dst_path=str(place))
            os.replace(copy, folder)
    write_version(folder, int(found.version), found.tags)  # converted films name both
    return FetchedVersion(int(found.version), found.tags.get(_CODE, "unknown"), folder, dict(found.tags))
