"""Where data are looked for, and how results are kept: once, and whole or not at all."""

import errno
import functools
import inspect
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import data
from helpers.data import cached, data_folder, file_hash, find_data


@pytest.fixture
def book_data(tmp_path, monkeypatch):
    """A data folder of the book's own that is not the real one."""
    folder = tmp_path / "book" / "data"
    folder.parent.mkdir()
    monkeypatch.setattr(data, "_BOOK_DATA", folder)
    for variable in ("VAE_BOOK_DATA", "VAE_BOOK_OUTPUT"):
        monkeypatch.delenv(variable, raising=False)
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


def test_what_is_written_may_go_elsewhere_and_is_found_there(book_data, tmp_path, monkeypatch):
    shared, own = tmp_path / "shared", tmp_path / "not yet there" / "own"
    monkeypatch.setenv("VAE_BOOK_DATA", str(shared))
    monkeypatch.setenv("VAE_BOOK_OUTPUT", str(own))
    shared.mkdir()
    assert data_folder() == own and own.is_dir() and not book_data.exists()
    book_data.mkdir()
    for folder in (book_data, own, shared):  # each comes before the last one
        (folder / "mnist.npz").touch()
        assert find_data("mnist.npz").parent == folder
    monkeypatch.setenv("VAE_BOOK_OUTPUT", "")
    assert data_folder() == book_data


def refuse(number):
    def refused(*_, **__):
        raise OSError(number, errno.errorcode[number])

    return refused


#: Why nothing can be written, whoever asks; the permissions of a folder are no bar to root.
WHY = {"read-only": errno.EROFS, "not permitted": errno.EACCES, "disk full": errno.ENOSPC}


@pytest.mark.parametrize("number", WHY.values(), ids=WHY)
@pytest.mark.parametrize("made", [False, True], ids=["missing", "there"])
def test_a_folder_that_cannot_be_written_to_says_what_to_do(book_data, monkeypatch, number, made):
    if made:
        book_data.mkdir()
    monkeypatch.setattr(data.Path, "mkdir", lambda *_, **__: None if made else refuse(number)())
    monkeypatch.setattr(data.tempfile, "TemporaryFile", refuse(number))
    with pytest.raises(type(OSError(number, "")), match=errno.errorcode[number]) as caught:
        data_folder()
    told = str(caught.value)
    name = errno.errorcode[number]
    assert told.startswith(f"{book_data}: nothing can be written there ({name}); ")
    assert told.endswith(
        "copy the book to a folder of your own, or set VAE_BOOK_OUTPUT to a "
        "folder that can be written to"
    )


@pytest.mark.parametrize("named", [False, True], ids=["data", "VAE_BOOK_OUTPUT"])
def test_a_file_in_the_place_of_the_folder_says_so_too(book_data, tmp_path, monkeypatch, named):
    place = tmp_path / "own" if named else book_data
    if named:
        monkeypatch.setenv("VAE_BOOK_OUTPUT", str(place))
    place.touch()
    with pytest.raises(FileExistsError, match=f"{place}: nothing can be written .*VAE_BOOK_OUTPUT"):
        data_folder()


# -- results that are kept -------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A data folder of its own."""
    monkeypatch.setattr(data, "data_folder", lambda: tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Point:
    x: float
    y: np.ndarray


class Calls(list):
    """A list that is the same to a hash whatever is in it, so that a function may close over it."""

    def __reduce__(self):
        return Calls, ()


def counting(calls):
    def slow(*arguments, **settings):
        calls.append(arguments)
        return len(calls), arguments, settings

    return slow


def counting_otherwise(calls):
    def slow(*arguments, **settings):
        calls.append(arguments)
        return -len(calls), arguments, settings

    return slow


def files(root):
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "arguments",
    [(), (1,), ("a", 2.5, None), (np.arange(5),), ({"b": [1, 2]}, (3, 4)), (Path("x"),)],
)
def test_what_was_computed_once_is_kept(shelf, arguments):
    calls = Calls()
    first, again = (cached(counting(calls), *arguments) for _ in range(2))
    assert len(calls) == 1 and first[0] == again[0] == 1
    np.testing.assert_equal(again[1], arguments)
    assert len(files(shelf)) == 1 and files(shelf)[0].parent == shelf / "cache"


def test_arrays_are_told_apart_by_what_they_hold(shelf):
    calls, array = Calls(), np.arange(5.0)
    cached(counting(calls), Point(1, array))
    cached(counting(calls), Point(1, array.copy()))
    assert len(calls) == 1
    array[3] += 1e-9
    cached(counting(calls), Point(1, array))
    cached(counting(calls), Point(1, array.astype(np.float32)))
    assert len(calls) == 3


