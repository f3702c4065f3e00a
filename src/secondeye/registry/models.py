"""The one registered model, `secondeye`: versions of the converter, and which of them is champion.

A version holds a bundle (weights as safetensors), this package's code, and the versions of its libraries.
It converts in a process that has never seen this checkout.
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

from secondeye.execution import code_hash
from secondeye.registry.server import connected, experiment_of, home
from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

NAME = "secondeye"
CHAMPION = "champion"
CHAMPIONS = "secondeye.champions"  # tag of the model: versions that were champion, the present one last
_CODE = "secondeye.code"  # tag of a version
_PACKAGE = code_hash.ROOT
_SAFE = (".json", ".safetensors", ".txt", ".md", ".model")  # what a folder of weights may hold: no pickle
_NOT_TO_CONVERT = ("dvc", "prefect", "great_expectations", "fastapi")  # of our dependencies
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # a model or version; an alias


@dataclass(frozen=True)
class Fetched:
    """A version on this machine."""

    version: int
    code: str  # short hash of its code
    folder: Path  # holds code/ and artifacts/bundle
    tags: Mapping[str, str]  # as `register` was given them

    @property
    def bundle(self) -> Path:
        return self.folder / "artifacts" / "bundle"

    def __str__(self) -> str:
        return f"{NAME} version {self.version}, code {self.code}"


def register(
    bundle: Path,  # see secondeye.conversion.bundle
    tags: Mapping[str, str],  # what it was made of and how it did
    description: str,  # Markdown
) -> int:
    """Make a bundle the next version of the registered model; returns its number.

    Raises ValueError when a file of it may hold code (pickle), ServerUnreachable.
    """
    if strange := [path for path in sorted(bundle.rglob("*")) if path.is_file() and path.suffix not in _SAFE]:
        raise ValueError(f"{strange[0]}: a bundle holds {', '.join(_SAFE)} only")
    with connected() as client:
        return _register(client, bundle, tags, description)


def first_version(bundle: Path) -> int | None:
    """Where there is no champion, make the lowest version champion; it is this bundle where there is none.

    None when there is a champion already.
    """
    with connected() as client:
        if _champion(client) is not None:
            return None
        there = [int(found.version) for found in client.search_model_versions(f"name='{NAME}'")]
        told = "The first: it comes with the program."
        number = min(there) if there else _register(client, bundle, {}, told)
        set_alias(client, number)
        return number


def champion() -> int | None:
    """The version that is champion."""
    with connected() as client:
        return _champion(client)


def set_champion(number: int) -> None:
    """Make a version champion. Raises Refusal when there is no such version."""
    with connected() as client:
        _version(client, str(number))
        set_alias(client, number)


def rollback() -> int:
    """Make the champion before the present one champion again; returns it. Raises Refusal without one."""
    with connected() as client:
        past = _champions(client)[:-1]
        if not past:
            raise UserError(f"models:/{NAME}@{CHAMPION}: no champion before it to go back to")
        _version(client, str(past[-1]))
        _remember(client, past)
        return past[-1]


def resolve(uri: str) -> Fetched:
    """Fetch the version that models:/secondeye@ALIAS or models:/secondeye/NUMBER names.

    Raises Refusal when there is none, ServerUnreachable.
    """
    named = re.fullmatch(rf"models:/{NAME}(?:@(?P<alias>[\w-]+)|/(?P<number>\d+))", uri)
    if not named:
        raise UserError(f"{uri}: give models:/{NAME}@{CHAMPION} or models:/{NAME}/NUMBER")
    with connected() as client:
        found = _aliased(client, named["alias"]) if named["alias"] else _version(client, named["number"])
        return _fetch(client, found)


def convert_with_registered_code(uri: str, arguments: list[str]) -> NoReturn:
    """Replace this process by `secondeye` with the code of a registered version; `uri` becomes its bundle."""
    fetched = resolve(uri)
    print(f"model: {fetched}", flush=True)
    command, environment = command_for(fetched)
    replaced = [str(fetched.bundle) if argument == uri else argument for argument in arguments]
    replaced = [a.replace(f"--model={uri}", f"--model={fetched.bundle}") for a in replaced]
    os.execve(command[0], [*command, *replaced], environment)


def command_for(fetched: Fetched) -> tuple[list[str], dict[str, str]]:
    """The beginning of a command line, and its environment, to run `secondeye` with a version's own code."""
    path = [str(fetched.folder / "code"), *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: a folder of that name where the command is run must not win.
    return [sys.executable, "-P", "-m", NAME], os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def _register(client: "MlflowClient", bundle: Path, tags: Mapping[str, str], description: str) -> int:
    import mlflow

    with _default_server(client), _without_advice(), tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "bundle"  # the name that it has in the version
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
    """What converting needs of our dependencies, at the versions that are installed here."""
    wanted = (re.split(r"[^\w-]", line)[0] for line in requires(NAME) or () if "extra ==" not in line)
    return [f"{name}=={version(name).partition('+')[0]}" for name in wanted if name not in _NOT_TO_CONVERT]


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string", "input_path"), ColSpec("string", "output_path")]),
        outputs=Schema([ColSpec("string", "output_path"), ColSpec("long", "frames")]),
        params=ParamSchema(
            [
                ParamSpec("strength_percent", "double", None),
                ParamSpec("convergence", "double", None),
                ParamSpec("overwrite", "boolean", False),
            ]
        ),
    )


def _code_hash() -> str:
    """The beginning of a hash of this package's whole code."""
    files = (path.relative_to(_PACKAGE.parent).with_suffix("") for path in _PACKAGE.rglob("*.py"))
    return code_hash.code_hash(".".join(file.parts).removesuffix(".__init__") for file in files)[:12]


@contextmanager
def _default_server(client: "MlflowClient") -> Iterator[None]:
    """Have MLflow's global functions talk to the client's server inside the block."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client.tracking_uri)
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # where set_tracking_uri may have left it
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence MLflow where it wants an input example, which it would run, and dislikes its own type hints."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(input example was not provided|Any type hint)", UserWarning)
        yield


def set_alias(client: "MlflowClient", number: int) -> None:
    champions = _champions(client)
    _remember(client, champions if champions[-1:] == [number] else [*champions, number])


def _remember(client: "MlflowClient", champions: list[int]) -> None:
    client.set_registered_model_alias(NAME, CHAMPION, str(champions[-1]))
    client.set_registered_model_tag(NAME, CHAMPIONS, ",".join(map(str, champions)))


def _champions(client: "MlflowClient") -> list[int]:
    """Every champion so far; the present one is last, also when somebody chose it in MLflow's pages."""
    tag = client.get_registered_model(NAME).tags.get(CHAMPIONS, "")
    champions = [int(number) for number in tag.split(",") if number]
    present = _champion(client)
    return champions if present is None or champions[-1:] == [present] else [*champions, present]


def _champion(client: "MlflowClient") -> int | None:
    from mlflow.exceptions import MlflowException

    try:
        return int(client.get_model_version_by_alias(NAME, CHAMPION).version)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return None


def _aliased(client: "MlflowClient", alias: str) -> "ModelVersion":
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
        raise UserError(f"models:/{NAME}/{number}: there is no such version") from error


def _fetch(client: "MlflowClient", found: "ModelVersion") -> Fetched:
    """Copy a version to .mlflow/models, under a name that no other version ever has."""
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
    return Fetched(int(found.version), found.tags.get(_CODE, "unknown"), folder, dict(found.tags))
