"""Fetch versions of the one registered model, `secondeye`, and convert with them.

A version converts with its own code, in a process that does not import this checkout.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from secondeye.conversion.bundle_parts import weights_folder
from secondeye.conversion.version_file import write_version
from secondeye.execution import code_hash
from secondeye.registry.history import (
    CHAMPION,
    MISSING,
    NAME,
    finish_interrupted,
    weights_tags,
)
from secondeye.registry.server import connected, home
from secondeye.system.errors import UserError
from secondeye.system.files import hash_folder, hash_weights
from secondeye.system.process import hold_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CODE, BUNDLE = "secondeye.code", "secondeye.weights"  # tags of a version: hashes of code and bundle
_PACKAGE = code_hash.ROOT


@dataclass(frozen=True)
class FetchedVersion:
    """A registered version, downloaded to this machine."""

    version: int
    code: str  # short hash of its code
    folder: Path  # contains code/ and artifacts/bundle
    tags: Mapping[str, str]  # given to `register_bundle`

    @property
    def bundle(self) -> Path:
        return self.folder / "artifacts" / "bundle"

    def __str__(self) -> str:
        return f"{NAME} version {self.version}, code {self.code}"


def fetch_version(uri: str) -> FetchedVersion:
    """Download the version named by models:/secondeye@ALIAS or models:/secondeye/NUMBER.

    Raises UserError if it does not exist, and ServerUnreachable.
    """
    named = re.fullmatch(rf"models:/{NAME}(?:@(?P<alias>[\w-]+)|/(?P<number>\d+))", uri)
    if not named:
        raise UserError(f"{uri}: not a model URI; give models:/{NAME}@{CHAMPION} or models:/{NAME}/NUMBER")
    with connected() as client:
        finish_interrupted(client)
        found = (
            _version_by_alias(client, named["alias"])
            if named["alias"]
            else find_version(client, named["number"])
        )
        return fetch(client, found)


def run_registered_code(
    uri: str,
    arguments: list[str],
    *,
    module: str | None = None,  # that its code must have, as conversion/depth_film.py; None: all have it
) -> NoReturn:
    """Replace this process by `secondeye` with the code of a registered version; `uri` becomes its bundle.

    Raises UserError if the version is older than the command, and as `fetch_version` does.
    """
    fetched = fetch_version(uri)
    if module is not None and not (fetched.folder / "code" / NAME / module).exists():
        raise UserError(f"{uri}: {fetched} does not have this command; give --model {fetched.bundle}")
    print(f"model: {fetched}", flush=True)
    command, environment = command_for(fetched)
    replaced = [str(fetched.bundle) if argument == uri else argument for argument in arguments]
    replaced = [a.replace(f"--model={uri}", f"--model={fetched.bundle}") for a in replaced]
    os.execve(command[0], [*command, *replaced], environment)


def command_for(fetched: FetchedVersion) -> tuple[list[str], dict[str, str]]:
    """Return the command prefix and environment that run `secondeye` with the code of a version."""
    path = [str(_shared_code(fetched)), *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: a folder named secondeye in the working directory must not take precedence.
    return [sys.executable, "-P", "-m", NAME], os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def _shared_code(fetched: FetchedVersion) -> Path:
    """Return a folder with the code of a version, the same one for all versions whose code is the same.

    numba keeps compiled kernels beside their source: the first conversion with a new version compiles none
    that were compiled for an older version with the same code, or for this checkout.
    """
    code = fetched.folder / "code"
    shared = fetched.folder.parent / "code" / hash_folder(code)[:16]
    shared.parent.mkdir(exist_ok=True)
    with hold_lock(shared.parent / "lock"):
        if not shared.exists():
            with tempfile.TemporaryDirectory(dir=shared.parent, prefix=".") as temporary:
                copy = shutil.copytree(code, Path(temporary) / "code")
                _copy_kernels(copy / NAME)
                os.replace(copy, shared)
    return shared


def _copy_kernels(package: Path) -> None:
    """Copy what numba compiled for this checkout beside equal sources.

    numba knows the source of a kernel by its time and size, so that it gets the time, too.
    """
    for source in _PACKAGE.rglob("*.py"):
        copy = package / source.relative_to(_PACKAGE)
        kernels = list(source.parent.glob(f"__pycache__/{source.stem}.*.nb[ic]"))
        if kernels and copy.exists() and copy.read_bytes() == source.read_bytes():
            shutil.copystat(source, copy)
            copy.with_name("__pycache__").mkdir(exist_ok=True)
            for kernel in kernels:
                shutil.copy(kernel, copy.with_name("__pycache__"))


def weights_in(bundle: Path) -> dict[str, str]:
    """Return part -> hash of its weights; parts without weights are missing."""
    folders = (("depth", weights_folder(bundle, "depth")), ("inpainter", weights_folder(bundle, "inpaint")))
    return {part: hash_weights(folder) for part, folder in folders if folder}


def weights_of(client: "MlflowClient", number: int) -> dict[str, str]:
    """Return part -> hash of its weights for a version; an old one is downloaded and tagged first."""
    version = find_version(client, str(number))
    if BUNDLE in version.tags:
        return weights_tags(version.tags)
    bundle = fetch(client, version).bundle
    for name, value in hash_tags(bundle).items():
        client.set_model_version_tag(NAME, str(number), name, value)
    return weights_in(bundle)


def hash_tags(bundle: Path) -> dict[str, str]:
    return {BUNDLE: hash_folder(bundle)} | {
        f"{part}_weights": digest for part, digest in weights_in(bundle).items()
    }


@contextmanager
def default_server(client: "MlflowClient") -> Iterator[None]:
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


def _version_by_alias(client: "MlflowClient", alias: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(NAME, alias)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        raise UserError(
            f"models:/{NAME}@{alias}: no version has this alias; run `secondeye model promote NUMBER`"
        ) from error


def find_version(client: "MlflowClient", number: str) -> "ModelVersion":
    """Return a version. Raises UserError if it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(NAME, number)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        raise UserError(f"models:/{NAME}/{number}: this version does not exist") from error


def fetch(client: "MlflowClient", found: "ModelVersion") -> FetchedVersion:
    """Download a version to .mlflow/models, in a folder whose name is unique to it."""
    from mlflow.artifacts import download_artifacts

    folder = home() / "models" / f"{found.version}-{found.creation_timestamp}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
            place = Path(temporary) / "version"
            place.mkdir()
            with default_server(client):
                copy = download_artifacts(f"models:/{NAME}/{found.version}", dst_path=str(place))
            os.replace(copy, folder)
    write_version(folder, int(found.version), found.tags)  # converted films name both
    return FetchedVersion(int(found.version), found.tags.get(CODE, "unknown"), folder, dict(found.tags))