def test_an_array_in_a_file_is_the_array_it_was(shelf, tmp_path):
    calls, array = Calls(), np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "array.npy", array)
    for same in (array, np.load(tmp_path / "array.npy", mmap_mode="r")):
        cached(counting(calls), (same, Point(1, same)))
    assert len(calls) == 1


def test_other_arguments_or_settings_are_computed_anew(shelf):
    calls = Calls()
    for settings in ({}, {"epochs": 1}, {"epochs": 2}, {"seed": 2}):
        for arguments in ((), (1,), (2,), (1, 2), (2, 1), ("1",)):
            result = cached(counting(calls), *arguments, **settings)
            assert result == (len(calls), arguments, settings)
    assert len(calls) == len(files(shelf)) == 24


def test_another_function_is_computed_anew_also_under_the_same_name(shelf):
    calls = Calls()
    assert counting(calls).__name__ == counting_otherwise(calls).__name__
    assert cached(counting(calls), 1)[0] == 1
    assert cached(counting_otherwise(calls), 1)[0] == -2
    assert cached(counting(calls), 1)[0] == 1


def test_an_edited_function_is_computed_anew(shelf, tmp_path, monkeypatch):
    module = tmp_path / "edited.py"

    def load(source):
        module.write_text(source)
        namespace = {}
        exec(compile(source, module, "exec"), namespace)
        return namespace["double"]

    assert cached(load("def double(x):\n    return 2 * x\n"), 4) == 8
    edited = load("def double(x):\n    return 2 * x + 0.5\n")
    assert "0.5" in inspect.getsource(edited)
    assert cached(edited, 4) == 8.5


@pytest.mark.parametrize("part", ["a package", "a helper"])
def test_other_helpers_or_packages_compute_anew(shelf, monkeypatch, part):
    calls = Calls()
    cached(counting(calls), 1)
    with monkeypatch.context() as patch:
        if part == "a package":
            patch.setattr(data, "version", lambda package: "0.0.1")
        else:
            (shelf / "data.py").write_text("# rewritten")
            patch.setattr(data, "__file__", str(shelf / "data.py"))
        data._code.cache_clear()  # as in a new session
        cached(counting(calls), 1)
    data._code.cache_clear()
    cached(counting(calls), 1)
    assert len(calls) == 2


def test_what_it_depends_on_takes_the_place_of_the_arguments(shelf):
    calls = Calls()
    first = cached(counting(calls), "/here/scan", depends_on="its content")
    assert cached(counting(calls), "/moved/scan", depends_on="its content") == first
    cached(counting(calls), "/here/scan", depends_on="other content")
    cached(counting(calls), "/here/scan", depends_on="its content", epochs=2)
    assert len(calls) == 3


def test_nothing_is_kept_of_what_went_wrong(shelf):
    calls = Calls()

    def fails_at_first(x):
        calls.append(x)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        cached(fails_at_first, 1)
    assert files(shelf) == []
    assert cached(fails_at_first, 1) == cached(fails_at_first, 1) == 1
    assert len(calls) == 2


def makes_a_function():
    return [np.zeros(10_000), {"a": lambda: 1}]


def makes_a_generator():
    return [np.zeros(10_000), (x for x in "ab")]


def makes_a_lock():
    return [np.zeros(10_000), threading.Lock()]


@pytest.mark.parametrize("make", [makes_a_function, makes_a_generator, makes_a_lock])
def test_what_cannot_be_pickled_is_returned_with_one_warning_and_no_part_is_kept(shelf, make):
    for _ in range(2):
        with pytest.warns(UserWarning) as told:
            zeros, other = cached(make)
        assert type(other) is type(make()[1]) and not zeros.any()
        (told,) = told
        assert str(told.message).startswith(f"{make.__name__}: what it returns cannot be kept (")
    assert files(shelf) == []


def test_the_folder_can_be_deleted(shelf):
    calls = Calls()
    cached(counting(calls), 1)
    files(shelf)[0].unlink()
    (shelf / "cache").rmdir()
    cached(counting(calls), 1)
    assert len(calls) == 2


def test_a_folder_deleted_in_the_meantime_costs_no_result(shelf):
    def slow():
        shutil.rmtree(shelf)
        return 1

    assert cached(slow) == 1
    assert len(files(shelf)) == 1


def test_what_is_kept_is_compressed(shelf):
    array = np.zeros(100_000)

    def made():
        return array

    np.testing.assert_array_equal(cached(made), array)
    assert files(shelf)[0].stat().st_size < array.nbytes / 10


