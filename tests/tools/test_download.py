"""Data sets come over networks that break, here from a real server on this machine."""

import dataclasses
import gzip
import hashlib
import inspect
import io
import os
import re
import shutil
import signal
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import PIL.Image
import pooch
import pytest
import yaml

from helpers import data
from helpers.data import find_data
from helpers.phantom import write_cohort
from helpers.scans import find_cases, load_case
from tools import download
from tools.download import DATA_SETS, FILE_SETS, main

BODY = np.random.default_rng(0).bytes(1_000_000)
HALF = len(BODY) // 2
np.savez(_digits := io.BytesIO(), x_train=np.arange(1000), y_train=np.arange(9))
DIGITS = _digits.getvalue()
DAMAGES = {
    "emptied": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "one bit turned": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "another file": lambda content: b"<html>Not found</html>",
}
SCAN = "ISLES-2022/sub-1/ses-0001/dwi/sub-1_ses-0001_dwi.nii.gz"
# Looked up here: each test has a data folder of its own.
REAL, REAL_SOOP, REAL_SLICES = map(find_data, ("isles2022", "soop/sub-3", "soop_flair/raw"))
REAL_SOOP, REAL_SLICES = (path and path.parent for path in (REAL_SOOP, REAL_SLICES))
BOOK = Path(__file__).parents[2]
LIST = FILE_SETS["soop-slices"].files


