"""Where data are looked for."""

import pytest

from helpers import data
from helpers.data import data_folder, find_data


@pytest.fixture
def book_data(tmp_path, monkeypatch):
    """A data folder of the book's own that is not the real one."""
    folder = tmp_path / "book" / "data"
    folder.parent.mkdir()
    monkeypatch.setattr(data, "_BOOK_DATA", folder)
    monkeypatch.delenv("VAE_BOOK_DATA", raising=False)
    return folder


def test_the_shared_folder_comes_first(book_data, tmp_path, monkeypatch):
    data_folder()
    (book_data / "mnist.npz").write_text("the book's")
    assert find_data("mnist.npz").read_text() == "the book's"
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("VAE_BOOK_DATA", str(shared))
    assert find_data("mnist.npz").read_text() == "the book's"
    (shared / "mnist.npz").write_text("shared")
    assert find_data("mnist.npz").read_text() == "shared"


def test_an_empty_variable_is_no_folder(book_data, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_DATA", "")
    assert find_data("mnist.npz") is None


def test_looking_makes_nothing_and_writing_makes_the_folder(book_data):
    assert find_data("mnist.npz") is None and not book_data.exists()
    for _ in range(2):
        assert data_folder() == book_data and book_data.is_dir()


def test_a_shared_folder_that_is_not_there_is_an_error(book_data, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path / "typo"))
    with pytest.raises(NotADirectoryError, match=r"VAE_BOOK_DATA .*typo.* or unset it$"):
        find_data("mnist.npz")