# --- files that are damaged, and folders that cannot be written to --------------------------------


def turn_a_bit(where):
    def turn(path):
        content = bytearray(path.read_bytes())
        content[int(where * (len(content) - 1))] ^= 1
        path.write_bytes(content)

    return turn


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


DAMAGE = {
    "empty": cut(0),
    "half of it": cut(0.5),
    "all but the end": cut(0.99),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bit turned at the start": turn_a_bit(0),
    "a bit turned early": turn_a_bit(0.2),
    "a bit turned in the middle": turn_a_bit(0.5),
    "a bit turned at the end": turn_a_bit(1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"and more"),
    "a text": lambda path: path.write_text("Error 404: not found"),
    "of joblib, but not ours": lambda path: joblib.dump({"another": "type"}, path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_told_of_once_and_computed_anew(shelf, damage):
    calls, array = Calls(), np.random.default_rng(0).random(1000)
    cached(counting(calls), array)
    (kept,) = files(shelf)
    whole = kept.read_bytes()
    damage(kept)
    with pytest.warns(UserWarning, match="expected a kept result") as told:
        n, (found,), _ = cached(counting(calls), array)
    assert len(told) == 1 and str(told[0].message).startswith(f"{kept}: expected a kept result, ")
    assert str(told[0].message).endswith("; it is computed anew")
    assert n == len(calls) == 2
    np.testing.assert_array_equal(found, array)
    assert files(shelf) == [kept] and len(kept.read_bytes()) == len(whole)  # overwritten
    assert cached(counting(calls), array)[0] == 2  # without a word


def put_a_folder(path):
    path.unlink()
    path.mkdir()
    (path / "somebody's").write_text("notes")


def put_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("put", [put_a_folder, put_a_pipe])
def test_what_is_no_file_is_told_of_and_left_in_its_place(shelf, put):
    calls = Calls()
    cached(counting(calls), 1)
    (kept,) = files(shelf)
    put(kept)
    before = sorted(shelf.rglob("*"))
    for n in (2, 3):
        with pytest.warns(UserWarning, match=f"^{kept}: expected a kept result, found no") as told:
            assert cached(counting(calls), 1)[0] == n
        assert len(told) == 1
    assert sorted(shelf.rglob("*")) == before and not kept.is_file()


# --- functions that only look alike ---------------------------------------------------------------


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def times(self, x):
        return self.factor * x


def closing_over(factor):
    def times(x):
        return factor * x

    return times


def with_a_default(factor):
    def times(x, by=factor):
        return by * x

    return times


def with_a_keyword(factor):
    def times(x, *, plus=0, by=factor):
        return by * x + plus

    return times


def wrapping(factor):
    inner = closing_over(factor)

    @functools.wraps(inner)
    def wrapper(x):
        return inner(x)

    return wrapper


def wrapped_otherwise(factor):
    @functools.wraps(as_it_is)
    def wrapper(x):
        return factor * as_it_is(x)

    return wrapper


def as_it_is(x):
    return x


def kept_in_memory(factor):
    return functools.lru_cache(closing_over(factor))


def calling_itself(factor):
    def times(x):
        return factor * x if x > 0 else times(x + 1)

    return times


def by_a_method(factor):
    method = Scale(factor).times

    def times(x):
        return method(x)

    return times


def with_another_default(factor):
    times = with_a_default(0)
    times.__defaults__ = (factor,)
    return times


ALIKE = [
    lambda factor: Scale(factor).times,
    closing_over,
    with_a_default,
    with_a_keyword,
    with_another_default,
    wrapping,
    wrapped_otherwise,
    kept_in_memory,
    calling_itself,
    by_a_method,
]


@pytest.mark.parametrize("make", ALIKE, ids=lambda make: make.__name__)
def test_functions_of_one_source_are_told_apart_by_what_they_go_by(shelf, make):
    for _ in range(2):
        assert [cached(make(factor), 3) for factor in (2, 5, 7.5)] == [6, 15, 22.5]
    assert len(files(shelf)) == 3


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        functools.partial(as_it_is),
        len,
        Scale(2),
        closing_over(threading.Lock()),
        with_a_default(lambda x: x),
        functools.lru_cache(lambda x: x),
        Scale(threading.Lock()).times,
    ],
    ids=[
        "a lambda",
        "a partial",
        "len",
        "an object",
        "over a lock",
        "by a lambda",
        "a lambda kept in memory",
        "of what holds a lock",
    ],
)
def test_a_function_that_cannot_be_told_from_others_is_refused(shelf, function):
    with pytest.raises(ValueError, match=r"^compute must be a named function that goes by") as told:
        cached(function, 1)
    assert str(told.value.__cause__) in str(told.value), "the reason is told"
    assert files(shelf) == []


