"""Small image sets as whole tensors, and batches of them.

`load` scales pixels to [-1, 1]; `batches` indexes on the device where the tensors are, without a DataLoader.
"""

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from coursework._arguments import at_least, one_of
from coursework.data.checks import floating_dtype
from coursework.data.files import SUBFOLDERS, dataset_class, find, locate, obtain

NAMES = ("digits", *SUBFOLDERS)
SPLITS = ("train", "test")

# Channels, rows and columns of one image.
SHAPES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}

# How many images each class has: their sum is the number of images, and they tell Fashion-MNIST from MNIST, whose files
# have the same names and sizes.
CLASS_COUNTS = {
    ("fashion-mnist", "train"): [6000] * 10,
    ("fashion-mnist", "test"): [1000] * 10,
    ("mnist", "train"): [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    ("mnist", "test"): [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}

# What torchvision's readers and gzip raise on a file that is not what its name says.
_UNREADABLE = (AssertionError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, zlib.error)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images (N, C, H, W) in [-1, 1], their labels, long (N,), and the classes' names, which labels index."""

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def load(
    name: str,
    *,
    split: str = "train",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    download: bool = True,
    n: int | None = None,
) -> ImageData:
    """Load one split of an image set, or its first n images, with black at -1 and white at 1.

    name: "digits" (1, 8, 8), "fashion-mnist" (1, 28, 28), "mnist" (1, 28, 28) or "cifar10" (3, 32, 32); split: "train"
    or "test". "digits" comes with scikit-learn and has no split of its own: here, of each class in the file's order,
    every fifth image is the test set's (355 images) and the others are the training set's (1442); the same people wrote
    both. The other sets are searched for in the folder that COURSEWORK_DATA names, in Debian's folder of Fashion-MNIST
    and in the user's cache, into which they are downloaded if they are nowhere and `download` is True.
    Raises ValueError or TypeError on a bad argument, ValueError naming the file if one is damaged, FileNotFoundError if
    there is no file (or no such folder as COURSEWORK_DATA says), ConnectionError if the download fails.
    """
    one_of(name, NAMES, "name")
    one_of(split, SPLITS, "split")
    floating_dtype(dtype, "dtype")
    if n is not None:
        n = at_least(n, 1, "n")
    pixels, labels, white, class_names = _read_digits(split) if name == "digits" else _read(name, split, download)
    if n is not None and n > len(pixels):
        raise ValueError(f"n: expected at most the {len(pixels)} images of {name}'s {split} split, got {n}")
    images = pixels[:n].to(dtype).div_(white / 2).sub_(1)  # before the move: GPUs divide less exactly
    return ImageData(images.to(device), labels[:n].to(device), class_names)


def available() -> dict[str, str | None]:
    """Where each image set is found on this machine, None if it would have to be downloaded. Opens no file."""
    return {"digits": "scikit-learn", **{name: _where(name) for name in SUBFOLDERS}}


def default_images() -> str:
    """The image set of the lessons: "fashion-mnist" where it is found, else "digits". Downloads nothing."""
    return "digits" if find("fashion-mnist") is None else "fashion-mnist"


def batches(
    data: ImageData, batch_size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch in random order: (images, labels) of batch_size each, the last one shorter unless drop_last.

    Every image comes exactly once. The order is drawn where the generator is (so the same one gives the same order for
    data on any device); the batches stay on the data's device. Raises if batch_size < 1 or no batch would be left.
    """
    batch_size = at_least(batch_size, 1, "batch_size")
    if drop_last and batch_size > len(data):
        raise ValueError(f"batch_size: expected at most {len(data)}, or drop_last leaves no batch, got {batch_size}")
    source = None if generator is None else generator.device
    order = torch.randperm(len(data), generator=generator, device=source).to(data.images.device)
    end = len(data) - len(data) % batch_size if drop_last else len(data)
    return ((data.images[index], data.labels[index]) for index in order[:end].split(batch_size))


def _where(name: str) -> str | None:
    try:
        folder = find(name)
    except FileNotFoundError:
        return None
    return None if folder is None else str(folder)


def _read_digits(split: str) -> tuple[torch.Tensor, torch.Tensor, int, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    one_hot = torch.nn.functional.one_hot(labels)
    rank = one_hot.cumsum(0).gather(1, labels[:, None])[:, 0]  # 1 for the first image of its class
    chosen = (rank % 5 == 0) == (split == "test")
    pixels = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
    return pixels[chosen], labels[chosen], 16, tuple(map(str, range(10)))


def _read(name: str, split: str, download: bool) -> tuple[torch.Tensor, torch.Tensor, int, tuple[str, ...]]:
    from torchvision.datasets import CIFAR10

    folder, dataset = obtain(name, download), dataset_class(name)
    if issubclass(dataset, CIFAR10):
        return _read_cifar(folder, split)
    return *_read_idx(folder, name, split), 255, tuple(dataset.classes)


def _read_cifar(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor, int, tuple[str, ...]]:
    """torchvision compares every file's checksum with the published one before it opens any."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    try:
        dataset = CIFAR10(folder.parent, train=split == "train")
    except RuntimeError as error:
        files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
        damaged = next(folder / file for file, md5 in files if not check_integrity(folder / file, md5))
        raise ValueError(f"{damaged}: damaged, its checksum is not the published one; replace it") from error
    pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(dataset.targets), 255, tuple(dataset.classes)


def _read_idx(folder: Path, name: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    start = {"train": "train", "test": "t10k"}[split]
    counts = CLASS_COUNTS[name, split]
    images = _parse(_there(folder, f"{start}-images-idx3-ubyte"), read_image_file, (sum(counts), 28, 28))
    path = _there(folder, f"{start}-labels-idx1-ubyte")
    labels = _parse(path, read_label_file, (sum(counts),))
    if labels.bincount(minlength=len(counts)).tolist() != counts:
        raise ValueError(f"{path}: damaged or of another data set, its labels are not those of {name}'s {split} split")
    return images[:, None], labels


def _there(folder: Path, file: str) -> Path:
    """The path of a file that was just found."""
    path = locate(folder, file)
    if path is None:
        raise FileNotFoundError(f"{folder / file}: it was there, and now is not")
    return path


def _parse(path: Path, read: Callable[[str], torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    """Read an IDX file, plain or gzipped, that must hold bytes of this shape."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            values = read(str(_unzip(path, folder) if path.suffix == ".gz" else path))
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path}: expected an intact IDX file of shape {shape}, cannot read it ({reason}); replace it"
        ) from error
    if values.shape != shape:
        raise ValueError(f"{path}: expected an IDX file of shape {shape}, got {tuple(values.shape)}; replace it")
    return values


def _unzip(path: Path, folder: str) -> Path:
    """Decompress into `folder`; torchvision's readers take plain files only."""
    plain = Path(folder, path.stem)
    with gzip.open(path) as source, open(plain, "wb") as target:
        shutil.copyfileobj(source, target)
    return plain
