"""coursework.data: laws against their exact characteristic functions, image sets against known facts and damage."""

import gzip
import hashlib
import http.client
import math
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.datasets import load_digits
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.datasets import CIFAR10, FashionMNIST

from coursework.data import (
    ImageData,
    available,
    batches,
    checkerboard,
    default_images,
    files,
    load,
    rings,
    spirals,
    swiss_roll,
    two_moons,
)

LAWS = [two_moons, swiss_roll, checkerboard, rings, spirals]
N = 200_000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- laws in the plane

GRID = (np.arange(20_000) + 0.5) / 20_000  # midpoints, for integrals over a uniform variable


def circle(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def moons_curve():
    angle = np.pi * GRID
    return np.concatenate([circle(angle), [1, 0.5] - circle(angle)]) - [0.5, 0.25]


def roll_curve():
    angle = 1.5 * np.pi + 3 * np.pi * GRID
    return angle[:, None] * circle(angle) - [2, 2 / (3 * np.pi)]


def spirals_curve():
    angle = 3 * np.pi * np.sqrt(GRID)
    return np.concatenate([angle[:, None] * circle(angle), -angle[:, None] * circle(angle)])


def board_points():
    side = (np.arange(400) + 0.5) / 100 - 2
    x, y = np.meshgrid(side, side)
    dark = (np.floor(x) + np.floor(y)) % 2 == 0
    return np.stack([x[dark], y[dark]], axis=1)


def rings_points():
    noise, weight = scipy.special.roots_hermitenorm(15)
    radius = (np.array([1, 2, 3])[:, None] + 0.1 * noise).ravel()
    points = radius[:, None, None] * circle(2 * np.pi * GRID[::20])
    weights = np.tile(weight / weight.sum(), 3)[:, None].repeat(points.shape[1], axis=1)
    return points.reshape(-1, 2), weights.ravel() / weights.sum()


def exact_law(law):
    """Points and weights of the law without its planar noise, that noise's deviation, and the scale s."""
    if law is two_moons:
        return moons_curve(), None, 0.05, math.sqrt((21 / 16 - 1 / math.pi) / 2 + 0.05**2)
    if law is swiss_roll:
        mean = 4 + 4 / (9 * math.pi**2)
        return roll_curve(), None, 0.3, math.sqrt((39 * math.pi**2 / 4 - mean) / 2 + 0.3**2)
    if law is checkerboard:
        return board_points(), None, 0.0, 2 / math.sqrt(3)
    if law is rings:
        return *rings_points(), 0.0, math.sqrt((14 / 3 + 0.1**2) / 2)
    return spirals_curve(), None, 0.2, math.sqrt(9 * math.pi**2 / 4 + 0.2**2)


def characteristic_function(law, w):
    points, weights, noise, scale = exact_law(law)
    w = np.asarray(w) / scale
    return np.average(np.exp(1j * points @ w), weights=weights) * np.exp(-(noise**2) * (w @ w) / 2)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("w", [(1, 0), (0, 1), (2, 1), (-1, 3), (4, -2), (3, 5), (-7, 6)])
def test_law_has_its_characteristic_function(law, w):
    phase = law(N, generator=seeded(), dtype=torch.float64) @ torch.tensor(w, dtype=torch.float64)
    exact = characteristic_function(law, w)
    for value, expected in ((phase.cos(), exact.real), (phase.sin(), exact.imag)):
        error = (value.mean() - expected) / (value.std() / math.sqrt(N))
        assert abs(error) < 4  # standard errors


@pytest.mark.parametrize("law", LAWS)
def test_law_is_centred_with_unit_variance_on_average(law):
    x = law(N, generator=seeded(1), dtype=torch.float64)
    square = x.square().sum(1)
    assert (x.mean(0).abs() < 4 * x.std(0) / math.sqrt(N)).all()
    assert abs(square.mean() - 2) < 4 * square.std() / math.sqrt(N)


def test_checkerboard_fills_its_dark_squares_evenly_and_no_other():
    x = checkerboard(N, generator=seeded(2), dtype=torch.float64) * 2 / math.sqrt(3)
    square = x.floor().long()
    assert square.min() == -2
    assert square.max() == 1
    assert (square.sum(1) % 2 == 0).all()
    counts = (4 * (square[:, 0] + 2) + square[:, 1] + 2).bincount()
    assert (counts > 0).sum() == 8
    assert scipy.stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    assert scipy.stats.kstest((x - square).flatten().numpy(), "uniform").pvalue > 1e-3
    product = x.prod(1) * 3 / 4
    assert abs(product.mean() - 3 / 16) < 4 * product.std() / math.sqrt(N)


def test_rings_have_normal_radii_even_angles_and_equal_weights():
    x = rings(N, generator=seeded(3), dtype=torch.float64).numpy() * math.sqrt((14 / 3 + 0.01) / 2)
    radius = np.hypot(x[:, 0], x[:, 1])
    nearest = radius.round().astype(int)
    assert scipy.stats.chisquare(np.bincount(nearest, minlength=4)[1:]).pvalue > 1e-3
    assert scipy.stats.kstest((radius - nearest) / 0.1, "norm").pvalue > 1e-3
    assert scipy.stats.kstest(np.arctan2(x[:, 1], x[:, 0]), "uniform", args=(-np.pi, 2 * np.pi)).pvalue > 1e-3


@pytest.mark.parametrize("law", [two_moons, swiss_roll, spirals])
def test_curves_stay_within_six_deviations_of_the_noise(law):
    points, _, noise, scale = exact_law(law)
    x = law(2000, generator=seeded(4), dtype=torch.float64) * scale
    distance = torch.cdist(x, torch.from_numpy(points[::4])).min(1).values
    assert distance.max() < 6 * noise
    assert distance.square().mean().sqrt() > 0.8 * noise  # and the noise is there: its part across the curve


@pytest.mark.parametrize("law", LAWS)
def test_generator_decides_every_point(law):
    first, again, other = law(50, generator=seeded(5)), law(50, generator=seeded(5)), law(50, generator=seeded(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (50, 2)
    assert first.dtype == torch.get_default_dtype()
    assert law(3, device="meta", dtype=torch.float64).device.type == "meta"
    assert law(3, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "^n: "),
        ({"n": 2.0}, TypeError, "^n: "),
        ({"n": 5, "dtype": torch.int64}, TypeError, "^dtype: "),
        ({"n": 5, "device": "meta", "generator": torch.Generator()}, ValueError, "^generator: "),
    ],
)
def test_laws_refuse_bad_arguments(law, options, error, message):
    with pytest.raises(error, match=message):
        law(**options)


# ---------------------------------------------------------------- digits


def test_digits_are_scikit_learns_scaled_and_split_by_class():
    source = load_digits()
    train, test = load("digits"), load("digits", split="test", dtype=torch.float64)
    assert (len(train), len(test)) == (1442, 355)
    assert train.images.shape == (1442, 1, 8, 8)
    assert train.images.dtype == torch.float32
    assert test.images.dtype == torch.float64
    assert train.labels.dtype == torch.int64
    assert train.class_names == tuple("0123456789")
    assert (train.images.min(), train.images.max()) == (-1, 1)
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (train.labels.bincount() + test.labels.bincount()).tolist() == counts
    assert test.labels.bincount().tolist() == [count // 5 for count in counts]
    for label in range(10):
        expected = torch.from_numpy(source.images[source.target == label])
        assert torch.equal(test.images[test.labels == label, 0] * 8 + 8, expected[4::5])
        kept = torch.arange(len(expected)) % 5 != 4
        assert torch.equal(train.images[train.labels == label, 0].double() * 8 + 8, expected[kept])


def test_n_takes_the_first_images():
    some, every = load("digits", n=7), load("digits")
    assert torch.equal(some.images, every.images[:7])
    assert torch.equal(some.labels, every.labels[:7])


def test_load_puts_everything_on_the_device():
    data = load("digits", device="meta")
    assert data.images.device.type == data.labels.device.type == "meta"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"name": "svhn"},
            ValueError,
            "name: expected one of 'digits', 'fashion-mnist', 'mnist', 'cifar10', got 'svhn'",
        ),
        ({"name": "digits", "split": "val"}, ValueError, "split: expected one of 'train', 'test', got 'val'"),
        ({"name": "digits", "dtype": torch.uint8}, TypeError, "dtype: .* got torch.uint8"),
        ({"name": "digits", "n": 0}, ValueError, "n: expected at least 1, got 0"),
        ({"name": "digits", "n": 1443}, ValueError, "n: expected at most the 1442 images .*, got 1443"),
    ],
)
def test_load_refuses_bad_arguments(options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        load(**options)


# ---------------------------------------------------------------- Fashion-MNIST, the real one


@pytest.mark.needs("fashion-mnist")
def test_real_fashion_mnist_has_its_published_size_and_moments():
    train, test = load("fashion-mnist", download=False), load("fashion-mnist", split="test", download=False)
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    assert train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert train.class_names[9] == "Ankle boot"
    pixels = (train.images + 1) / 2
    assert pixels.mean() == pytest.approx(0.2860, abs=5e-5)
    assert pixels.std() == pytest.approx(0.3530, abs=5e-5)
    assert (train.images.min(), train.images.max()) == (-1, 1)


# ---------------------------------------------------------------- files, in folders of our own

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
N_TEST = 10_000


def idx(array, magic=None):
    header = struct.pack(f">{array.ndim + 1}I", magic or 0x0800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def pictures(n=N_TEST, value=0):
    """Image i is i everywhere modulo 256, but for its corner, which is `value`."""
    array = np.broadcast_to((np.arange(n) % 256)[:, None, None], (n, 28, 28)).copy()
    array[:, 0, 0] = value
    return array


def fill(folder, *, zipped=False, value=0):
    """Fashion-MNIST's files, with a made-up test split and a training split of ten images (so that it is no good)."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        IMAGES: idx(pictures(value=value)),
        LABELS: idx(np.arange(N_TEST) % 10),
        "train-images-idx3-ubyte": idx(pictures(10)),
        "train-labels-idx1-ubyte": idx(np.arange(10)),
    }
    for name, content in contents.items():
        path = folder / f"{name}.gz" if zipped else folder / name
        path.write_bytes(gzip.compress(content, 1) if zipped else content)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """COURSEWORK_DATA, the system's folder and the cache, all empty and below tmp_path."""
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("COURSEWORK_DATA", str(tmp_path / "own"))
    monkeypatch.setattr(files, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "own"


def left_in_cache(own):
    return [path for path in (own.parent / "cache").rglob("*") if path.is_file()]


def one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", ["FashionMNIST/raw", "fashion-mnist", "."])
def test_folder_layouts_plain_and_zipped(own, layout, zipped):
    fill(own / layout, zipped=zipped)
    data = load("fashion-mnist", split="test", download=False)
    assert torch.equal(data.images, torch.from_numpy(pictures())[:, None].float() / 127.5 - 1)
    assert torch.equal(data.labels, torch.arange(N_TEST) % 10)
    assert default_images() == "fashion-mnist"
    assert available()["fashion-mnist"] == str(own / layout)
    assert available()["mnist"] is None


def test_mnist_needs_a_folder_of_its_own_name(own):
    fill(own / "mnist")
    assert available() == {
        "digits": "scikit-learn",
        "fashion-mnist": None,
        "mnist": str(own / "mnist"),
        "cifar10": None,
    }
    with pytest.raises(ValueError, match="its labels are not those of mnist's test split"):
        load("mnist", split="test")


def test_search_order(own, monkeypatch):
    root = own.parent
    assert default_images() == "digits"
    for value, folder in ((3, "cache/FashionMNIST/raw"), (2, "system/fashion-mnist"), (1, "own/FashionMNIST/raw")):
        fill(root / folder, value=value)
        found = load("fashion-mnist", split="test", n=1).images[0, 0, 0, 0]
        assert found == torch.tensor(value / 127.5 - 1)
    monkeypatch.setenv("COURSEWORK_DATA", "")
    assert available()["fashion-mnist"] == str(root / "system" / "fashion-mnist")


def test_incomplete_folder_is_passed_over(own):
    fill(own)
    (own / LABELS).unlink()
    assert available()["fashion-mnist"] is None
    with pytest.raises(FileNotFoundError) as error:
        load("fashion-mnist", download=False)
    one_line(error, "COURSEWORK_DATA", "FashionMNIST/raw", "apt install dataset-fashion-mnist", '"digits"')


def test_coursework_data_that_is_no_folder(own, monkeypatch):
    fill(own.parent / "system" / "fashion-mnist")
    monkeypatch.setenv("COURSEWORK_DATA", str(own / "typo"))
    for call in (default_images, partial(load, "fashion-mnist")):
        with pytest.raises(FileNotFoundError) as error:
            call()
        one_line(error, "COURSEWORK_DATA", own / "typo")
    assert available()["fashion-mnist"] is None
    assert len(load("digits")) == 1442


def zip_tail(content):
    """Gzipped, with the checksum at its end changed."""
    zipped = bytearray(gzip.compress(content, 1))
    zipped[-8] ^= 1
    return bytes(zipped)


WHOLE = idx(pictures())
MNIST_LABELS = np.repeat(np.arange(10), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
OUTSIDE = np.where(np.arange(N_TEST) == 7, 10, np.arange(N_TEST) % 10)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param(f"{IMAGES}.gz", gzip.compress(WHOLE, 1)[:-1000], id="truncated gzip"),
        pytest.param(f"{IMAGES}.gz", zip_tail(WHOLE), id="gzip with a wrong checksum"),
        pytest.param(f"{IMAGES}.gz", WHOLE, id="plain file called gz"),
        pytest.param(f"{IMAGES}.gz", b"", id="empty gzip"),
        pytest.param(f"{IMAGES}.gz", gzip.compress(WHOLE[:-1], 1), id="truncated before zipping"),
        pytest.param(IMAGES, b"", id="empty"),
        pytest.param(IMAGES, WHOLE[:3], id="less than a magic number"),
        pytest.param(IMAGES, WHOLE[:16], id="header only"),
        pytest.param(IMAGES, WHOLE[:-1], id="truncated by a byte"),
        pytest.param(IMAGES, WHOLE + b"\0", id="a byte too long"),
        pytest.param(IMAGES, idx(pictures(), magic=0x0801), id="magic number of labels"),
        pytest.param(IMAGES, idx(pictures(), magic=0x0D03), id="magic number of floats"),
        pytest.param(IMAGES, idx(pictures(), magic=0x1F8B0803), id="magic number of nothing"),
        pytest.param(IMAGES, idx(pictures()[:-1]), id="an image too few"),
        pytest.param(IMAGES, idx(pictures().reshape(N_TEST, 14, 56)), id="not 28 by 28"),
        pytest.param(IMAGES, idx(np.arange(N_TEST) % 10), id="labels in place of images"),
        pytest.param(LABELS, idx(np.arange(60_000) % 10), id="labels of the other split"),
        pytest.param(LABELS, idx(MNIST_LABELS), id="labels of MNIST"),
        pytest.param(LABELS, idx(OUTSIDE), id="a label out of range"),
        pytest.param(LABELS, idx(np.arange(N_TEST - 1) % 10), id="a label too few"),
        pytest.param(LABELS, WHOLE, id="images in place of labels"),
    ],
)
def test_damaged_or_foreign_files_are_refused_by_name(own, file, content):
    fill(own)
    (own / file.removesuffix(".gz")).unlink()
    (own / file).write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an intact|expected an IDX|its labels are not") as error:
        load("fashion-mnist", split="test")
    one_line(error, own / file)


# ---------------------------------------------------------------- downloads


@pytest.mark.parametrize("name", ["fashion-mnist", "mnist", "cifar10"])
@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError(socket.gaierror(-2, "Name or service not known")),
        TimeoutError("timed out"),
        ConnectionResetError(),
        http.client.IncompleteRead(b""),
        "503",
    ],
    ids=str,
)
def test_no_network_is_one_line_and_leaves_nothing(own, monkeypatch, name, failure):
    def urlopen(request, *_):
        if failure == "503":
            raise urllib.error.HTTPError(request.full_url, 503, "Service Unavailable", None, None)
        raise failure

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    before = socket.getdefaulttimeout()
    with pytest.raises(ConnectionError) as error:
        load(name)
    one_line(error, f"{name}: not found, and the download failed (", "COURSEWORK_DATA", '"digits"')
    assert left_in_cache(own) == []
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(("failure", "raised"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, ConnectionError)])
def test_interrupted_download_leaves_nothing(own, monkeypatch, failure, raised):
    def half(self):
        fill(Path(self.raw_folder))
        Path(self.raw_folder, IMAGES).write_bytes(WHOLE[:5000])
        raise failure

    monkeypatch.setattr(FashionMNIST, "download", half)
    with pytest.raises(raised):
        load("fashion-mnist", split="test")
    assert list((own.parent / "cache").iterdir()) == []
    assert available()["fashion-mnist"] is None


