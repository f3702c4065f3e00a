"""Where MLflow is: this project's own database, or the server that MLFLOW_TRACKING_URI names.

.mlflow/           in the folder where the command is run; git-ignored
  mlflow.db        runs and models, unless MLFLOW_TRACKING_URI says otherwise
  artifacts/       their files
  models/          versions that were fetched, see secondeye.registry.models
"""

import fcntl
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "secondeye"
_PATIENCE_SECONDS = 3.0  # for a server to say that it is there
# Before mlflow is imported: nothing is told to anybody, and a server that went away is noticed in seconds.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class ServerUnreachable(UserError):
    """Nobody answers where MLflow should be."""


def home() -> Path:
    """The folder of the project's own database."""
    return Path(".mlflow").absolute()


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


@contextmanager
def connected() -> Iterator["MlflowClient"]:
    """A client of MLflow, for one process of this machine at a time.

    Raises ServerUnreachable if the server does not answer, at the start or later, and UserError with the
    first line of MLflow's message if it answers with an error.
    """
    uri = tracking_uri()
    _require_server(uri)
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with _alone():
        try:
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
        except (MlflowException, OSError) as error:
            _require_server(uri)
            if isinstance(error, MlflowException):
                raise UserError(f"MLflow at {redact_password(uri)}: {str(error).splitlines()[0]}") from error
            raise


def experiment_of(client: "MlflowClient") -> str:
    """The id of our experiment, made where it is missing.

    Raises Refusal when it was deleted, or when its files lie elsewhere because the project was moved.
    """
    uri = client.tracking_uri
    artifacts = _artifacts_of(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        location = artifacts.as_uri() if artifacts else None  # a server decides for itself
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"MLflow at {redact_password(uri)}: experiment {EXPERIMENT} was deleted; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`"
        )
    stored = unquote(urlparse(experiment.artifact_location).path)
    if artifacts and stored != str(artifacts):
        raise UserError(
            f"{artifacts.parent}: was moved, its runs keep their files in {stored}; move it back, or "
            "delete it and run `secondeye model publish`"
        )
    return str(experiment.experiment_id)


def _artifacts_of(uri: str) -> Path | None:
    """Where files of an SQLite database lie: beside it. None for anything else."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute().parent / "artifacts"


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process of this machine publishes from here: two would log everything twice."""
    home().mkdir(parents=True, exist_ok=True)
    handle = os.open(home(), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_server(uri: str) -> None:
    """Ask a server whether it is there; a database is always."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PATIENCE_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise _away(uri, f"HTTP {error.code}") from error
    except (OSError, ValueError) as error:  # nobody listens, no such host, no answer in time, no address
        raise _away(uri, str(getattr(error, "reason", error))) from error


def _away(uri: str, reason: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"MLflow at {redact_password(uri)} can not be reached ({reason}); runs stay in .runs, "
        "`secondeye model publish` brings them in later"
    )


def redact_password(uri: str) -> str:
    """An address without the password that may stand in it."""
    parts = urlparse(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.password else uri
