"""Where the files of an image set lie, and how they get there.

Searched in this order: the folder that the environment variable COURSEWORK_DATA names, the folder that Debian's package
dataset-fashion-mnist fills, the user's cache. Only then torchvision downloads into the cache.

torchvision is imported where it is needed: importing it takes as long as importing torch, and the toy laws need none.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10, MNIST

VARIABLE = "COURSEWORK_DATA"
SYSTEM_FOLDER = Path("/usr/share/datasets")  # Debian's dataset-fashion-mnist fills its subfolder fashion-mnist
TIMEOUT = 30.0  # seconds without an answer after which a download is given up

# Below each place searched: torchvision's folder first, then the flat ones. The files of Fashion-MNIST and MNIST have
# the same names, so those that lie in the place itself are taken for the former.
SUBFOLDERS = {
    "fashion-mnist": ("FashionMNIST/raw", "fashion-mnist", "."),
    "mnist": ("MNIST/raw", "mnist"),
    "cifar10": ("cifar-10-batches-py",),
}


def cache_folder() -> Path:
    """The user's cache for this course: below XDG_CACHE_HOME or ~/.cache, ~/Library/Caches, or LOCALAPPDATA."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "coursework")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "coursework"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given if os.path.isabs(given) else Path.home() / ".cache", "coursework")


def places() -> list[Path]:
    """The folders that are searched, the first one first. Raises FileNotFoundError if COURSEWORK_DATA names none."""
    given = os.environ.get(VARIABLE)
    if given and not os.path.isdir(os.path.expanduser(given)):
        raise FileNotFoundError(f"{VARIABLE}: expected a folder, got {given!r}, which is none; correct or unset it")
    first = [Path(given).expanduser()] if given else []
    return [*first, SYSTEM_FOLDER, cache_folder()]


def dataset_class(name: str) -> "type[MNIST] | type[CIFAR10]":
    """torchvision's class for the image set."""
    from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

    return {"fashion-mnist": FashionMNIST, "mnist": MNIST, "cifar10": CIFAR10}[name]


def file_names(name: str) -> list[str]:
    """The files of an image set, uncompressed, as torchvision's class of it lists them."""
    from torchvision.datasets import CIFAR10

    dataset = dataset_class(name)
    if issubclass(dataset, CIFAR10):
        return [file for file, _ in dataset.train_list + dataset.test_list] + [dataset.meta["filename"]]
    return [Path(file).stem for file, _ in dataset.resources]


def locate(folder: Path, file: str) -> Path | None:
    """The path of `file` in `folder`, plain or as .gz, or None if it is not there."""
    return next((path for path in (folder / file, folder / f"{file}.gz") if os.path.isfile(path)), None)


def find(name: str) -> Path | None:
    """The first folder that holds all files of the image set, or None. Looks at names only."""
    folders = (place / below for place in places() for below in SUBFOLDERS[name])
    return next((folder for folder in folders if all(locate(folder, file) for file in file_names(name))), None)


def obtain(name: str, download: bool) -> Path:
    """The folder that holds the image set, downloaded into the user's cache if it is nowhere else.

    Raises FileNotFoundError if it is nowhere and `download` is False, ConnectionError if the download fails.
    """
    folder = find(name)
    if folder is not None:
        return folder
    if not download:
        raise FileNotFoundError(_advice(name, "not found, and download=False"))
    return _download(name)


def _download(name: str) -> Path:
    """Download beside the cache's folder and move each file in at the end, so no interruption leaves half a file."""
    below = SUBFOLDERS[name][0]
    target = cache_folder() / below
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache_folder()) as folder:
        _fetch(name, folder)
        target.mkdir(parents=True, exist_ok=True)
        for file in file_names(name):
            os.replace(Path(folder, below, file), target / file)
    return target


def _fetch(name: str, folder: str) -> None:
    """torchvision's download, which shows its progress and compares checksums, with every failure as one line."""
    try:
        with _socket_timeout(TIMEOUT):
            dataset_class(name)(folder, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ConnectionError(_advice(name, f"not found, and the download failed ({reason})")) from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Give up on sockets that stay silent; torchvision leaves its own to wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _advice(name: str, problem: str) -> str:
    package = ", `apt install dataset-fashion-mnist` on Debian or Ubuntu" if name == "fashion-mnist" else ""
    return (
        f"{name}: {problem}; set {VARIABLE} to a folder that has it in {SUBFOLDERS[name][0]}{package}, "
        'connect to the internet once, or use "digits"'
    )
