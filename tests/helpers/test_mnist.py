"""Digits from each of their sources."""

import hashlib
import os
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from sklearn.datasets import load_digits

from helpers import mnist
from helpers.data import find_data
from helpers.mnist import load_mnist


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A file with the arrays of MNIST in it, random but of the right shapes."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 60_000), ("test", 10_000)):
        arrays[f"x_{part}"] = np.zeros((n, 28, 28), np.uint8)
        arrays[f"x_{part}"][:, 0, 0] = rng.integers(0, 256, n)
        arrays[f"y_{part}"] = rng.integers(0, 10, n).astype(np.uint8)
    arrays["x_train"][0, 0, 0] = arrays["x_test"][0, 0, 0] = 255
    path = tmp_path / "mnist.npz"
    monkeypatch.setattr(mnist, "find_data", lambda name: path)

    def write(**changes):
        np.savez(path, **{**arrays, **changes})
        return arrays

    return write


def test_the_chosen_digits_are_kept_in_order(archive):
    arrays = archive()
    digits = load_mnist((3, 5))
    chosen = np.isin(arrays["y_train"], (3, 5))
    np.testing.assert_array_equal(digits.y_train, arrays["y_train"][chosen])
    np.testing.assert_allclose(
        digits.x_train, arrays["x_train"][chosen] / np.float32(255), rtol=1e-6
    )
    assert digits.source == "MNIST" and digits.x_train.dtype == np.float32
    assert digits.y_train.dtype == np.int64


def test_a_rehearsal_has_the_first_tenth_of_the_digits(archive, monkeypatch):
    archive()
    whole = load_mnist((3, 5))
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    part = load_mnist((3, 5))
    for name in ("x_train", "y_train", "x_test", "y_test"):
        n = max(300, len(getattr(whole, name)) // 10)  # fewer than 300 would be too few to train on
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:n])


def test_an_archive_of_something_else_is_refused(archive):
    archive(x_train=np.zeros((10, 28, 28)))
    with pytest.raises(ValueError, match=r"mnist.npz: x_train has shape \(10, 28, 28\)"):
        load_mnist()


def test_a_damaged_archive_is_refused(archive, tmp_path):
    archive()
    path = tmp_path / "mnist.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"mnist\.npz is not a readable MNIST archive"):
        load_mnist()


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_named_and_not_waited_for(archive, tmp_path, put):
    put(tmp_path / "mnist.npz")
    with pytest.raises(ValueError, match=r"mnist\.npz: expected MNIST's file, found no file; move"):
        load_mnist()


def test_without_mnist_small_digits_stand_in_and_say_so(monkeypatch):
    def nothing():
        raise FileNotFoundError("no network")

    monkeypatch.setattr(mnist, "_mnist", nothing)
    message = (
        r"^MNIST was neither found nor downloaded: using scikit-learn's 1,797 small digits instead"
        r".* For the real thing, run python -m tools\.download mnist, or put mnist\.npz into the "
        r"data folder\.$"
    )
    with pytest.warns(UserWarning, match=message):
        digits = load_mnist((3, 5))
    assert digits.source == "scikit-learn's 8 × 8 digits, enlarged"  # a caption's words
    assert set(digits.y_train) == set(digits.y_test) == {3, 5}
    with pytest.raises(FileNotFoundError, match="no network"):
        load_mnist(source="mnist")


@pytest.fixture
def served(archive, tmp_path, monkeypatch):
    """MNIST on a server of this machine, and nothing in the data folder."""
    arrays = archive()
    files = tmp_path / "files"
    files.mkdir()
    (tmp_path / "mnist.npz").rename(files / "mnist.npz")
    handler = partial(SimpleHTTPRequestHandler, directory=files)
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(mnist, "URL", f"http://127.0.0.1:{server.server_port}/mnist.npz")
    digest = hashlib.sha256((files / "mnist.npz").read_bytes()).hexdigest()
    monkeypatch.setattr(mnist, "CHECKSUM", f"sha256:{digest}")
    monkeypatch.setattr(mnist, "find_data", lambda name: None)
    monkeypatch.setattr(mnist, "data_folder", lambda: tmp_path / "data")
    yield arrays
    server.shutdown()
    server.server_close()


def test_what_is_missing_is_downloaded_to_the_data_folder(served, tmp_path, capsys):
    digits = load_mnist((1, 2, 8), source="mnist")
    chosen = np.isin(served["y_test"], (1, 2, 8))
    np.testing.assert_array_equal(digits.y_test, served["y_test"][chosen])
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist.npz"]
    assert capsys.readouterr().out == ""  # nothing of it is for the page


def test_another_file_than_the_published_one_is_not_kept(served, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "CHECKSUM", "sha256:" + 64 * "0")
    with pytest.raises(FileNotFoundError, match=r"not be downloaded: ValueError: .*SHA256 hash"):
        load_mnist(source="mnist")
    assert list((tmp_path / "data").iterdir()) == []


DAMAGE = {
    "empty": lambda content: b"",
    "half of it": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "a bit turned": lambda content: content[:50_000] + b"\x7f" + content[50_001:],
    "a web page": lambda content: b"<!DOCTYPE html>",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_download_is_told_of_and_downloaded_anew(served, tmp_path, monkeypatch, damage):
    kept = tmp_path / "data" / "mnist.npz"
    monkeypatch.setattr(mnist, "find_data", lambda name: kept)
    kept.parent.mkdir()
    whole = (tmp_path / "files" / "mnist.npz").read_bytes()
    kept.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match=f"^{kept} is not a readable .*; it is downloaded anew$"):
        load_mnist(source="mnist")
    assert kept.read_bytes() == whole
    load_mnist(source="mnist")  # without a word

    kept.write_bytes(damage(whole))
    monkeypatch.setattr(mnist, "URL", mnist.URL + ".gone")
    with pytest.warns(UserWarning, match="it is downloaded anew|neither found nor downloaded"):
        assert load_mnist().source.startswith("scikit-learn")


