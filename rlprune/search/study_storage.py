"""Where the study lives: a file of the run folder, or a database that several runs share.

A URL may hold ``${NAME}`` in the place of a password, which is then taken from the environment: settings are
written into the run folder and into network files, where a password has no business.
"""

import dataclasses
import json
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlprune.config import Config
from rlprune.errors import ConfigError, ResultsError
from rlprune.results.folder import write_atomically

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL

DATABASE, STUDY = "study.db", "study.json"
OWN_STUDY = "rlprune"
"""The study of a run that has a database for itself."""
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
_SECONDS_TO_CONNECT = 10.0
_EXPECTED = "expected a database URL such as sqlite:///studies.db or postgresql://user@host/database"


class StudyPlace(NamedTuple):
    """A study's database, as a URL, and its name there."""

    url: str
    name: str


def with_storage_checked(config: Config) -> Config:
    """The settings with a database that can be used from any working directory; it was opened once.

    Raises:
        ConfigError: If the URL is none, its driver is missing, or the database cannot be reached.
    """
    url = config.search.study_storage
    if not url:
        return config
    url = _anchored(url)
    open_storage(url).remove_session()
    return dataclasses.replace(config, search=dataclasses.replace(config.search, study_storage=url))


def open_storage(url: str) -> "RDBStorage":
    """Opens a database, and makes Optuna's tables where there are none.

    Raises:
        ConfigError: As for :func:`with_storage_checked`.
    """
    import optuna
    import sqlalchemy.exc

    address = _address(url)
    try:
        _knock(address)
        complete = address.render_as_string(hide_password=False)
        return optuna.storages.RDBStorage(complete, engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or "its driver"
        raise ConfigError(
            f"search.study_storage: {url} needs {missing}, which is not installed: "
            f"pip install '{_DRIVERS.get(missing, missing)}'"
        ) from error
    except sqlalchemy.exc.ArgumentError as error:
        raise ConfigError(f"search.study_storage: {url}: {error}; {_EXPECTED}") from error
    except (OSError, RuntimeError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise ConfigError(
            f"search.study_storage: {url} cannot be used: {str(error).partition(chr(10))[0]}; see that the "
            "server runs, the database exists and you may write to it, or leave the setting out: the study "
            "is then a file of the run folder"
        ) from error


def study_place(config: Config, folder: Path) -> StudyPlace:
    """The study of a run: the one that its folder names, or else a new one.

    Raises:
        ResultsError: If the folder's note of its study cannot be read.
    """
    import sqlalchemy

    url = config.search.study_storage
    if not url:
        own = sqlalchemy.URL.create("sqlite", database=str(folder / DATABASE))
        return StudyPlace(own.render_as_string(), OWN_STUDY)
    path = folder / STUDY
    if not path.exists():
        name = f"{folder.resolve().name}-{uuid.uuid4().hex[:8]}"
        write_atomically(path, json.dumps({"study": name}) + "\n")
    try:
        return StudyPlace(url, json.loads(path.read_text(encoding="utf-8"))["study"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ResultsError(f"{path}: does not name the run's study: {error}; put the file back") from error


def _address(url: str) -> "URL":
    """The parsed URL, with what it takes from the environment."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"search.study_storage: {url!r} is no URL; {_EXPECTED}") from error
    except ValueError as error:
        raise ConfigError(
            f"search.study_storage: what follows the URL's host and a colon is no port number; {_EXPECTED}"
        ) from error
    if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
        raise ConfigError(f"search.study_storage: {url} would keep the study in memory only; {_EXPECTED}")
    if not address.password:
        return address
    return address.set(password=_from_environment(str(address.password), os.environ))


def _from_environment(password: str, environment: Mapping[str, str]) -> str:
    name = password.removeprefix("${").removesuffix("}")
    if password != f"${{{name}}}":
        raise ConfigError(
            "search.study_storage: a password would be written into the run folder and into every network "
            "file; put ${NAME} in its place, and the password into the environment variable NAME"
        )
    if name not in environment:
        raise ConfigError(f"search.study_storage: the environment variable {name} is not set")
    return environment[name]


def _anchored(url: str) -> str:
    """The URL with an absolute path where it is a file."""
    address = _address(url)
    if address.get_backend_name() != "sqlite":
        return url
    try:
        path = Path(str(address.database)).expanduser().resolve()
    except RuntimeError as error:  # ~NAME, and nobody of that name
        raise ConfigError(f"search.study_storage: {url}: {error} Write the path without ~") from error
    return address.set(database=str(path)).render_as_string(hide_password=False)


def _knock(address: "URL") -> None:
    """Raise OSError unless something listens at the address: drivers would try for minutes."""
    port = address.port or _PORTS.get(address.get_backend_name())
    if address.host and port:
        socket.create_connection((address.host, port), timeout=_SECONDS_TO_CONNECT).close()