class Handler(BaseHTTPRequestHandler):
    """One file; the server's attributes say how it is sent, and take down what was asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, whole = self.server, self.server.body
        asked = self.headers["Range"]
        server.asked.append(asked)
        start = 0
        # Compressed on the way, a range would be one of other bytes.
        assert self.headers["Accept-Encoding"] == "identity"
        # As Zenodo does.
        status = 403 if self.headers["User-Agent"].startswith("python-requests") else server.status
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if asked and server.knows_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(whole):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(whole)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            if server.off_by is not None:
                first = start + server.off_by
                self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        else:
            self.send_response(200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(whole) - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        server.sent.append(len(whole[start : server.cut]))
        self.wfile.write(whole[start : server.cut])
        if server.cut is not None:
            server.when_cut()
            self.close_connection = True


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.body, server.status, server.cut = b"", 200, None
        server.knows_ranges, server.off_by, server.when_cut = True, 0, lambda: None
        server.asked, server.sent, server.tells_length = [], [], True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder of the book's own that is not the real one."""
    monkeypatch.setattr(data, "_BOOK_DATA", tmp_path / "data")
    for variable in ("VAE_BOOK_DATA", "VAE_BOOK_OUTPUT"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "data"


@pytest.fixture
def offer(server, folder, monkeypatch):
    """Put a file on the server as the published one of a data set."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def offer(name, body, **changes):
        server.body = body
        changes = {
            "url": f"http://127.0.0.1:{server.server_port}/{DATA_SETS[name].file}?download=1",
            "size": len(body),
            "checksum": f"md5:{md5(body)}",
        } | changes
        monkeypatch.setitem(DATA_SETS, name, dataclasses.replace(DATA_SETS[name], **changes))

    return offer


def md5(body):
    return hashlib.md5(body).hexdigest()


def zipped(*names):
    """A zip archive with files of these names and of noise."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, name in enumerate(names):
            archive.writestr(name, BODY[i * 50_000 : (i + 1) * 50_000])
    return buffer.getvalue()


def failure(capsys):
    """What a failed run told, which is one paragraph."""
    message = capsys.readouterr().err.split("python -m tools.download: ")[1].removesuffix("\n")
    assert "\n" not in message and "Traceback" not in message and message == message.strip()
    return message


def left(folder):
    """Every file beneath a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class TestTheTable:
    def test_mnist_is_the_file_that_keras_downloads(self):
        from keras.datasets import mnist

        source = inspect.getsource(mnist.load_data)
        algorithm, digest = DATA_SETS["mnist"].checksum.split(":")
        assert algorithm == "sha256" and f'"{digest}"' in source
        address, name = DATA_SETS["mnist"].url.rsplit("/", 1)
        assert f'"{address}/"' in source and name == "mnist.npz"

    @pytest.mark.parametrize("name", DATA_SETS)
    def test_each_set_is_where_the_book_looks_and_says_its_terms(self, name):
        data_set = DATA_SETS[name]
        assert data_set.place in ("mnist.npz", "isles2015", "isles2022")
        assert data_set.url.startswith("https://") and data_set.file in data_set.url
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", data_set.checksum)
        assert data_set.licence and re.search(r"\(\d{4}\)", data_set.citation)


class TestTheCommandLine:
    def test_help_lists_every_set(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        told = capsys.readouterr().out
        assert all(f"\n{name:10} {data_set.what}\n" in told for name, data_set in DATA_SETS.items())
        words = " ".join(told.split())
        assert "Download a data set into the data folder, check it and unpack it. After" in words
        assert " After an interruption the same command goes on. positional" in words
        assert " which data set options" in words
        assert (
            "MD5 expect this checksum, for a data set whose own is unverified (isles2015) " in words
        )

    def test_an_unknown_name_is_refused_with_the_known_ones(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["isles2018"])
        assert re.search(r"'isles2018'.*mnist.*isles2015.*isles2022", capsys.readouterr().err)

    def test_a_publishers_checksum_is_not_replaced(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["isles2022", "--md5", "0" * 32])
        assert "its publisher's" in capsys.readouterr().err


class TestAFile:
    def test_it_lands_where_the_book_looks_and_nothing_else_stays(self, offer, folder, capsys):
        offer("mnist", BODY)
        assert main(["mnist"]) == 0
        assert find_data("mnist.npz").read_bytes() == BODY
        assert left(folder) == ["mnist.npz"] and os.listdir(folder) == ["mnist.npz"]
        told = capsys.readouterr()
        assert "1,000,000 bytes" in told.out
        assert re.search(r"mnist\.npz: 100%.* 1\.00M/1\.00M .*[\d.]+[kMG]?B/s", told.err)
        assert not any(line.endswith(" ") for line in told.out.splitlines())

    def test_a_server_that_does_not_tell_the_length_will_do(self, offer, server):
        offer("mnist", BODY)
        server.tells_length = False
        assert main(["mnist"]) == 0 and find_data("mnist.npz").read_bytes() == BODY

    def test_it_tells_where_it_lies_fetched_or_found(self, offer, server, folder):
        offer("mnist", DIGITS)
        assert download.download("mnist") == download.download("mnist") == folder / "mnist.npz"

    def test_it_is_not_fetched_twice(self, offer, server, folder, capsys):
        offer("mnist", DIGITS)
        assert main(["mnist"]) == main(["mnist"]) == 0
        assert server.asked == [None]
        assert f"{folder / 'mnist.npz'} is already there" in capsys.readouterr().out

    @pytest.mark.parametrize("damage", DAMAGES, ids=DAMAGES)
    def test_a_damaged_one_is_fetched_anew(self, offer, server, folder, capsys, damage):
        offer("mnist", DIGITS)
        folder.mkdir(exist_ok=True)
        (folder / "mnist.npz").write_bytes(DAMAGES[damage](DIGITS))
        assert main(["mnist"]) == 0 and (folder / "mnist.npz").read_bytes() == DIGITS
        told = capsys.readouterr().err
        assert f"{folder / 'mnist.npz'} is damaged (" in told and "()" not in told

    def test_a_shared_folder_that_has_it_is_enough(self, offer, server, tmp_path, monkeypatch):
        offer("mnist", BODY)
        (tmp_path / "mnist.npz").write_bytes(b"the class's")
        monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path))
        assert main(["mnist"]) == 0 and server.asked == []

    @pytest.mark.parametrize(
        ("name", "put", "told"),
        [
            ("mnist", os.mkdir, "expected a file, found a folder"),
            ("mnist", os.mkfifo, "expected a file, found something else"),
            ("soop-slices", os.mkdir, "expected a file, found a folder"),
            ("isles2022", Path.touch, "expected a folder, found a file"),
            ("soop", Path.touch, "expected a folder, found a file"),
        ],
    )
    def test_something_else_of_its_name_is_named(self, folder, name, put, told, capsys):
        place = folder / {**DATA_SETS, **FILE_SETS}[name].place
        place.parent.mkdir(parents=True)
        put(place)
        assert main([name]) == 1
        assert failure(capsys) == f"{place}: {told}; move it away, and run the same command again"
        assert place.exists()

    def test_without_hard_links_too(self, offer, server, folder, monkeypatch, capsys):
        def refuse(*_):
            raise OSError("not on this file system")

        monkeypatch.setattr(os, "link", refuse)
        offer("mnist", BODY)
        server.body = BODY[:-1] + b"?"
        assert main(["mnist"]) == 1 and f"expected md5:{md5(BODY)}" in failure(capsys)
        server.body = BODY
        assert main(["mnist"]) == 0 and left(folder) == ["mnist.npz"]


class TestTheNetwork:
    @pytest.mark.parametrize("status", [404, 500])
    def test_a_refusal_is_told_after_the_licence(self, offer, server, status, capsys):
        offer("isles2022", zipped(SCAN))
        server.status = status
        assert main(["isles2022"]) == 1
        told = capsys.readouterr()
        assert "CC BY 4.0" in told.out and "Hernandez Petzsche et al. (2022)" in told.out
        assert f"{status} " in told.err and "ISLES-2022.zip" in told.err
        assert "Traceback" not in told.err and find_data("isles2022") is None

    def test_the_licence_is_told_before_the_bytes_come_also_to_a_pipe(
        self, offer, server, monkeypatch
    ):
        offer("mnist", BODY)
        pipe, seen = io.BytesIO(), []
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
        server.cut, server.when_cut = HALF, lambda: seen.append(pipe.getvalue().decode())
        assert main(["mnist"]) == 1
        assert DATA_SETS["mnist"].licence in seen[0] and DATA_SETS["mnist"].checksum in seen[0]

    def test_no_server_at_all(self, offer, folder, capsys):
        offer("mnist", BODY, url="http://127.0.0.1:1/mnist.npz")
        assert main(["mnist"]) == 1
        message = failure(capsys)
        assert "127.0.0.1:1/mnist.npz: the download stopped" in message
        assert f". Nothing is kept in {folder / 'mnist.npz.part'}; the same command" in message
        assert message.endswith("; the same command goes on from there.")

    def test_after_a_broken_connection_only_the_rest_is_asked_for(
        self, offer, server, folder, capsys
    ):
        offer("mnist", BODY)
        server.cut = HALF
        assert main(["mnist"]) == 1
        part = folder / "mnist.npz.part" / "mnist.npz.part"
        kept = part.stat().st_size
        assert 0.8 * HALF < kept <= HALF and part.read_bytes() == BODY[:kept]
        assert f"{kept:,} bytes are kept in {part.parent}" in failure(capsys)
        assert find_data("mnist.npz") is None

        server.cut = None
        assert main(["mnist"]) == 0 and "100%" in capsys.readouterr().err
        assert server.asked == [None, f"bytes={kept}-"]
        assert server.sent == [HALF, len(BODY) - kept]
        assert left(folder) == ["mnist.npz"] and find_data("mnist.npz").read_bytes() == BODY

    def test_a_server_that_knows_no_ranges_sends_all_of_it_again(self, offer, server):
        offer("mnist", BODY)
        server.cut = HALF
        assert main(["mnist"]) == 1
        server.cut, server.knows_ranges = None, False
        assert main(["mnist"]) == 0
        assert server.sent == [HALF, len(BODY)] and server.asked[1] is not None
        assert find_data("mnist.npz").read_bytes() == BODY

    @pytest.mark.parametrize(("off_by", "found"), [(1, "'bytes "), (None, "''.")])
    def test_a_server_that_sends_another_range_is_not_believed(
        self, offer, server, off_by, found, capsys
    ):
        offer("mnist", BODY)
        server.cut = HALF
        assert main(["mnist"]) == 1
        failure(capsys)
        server.cut, server.off_by = None, off_by
        assert main(["mnist"]) == 1
        assert f"found Content-Range {found}" in failure(capsys)
        server.off_by = 0
        assert main(["mnist"]) == 0 and find_data("mnist.npz").read_bytes() == BODY

    def test_a_part_longer_than_the_file_is_thrown_away(self, offer, server, folder):
        offer("mnist", BODY)
        part = folder / "mnist.npz.part" / "mnist.npz.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(BODY + b"of another file")
        assert main(["mnist"]) == 0
        assert server.asked == [f"bytes={len(BODY) + 15}-", None]
        assert find_data("mnist.npz").read_bytes() == BODY

    def test_ctrl_c_keeps_what_has_arrived(self, offer, server, folder, capsys):
        offer("mnist", BODY)
        part = folder / "mnist.npz.part" / "mnist.npz.part"
        over = threading.Event()
        server.cut = HALF

        def press_and_hang():
            while not part.exists() or part.stat().st_size < 0.8 * HALF:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            over.wait()

        server.when_cut = press_and_hang
        # Whoever started the tests in the background may have turned Ctrl-C off for them.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            assert main(["mnist"]) == 130
        finally:
            signal.signal(signal.SIGINT, before)
            over.set()
        told = capsys.readouterr().err
        assert f"goes on from what is in {part.parent}" in told
        assert "Traceback" not in told and find_data("mnist.npz") is None
        kept = part.stat().st_size
        server.cut = None
        assert main(["mnist"]) == 0 and server.asked == [None, f"bytes={kept}-"]
        assert find_data("mnist.npz").read_bytes() == BODY

    def test_ctrl_c_during_the_check_costs_no_second_download(self, offer, server, monkeypatch):
        offer("mnist", BODY)

        def interrupt(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as during_the_check:
            during_the_check.setattr(pooch.core, "hash_matches", interrupt)
            assert main(["mnist"]) == 130
        assert find_data("mnist.npz") is None
        assert main(["mnist"]) == 0
        assert server.asked == [None, f"bytes={len(BODY)}-"] and server.sent == [len(BODY)]


class TestTheChecksum:
    def test_wrong_bytes_are_refused_and_the_next_run_starts_afresh(
        self, offer, server, folder, capsys
    ):
        offer("mnist", BODY)
        server.body = BODY[:-1] + b"?"
        assert main(["mnist"]) == 1
        message = failure(capsys)
        assert "mnist.npz" in message and "unverified" not in message
        assert f"expected md5:{md5(BODY)} but got {md5(server.body)}" in message
        assert left(folder) == [] and find_data("mnist.npz") is None

        server.body = BODY
        assert main(["mnist"]) == 0
        assert server.asked == [None, None] and find_data("mnist.npz").read_bytes() == BODY

    def test_an_unverified_one_says_so_and_can_be_replaced(self, offer, server, folder, capsys):
        truth = zipped("SISS2015_Training/1/VSD.Brain.XX.O.MR_DWI.5.nii")
        offer("isles2015", truth, checksum=f"md5:{'0' * 32}")
        assert main(["isles2015"]) == 1
        told = capsys.readouterr()
        assert "unverified" in told.out and "zenodo.org/records/19135955" in told.out
        assert "itself unverified" in told.err and f"got {md5(truth)}" in told.err
        assert "isles2015 --md5" in told.err and left(folder) == []
        assert main(["isles2015", "--md5", md5(truth)]) == 0
        assert "1 patients" in capsys.readouterr().out

    def test_the_md5_given_instead_is_held_to(self, offer, capsys):
        offer("isles2015", zipped("SISS2015_Training/1/VSD.Brain.XX.O.MR_DWI.5.nii"))
        assert main(["isles2015", "--md5", "1" * 32]) == 1
        assert f"expected md5:{'1' * 32}" in failure(capsys)


class TestAnArchive:
    def test_a_patient_of_isles_2022_comes_through_unchanged(self, offer, tmp_path):
        case = find_cases(REAL)[0] if REAL else write_cohort(tmp_path / "made", n_cases=1)[0]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path, place in (
                (case.dwi, f"{case.subject_id}/ses-0001/dwi"),
                (case.lesion, f"derivatives/{case.subject_id}/ses-0001"),
            ):
                archive.write(path, f"ISLES-2022/{place}/{path.name}")
        offer("isles2022", buffer.getvalue())
        assert main(["isles2022"]) == 0
        (found,) = find_cases(find_data("isles2022"))
        assert found.subject_id == case.subject_id
        before, after = load_case(case), load_case(found)
        np.testing.assert_array_equal(before.dwi, after.dwi)
        np.testing.assert_array_equal(before.lesion, after.lesion)

    def test_it_is_unpacked_once_and_the_archive_removed(self, offer, server, folder, capsys):
        offer("isles2022", zipped(SCAN))
        assert main(["isles2022"]) == main(["isles2022"]) == 0
        assert left(folder) == [f"isles2022/{SCAN}"] and server.asked == [None]
        assert (folder / "isles2022" / SCAN).read_bytes() == BODY[:50_000]
        told = capsys.readouterr()
        assert "is already there: 1 patients" in told.out
        assert re.search(r"\bUnpacking: 100%.*file/s", told.err)

    def test_of_isles_2015_only_the_sub_acute_patients_with_a_mask(self, offer):
        def patient(folder, number):
            yield f"{folder}/VSD.Brain.XX.O.MR_DWI.{number}/VSD.Brain.XX.O.MR_DWI.{number}.nii"
            if "Train" in folder:
                yield f"{folder}/VSD.Brain_3more.XX.XX.OT.7/VSD.Brain_3more.XX.XX.OT.7.nii"

        offer(
            "isles2015",
            zipped(
                *patient("ISLES2015/SISS2015_Training/1", 5),
                *patient("ISLES2015/SISS2015_Training/2", 6),
                *patient("ISLES2015/SISS2015_Testing/1", 8),
                *patient("ISLES2015/SPES2015_Training/1", 9),
            ),
        )
        assert main(["isles2015"]) == 0
        cases = find_cases(find_data("isles2015"))
        assert [(case.subject_id, case.dwi.name) for case in cases] == [
            ("1", "VSD.Brain.XX.O.MR_DWI.5.nii"),
            ("2", "VSD.Brain.XX.O.MR_DWI.6.nii"),
        ]
        assert all(case.lesion is not None for case in cases)

    def test_no_member_gets_out_of_its_folder(self, offer, tmp_path, folder):
        names = ["../out.txt", "../../../out.txt", "/out.txt", f"{tmp_path}/out.txt"]
        offer("isles2022", zipped(SCAN, *names))
        assert main(["isles2022"]) == 0
        assert os.listdir(tmp_path) == ["data"] and os.listdir(folder) == ["isles2022"]
        assert not os.path.exists("/out.txt")

    @pytest.mark.parametrize("damage", ["cut short", "a byte flipped", "no deflate", "not a zip"])
    def test_a_damaged_archive_of_the_right_checksum_leaves_nothing(
        self, offer, server, folder, damage, capsys
    ):
        whole = zipped(SCAN)
        middle, start = len(whole) // 2, 30 + len(SCAN)  # a zip's header has 30 bytes and the name
        offer(
            "isles2022",
            {
                "cut short": whole[:middle],
                "a byte flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
                "no deflate": whole[:start] + b"\xff" + whole[start + 1 :],
                "not a zip": b"<html>",
            }[damage],
        )
        assert main(["isles2022"]) == 1
        assert "ISLES-2022.zip: expected a whole zip archive" in failure(capsys)
        assert find_data("isles2022") is None
        assert not list(folder.rglob("*.zip"))

        offer("isles2022", whole)
        assert main(["isles2022"]) == 0
        assert server.asked == [None, None] and left(folder) == [f"isles2022/{SCAN}"]

    def test_what_an_interrupted_run_unpacked_is_unpacked_again(self, offer, server, folder):
        body = zipped(SCAN)
        offer("isles2022", body)
        staging = folder / "isles2022.part"
        (staging / "unpacked" / SCAN).parent.mkdir(parents=True)
        (staging / "unpacked" / SCAN).write_bytes(b"half")
        (staging / "unpacked" / "sub-2_dwi.nii").write_bytes(b"of an archive with another checksum")
        (staging / "ISLES-2022.zip").write_bytes(body)
        assert find_data("isles2022") is None
        assert main(["isles2022"]) == 0 and server.asked == []
        assert left(folder) == [f"isles2022/{SCAN}"]
        assert (folder / "isles2022" / SCAN).read_bytes() == BODY[:50_000]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("isles2022", "expected ISLES scans"),
            ("isles2015", r"names that match.*, found \['notes'\]"),
        ],
    )
    def test_an_archive_of_something_else_is_no_data_set(self, offer, name, message, capsys):
        offer(name, zipped("notes/of/mine.txt"))
        assert main([name]) == 1
        assert re.search(message, failure(capsys)) and find_data(name) is None


class TestTheDisk:
    def test_too_little_space_is_told_before_anything_is_fetched(self, offer, server, capsys):
        offer("isles2022", zipped(SCAN), size=10**18)
        assert main(["isles2022"]) == 1
        assert "expected 2000000000.0 GB of free disk space, found" in failure(capsys)
        assert server.asked == []

    def test_what_has_arrived_needs_no_space_again(self, offer, server, folder, monkeypatch):
        offer("mnist", BODY)
        server.cut = HALF
        assert main(["mnist"]) == 1
        server.cut = None
        kept = (folder / "mnist.npz.part" / "mnist.npz.part").stat().st_size
        usage = shutil.disk_usage(".")._replace(free=len(BODY) - kept)  # just enough
        monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
        assert main(["mnist"]) == 0 and find_data("mnist.npz").read_bytes() == BODY

    def test_too_little_space_for_the_contents_keeps_the_archive(
        self, offer, server, monkeypatch, capsys
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(SCAN, bytes(10**7))
        offer("isles2022", buffer.getvalue())
        usage = shutil.disk_usage(".")._replace(free=10**6)
        with monkeypatch.context() as a_small_disk:
            a_small_disk.setattr(download.shutil, "disk_usage", lambda _: usage)
            assert main(["isles2022"]) == 1
        assert failure(capsys).endswith("expected 0.0 GB of free disk space, found 0.0")
        assert find_data("isles2022") is None
        assert main(["isles2022"]) == 0 and server.asked == [None]


class ManyHandler(BaseHTTPRequestHandler):
    """Many files; what is next for an address is taken from the server's list of its troubles."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        with server.lock:
            server.asked.append((self.path, asked))
            troubles = server.troubles.get(self.path, [])
            trouble = troubles.pop(0) if troubles else server.always
        whole, start = server.bodies.get(self.path), 0
        if trouble == "silent":
            server.over.wait(5)
            self.close_connection = True
            return
        if isinstance(trouble, int) or whole is None:
            self.send_response(trouble or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if trouble == "other bytes":
            whole = bytes(len(whole))
        elif trouble in ("longer", "shorter"):
            whole = whole + b"?" if trouble == "longer" else whole[:-1]
        if asked and trouble != "no ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        else:
            self.send_response(200)
        if trouble == "says it is gzip":
            self.send_header("Content-Encoding", "gzip")
        if trouble == "shorter, of untold length":
            whole = whole[:-1]
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        half = (start + len(whole)) // 2
        if trouble in ("cut", "stall"):
            self.wfile.write(whole[start:half])
            self.close_connection = True
            if trouble == "stall":
                server.over.wait(5)
        elif trouble == "when":
            server.when()
            self.wfile.write(whole[start:])
        else:
            self.wfile.write(whole[start:])


@pytest.fixture
def crowd(folder, monkeypatch):
    """A server of many files, from which the data sets of many files come."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    monkeypatch.setattr(download, "_CHUNK", 2**10)
    with ThreadingHTTPServer(("127.0.0.1", 0), ManyHandler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # who hangs up in the middle is no failure of ours
        server.lock, server.over = threading.Lock(), threading.Event()
        server.bodies, server.troubles, server.asked, server.always = {}, {}, [], None
        # Short where a test waits for it; else a busy machine may take its time.
        server.be_impatient = lambda: monkeypatch.setattr(download, "_SILENCE", 0.3)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def publish(server, monkeypatch, list_file, name, bodies, algorithm):
    """Put files on the server as those of a data set."""
    table = pd.DataFrame({"path": list(bodies), "bytes": [len(b) for b in bodies.values()]})
    table[algorithm] = [checksum(algorithm, body) for body in bodies.values()]
    version = ""
    if "s3_version_id" in FILE_SETS[name].url:
        table["s3_version_id"] = [f"v.{i}_" for i in range(len(table))]
        version = "?versionId={s3_version_id}"
    table.to_csv(list_file, index=False)
    url = f"http://127.0.0.1:{server.server_port}/set/{{path}}{version}"
    for row in table.to_dict("records"):
        server.bodies["/set/" + (("{path}" + version).format(**row))] = bodies[row["path"]]
    changed = dataclasses.replace(FILE_SETS[name], url=url, files=list_file)
    monkeypatch.setitem(FILE_SETS, name, changed)


def checksum(algorithm, body):
    if algorithm == "git_blob_sha1":
        return hashlib.sha1(b"blob " + str(len(body)).encode() + b"\0" + body).hexdigest()
    return hashlib.new(algorithm, body).hexdigest()


def soop_paths(number):
    """Where a patient's scan, ADC and mask are in SOOP."""
    name = f"sub-{number}"
    return (
        f"{name}/dwi/{name}_rec-TRACE_dwi.nii.gz",
        f"{name}/dwi/{name}_rec-ADC_dwi.nii.gz",
        f"derivatives/lesion_masks/{name}/dwi/{name}_space-TRACE_desc-lesionAcute_mask.nii.gz",
    )


@pytest.fixture
def soop(crowd, monkeypatch, tmp_path):
    """Five patients: the real one, where there is one, and four of noise."""
    bodies = {}
    for number in (3, 20, 100, 101, 1000):
        for i, path in enumerate(soop_paths(number)):
            bodies[path] = BODY[number * 40 + i * 9000 : number * 40 + i * 9000 + 9000]
            if number == 3 and REAL_SOOP:
                bodies[path] = (REAL_SOOP / path).read_bytes()
    publish(crowd, monkeypatch, tmp_path / "soop.csv", "soop", bodies, "sha256")
    crowd.url = {p.split("?")[0].removeprefix("/set/"): p for p in crowd.bodies}
    crowd.files = bodies
    return crowd


def patients(folder):
    """The patients whose scan is in a folder, each of whom has to be whole."""
    found = {path.name.split("_")[0] for path in (folder / "soop").glob("sub-*/dwi/*TRACE*")}
    masks = {p.name.split("_")[0] for p in (folder / "soop").glob("derivatives/*/*/dwi/*_mask*")}
    assert found == masks
    return found


class TestTheLists:
    def test_every_patient_has_scan_adc_and_acute_mask(self):
        listed = download._list_files(FILE_SETS["soop"])
        assert len(listed) == 1451
        for name, files in listed.items():
            trace, adc, mask = soop_paths(name.removeprefix("sub-"))
            assert [file.path for file in files] == [mask, adc, trace]
            assert all(re.fullmatch("[0-9a-f]{64}", file.checksum) for file in files)
        n_bytes = [f.size for files in listed.values() for f in files if "ADC" not in f.path]
        assert 1.0e9 < sum(n_bytes) < 1.2e9  # what data/README.md says

    def test_every_slice_has_a_picture_and_a_mask(self):
        listed = download._list_files(FILE_SETS["soop-slices"])
        assert len(listed) == 1449
        for name, files in listed.items():
            assert [file.path for file in files] == [
                f"NIfTI/bwsr{name}_lesion.nii.gz",
                f"PNG/r{name}_lesion.nii.png",
            ]
            assert all(re.fullmatch("[0-9a-f]{40}", file.checksum) for file in files)
        assert sum(f.size for files in listed.values() for f in files) == 159_154_690

    def test_the_address_names_the_version_of_the_file(self):
        scan = download._list_files(FILE_SETS["soop"])["sub-1"][-1]
        assert scan.url == (
            "https://s3.amazonaws.com/openneuro.org/ds004889/sub-1/dwi/"
            "sub-1_rec-TRACE_dwi.nii.gz?versionId=TPm4TUNCqGpGJlUK0uB3gpnk2jXJwD0b"
        )
        mask = download._list_files(FILE_SETS["soop-slices"])["sub-9"][0]
        assert mask.url == (
            "https://raw.githubusercontent.com/neurolabusc/StrokeOutcomeOptimizationProjectDemo/"
            "ae553f82c24721dec4cd3bcffdd6c952257e8dba/NIfTI/bwsrsub-9_lesion.nii.gz"
        )

    def test_the_order_of_the_patients_is_one_for_all_times(self):
        drawn = download._drawn(download._list_files(FILE_SETS["soop"]))
        assert len(set(drawn)) == 1451
        assert drawn[:4] == ["sub-1286", "sub-1006", "sub-1473", "sub-1547"]
        # By lot: the first hundred are neither the first nor the last that were scanned.
        numbers = [int(name.removeprefix("sub-")) for name in drawn]
        assert abs(np.mean(numbers[:100]) - np.mean(numbers)) < 3 * np.std(numbers) / 10

    @pytest.mark.skipif(REAL_SOOP is None, reason="takes the real patient of SOOP")
    def test_the_real_patient_is_the_listed_one(self):
        for file in download._list_files(FILE_SETS["soop"])["sub-3"]:
            assert file.is_at(REAL_SOOP / file.path)

    def test_licence_and_citation_are_named(self):
        for file_set in FILE_SETS.values():
            assert file_set.licence == "CC0" and "Absher et al. (2024)" in file_set.citation


class TestTheBook:
    def test_the_published_one_fetches_the_slices_before_it_is_built(self):
        workflow = yaml.safe_load((BOOK / ".github/workflows/book.yml").read_text("utf-8"))
        steps = [step.get("run", "") for step in workflow["jobs"]["build"]["steps"]]
        fetch, build = (
            next(i for i, run in enumerate(steps) if command in run)
            for command in ('python" -m tools.download soop-slices', ".ci/run")
        )
        assert fetch < build

    @pytest.mark.parametrize("page", ["README.md", "chapters/setup.md"])
    def test_readme_and_set_up_page_name_the_one_command(self, page):
        text = (BOOK / page).read_text(encoding="utf-8")
        assert "\n```bash\npython -m tools.download soop-slices\n```\n" in text

    def test_every_data_set_is_in_the_table(self):
        table = (BOOK / "data" / "README.md").read_text(encoding="utf-8")
        for name, one in {**DATA_SETS, **FILE_SETS}.items():
            assert f"python -m tools.download {name}`" in table and f"| `{one.place}" in table


class TestManyFiles:
    def test_they_land_in_openneuros_layout_and_nothing_else_stays(self, soop, folder, capsys):
        assert main(["soop", "--patients", "5"]) == 0
        wanted = {path: body for path, body in soop.files.items() if "ADC" not in path}
        assert left(folder) == sorted(f"soop/{path}" for path in wanted)
        assert all((folder / "soop" / path).read_bytes() == b for path, b in wanted.items())
        assert os.listdir(folder) == ["soop"]
        told = capsys.readouterr()
        assert "Licence: CC0" in told.out and "Absher et al. (2024)" in told.out
        assert told.out.endswith("soop: 5 patients of 5\n")
        # How many bytes of how many, and how long it will take.
        assert re.search(
            r"soop: 100%\|.*\| [\d.]+[kM]/[\d.]+[kM] \[\d\d:\d\d<\d\d:\d\d, ", told.err
        )

    def test_with_adc(self, soop, folder):
        assert main(["soop", "--patients", "5", "--adc"]) == 0
        assert left(folder) == sorted(f"soop/{path}" for path in soop.files)

    def test_fewer_patients_are_a_part_of_more(self, soop, folder):
        found = []
        for n in (1, 3, 4):
            assert main(["soop", "--patients", str(n)]) == 0
            found.append(patients(folder))
        assert [len(names) for names in found] == [1, 3, 4]
        assert found[0] < found[1] < found[2]
        assert len(soop.asked) == 8  # each scan and mask once

    def test_adc_is_fetched_to_patients_that_are_there(self, soop, folder):
        assert main(["soop", "--patients", "2"]) == 0
        assert main(["soop", "--patients", "2", "--adc"]) == 0
        assert len(soop.asked) == 6 and len(left(folder)) == 6

    def test_a_hundred_unless_said(self, soop, capsys):
        assert main(["soop"]) == 1
        assert failure(capsys) == "patients: expected 1 to 5, found 100"

    @pytest.mark.parametrize("n", ["0", "-3", "6", "100000"])
    def test_as_many_patients_as_there_are(self, soop, n, capsys):
        assert main(["soop", f"--patients={n}"]) == 1
        assert failure(capsys) == f"patients: expected 1 to 5, found {int(n):,}"
        assert soop.asked == []

    @pytest.mark.parametrize("option", [["--patients", "3"], ["--adc"]])
    @pytest.mark.parametrize("name", ["mnist", "isles2022", "soop-slices"])
    def test_its_options_are_for_it_alone(self, option, name, capsys):
        with pytest.raises(SystemExit, match="2"):
            main([name, *option])
        assert f"expected with soop, found with {name}" in capsys.readouterr().err

    def test_they_come_several_at_a_time(self, soop):
        together = threading.Barrier(4, timeout=20)  # each of four requests waits for the others
        soop.when = together.wait
        for number in (3, 20, 100, 101):
            soop.troubles[soop.url[soop_paths(number)[2]]] = ["when"]
        assert main(["soop", "--patients", "5"]) == 0
        assert not together.broken

    @pytest.mark.parametrize(
        "troubles",
        [
            ["cut"],
            ["cut", "cut", "cut", "cut"],
            ["stall"],
            ["silent"],
            [503],
            [503, 500, 502, 504],
            [429],
            [408],
            ["cut", "no ranges"],
            ["says it is gzip"],
            ["shorter, of untold length"],
            ["cut", "stall", 503, "cut"],
        ],
        ids=str,
    )
    @pytest.mark.parametrize("which", [0, 2], ids=["scan", "mask"])
    def test_what_passes_is_borne(self, soop, folder, troubles, which):
        soop.troubles[soop.url[soop_paths(3)[which]]] = troubles.copy()
        impatient = not {"stall", "silent"}.isdisjoint(troubles)
        if impatient:
            soop.be_impatient()
        assert main(["soop", "--patients", "5"]) == 0
        for path in (p for p in soop.files if "ADC" not in p):
            assert (folder / "soop" / path).read_bytes() == soop.files[path]
        assert os.listdir(folder) == ["soop"]
        # Some of these are no failures, and nothing is asked for once more.
        fine = troubles.count("no ranges") + troubles.count("says it is gzip")
        expected = 10 + len(troubles) - fine
        assert len(soop.asked) >= expected if impatient else len(soop.asked) == expected

    def test_after_a_cut_only_the_rest_is_asked_for(self, soop):
        path = soop_paths(3)[0]
        soop.troubles[soop.url[path]] = ["cut"]
        assert main(["soop", "--patients", "5"]) == 0
        first, second = [asked for url, asked in soop.asked if url == soop.url[path]]
        start = int(second.removeprefix("bytes=").removesuffix("-"))
        half = len(soop.files[path]) // 2
        assert first is None and half - download._CHUNK <= start <= half

    @pytest.mark.parametrize("trouble", ["cut at once", "stall", "silent", 503, 500, 429])
    def test_what_does_not_pass_is_told_and_the_same_command_goes_on(
        self, soop, folder, trouble, monkeypatch, capsys
    ):
        path = soop_paths(100)[0]
        soop.troubles[soop.url[path]] = [trouble] * download._TRIES
        if trouble == "cut at once":
            soop.troubles[soop.url[path]] = ["cut"] * 50
        if trouble in ("stall", "silent"):
            soop.be_impatient()
        assert main(["soop", "--patients", "5"]) == 1
        message = failure(capsys)
        assert soop.url[path] in message and "asked 5 times, the last time: " in message
        assert message.endswith("; the same command goes on from there.")
        assert "sub-100" not in patients(folder)
        if isinstance(trouble, int):
            assert f"{trouble} " in message
        if trouble in ("stall", "silent"):
            assert "timed out" in message

        soop.troubles.clear()
        monkeypatch.setattr(download, "_SILENCE", 30)
        there = len(patients(folder))
        soop.asked.clear()
        assert main(["soop", "--patients", "5"]) == 0
        assert len(patients(folder)) == 5 and os.listdir(folder) == ["soop"]
        assert len(soop.asked) <= 2 * (5 - there)

    @pytest.mark.parametrize(
        ("trouble", "told"),
        [
            (404, "expected the file, found 404 "),
            (403, "expected the file, found 403 "),
            (410, "expected the file, found 410 "),
            ("other bytes", r"expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"),
            ("longer", "expected 9,000 bytes, found 9,001"),
            ("shorter", "expected 9,000 bytes, found 8,999"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("which", [0, 2], ids=["scan", "mask"])
    def test_a_file_that_is_not_the_published_one_costs_no_other_patient_theirs(
        self, soop, folder, trouble, told, which, capsys
    ):
        path = soop_paths(1000)[which]
        soop.troubles[soop.url[path]] = [trouble]
        assert main(["soop", "--patients", "5"]) == 1
        message = failure(capsys)
        assert message.startswith("1 of 5 patients") and soop.url[path] in message
        assert re.search(told, message) and message.endswith("asks for what is missing.")
        assert len(patients(folder)) == 4 and "sub-1000" not in patients(folder)
        assert sum(url == soop.url[path] for url, _ in soop.asked) == 1  # asking again is no use

        soop.asked.clear()
        assert main(["soop", "--patients", "5"]) == 0
        assert len(patients(folder)) == 5 and os.listdir(folder) == ["soop"]
        assert len(soop.asked) <= 2

    def test_a_beginning_left_from_another_file_is_not_gone_on_from(self, soop, folder):
        path = soop_paths(3)[0]
        part = folder / "soop.part" / f"{path}.part"
        for left_over in (bytes(5000), bytes(len(soop.files[path])), bytes(10**6)):
            part.parent.mkdir(parents=True)
            part.write_bytes(left_over)
            assert main(["soop", "--patients", "5"]) == 0
            assert (folder / "soop" / path).read_bytes() == soop.files[path]
            (folder / "soop" / path).unlink()

    @pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"?", lambda b: b""])
    def test_a_file_that_was_damaged_afterwards_is_fetched_again(self, soop, folder, damage):
        assert main(["soop", "--patients", "5"]) == 0
        path = soop_paths(20)[0]
        (folder / "soop" / path).write_bytes(damage(soop.files[path]))
        soop.asked.clear()
        assert main(["soop", "--patients", "5"]) == 0
        assert soop.asked == [(soop.url[path], None)]
        assert (folder / "soop" / path).read_bytes() == soop.files[path]

    def test_a_server_that_has_moved_is_named_with_a_few_of_its_files(self, soop, folder, capsys):
        soop.always = 404
        assert main(["soop", "--patients", "5"]) == 1
        assert failure(capsys).startswith("5 of 5 patients have a file that is not to be had")
        assert not (folder / "soop").exists()

    def test_no_server_at_all(self, soop, folder, monkeypatch, capsys):
        moved = dataclasses.replace(FILE_SETS["soop"], url="http://127.0.0.1:1/{path}")
        monkeypatch.setitem(FILE_SETS, "soop", moved)
        assert main(["soop", "--patients", "5"]) == 1
        assert "127.0.0.1:1/" in failure(capsys) and not (folder / "soop").exists()

    def test_ctrl_c_keeps_what_has_arrived(self, soop, folder, capsys):
        path = soop_paths(3)[0]
        soop.troubles[soop.url[path]] = ["when"]

        def press():
            while len(list(folder.glob("soop/sub-*/dwi/*"))) < 4:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            soop.over.wait(0.5)

        soop.when = press
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            assert main(["soop", "--patients", "5"]) == 130
        finally:
            signal.signal(signal.SIGINT, before)
        told = capsys.readouterr().err
        assert f"goes on from what is in {folder / 'soop.part'}" in told and "Traceback" not in told
        soop.asked.clear()
        assert main(["soop", "--patients", "5"]) == 0
        assert [url for url, _ in soop.asked] in ([], [soop.url[path]])
        assert len(patients(folder)) == 5

    def test_too_little_space_is_told_before_anything_is_fetched(self, soop, monkeypatch, capsys):
        usage = shutil.disk_usage(".")._replace(free=1000)
        monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
        assert main(["soop", "--patients", "5"]) == 1
        assert "of free disk space, found 0.0" in failure(capsys) and soop.asked == []

    def test_a_shared_folder_that_has_them_is_enough(self, soop, folder, tmp_path, monkeypatch):
        assert main(["soop", "--patients", "4"]) == 0
        shutil.move(folder / "soop", tmp_path / "shared" / "soop")
        monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path / "shared"))
        soop.asked.clear()
        assert main(["soop", "--patients", "4"]) == main(["soop", "--patients", "2"]) == 0
        assert soop.asked == [] and not (folder / "soop").exists()

    def test_a_shared_folder_with_fewer_would_hide_the_others(
        self, soop, folder, tmp_path, monkeypatch, capsys
    ):
        assert main(["soop", "--patients", "2"]) == 0
        shutil.move(folder / "soop", tmp_path / "shared" / "soop")
        monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path / "shared"))
        soop.asked.clear()
        assert main(["soop", "--patients", "4"]) == 1
        message = failure(capsys)
        assert f"{tmp_path / 'shared' / 'soop'}: expected 4 patients, found 2 of them" in message
        assert "unset VAE_BOOK_DATA" in message and soop.asked == []

    def test_a_folder_that_is_a_link_to_a_larger_disk(self, soop, folder, tmp_path):
        (tmp_path / "disk" / "soop_of_all").mkdir(parents=True)
        folder.mkdir()
        (folder / "soop").symlink_to(tmp_path / "disk" / "soop_of_all")
        assert main(["soop", "--patients", "5"]) == 0
        assert len(patients(folder)) == 5 and (folder / "soop").is_symlink()
        assert os.listdir(folder) == ["soop"] and os.listdir(tmp_path / "disk") == ["soop_of_all"]


