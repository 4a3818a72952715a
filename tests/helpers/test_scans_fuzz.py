"""Whatever happens to a file on its way here: it is read as it was, or refused by name.

What has a checksum (a `.nii.gz` from end to end, the voxels of a compressed `.mha`) must survive
any damage, and what has none (`.nii`, `.mha`) any change of its length. Out of reach is a flip in
plain text or plain voxels that gives another file in good order: nobody can know.

`FUZZ_EXAMPLES=20000 pytest tests/helpers/test_scans.py` looks longer, and at random places.
"""

import gzip
import io
import os
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.scans import VolumeReadError, load_volume

N_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))
HEADER = 352  # bytes before the voxels of a plain NIfTI
KINDS = ("scan.nii", "scan.nii.gz", "scan.mha", "compressed.mha")
fuzz = settings(
    max_examples=N_EXAMPLES or 300,
    derandomize=not N_EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """ITK starts threads for each of the thousands of small volumes, which takes the longest."""
    n_threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(n_threads)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One small scan in every format: the file's bytes, and where what has a checksum starts."""
    folder = tmp_path_factory.mktemp("intact")
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(1, 1000, (3, 4, 5)))
    image = sitk.Cast(image, sitk.sitkInt16)
    image.SetSpacing((1.5, 2.0, 5.0))
    image.SetOrigin((-7.0, 11.0, 3.0))
    found = {}
    for name in KINDS:
        sitk.WriteImage(image, str(folder / name), useCompression=name == "compressed.mha")
        content = (folder / name).read_bytes()
        found[name] = content, content.find(b"LOCAL\n") + 6 if name.endswith(".mha") else 0
    found["scan.nii.gz"] = zipped(found["scan.nii"][0]), 0
    return found


def zipped(content):
    """Gzip with a name and a time in the header, which no checksum covers."""
    stream = io.BytesIO()
    with gzip.GzipFile("scan.nii", "wb", fileobj=stream, mtime=1_400_000_000) as file:
        file.write(content)
    return stream.getvalue()


@pytest.fixture
def refused(tmp_path, files, capfd):
    """Judge one damaged file: True if it is refused, False if nothing of it has changed.

    Anything else fails: other voxels, another place, another error, a word on stderr.
    """
    intact = {}

    def judge(name, damaged):
        path = tmp_path / name
        if name not in intact:
            path.write_bytes(files[name][0])
            intact[name] = load_volume(path)
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as leaked:
            warnings.simplefilter("always")
            try:
                volume, geometry = load_volume(path)
            except VolumeReadError as error:
                assert str(path) in str(error)
                outcome = True
            else:
                np.testing.assert_array_equal(volume, intact[name][0], strict=True)
                assert geometry == intact[name][1]
                outcome = False
        assert not leaked and capfd.readouterr() == ("", "")
        return outcome

    return judge


@pytest.mark.parametrize("name", KINDS)
def test_intact_is_read(files, refused, name):
    assert not refused(name, files[name][0])


@pytest.mark.parametrize("name", KINDS)
def test_every_cut_is_refused(files, refused, name):
    content, _ = files[name]
    for length in range(len(content)):
        assert refused(name, content[:length]), length
        assert refused(name, content[-length:] if length else b""), -length


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("byte", [0, 10, 255])
def test_every_pad_is_refused_but_zeros_after_a_gzip_stream(files, refused, name, byte):
    """Zeros there are what tapes left behind: gzip's own reader skips them."""
    content, _ = files[name]
    for n_bytes in (*range(1, 20), 512, 10_000):
        pad = bytes([byte]) * n_bytes
        assert refused(name, pad + content)
        assert refused(name, content + pad) == (byte != 0 or name != "scan.nii.gz")


@pytest.mark.parametrize("name", KINDS)
def test_a_file_twice_in_a_row_is_refused(files, refused, name):
    assert refused(name, files[name][0] * 2)


