"""A cohort in files: whole or not at all, kept as long as it is true, on one machine or several."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace

import distributed
import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from test_cohort import write_scans

from helpers import shards
from helpers.cohort import SPACING, brain_patches
from helpers.patches import PatchSet
from helpers.phantom import write_cohort
from helpers.scans import Case, VolumeReadError, find_cases, load_case
from helpers.shards import find_shards, read_shard, write_shards


@pytest.fixture
def cases(tmp_path):
    return write_scans(tmp_path / "scans", 4)


def files(folder):
    """Every file beneath a folder, with its content."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def written_at(folder):
    return {shard.name: (shard / "patches.npy").stat().st_mtime_ns for shard in find_shards(folder)}


def cut(cases, patch_size=(28, 28), **settings):
    """The same patches, without shards."""
    scans = (load_case(case, spacing=SPACING) for case in cases)
    return PatchSet.concatenate([brain_patches(scan, patch_size, **settings) for scan in scans])


def assert_same_patches(left, right):
    for field in fields(PatchSet):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))


def test_shards_hold_what_fits_into_memory_too(cases, tmp_path):
    folder = tmp_path / "not yet there" / "shards"
    written = write_shards(cases, folder)
    assert written == find_shards(folder)
    assert_same_patches(PatchSet.concatenate(map(read_shard, written)), cut(cases))


def test_a_shard_is_plain_numpy_files_that_are_mapped_and_not_read(cases, tmp_path):
    (shard,) = write_shards(cases[:1], tmp_path / "shards")
    patches = read_shard(shard)
    assert isinstance(patches.patches, np.memmap) and not patches.patches.flags.writeable
    np.testing.assert_array_equal(np.load(shard / "patches.npy"), patches.patches)
    assert type(patches.dropped_lesion_voxels) is type(patches.dropped_brain_voxels) is int


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: expected shards, found none"):
        find_shards(tmp_path)


def test_scans_of_another_voxel_size_are_cut_as_load_patches_cuts_them(tmp_path):
    cases = write_scans(tmp_path / "scans", 1, size=(28, 28, 15), spacing=(2.0, 2.0, 1.0))
    (shard,) = write_shards(cases, tmp_path / "shards")
    assert_same_patches(read_shard(shard), cut(cases))


def test_what_was_cut_is_kept_and_only_a_changed_scan_is_cut_anew(cases, tmp_path):
    folder = tmp_path / "shards"
    write_shards(cases[:2], folder)
    first = written_at(folder)
    write_shards(cases, folder)
    second = written_at(folder)
    assert len(second) == 4 and second.items() >= first.items()

    cases[0].dwi.write_bytes(cases[3].dwi.read_bytes())
    write_shards(cases, folder)
    third = written_at(folder)
    assert [name for name in third if third[name] != second[name]] == [cases[0].subject_id]
    assert_same_patches(read_shard(folder / cases[0].subject_id), cut(cases[:1]))


def test_another_mask_cuts_anew(cases, tmp_path):
    (shard,) = write_shards(cases[:1], tmp_path / "shards")
    assert read_shard(shard).lesion_fraction.any()
    image = sitk.ReadImage(str(cases[0].lesion))
    sitk.WriteImage(image * 0, str(cases[0].lesion))
    write_shards(cases[:1], tmp_path / "shards")
    assert not read_shard(shard).lesion_fraction.any()


@pytest.mark.parametrize("other", [False, True], ids=["the same", "another"])
def test_who_is_second_keeps_the_same_shard_and_tells_of_another(
    cases, tmp_path, monkeypatch, other
):
    replace = os.replace

    def second(source, target):
        shutil.copytree(source, target)  # by somebody who is quicker
        if other:
            (target / "fingerprint.txt").write_text("of other settings")
        replace(source, target)

    monkeypatch.setattr(shards.os, "replace", second)
    settings = {"patch_size": (28, 28), "min_brain_fraction": 0.25}
    if other:
        with pytest.raises(OSError, match=cases[0].subject_id):
            shards._write_shard(tmp_path, settings, cases[0])
    else:
        shard = shards._write_shard(tmp_path, settings, cases[0])
        assert_same_patches(read_shard(shard), cut(cases[:1]))
        assert list(tmp_path.glob("*sub-*")) == [shard]  # nothing of the second is left


@pytest.mark.parametrize("settings", [{"patch_size": (14, 28)}, {"min_brain_fraction": 1.0}])
def test_other_settings_cut_everything_anew(cases, tmp_path, settings):
    folder = tmp_path / "shards"
    write_shards(cases, folder)
    first = written_at(folder)
    written = write_shards(cases, folder, **settings)
    assert not written_at(folder).items() & first.items()
    assert_same_patches(PatchSet.concatenate(map(read_shard, written)), cut(cases, **settings))


def test_a_change_in_the_code_that_cuts_cuts_everything_anew(cases, tmp_path, monkeypatch):
    write_shards(cases, tmp_path / "shards")
    first = written_at(tmp_path / "shards")
    edited = tmp_path / "scans.py"
    edited.write_text("# another scans.py")
    monkeypatch.setattr(shards, "_CUTTERS", [edited])
    # In this process, because others would not see the change.
    for case in cases:
        settings = {"patch_size": (28, 28), "min_brain_fraction": 0.25}
        shards._write_shard(tmp_path / "shards", settings, case)
    assert not written_at(tmp_path / "shards").items() & first.items()