def test_a_class_may_be_called_like_a_function(shelf):
    assert [cached(Scale, factor).times(3) for factor in (2, 2, 5)] == [6, 6, 15]
    assert len(files(shelf)) == 2


def plain(x, n=3, *, size=(28, 28), sigma=-1e-3, name="a", of=None):
    return x


def test_what_is_told_by_its_source_alone_is_kept_under_the_name_it_always_had(shelf):
    cached(plain, 1, n=2)
    source = inspect.getsource(plain), data._code(), data.is_quick()
    key = joblib.hash((source, ((1,), {"n": 2})), coerce_mmap=True)
    assert [path.name for path in files(shelf)] == [f"plain-{key}.joblib"]


def test_the_result_of_another_call_is_not_taken_for_this_one_s(shelf):
    calls = Calls()
    cached(counting(calls), 1)
    (one,) = files(shelf)
    content = one.read_bytes()
    cached(counting(calls), 2)
    one.unlink()
    (other,) = files(shelf)
    other.write_bytes(content)
    with pytest.warns(UserWarning, match="is computed anew"):
        assert cached(counting(calls), 2) == (3, (2,), {})


def test_what_came_out_as_nothing_is_kept_too(shelf):
    calls = Calls()

    def nothing():
        calls.append(1)

    assert cached(nothing) is cached(nothing) is None
    assert calls == [1]


@pytest.fixture(params=[*WHY, "a file in the place of the folder"])
def closed(request, book_data, monkeypatch):
    """A data folder in which nothing can be written, for whichever reason."""
    book_data.mkdir()
    if request.param in WHY:
        refused = refuse(WHY[request.param])
        monkeypatch.setattr(data.tempfile, "TemporaryFile", refused)
        monkeypatch.setattr(data.Path, "write_bytes", refused)
    else:
        (book_data / "cache").write_text("not a folder")
    return book_data


def test_a_result_that_cannot_be_kept_is_returned_with_one_warning(closed):
    calls = Calls()
    for n in (1, 2):
        with pytest.warns(UserWarning, match="cannot be kept there") as told:
            assert cached(counting(calls), "x") == (n, ("x",), {})
        (told,) = told
        assert str(told.message).startswith(f"{closed / 'cache'}: what is computed cannot be kept")
        assert "VAE_BOOK_OUTPUT" in str(told.message)
    assert [path.name for path in files(closed)] in ([], ["cache"])


def test_what_was_kept_is_read_from_a_folder_that_was_closed_later(book_data, monkeypatch):
    calls = Calls()
    cached(counting(calls), 1)
    monkeypatch.setattr(data.tempfile, "TemporaryFile", refuse(errno.EROFS))
    monkeypatch.setattr(data.Path, "write_bytes", refuse(errno.EROFS))
    assert cached(counting(calls), 1)[0] == 1 == len(calls)


def test_a_disk_that_fills_up_leaves_no_part_of_a_result(shelf, monkeypatch):
    def half(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        refuse(errno.ENOSPC)()

    monkeypatch.setattr(data.Path, "write_bytes", half)
    with pytest.warns(UserWarning, match="cannot be kept there .ENOSPC"):
        assert cached(counting(Calls()), 1)[0] == 1
    assert files(shelf) == []


# --- the content of files ---------------------------------------------------------------------


@given(*[st.lists(st.none() | st.binary(max_size=3), max_size=3)] * 2)
def test_hashes_agree_for_the_same_contents_in_the_same_order_only(tmp_path_factory, one, other):
    root = tmp_path_factory.mktemp("files")

    def written(name, contents):
        paths = [root / f"{name}{i}" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            if content is not None:
                path.write_bytes(content)
        return [p if c is not None else None for p, c in zip(paths, contents, strict=True)]

    hashes = [file_hash(*written(*files)) for files in (("one", one), ("other", other))]
    assert (hashes[0] == hashes[1]) == (one == other)


def test_where_one_file_ends_matters(tmp_path):
    paths = []
    for content in (b"ab", b"c", b"a", b"bc", b"none"):
        paths.append(tmp_path / content.decode())
        paths[-1].write_bytes(content)
    ab, c, a, bc, none = paths
    assert file_hash(ab, c) != file_hash(a, bc)
    assert file_hash(ab, c) != file_hash(c, ab)
    assert file_hash(none) != file_hash(None)
    assert file_hash(ab) == file_hash(ab)


def test_a_lost_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="lost"):
        file_hash(tmp_path / "lost")
