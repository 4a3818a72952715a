"""Digits from each of their sources."""

import numpy as np
import pytest

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


def test_without_mnist_small_digits_stand_in_and_say_so(monkeypatch):
    def nothing():
        raise FileNotFoundError("no network")

    monkeypatch.setattr(mnist, "_mnist", nothing)
    with pytest.warns(UserWarning, match="scikit-learn's 1,797 small digits"):
        digits = load_mnist()
    assert "scikit-learn" in digits.source
    with pytest.raises(FileNotFoundError, match="no network"):
        load_mnist(source="mnist")


def test_a_failed_download_is_told_with_its_reason(monkeypatch):
    from keras.datasets import mnist as keras_mnist

    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras_mnist, "load_data", fail)
    monkeypatch.setattr(mnist, "find_data", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"could not download it: URL fetch failure"):
        load_mnist(source="mnist")


def test_small_digits_look_like_mnist():
    digits = load_mnist(range(10), source="sklearn")
    assert len(digits.x_train) + len(digits.x_test) == 1797
    for images in (digits.x_train, digits.x_test):
        assert images.shape[1:] == (28, 28) and images.dtype == np.float32
        assert images.min() == 0 and 0.9 < images.max() <= 1
    # Ink in the middle, paper at the rim, as in MNIST.
    assert digits.x_train[:, 8:20, 8:20].mean() > 2 * digits.x_train[:, :2].mean()


@pytest.mark.skipif(find_data("mnist.npz") is None, reason="mnist.npz is not in the data folder")
def test_the_real_mnist_has_its_published_counts():
    digits = load_mnist((0, 1), source="mnist")
    assert np.bincount(digits.y_train).tolist() == [5923, 6742]
    assert np.bincount(digits.y_test).tolist() == [980, 1135]
    assert digits.x_train.max() == 1


@pytest.mark.parametrize("digits", [(), (0, 0), (10,), (-1,), ("0",)])
def test_digits_that_are_none_are_refused(digits):
    with pytest.raises(ValueError, match="distinct whole numbers from 0 to 9"):
        load_mnist(digits)


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="found 'kaggle'"):
        load_mnist(source="kaggle")