def quality_picture(image, lesion):
    """Draw a picture to check a lesion by: three views side by side, the lesion half red."""
    grey = np.where(lesion, image // 2, image)
    red = np.where(lesion, image // 2 + 127, image).astype(np.uint8)
    picture = np.zeros((189, 692, 3), np.uint8)
    picture[:, :157] = np.stack([red, grey, grey], axis=-1)
    picture[:, 157:] = 99
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def lesion_volume(lesion):
    """A lesion of which this is slice 68, and another one above it."""
    volume = np.zeros((157, 189, 136), np.uint8)
    volume[:, :, 68] = lesion[::-1, ::-1].T
    volume[3:13, 4:14, 90:100] = 1
    image = nib.Nifti1Image(volume, np.diag([-1.0, 1, 1, 1]))
    return gzip.compress(image.to_bytes())


@pytest.fixture
def slices(crowd, monkeypatch, tmp_path):
    """Three patients, of whom we know what the pictures were drawn from."""
    rng, crowd.truth, bodies = np.random.default_rng(1), {}, {}
    for number in (1000, 20, 3):
        image = (rng.integers(0, 128, (189, 157)) * 2).astype(np.uint8)
        lesion = np.zeros((189, 157), bool)
        lesion[40 : 41 + number // 10, 30 : 31 + number // 20] = True
        crowd.truth[number] = image, lesion
        bodies[f"PNG/rsub-{number}_lesion.nii.png"] = quality_picture(image, lesion)
        bodies[f"NIfTI/bwsrsub-{number}_lesion.nii.gz"] = lesion_volume(lesion)
    publish(crowd, monkeypatch, tmp_path / "list.csv", "soop-slices", bodies, "git_blob_sha1")
    return crowd


class TestSlices:
    def test_what_the_pictures_were_drawn_from_is_had_back(self, slices, folder, capsys):
        assert main(["soop-slices"]) == 0
        assert left(folder) == ["soop_flair/axial_slices.npz"]
        with np.load(find_data("soop_flair/axial_slices.npz")) as rows:
            assert rows["subject_id"].tolist() == [3, 20, 1000]
            assert rows["subject_id"].dtype == np.int64 and rows["image"].dtype == np.uint8
            for i, number in enumerate(rows["subject_id"]):
                image, lesion = slices.truth[number]
                np.testing.assert_array_equal(rows["image"][i], image)
                np.testing.assert_array_equal(rows["lesion"][i], lesion)
                expected = np.float32((lesion.sum() + 1000) / 1000)  # ml, also above the slice
                assert rows["lesion_ml"][i] == expected and rows["lesion_ml"].dtype == np.float32
        told = capsys.readouterr().out
        assert "Licence: CC0" in told and told.endswith("axial_slices.npz: 3 patients\n")

    def test_it_is_not_fetched_twice(self, slices, capsys):
        assert main(["soop-slices"]) == main(["soop-slices"]) == 0
        assert len(slices.asked) == 6 and "is already there" in capsys.readouterr().out

    @pytest.mark.parametrize("damage", DAMAGES, ids=DAMAGES)
    def test_a_damaged_file_is_made_anew(self, slices, folder, damage, capsys):
        assert main(["soop-slices"]) == 0
        path = folder / "soop_flair" / "axial_slices.npz"
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[damage](whole))
        assert main(["soop-slices"]) == 0 and len(slices.asked) == 12
        assert f"{path} is damaged (" in capsys.readouterr().err
        assert left(folder) == ["soop_flair/axial_slices.npz"]
        with np.load(path) as rows:
            assert rows["subject_id"].tolist() == [3, 20, 1000]

    def test_a_slice_does_not_keep_its_volume_in_memory(self, slices, tmp_path):
        files = [tmp_path / "picture.png", tmp_path / "mask.nii.gz"]
        for file, path in zip(
            files, ["PNG/rsub-3_lesion.nii.png", "NIfTI/bwsrsub-3_lesion.nii.gz"], strict=True
        ):
            file.write_bytes(slices.bodies[f"/set/{path}"])
        image, lesion, _ = download._recover_slice(*files)
        assert image.base is None and lesion.base is None  # of 1,449 volumes that would be 6 GB

    def test_ones_that_a_class_shares_are_enough(self, slices, tmp_path, monkeypatch):
        (tmp_path / "soop_flair").mkdir()
        (tmp_path / "soop_flair" / "axial_slices.npz").write_bytes(b"the class's")
        monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path))
        assert main(["soop-slices"]) == 0 and slices.asked == []

    @pytest.mark.parametrize(
        "trouble", [404, "other bytes", "longer", "shorter", "stall", "cut", 503], ids=str
    )
    @pytest.mark.parametrize(
        "path", ["PNG/rsub-20_lesion.nii.png", "NIfTI/bwsrsub-20_lesion.nii.gz"]
    )
    def test_all_of_them_or_no_file_and_then_only_what_is_missing(
        self, slices, folder, trouble, path, capsys
    ):
        slices.troubles[f"/set/{path}"] = [trouble] * 50
        if trouble == "stall":
            slices.be_impatient()
        assert main(["soop-slices"]) == 1
        message = failure(capsys)
        assert path in message
        if trouble == "other bytes":
            assert re.search("expected git_blob_sha1 [0-9a-f]{40}, found [0-9a-f]{40}", message)
        assert find_data("soop_flair/axial_slices.npz") is None

        slices.troubles.clear()
        slices.asked.clear()
        assert main(["soop-slices"]) == 0
        assert left(folder) == ["soop_flair/axial_slices.npz"]
        if trouble in (404, "other bytes", "longer", "shorter"):
            assert len(slices.asked) <= 2  # a patient whose mask is wrong was not asked further

    @pytest.mark.skipif(REAL_SLICES is None, reason="takes six patients as they are published")
    def test_six_real_patients_come_out_bit_for_bit(self, crowd, monkeypatch, tmp_path):
        raw = REAL_SLICES / "raw"
        bodies = {
            path.relative_to(raw).as_posix(): path.read_bytes()
            for path in raw.rglob("*_lesion.nii.*")
        }
        assert len(bodies) == 12
        publish(crowd, monkeypatch, tmp_path / "list.csv", "soop-slices", bodies, "git_blob_sha1")
        # Their checksums are those of the whole list.
        everybody = download._list_files(dataclasses.replace(FILE_SETS["soop-slices"], files=LIST))
        for name, files in download._list_files(FILE_SETS["soop-slices"]).items():
            assert [f.checksum for f in files] == [f.checksum for f in everybody[name]]
        assert main(["soop-slices"]) == 0
        with (
            np.load(find_data("soop_flair/axial_slices.npz")) as made,
            np.load(REAL_SLICES / "axial_slices.npz") as given,
        ):
            assert set(made) == set(given) and len(made["image"]) == 6
            rows = np.searchsorted(given["subject_id"], made["subject_id"])
            for key in given:
                assert made[key].dtype == given[key].dtype
                np.testing.assert_array_equal(made[key], given[key][rows])