def test_interrupted_move_is_not_taken_for_a_cache_and_is_mended(own, monkeypatch):
    moved = []

    def replace(source, target, real=os.replace):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(target)
        real(source, target)

    monkeypatch.setattr(FashionMNIST, "download", lambda self: fill(Path(self.raw_folder)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            load("fashion-mnist", split="test")
    assert len(left_in_cache(own)) == 2
    assert available()["fashion-mnist"] is None
    assert len(load("fashion-mnist", split="test")) == N_TEST
    assert available()["fashion-mnist"] == str(own.parent / "cache" / "FashionMNIST" / "raw")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror of our own on this machine, with Fashion-MNIST's files and their checksums."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    folder = tmp_path / "mirror"
    fill(folder, zipped=True)
    sums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]
    mirror = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=mirror.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{mirror.server_port}/"])
    yield folder
    mirror.shutdown()
    thread.join()
    mirror.server_close()


def test_download_fills_the_cache_once(own, server, monkeypatch):
    data = load("fashion-mnist", split="test")
    assert torch.equal(data.labels, torch.arange(N_TEST) % 10)
    names = {path.name.removesuffix(".gz") for path in server.iterdir()}
    assert {
        path.relative_to(own.parent / "cache" / "FashionMNIST" / "raw").name for path in left_in_cache(own)
    } == names
    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    assert torch.equal(load("fashion-mnist", split="test").images, data.images)


def test_download_with_a_wrong_checksum_is_thrown_away(own, server):
    path = server / f"{LABELS}.gz"
    path.write_bytes(gzip.compress(idx(np.arange(N_TEST) % 9), 1))
    with pytest.raises(ConnectionError) as error:
        load("fashion-mnist", split="test")
    one_line(error, "corrupted")
    assert left_in_cache(own) == []


def test_silent_server_is_given_up(own, monkeypatch):
    monkeypatch.setattr(files, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(ConnectionError) as error:
            load("fashion-mnist")
    one_line(error, "timed out")
    assert left_in_cache(own) == []


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/big/cache"}, "/big/cache/coursework"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/coursework"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/me/.cache/coursework"),
        ("darwin", {}, "/home/me/Library/Caches/coursework"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/coursework"),
        ("win32", {"LOCALAPPDATA": ""}, "/home/me/AppData/Local/coursework"),
    ],
)
def test_cache_folder_follows_the_platform(monkeypatch, platform, variables, expected):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert files.cache_folder() == Path(expected)


# ---------------------------------------------------------------- CIFAR-10, a tiny one


@pytest.fixture
def cifar(own, monkeypatch):
    """Four images in each of the five training files, three in the test file, and checksums to match."""
    folder = own / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (23, 3072), dtype=np.uint8)
    labels = [i % 10 for i in range(23)]

    def write(name, content):
        (folder / name).write_bytes(content)
        return [name, hashlib.md5(content).hexdigest()]

    def batch(name, start, stop):
        return write(name, pickle.dumps({"data": pixels[start:stop], "labels": labels[start:stop]}))

    names = CIFAR10.train_list
    monkeypatch.setattr(CIFAR10, "train_list", [batch(n, 4 * i, 4 * i + 4) for i, (n, _) in enumerate(names)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", 20, 23)])
    md5 = write("batches.meta", pickle.dumps({"label_names": list("abcdefghij")}))[1]
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5})
    return folder, torch.from_numpy(pixels).reshape(-1, 3, 32, 32), torch.tensor(labels)