def test_a_scan_without_a_patch_of_brain_has_an_empty_shard(cases, tmp_path):
    (shard,) = write_shards(cases[:1], tmp_path / "shards", min_brain_fraction=1.1)
    assert len(read_shard(shard)) == 0 and read_shard(shard).dropped_lesion_voxels == 70


def test_a_scan_without_a_mask_has_shards_that_say_so(tmp_path):
    cases = write_scans(tmp_path / "scans", 1, masks=False)
    (shard,) = write_shards(cases, tmp_path / "shards")
    assert np.isnan(read_shard(shard).lesion_fraction).all()


def test_damaged_scans_are_named_and_cost_nobody_else_their_work(cases, tmp_path):
    whole = cases[1].dwi.read_bytes()
    cases[1].dwi.write_bytes(whole[:-100])
    missing = Case("sub-nobody", tmp_path / "nobody.nii.gz")
    with pytest.raises(ExceptionGroup) as caught:
        write_shards([missing, *cases], tmp_path / "shards")
    message = str(caught.value)
    assert message.startswith("2 of 5 patients failed")
    for damaged in (missing, cases[1]):
        (line,) = (line for line in message.splitlines() if line.startswith(damaged.subject_id))
        assert str(damaged.dwi) in line
    assert {type(error) for error in caught.value.exceptions} == {
        FileNotFoundError,
        VolumeReadError,
    }
    done = [shard.name for shard in find_shards(tmp_path / "shards")]
    assert done == [case.subject_id for case in (cases[0], *cases[2:])]

    before = written_at(tmp_path / "shards")
    cases[1].dwi.write_bytes(whole)
    assert len(write_shards(cases, tmp_path / "shards")) == 4
    assert written_at(tmp_path / "shards").items() >= before.items()


def test_a_process_killed_while_writing_leaves_whole_shards_only(cases, tmp_path):
    folder = tmp_path / "shards"
    script = f"""
import os, signal
import numpy as np
from helpers import shards
from helpers.scans import find_cases

save, calls = np.save, []

def die_at_the_tenth_file(path, array):
    calls.append(path)
    if len(calls) == 10:
        path.write_bytes(b"half a fi")
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, array)

np.save = die_at_the_tenth_file
os.mkdir({str(folder)!r})
settings = {{"patch_size": (28, 28), "min_brain_fraction": 0.25}}
for case in find_cases({str(tmp_path / "scans")!r}):
    shards._write_shard(shards.Path({str(folder)!r}), settings, case)
"""
    died = subprocess.run([sys.executable, "-c", script], check=False)
    assert died.returncode == -signal.SIGKILL
    assert [shard.name for shard in find_shards(folder)] == [cases[0].subject_id]
    assert len(list(folder.iterdir())) == 2  # a whole one, and what is left of the other

    first = written_at(folder)
    write_shards(cases, folder)
    assert written_at(folder).items() >= first.items()
    write_shards(cases, tmp_path / "at once")
    assert files(folder) == files(tmp_path / "at once")  # and nothing is left over


@pytest.mark.parametrize("name", ["", "..", "../escaped", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused_before_anything_is_written(cases, tmp_path, name):
    with pytest.raises(ValueError, match="name a folder"):
        write_shards([replace(cases[0], subject_id=name)], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_two_patients_of_one_name_are_refused(cases, tmp_path):
    first, second, third, _ = cases
    twice = f"found twice: {first.subject_id}, {second.subject_id}$"
    with pytest.raises(ValueError, match=twice):
        write_shards([second, first, third, first, second], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_no_patient_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one patient"):
        write_shards([], tmp_path / "shards")


# --- on a cluster -----------------------------------------------------------------------------


def test_a_cluster_writes_the_same_bytes(cases, tmp_path, client):
    write_shards(cases, tmp_path / "here")
    with distributed.get_task_stream(client) as tasks:
        write_shards(cases, tmp_path / "there", client=client)
    assert len(tasks.data) == len(cases)  # done there, and not here
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_cluster_names_damaged_scans_and_does_the_others(cases, tmp_path, client):
    cases[2].dwi.write_bytes(b"a text, not a scan")
    with pytest.raises(ExceptionGroup, match=f"(?s)1 of 4 patients.*{cases[2].subject_id}: "):
        write_shards(cases, tmp_path / "shards", client=client)
    assert len(find_shards(tmp_path / "shards")) == 3


def test_a_worker_that_is_killed_loses_nothing(tmp_path, client):
    scans = write_cohort(tmp_path / "scans", n_cases=2)
    for number in range(3, 15):  # further names for the same files
        for case in scans[:1]:
            name = f"sub-phantom{number:04d}"
            for path in (case.dwi, case.lesion):
                link = str(path).replace(case.subject_id, name)
                os.makedirs(os.path.dirname(link))
                os.link(path, link)
    cases = find_cases(tmp_path / "scans")
    assert len(cases) == 14
    victim = psutil.Process(next(iter(client.run(os.getpid).values())))
    done_by_then = []

    def kill_in_the_middle():
        while not (done := list((tmp_path / "there").glob("[!.]*"))):
            time.sleep(0.005)
        victim.kill()
        victim.wait()
        done_by_then.extend(done)

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    written = write_shards(cases, tmp_path / "there", client=client)
    killer.join()
    assert 0 < len(done_by_then) < len(cases) - 2  # it was in the middle
    assert not victim.is_running()
    assert [shard.name for shard in written] == [case.subject_id for case in cases]
    write_shards(cases, tmp_path / "here")
    assert files(tmp_path / "there") == files(tmp_path / "here")