def test_a_damaged_file_that_is_somebody_else_s_is_theirs_to_mend(served, tmp_path, monkeypatch):
    shared = tmp_path / "shared.npz"
    shared.write_bytes(b"damaged")
    monkeypatch.setattr(mnist, "find_data", lambda name: shared)
    with pytest.raises(ValueError, match=f"^{shared} is not a readable MNIST archive; fetch it"):
        load_mnist()

    def closed():
        raise PermissionError("read-only")

    monkeypatch.setattr(mnist, "data_folder", closed)
    with pytest.raises(ValueError, match=f"^{shared} is not a readable MNIST archive"):
        load_mnist()
    assert shared.read_bytes() == b"damaged"


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("x_train", lambda a: a * np.float32(np.nan), "brightnesses from 0 up, found nan to nan"),
        ("x_test", lambda a: a * np.uint8(0), "brightnesses from 0 up, found 0 to 0"),
        ("x_test", lambda a: a - 1.0, "brightnesses from 0 up, found -1.0 to 254.0"),
        ("x_train", lambda a: a.astype("S1"), r"x_train must hold numbers, found \|S1"),
        ("y_train", lambda a: a + 1, "y_train must hold digits from 0 to 9, found 10"),
        ("y_test", lambda a: a + np.float32(0.5), "y_test must hold digits from 0 to 9, found .*5"),
        ("y_test", lambda a: a.astype("U1"), "y_test must hold digits from 0 to 9, found"),
    ],
)
def test_arrays_of_the_right_shape_must_hold_digits(archive, key, change, told):
    arrays = archive()
    archive(**{key: change(arrays[key])})
    with pytest.raises(ValueError, match=f"mnist.npz: {key} .*{told}|mnist.npz: {told}"):
        load_mnist()


def test_a_file_that_is_not_there_is_told_with_its_reason(served, monkeypatch):
    monkeypatch.setattr(mnist, "URL", mnist.URL + ".gone")
    with pytest.raises(FileNotFoundError, match=r"not be downloaded: HTTPError: 404"):
        load_mnist(source="mnist")


@pytest.mark.parametrize("answers", [False, True], ids=["never answers", "stops after a byte"])
def test_a_network_that_says_nothing_is_given_up(answers, monkeypatch, tmp_path):
    silent = socket.create_server(("127.0.0.1", 0))

    def accept():
        connection, _ = silent.accept()
        if answers:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nP")
        held.append(connection)  # open, and silent

    held = []
    threading.Thread(target=accept, daemon=True).start()
    asked = []

    def soon(timeout, **settings):
        asked.append(timeout)
        return downloader(timeout=timeout / 100, **settings)

    downloader = mnist.pooch.HTTPDownloader
    monkeypatch.setattr(mnist.pooch, "HTTPDownloader", soon)
    monkeypatch.setattr(mnist, "URL", f"http://127.0.0.1:{silent.getsockname()[1]}/mnist.npz")
    monkeypatch.setattr(mnist, "find_data", lambda name: None)
    monkeypatch.setattr(mnist, "data_folder", lambda: tmp_path / "data")
    with pytest.warns(UserWarning, match="MNIST was neither found nor downloaded"):
        load_mnist()
    assert asked == [30]
    assert list((tmp_path / "data").iterdir()) == []
    silent.close()
    for connection in held:
        connection.close()


def test_small_digits_look_like_mnist():
    digits = load_mnist(range(10), source="sklearn")
    assert (len(digits.x_train), len(digits.x_test)) == (1437, 360)  # four fifths of 1797
    for images in (digits.x_train, digits.x_test):
        assert images.shape[1:] == (28, 28) and images.dtype == np.float32
        assert images.min() == 0 and 0.9 < images.max() <= 1
    # Ink in the middle, paper at the rim, as in MNIST.
    assert digits.x_train[:, 8:20, 8:20].mean() > 2 * digits.x_train[:, :2].mean()


def test_small_digits_are_scikit_learns_pixel_by_pixel():
    digits, small = load_mnist(range(10), source="sklearn"), load_digits()
    np.testing.assert_array_equal([*digits.y_train, *digits.y_test], small.target)
    images = np.concatenate([digits.x_train, digits.x_test])
    square = images[:, 4:24, 4:24]
    assert (np.pad(square, ((0, 0), (4, 4), (4, 4))) == images).all()  # a margin of paper
    # Each small pixel became 2.5 × 2.5: their mean is its ink, but for what crossed its edge.
    halves = square.repeat(2, axis=1).repeat(2, axis=2)
    means = halves.reshape(-1, 8, 5, 8, 5).mean(axis=(2, 4))
    assert np.abs(means - small.images / 16).mean() < 0.08


@pytest.mark.skipif(find_data("mnist.npz") is None, reason="mnist.npz is not in the data folder")
def test_the_real_mnist_has_its_published_counts():
    digits = load_mnist((0, 1), source="mnist")
    assert np.bincount(digits.y_train).tolist() == [5923, 6742]
    assert np.bincount(digits.y_test).tolist() == [980, 1135]
    assert digits.x_train.max() == 1


@pytest.mark.parametrize("digits", [(), (0, 0), (10,), (-1,), ("0",), 3, None, [[1]], [{}]])
def test_digits_that_are_none_are_refused(digits):
    with pytest.raises(ValueError, match="distinct whole numbers from 0 to 9"):
        load_mnist(digits)


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="found 'kaggle'"):
        load_mnist(source="kaggle")