def test_cifar_is_read_channels_first(cifar):
    folder, pixels, labels = cifar
    assert available()["cifar10"] == str(folder)
    for split, part in (("train", slice(0, 20)), ("test", slice(20, 23))):
        data = load("cifar10", split=split, download=False)
        assert torch.equal(data.images, pixels[part].float() / 127.5 - 1)
        assert data.images.is_contiguous()
        assert torch.equal(data.labels, labels[part])
        assert data.class_names == tuple("abcdefghij")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_cifar_with_a_wrong_checksum_is_never_unpickled(cifar, tmp_path, name):
    folder, _, _ = cifar
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="checksum") as error:
            load("cifar10", split=split)
        one_line(error, folder / name)
    assert not (tmp_path / "sprung").exists()


# ---------------------------------------------------------------- batches


def numbered(n, device="cpu"):
    number = torch.arange(n, device=device)
    return ImageData(number[:, None, None, None].expand(n, 1, 2, 3).float(), number, ("a",))


@pytest.mark.parametrize(("n", "batch_size"), [(23, 5), (20, 5), (3, 8)])
def test_epoch_has_every_image_once_with_its_label(n, batch_size):
    epoch = list(batches(numbered(n), batch_size, generator=seeded()))
    labels = torch.cat([label for _, label in epoch])
    assert labels.sort().values.tolist() == list(range(n))
    assert n == 3 or labels.tolist() != list(range(n))
    assert [len(label) for _, label in epoch] == [min(batch_size, n - i) for i in range(0, n, batch_size)]
    for images, label in epoch:
        assert images.shape == (len(label), 1, 2, 3)
        assert torch.equal(images[:, 0, 1, 2].long(), label)


