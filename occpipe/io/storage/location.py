"""The text of INPUT, OUTPUT or an entry of a list in one form: an absolute path, or a URI.

Everything that opens a store calls `locate`, so a text means the same place everywhere.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from urllib.parse import unquote

from occpipe.core.errors import ConfigError

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_NO_SLASH = re.compile(r"(s3[an]?|gcs|gs|az|abfss?|hdfs|https?|file|arn):", re.IGNORECASE)
_WINDOWS = re.compile(r"([A-Za-z]):[\\/]|\\\\")
_BUCKETS = ("s3", "gs", "az")
_SAME = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Other names of a scheme, in Spark and in fsspec."""


def scheme_of(uri: str) -> str | None:
    """The scheme of a URI in lower case (`s3` for `s3://bucket/x`), None for a local path."""
    match = _URI.match(uri)
    return match.group(1).lower() if match else None


def locate(text: str, what: str = "the path") -> str:
    """The place of a text: an absolute local path, or a URI with a scheme in lower case; without a slash at its end.

    `~` is the home folder, and a relative path begins at the current one. `file:` URIs are decoded and become paths.
    Nothing is contacted. Raises ConfigError with `what` and a hint for a text that is not a place: a typing error such as
    `s3:/bucket` must not become a local folder of that name.

    >>> locate("S3://bucket/photos/")
    's3://bucket/photos'
    >>> locate("file:///home/me/My%20Photos")
    '/home/me/My Photos'
    """
    if not text.strip():
        raise ConfigError(f"{what} is empty; give a folder or a URI")
    if text in ("-", "/dev/stdin", "/dev/stdout") or text.startswith("/dev/fd/"):
        raise ConfigError(
            f"{what} {text!r}: standard input and output are not supported; give a file, a folder or a URI"
        )
    if any(ord(character) < 32 for character in text):
        raise ConfigError(f"{what} {text!r} contains control characters")
    if text.lower().startswith("file:/"):
        return _local(_file_path(text, what))
    if scheme := scheme_of(text):
        return _uri(scheme, text[len(scheme) + 3 :], what)
    if windows := _WINDOWS.match(text):
        drive = f"; in WSL it is /mnt/{windows[1].lower()}/..." if windows[1] else ""
        raise ConfigError(f"{what} {text!r} is a Windows path{drive}")
    if typo := _ONE_SLASH.match(text) or _NO_SLASH.match(text):
        rest = text[typo.end() :].lstrip("/")
        suggestion = f"{typo[1].lower()}://{rest}" if typo[1].lower() != "arn" else f"s3://{text.rpartition(':')[2]}"
        raise ConfigError(
            f"{what} {text!r} is neither a URI nor a path: did you mean {suggestion}, or the folder ./{text}?"
        )
    return _local(text)


def split_name(place: str) -> tuple[str, str]:
    """The folder and the name of a place as `locate` returns it; the name is empty for a root or a bucket.

    >>> split_name("/list.txt")
    ('/', 'list.txt')
    >>> split_name("s3://list.txt")
    ('s3://list.txt', '')
    """
    folder, _, name = place.rpartition("/")
    if folder.endswith(":/"):
        return place, ""
    return folder or "/", name


def _local(text: str) -> str:
    path = Path(text)
    with contextlib.suppress(RuntimeError):  # no such user: a file name that begins with ~
        path = path.expanduser()
    try:
        return str(path.absolute())
    except FileNotFoundError:
        raise ConfigError(
            f"{text!r} is relative to the current folder, and that was deleted; change to another one"
        ) from None


def _file_path(text: str, what: str) -> str:
    """The path of a `file:` URI (RFC 8089); a URI with another host is refused."""
    path = text[len("file:") :]
    if path.startswith("//"):
        host, slash, rest = path[2:].partition("/")
        if host not in ("", "localhost"):
            raise ConfigError(f"{what} {text!r}: {host} would be a host; write file:///{host}/{rest} for a path")
        path = slash + rest
    if not path:
        raise ConfigError(f"{what} {text!r} names no path")
    return unquote(path)


def _uri(scheme: str, rest: str, what: str) -> str:
    scheme = _SAME.get(scheme, scheme)
    rest = rest.rstrip("/")
    if scheme in _BUCKETS:
        rest = rest.lstrip("/")
        if not rest:
            raise ConfigError(f"{what} {scheme}:// names no bucket; write {scheme}://BUCKET/FOLDER")
    return f"{scheme}://{rest}"
