"""Connect to MLflow: the database of this project, or the server in MLFLOW_TRACKING_URI.

.mlflow/           in the working directory; git-ignored
  mlflow.db        runs and models, unless MLFLOW_TRACKING_URI is set
  artifacts/       their files
  models/          downloaded versions, and their code in models/code: see secondeye.registry.models
"""

import errno
import fcntl
import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlparse

from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "secondeye"  # of the files of registered versions
_HEALTH_TIMEOUT_SECONDS = 3.0  # for the answer of a server
_LOCK_TIMEOUT_SECONDS = "5"  # for another process to release a database; `?timeout=N` in the URI overrides
_SQLITE = "sqlite:///"
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# Set before mlflow is imported: no telemetry, short retries so that a lost server is noticed soon, and no
# pool, as pooled connections would go on writing into a database file that was deleted or replaced.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
}


class ServerUnreachable(UserError):
    """The MLflow server does not answer, or its database or files cannot be used."""


def home() -> Path:
    """Return the folder of the project's own database."""
    return Path(".mlflow").absolute()


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the URI of the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{home() / 'mlflow.db'}"


def database_file(uri: str) -> Path | None:
    """Return the file of an SQLite database, or None for a server."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute() if uri.startswith(_SQLITE) else None


@contextmanager
def connected() -> Iterator["MlflowClient"]:
    """Yield an MLflow client; only one process per machine holds one at a time.

    Raises ServerUnreachable if the server does not answer, or its database is locked, broken, deleted or
    cannot be written, at the start or later; and UserError with the first line of MLflow's message if it
    answers with an error.
    """
    uri = tracking_uri()
    _require_server(uri)
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # It would print the traceback of an error that is raised as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with _exclusive(uri):
        try:
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if reason := _reason_away(error):
                raise _unreachable(uri, reason) from error
            _require_server(uri)
            if isinstance(error, MlflowException):
                raise UserError(f"MLflow at {redact_password(uri)}: {str(error).splitlines()[0]}") from error
            raise


def _reason_away(error: Exception) -> str:
    """Return why the server, database or disk cannot be used; "" for an error with another cause."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    if isinstance(error, MlflowException):
        if isinstance(error.__cause__, SQLAlchemyError | OSError):
            return _reason_away(error.__cause__)
        return str(error).splitlines()[0] if error.get_http_status_code() >= 500 else ""
    if isinstance(error, DBAPIError):
        return str(error.orig)
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        return f"{error.filename2 or error.filename or ''}: {error.strerror}".removeprefix(": ")
    return ""


def experiment_of(
    client: "MlflowClient",
    name: str = EXPERIMENT,
    description: str = "Files of the registered versions. The runs are in the experiments secondeye-*.",
) -> str:
    """Return the id of an experiment, which is created with this description if missing.

    Raises UserError if it was deleted, or if its files are elsewhere because the project was moved.
    """
    uri = client.tracking_uri
    artifacts = _artifacts_of(uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = artifacts.as_uri() if artifacts else None  # a server chooses its own location
        # The kind makes the UI open its pages for training instead of those for language models.
        tags = {"mlflow.note.content": description, "mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, artifact_location=location, tags=tags))
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"MLflow at {redact_password(uri)}: experiment {name} was deleted; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`"
        )
    stored = unquote(urlparse(experiment.artifact_location).path)
    if artifacts and stored != str(artifacts):
        raise UserError(
            f"{artifacts.parent}: has been moved, its runs keep their files in {stored}; move it back, "
            "or delete it and run `secondeye model publish`"
        )
    return str(experiment.experiment_id)


def _artifacts_of(uri: str) -> Path | None:
    """Return the artifact folder beside an SQLite database, or None for a server."""
    database = database_file(uri)
    return database.parent / "artifacts" if database else None


@contextmanager
def _exclusive(uri: str) -> Iterator[None]:
    """Wait for other processes that publish from this folder; two at once would log everything twice."""
    try:
        home().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unreachable(uri, f"{home()}: {error.strerror}") from error
    handle = os.open(home(), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_server(uri: str) -> None:
    """Raise ServerUnreachable if a server does not answer, or a database cannot be read."""
    if database := database_file(uri):
        _require_database(uri, database)
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_HEALTH_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise _unreachable(uri, f"HTTP {error.code}") from error
    except (OSError, ValueError) as error:  # refused, unknown host, timeout, invalid URI
        raise _unreachable(uri, str(getattr(error, "reason", error))) from error


def _require_database(uri: str, database: Path) -> None:
    """Raise ServerUnreachable if a database file is locked or broken; MLflow would wait 20 s and more."""
    if not database.exists():  # MLflow creates it
        return
    timeout = float(parse_qs(urlparse(uri).query).get("timeout", [_LOCK_TIMEOUT_SECONDS])[0])
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", timeout, uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        raise _unreachable(uri, str(error)) from error


def _unreachable(uri: str, reason: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"MLflow at {redact_password(uri)} cannot be reached ({' '.join(reason.split())}); runs stay in "
        ".runs, publish them later with `secondeye model publish`"
    )


def redact_password(uri: str) -> str:
    """Return the URI without its password."""
    parts = urlparse(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.password else uri