def test_drop_last_leaves_whole_batches_only():
    epoch = list(batches(numbered(23), 5, generator=seeded(), drop_last=True))
    assert [len(label) for _, label in epoch] == [5, 5, 5, 5]
    assert len(torch.cat([label for _, label in epoch]).unique()) == 20
    assert len(list(batches(numbered(20), 5, drop_last=True))) == 4


def test_generator_decides_the_order_of_each_epoch():
    def order(generator):
        return torch.cat([label for _, label in batches(numbered(50), 7, generator=generator)]).tolist()

    generator = seeded(1)
    first, second = order(generator), order(generator)
    assert first == order(seeded(1))
    assert first != second


class IndexDevices(TorchDispatchMode):
    """Notes where the indices of every indexing lie: on another device than the data, each would cost a transfer."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index.Tensor:
            self.seen += [index.device.type for index in args[1]]
        return func(*args, **(kwargs or {}))


def test_batches_stay_on_the_device():
    with IndexDevices() as index_devices:
        for images, labels in batches(numbered(10, device="meta"), 4, generator=seeded()):
            assert images.device.type == labels.device.type == "meta"
    assert index_devices.seen == ["meta"] * 6


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "error"), [(0, False, ValueError), (2.5, False, TypeError), (11, True, ValueError)]
)
def test_batches_refuse_at_once(batch_size, drop_last, error):
    with pytest.raises(error, match=r"^batch_size: "):
        batches(numbered(10), batch_size, drop_last=drop_last)


# ---------------------------------------------------------------- imports


def test_importing_data_loads_neither_pictures_nor_slow_libraries_nor_topics():
    code = "import sys, coursework.data; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not any(
        name.split(".")[0] in ("matplotlib", "seaborn", "ipywidgets", "torchvision", "sklearn") for name in loaded
    )
    own = {name for name in loaded if name.startswith("coursework.") and not name.startswith("coursework.data")}
    assert own == {"coursework._arguments"}
