"""Where data sets are looked for, and how they are downloaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from minigrad import config
from minigrad.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress

Files: TypeAlias = dict[str, Path]  # by the names that the data set gives them

_TIMEOUT = 5.0  # seconds without an answer; short, so that a machine without a network soon goes on without one
_CHUNK = 1 << 16


def data_folders(data: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Folders the user names, in the order in which they are searched: ``data``, then ``MINIGRAD_DATA``.

    Raises:
        DataError: if the next one is not a folder: what is named and not there is a slip.
    """
    for who, named in (("data", None if data is None else Path(data).expanduser()),
                       ("MINIGRAD_DATA", config.data_directory())):  # fmt: skip
        if named is not None:
            if not named.is_dir():
                raise DataError.of(who, "a folder that holds data sets", f"{named}, where there is no folder")
            yield named


def cache_folder(name: str) -> Path:
    """Where the data set ``name`` is kept once downloaded: under ``MINIGRAD_CACHE``, else the user's cache."""
    return config.cache_directory() / "data" / name


def locate(
    name: str,
    folders: Sequence[str],
    find: Callable[[Path], tuple[Files, Sequence[str]]],
    data: str | os.PathLike[str] | None,
    download: Callable[[Path], None] | None,
) -> tuple[Files, str]:
    """The files of a data set, in the first place that has them.

    Searched in order: ``data``, the folder in ``MINIGRAD_DATA``, the cache; at last they are downloaded into the cache.

    Args:
        name: the data set's, for people.
        folders: what its own folder may be called in a folder of data sets; the first is its name in the cache.
        find: which of its files are in a folder, and the names of those that are missing beside them.
        data: a folder to look in first.
        download: brings what is missing into the cache, or raises ``DataError``; None stays off the network.

    Returns:
        The files and their place; without files, an account of where they were looked for.

    Raises:
        DataError: if a folder that the user names is none, or has only some of the files.
    """
    named = []
    for folder in data_folders(data):
        named.append(folder)
        for place in (*(folder / inner for inner in folders), folder):
            files, missing = find(place)
            if files and missing:
                raise DataError.of(str(place), f"all files of {name}", f"only {', '.join(sorted(files))}",
                                   f"put {', '.join(missing)} beside them")  # fmt: skip
            if files:
                return files, str(place)

    cache, reason = cache_folder(folders[0]), "download not tried"
    files, missing = find(cache)
    if download is not None and (missing or not files):
        try:
            download(cache)
        except DataError as error:
            reason = str(error)
        files, missing = find(cache)
    if files and not missing:
        return files, str(cache)
    looked = ", ".join(str(place) for place in (*named, cache))
    return {}, f"  looked in {looked}; {reason}"


def fetch(names: Iterable[str], mirrors: Sequence[str], folder: Path, verify: Callable[[str, Path], object]) -> None:
    """Download files into ``folder``, each from the first mirror that has it intact, with a progress bar on stderr.

    A file appears in ``folder`` whole and verified or not at all.

    Args:
        names: file names, appended to a mirror's URL.
        mirrors: base URLs that end in a slash, in order of preference.
        folder: made if it is not there.
        verify: called with a name and a downloaded file before that is put in place; raises ``DataError`` if it is bad.

    Raises:
        DataError: if no mirror has a file intact, with the reason of each, or the folder cannot be written to.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A folder of its own beside the destination: renaming out of it is atomic, and leaving it cleans up.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
                for name in names:
                    part = Path(temporary, name)
                    _fetch_one(name, mirrors, part, verify, progress)
                    part.replace(folder / name)
    except OSError as error:
        raise DataError.of(str(folder), "a folder to download into", error) from error


def _fetch_one(
    name: str, mirrors: Sequence[str], part: Path, verify: Callable[[str, Path], object], progress: Progress
) -> None:
    from http.client import HTTPException

    reasons: dict[str, list[str]] = {}
    for mirror in mirrors:
        try:
            _copy(mirror + name, part, progress)
            verify(name, part)
        except (OSError, HTTPException, DataError) as error:
            cause = getattr(error, "reason", error)  # what the network said, where there is no answer
            reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            reasons.setdefault(reason.splitlines()[0], []).append(mirror.partition("://")[2].rstrip("/"))
        else:
            return
    got = "; ".join(f"{reason} ({' and '.join(places)})" for reason, places in reasons.items())
    raise DataError.of(f"download of {name}", "an intact file from one of the mirrors", got)


def _copy(url: str, part: Path, progress: Progress) -> None:
    import urllib.request  # some 50 ms that only a download needs

    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, part.open("wb") as out:
        size = response.headers["Content-Length"]
        task = progress.add_task(part.name, total=int(size) if size else None)
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            progress.advance(task, len(chunk))
