"""Where a folder is: a path of this machine, or a URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from rlprune.errors import ConfigError


def is_url(place: str | Path) -> bool:
    """Whether a place is on another system than this machine's files; ``file://`` is not."""
    return isinstance(place, str) and "://" in place and not place.startswith("file://")


def local_path(place: str | Path) -> Path:
    """The path of a place among this machine's files, which may be in a folder that all machines share.

    Raises:
        ConfigError: It begins with ``~NAME``, and nobody is named so; or it is on another machine.
    """
    text = str(place)
    path = _path_of_file_url(text) if text.startswith("file://") else text
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text} is in nobody's home folder; write the path without ~") from error


def _path_of_file_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(
            f"{url} names the machine {parts.netloc!r}; write the path as this machine has it: "
            "file:///PATH, or /PATH alone"
        )
    return unquote(parts.path)


def joined(place: str | Path, *names: str) -> str:
    """A place below another one; the options after a URL's question mark stay at its end."""
    if not is_url(place):
        return str(local_path(place).joinpath(*names))
    parts = urlsplit(str(place))
    return urlunsplit(parts._replace(path="/".join([parts.path.rstrip("/"), *names])))


def shown(place: str | Path) -> str:
    """A place as it may be printed: a URL without options and passwords."""
    if not is_url(place):
        return str(place)
    parts = urlsplit(str(place))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