def flips_unseen(files, refused, name):
    """Flip each bit of what has a checksum; return the bytes in which one stays without effect."""
    content, start = files[name]
    unseen = set()
    for position in range(start, len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            if not refused(name, bytes(flipped)):
                unseen.add(position)
    return unseen


def test_flipped_bits_of_a_gzip_stream(files, refused):
    """Time, system and name say nothing of the volume; checksum and length say all of it.

    Between them a bit may flip without effect: a run of zeros copied from other zeros.
    """
    content, _ = files["scan.nii.gz"]
    time, system = {4, 5, 6, 7}, {9}
    name = {position + content.index(b"scan.nii\0") for position in range(8)}
    unseen = flips_unseen(files, refused, "scan.nii.gz")
    assert time | system | name <= unseen
    assert unseen.isdisjoint({*range(len(content) - 8, len(content)), 0, 1, 2})


def test_flipped_bits_of_a_compressed_mhas_voxels(files, refused):
    content, start = files["compressed.mha"]
    unseen = flips_unseen(files, refused, "compressed.mha")
    assert unseen.isdisjoint({*range(len(content) - 4, len(content)), start, start + 1})


OTHER_LENGTH = ("deleted", "inserted", "repeated", "line ends")
ANY_DAMAGE = (*OTHER_LENGTH, "zeroed", "overwritten", "reversed")


def damaged(draw, content, start, kinds):
    """Do to some bytes what disks, networks and editors do."""
    first = draw(st.integers(start, len(content) - 1))
    last = draw(st.integers(first + 1, len(content)))
    span, rest = content[first:last], content[last:]
    change = {
        "deleted": lambda: b"",
        "inserted": lambda: draw(st.binary(min_size=1, max_size=40)) + span,
        "repeated": lambda: span * draw(st.integers(2, 4)),
        "zeroed": lambda: bytes(len(span)),
        "overwritten": lambda: draw(st.binary(min_size=len(span), max_size=len(span))),
        "reversed": lambda: span[::-1],
        "line ends": lambda: span.replace(b"\n", b"\r\n"),
    }
    return content[:first] + change[draw(st.sampled_from(kinds))]() + rest


@fuzz
@given(name=st.sampled_from(["scan.nii.gz", "compressed.mha"]), data=st.data())
def test_any_damage_to_what_has_a_checksum(files, refused, name, data):
    content, start = files[name]
    for _ in range(data.draw(st.integers(1, 3))):
        if len(content) > start:
            content = damaged(data.draw, content, start, ANY_DAMAGE)
    refused(name, content)


@fuzz
@given(name=st.sampled_from(["scan.nii", "scan.mha"]), data=st.data())
def test_plain_voxels_lost_or_added_anywhere(files, refused, name, data):
    content, start = files[name]
    changed = damaged(data.draw, content, start or HEADER, OTHER_LENGTH)
    assert refused(name, changed) == (changed != content)


@fuzz
@given(name=st.sampled_from(KINDS), data=st.data())
def test_a_damaged_header_is_refused_or_read_without_a_word(files, tmp_path, capfd, name, data):
    """It may be in good order and say something else; but never end in NaN or another error."""
    content, start = files[name]
    if name == "scan.nii.gz":
        content = files["scan.nii"][0]
    header = bytearray(content)
    end = start or HEADER
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(zipped(bytes(header)) if name == "scan.nii.gz" else bytes(header))
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        try:
            volume, geometry = load_volume(path)
        except (VolumeReadError, ValueError) as error:  # ValueError: it claims several volumes
            assert str(path) in str(error)
        else:
            assert np.isfinite(volume).all() and volume.shape == geometry.size
            assert min(geometry.spacing) > 0 and np.isfinite(geometry.origin).all()
            np.testing.assert_array_less(0.5, np.diag(np.reshape(geometry.direction, (3, 3))))
    assert not leaked and capfd.readouterr() == ("", "")
