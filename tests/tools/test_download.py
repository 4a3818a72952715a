"""Data sets come over networks that break, here from a real server on this machine."""

import dataclasses
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

import numpy as np
import pooch
import pytest

from helpers import data
from helpers.data import find_data
from helpers.phantom import write_cohort
from helpers.scans import find_cases, load_case
from tools import download
from tools.download import DATA_SETS, main

BODY = np.random.default_rng(0).bytes(1_000_000)
HALF = len(BODY) // 2
SCAN = "ISLES-2022/sub-1/ses-0001/dwi/sub-1_ses-0001_dwi.nii.gz"
REAL = find_data("isles2022")  # looked up here: each test has a data folder of its own


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
    monkeypatch.delenv("VAE_BOOK_DATA", raising=False)
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

    def test_it_is_not_fetched_twice(self, offer, server, folder, capsys):
        offer("mnist", BODY)
        assert main(["mnist"]) == main(["mnist"]) == 0
        assert server.asked == [None]
        assert f"{folder / 'mnist.npz'} is already there" in capsys.readouterr().out

    def test_a_shared_folder_that_has_it_is_enough(self, offer, server, tmp_path, monkeypatch):
        offer("mnist", BODY)
        (tmp_path / "mnist.npz").write_bytes(b"the class's")
        monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path))
        assert main(["mnist"]) == 0 and server.asked == []

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
