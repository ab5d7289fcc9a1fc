"""A folder of an object store, through pyarrow or, for what pyarrow does not know, fsspec."""

import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from rlprune.errors import ResultsError
from rlprune.storage.places import is_url, local_path, shown

TRIALS_OWN = "tune"
"""Below it is what trials write themselves; it is not copied with the rest of a run folder."""

DRIVER = "driver.json"
"""Says which process drives the run: the only one that may write it."""


_ABOUT = "env.json"


class RemoteFolder:
    """A folder of an object store."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            filesystem, root = _open(self.url)
        except (OSError, ValueError, ImportError) as error:
            raise ResultsError(
                f"{shown(self.url)}: cannot be used as a storage path: {error}\n"
                "expected a folder that all machines share, or an address such as s3://BUCKET/PREFIX"
            ) from error
        return filesystem, root.rstrip("/")

    @property
    def filesystem(self) -> Any:
        """The ``pyarrow.fs.FileSystem``; it can be pickled."""
        return self._opened[0]

    @property
    def root(self) -> str:
        """The folder's path in its file system."""
        return self._opened[1]

    def files(self) -> list[str]:
        """The names of all files, relative to the folder, in order."""
        from pyarrow.fs import FileSelector, FileType

        with self._reported():
            found = self.filesystem.get_file_info(
                FileSelector(self.root, recursive=True, allow_not_found=True)
            )
        prefix = self.root.strip("/") + "/"
        names = [entry.path.lstrip("/") for entry in found if entry.type == FileType.File]
        return sorted(name.removeprefix(prefix) for name in names)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        with self._reported():
            try:
                with self.filesystem.open_input_stream(f"{self.root}/{name}") as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole."""
        path = f"{self.root}/{name}"
        with self._reported():
            if self.filesystem.type_name != "s3":  # which has no folders to be made
                self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(path) as stream:
                stream.write(content)

    def delete(self, name: str) -> None:
        """Deletes a file."""
        with self._reported():
            self.filesystem.delete_file(f"{self.root}/{name}")

    def download(self, names: Iterable[str], to: Path) -> None:
        """Copies files into a folder of this machine.

        Raises:
            ResultsError: They cannot be read, or one has a name that may lead out of the folder.
        """
        names = list(names)
        for name in names:
            self._check_inside(name)
        for name in names:
            content = self.read(name)
            if content is not None:
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                (to / name).write_bytes(content)

    def _check_inside(self, name: str) -> None:
        if {"", ".", ".."} & set(name.split("/")):
            raise ResultsError(
                f"{shown(self.url)}: nothing was copied: an object there is named {name!r}, which may lead "
                "out of the folder that it is copied to; delete it there, if you trust the rest"
            )

    def check_writable(self) -> None:
        """Raises ResultsError unless a file can be written here, read back and deleted."""
        name, content = f".probe-{uuid.uuid4().hex}", b"rlprune"
        self.write(name, content)
        if self.read(name) != content:
            raise ResultsError(f"{shown(self.url)}: what is written there cannot be read back")
        self.delete(name)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResultsError(f"{shown(self.url)}: {error}") from error


def run_files(remote: RemoteFolder) -> list[str]:
    """The files of a run, without the trials' own and without who drives it."""
    return [name for name in remote.files() if not name.startswith(f"{TRIALS_OWN}/") and name != DRIVER]


def download_run(url: str, to: Path) -> None:
    """Copies a run, without the trials' own files, into a folder of this machine.

    Raises:
        ResultsError: There is no run, or the folder holds another one.
    """
    remote = RemoteFolder(url)
    about = remote.read(_ABOUT)
    if about is None:
        raise ResultsError(f"{shown(url)}: holds no {_ABOUT}; expected the folder of a run")
    if to.exists() and not (to.is_dir() and (to / _ABOUT).is_file() and (to / _ABOUT).read_bytes() == about):
        raise ResultsError(
            f"{to}: holds something else than a copy of {shown(url)}; name another folder with --to"
        )
    remote.download(run_files(remote), to)


@contextmanager
def fetched(place: str | Path) -> Iterator[Path]:
    """A folder as a path of this machine: itself, or a copy of a remote one for the time of the block."""
    if not is_url(place):
        yield local_path(place)
        return
    remote = RemoteFolder(str(place))
    with tempfile.TemporaryDirectory(prefix="rlprune-") as folder:
        remote.download(remote.files(), Path(folder))
        yield Path(folder)


def _open(url: str) -> tuple[Any, str]:
    """The file system of an address, and the folder's path in it."""
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    parts = urlsplit(url)
    if parts.scheme == "s3":
        path = unquote(parts.path).strip("/")
        filesystem, bucket = _bucket(urlunsplit(parts._replace(path="")))
        return filesystem, f"{bucket}/{path}"
    try:
        filesystem, root = FileSystem.from_uri(url)
    except ValueError as error:
        if "Unrecognized filesystem" not in str(error):
            raise
        import fsspec

        known, root = fsspec.core.url_to_fs(url)
        filesystem = PyFileSystem(FSSpecHandler(known))
    return filesystem, str(root)


@lru_cache(maxsize=64)
def _bucket(url: str) -> tuple[Any, str]:
    """The file system of a bucket, and its name: one for all folders.

    Making one asks the machine's metadata service, which only EC2 has: elsewhere that may take ten seconds.
    """
    from pyarrow.fs import FileSystem

    filesystem, bucket = FileSystem.from_uri(url)
    return filesystem, bucket
