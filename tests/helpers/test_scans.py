"""Facts about stroke scans on disk: who is found, what is read, and what is refused."""

import gzip
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes, gaussian_filter, label

from helpers.phantom import SPACING, simulate_case
from helpers.scans import (
    Case,
    GeometryMismatchError,
    LabelError,
    VolumeReadError,
    find_cases,
    load_case,
    load_volume,
)

BOOK = Path(__file__).parents[2]
FORMATS = ("nii", "nii.gz", "mha")
SHAPE = (3, 4, 5)
ORIENTATIONS = [
    "".join(axes)
    for pairs in itertools.permutations(("LR", "PA", "SI"))
    for axes in itertools.product(*pairs)
]


# A quarter turn in the plane.
ROTATED = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]


def turned(sine, axis):
    """A rotation about one axis, by an angle of which the sine is given."""
    matrix = np.eye(3)
    other = [[1, 2], [2, 0], [0, 1]][axis]
    cosine = np.sqrt(1 - sine**2)
    matrix[np.ix_(other, other)] = [[cosine, -sine], [sine, cosine]]
    return matrix


def random_scan(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(1, 1000, shape).astype(np.float32)


def write(path, array, *, spacing=(1, 1, 1), origin=(0, 0, 0), direction=None, compressed=False):
    """Write an array (z, y, x); spacing (z, y, x); origin and direction as SimpleITK has them."""
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing([float(length) for length in spacing[::-1]])
    image.SetOrigin([float(position) for position in origin])
    if direction is not None:
        image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


def write_nifti(path, array, affine=None):
    """Write an array (x, y, z, …), the way a NIfTI stores it, with nibabel."""
    nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_filename(path)
    return path


def stored_as(axes, shape):
    """The affine (RAS) of an image whose three axes run towards, for example, "LPS"."""
    return nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(axes)), shape)


def write_as(path, array, affine):
    """Write an array (x, y, z) with a nibabel affine, by nibabel or by SimpleITK."""
    if path.suffix != ".mha":
        return write_nifti(path, array, affine)
    axes = np.diag([-1, -1, 1]) @ affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    origin = affine[:3, 3] * (-1, -1, 1)
    header = {"spacing": spacing[::-1], "origin": origin, "direction": axes / spacing}
    return write(path, np.ascontiguousarray(array.T), **header)


def nifti(path, *, qform=None, sform=None, units="mm", kind=nib.Nifti1Image):
    """Write voxels 0 to 59 with one, both or none of a NIfTI's two places."""
    image = kind(np.arange(60, dtype=np.float32).reshape(5, 4, 3), None)
    for name, affine in (("qform", qform), ("sform", sform)):
        if affine is not None:
            getattr(image, f"set_{name}")(affine, 1)
    image.header.set_xyzt_units(units)
    image.to_filename(path)
    return path


def patch_bytes(path, start, content):
    """Overwrite some bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[start : start + len(content)] = content
    path.write_bytes(whole)
    return path


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def quietly(function, *arguments):
    """Call a function, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def pair(tmp_path, scan=None, mask=None, **mask_header):
    """A scan and its mask on disk, as a case."""
    scan = random_scan() if scan is None else scan
    mask = np.zeros(SHAPE, np.uint8) if mask is None else mask
    return Case(
        "sub-1",
        write(tmp_path / "sub-1_dwi.mha", scan),
        write(tmp_path / "sub-1_msk.mha", mask, **mask_header),
    )


class TestFindCases:
    def test_isles_2022_archive_and_challenge_are_the_same_patients(self, tmp_path):
        name = "sub-strokecase0001/ses-0001"
        stem = "sub-strokecase0001_ses-0001"
        touch(
            tmp_path / "zenodo/ISLES-2022",
            f"{name}/dwi/{stem}_dwi.nii.gz",
            f"{name}/dwi/{stem}_adc.nii.gz",
            f"{name}/dwi/{stem}_dwi.json",
            f"{name}/anat/{stem}_FLAIR.nii.gz",
            f"derivatives/{name}/{stem}_msk.nii.gz",
        )
        touch(
            tmp_path / "challenge",
            f"rawdata/{name}/{stem}_dwi.nii.gz",
            f"rawdata/{name}/{stem}_flair.nii.gz",
            f"derivatives/{name}/{stem}_msk.nii.gz",
        )
        for layout in ("zenodo", "challenge"):
            (case,) = find_cases(tmp_path / layout)
            assert case.subject_id == "sub-strokecase0001"
            assert case.dwi.name == f"{stem}_dwi.nii.gz"
            assert case.lesion.name == f"{stem}_msk.nii.gz"

    def test_isles_2015_scan_and_mask_share_a_folder_but_no_number(self, tmp_path):
        for patient, scan, mask in (("1", 70616, 70617), ("10", 71000, 7), ("2", 90, 71000)):
            folder = f"Training/{patient}"
            touch(
                tmp_path,
                f"{folder}/VSD.Brain.XX.O.MR_DWI.{scan}/VSD.Brain.XX.O.MR_DWI.{scan}.nii",
                f"{folder}/VSD.Brain.XX.O.MR_Flair.{scan + 1}/VSD.Brain.XX.O.MR_Flair.{scan}.nii",
                f"{folder}/VSD.Brain_3more.XX.XX.OT.{mask}/VSD.Brain_3more.XX.XX.OT.{mask}.nii",
            )
        cases = find_cases(tmp_path)
        assert [case.subject_id for case in cases] == ["1", "2", "10"]
        assert cases[2].dwi.name == "VSD.Brain.XX.O.MR_DWI.71000.nii"
        assert cases[2].lesion.name == "VSD.Brain_3more.XX.XX.OT.7.nii"

    def test_isles_2015_with_the_long_name_and_without_a_mask(self, tmp_path):
        touch(tmp_path, "Testing/3/VSD.Brain.XX.O.MR_DWI.5.000/VSD.Brain.XX.O.MR_DWI.5.000.nii")
        (case,) = find_cases(tmp_path)
        assert (case.subject_id, case.lesion) == ("3", None)

    def test_isles_2015_has_patients_of_153_and_of_154_slices(self, tmp_path):
        for patient, n_slices in (("1", 153), ("2", 154)):
            folder = tmp_path / patient
            scan = random_scan((n_slices, 3, 2))
            write(folder / "VSD.Brain.XX.O.MR_DWI.7.nii", scan)
            write(folder / "VSD.Brain_3more.XX.XX.OT.8.nii", (scan > 500).astype(np.uint8))
        first, second = find_cases(tmp_path)
        for case, n_slices in ((first, 153), (second, 154)):
            assert load_case(case).lesion.shape == (n_slices, 3, 2)
        with pytest.raises(GeometryMismatchError, match=r"size \(153, .*found \(154, "):
            load_case(Case("1", first.dwi, second.lesion))

    def test_isles_2015_case_folder_may_itself_be_the_root(self, tmp_path, monkeypatch):
        touch(tmp_path, "7/VSD.Brain.XX.O.MR_DWI.5/VSD.Brain.XX.O.MR_DWI.5.nii")
        monkeypatch.chdir(tmp_path / "7")
        assert [case.subject_id for case in find_cases(".")] == ["7"]

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_every_format_is_found_by_str_and_by_path(self, tmp_path, suffix):
        touch(tmp_path, f"sub-1_dwi.{suffix}", f"sub-1_msk.{suffix}")
        assert find_cases(tmp_path) == find_cases(str(tmp_path))
        assert find_cases(tmp_path)[0].lesion.name == f"sub-1_msk.{suffix}"

    def test_natural_order(self, tmp_path):
        touch(tmp_path, *(f"sub-case{number}_dwi.nii" for number in (10, 9, 1, 100, 2)))
        found = [case.subject_id for case in find_cases(tmp_path)]
        assert found == [f"sub-case{number}" for number in (1, 2, 9, 10, 100)]

    def test_names_of_letters_and_numbers_have_an_order_too(self, tmp_path):
        names = ["sub-1", "sub-1a", "sub-1a2", "sub-01", "sub-a", "sub-a1b2", "sub-a1b"]
        touch(tmp_path, *(f"{name}_dwi.nii" for name in names))
        assert sorted(case.subject_id for case in find_cases(tmp_path)) == sorted(names)

    def test_what_a_mac_leaves_behind_is_no_patient(self, tmp_path):
        touch(
            tmp_path,
            "__MACOSX/sub-1/sub-1_dwi.nii",
            ".Trashes/sub-1/sub-1_dwi.nii",
            "sub-1/._sub-1_dwi.nii",
            "sub-1/sub-1_dwi.nii",
        )
        (case,) = find_cases(tmp_path)
        assert case.dwi == tmp_path / "sub-1/sub-1_dwi.nii"

    def test_a_hidden_folder_above_the_root_does_not_hide_it(self, tmp_path):
        touch(tmp_path, ".cache/sub-1_dwi.nii")
        assert len(find_cases(tmp_path / ".cache")) == 1

    @pytest.mark.parametrize("kind", ["dwi", "msk"])
    def test_two_files_for_one_patient_are_refused_by_name(self, tmp_path, kind):
        touch(tmp_path, "sub-1_dwi.nii", "sub-1_msk.nii", f"again/sub-1_{kind}.nii.gz")
        with pytest.raises(ValueError, match=rf"sub-1.*again.*sub-1_{kind}\.nii"):
            find_cases(tmp_path)

    def test_two_sessions_of_one_patient_are_two_scans(self, tmp_path):
        touch(tmp_path, "sub-1_ses-0001_dwi.nii.gz", "sub-1_ses-0002_dwi.nii.gz")
        with pytest.raises(ValueError, match=r"sub-1: expected one scan.*ses-0001.*ses-0002"):
            find_cases(tmp_path)

    def test_isles_2015_training_and_testing_both_have_a_patient_1(self, tmp_path):
        for half, number in (("Training", 5), ("Testing", 6)):
            touch(tmp_path, f"{half}/1/VSD.Brain.XX.O.MR_DWI.{number}.nii")
        assert len(find_cases(tmp_path / "Training")) == 1
        with pytest.raises(ValueError, match=r"Testing.*Training"):
            find_cases(tmp_path)

    def test_masks_without_their_scan_are_missing_files(self, tmp_path):
        touch(tmp_path, "sub-1_dwi.nii", *(f"sub-{number}_msk.nii" for number in (1, 10, 2)))
        touch(tmp_path, "sub-2_flair.nii")
        match = r"sub-2_msk\.nii: expected a diff.*, found none for sub-2, sub-10$"
        with pytest.raises(FileNotFoundError, match=match):
            find_cases(tmp_path)

    def test_a_patient_without_a_diffusion_scan_is_left_out(self, tmp_path):
        touch(tmp_path, "sub-1_dwi.nii", "sub-2_flair.nii", "sub-2_adc.nii")
        assert [case.subject_id for case in find_cases(tmp_path)] == ["sub-1"]

    def test_nothing_found_says_what_was_looked_for(self, tmp_path):
        touch(tmp_path, "sub-1_flair.nii", "notes.txt")
        with pytest.raises(FileNotFoundError, match=r"MR_DWI.*1 other"):
            find_cases(tmp_path)

    def test_no_folder(self, tmp_path):
        match = r"nowhere: expected .*python -m tools\.download gets ISLES 2015 and ISLES 2022$"
        with pytest.raises(FileNotFoundError, match=match):
            find_cases(tmp_path / "nowhere")

    def test_a_link_to_a_scan_never_fetched_is_a_missing_file(self, tmp_path):
        (tmp_path / "sub-1_dwi.nii").symlink_to(tmp_path / "annex" / "object")
        (case,) = find_cases(tmp_path)
        with pytest.raises(FileNotFoundError, match="sub-1_dwi"):
            load_case(case)


def found(root):
    """What is found beneath a folder, as strings: {patient: (scan, mask)}."""

    def name(path):
        return path and path.relative_to(root).as_posix()

    return {case.subject_id: (name(case.dwi), name(case.lesion)) for case in find_cases(root)}


class TestLayouts:
    @pytest.mark.parametrize(
        ("scan", "mask"),
        [
            ("sub-1/dwi/sub-1_dwi.nii.gz", "derivatives/sub-1/sub-1_desc-lesion_mask.nii.gz"),
            ("sub-1/ses-1/dwi/sub-1_ses-1_dwi.nii.gz", "d/sub-1_ses-1_lesion-msk.nii.gz"),
            ("sub-1/ses-1/dwi/sub-1_ses-1_rec-TRACE_dwi.nii", "sub-1_ses-1_lesion_mask.nii"),
            ("sub-1/dwi/sub-1_acq-b1000_run-2_dwi.mha", "sub-1_label-lesion_mask.mha"),
            ("sub-1/dwi/sub-1_acq-ep2d_desc-trace_dwi.nii", "sub-1_lesion.nii"),
            ("sub-1_TRACE.nii", "sub-1_infarct.nii"),
            ("sub-1_b1000.nii", "sub-1_mask.nii"),
            ("sub-1_b=800.nii", "sub-1_lesionMask.nii"),
            ("sub-1/DWI.NII.GZ", "sub-1/LESION.NII.GZ"),
            ("sub-1/anything_dwi.nii", "sub-1/anything_roi.nii"),
            ("SUB-1_DWI.NII", "sub-1_msk.nii"),
        ],
    )
    def test_names_of_one_patient(self, tmp_path, scan, mask):
        touch(tmp_path, scan, mask)
        ((subject, files),) = found(tmp_path).items()
        assert (subject.lower(), files) == ("sub-1", (scan, mask))

    def test_soop(self, tmp_path):
        for number in (1, 2, 10):
            masks = f"derivatives/lesion_masks/sub-{number}/dwi/sub-{number}_space-TRACE"
            touch(
                tmp_path,
                f"sub-{number}/dwi/sub-{number}_rec-TRACE_dwi.nii.gz",
                f"sub-{number}/dwi/sub-{number}_rec-ADC_dwi.nii.gz",
                f"sub-{number}/anat/sub-{number}_FLAIR.nii.gz",
                f"{masks}_desc-lesionAcute_mask.nii.gz",
                f"{masks}_desc-lesionChronic_mask.nii.gz",
            )
        cases = found(tmp_path)
        assert list(cases) == ["sub-1", "sub-2", "sub-10"]
        for scan, mask in cases.values():
            assert scan.endswith("rec-TRACE_dwi.nii.gz") and "lesionAcute" in mask

    def test_an_old_lesion_is_not_the_acute_one(self, tmp_path):
        touch(tmp_path, "sub-1_dwi.nii", "sub-1_desc-lesionChronic_mask.nii")
        with pytest.warns(UserWarning, match=r"Chronic_mask\.nii \(not the mask of an acute"):
            assert found(tmp_path) == {"sub-1": ("sub-1_dwi.nii", None)}

    @pytest.mark.parametrize(
        "name",
        [
            *("anna_old_lesion", "anna_WMH_mask", "anna_haemorrhage_mask", "anna_ICH_mask"),
            *("anna_hemorrhage_lesion", "anna_microbleeds_mask", "anna_previous-lesion"),
            *("anna_tumor_mask", "anna_leukoaraiosis_mask", "anna_perfusion_lesion_mask"),
        ],
    )
    def test_other_lesions_than_an_infarcts_are_told_and_not_used(self, tmp_path, name):
        touch(tmp_path, "anna_dwi.nii", f"{name}.nii")
        with pytest.warns(UserWarning, match=rf"{name}\.nii \(not the mask of an acute"):
            assert found(tmp_path) == {"anna": ("anna_dwi.nii", None)}
        touch(tmp_path, "anna_acute_lesion_mask.nii")
        with warnings.catch_warnings(action="ignore"):
            assert found(tmp_path) == {"anna": ("anna_dwi.nii", "anna_acute_lesion_mask.nii")}

    @pytest.mark.parametrize(
        "done",
        [
            *("brain", "stripped", "copy", "copy2", "N4", "reg", "denoised", "ss", "normalised"),
            *("eddy", "bet", "skullstripped", "resampled"),
        ],
    )
    def test_what_was_made_of_a_scan_is_no_further_patient(self, tmp_path, done):
        touch(tmp_path, "anna_dwi.nii", f"anna_dwi_{done}.nii", "bert_dwi.nii", "bert_lesion.nii")
        with pytest.warns(UserWarning, match=rf"{done}\.nii \(anna_dwi\.nii is taken for anna"):
            assert list(found(tmp_path)) == ["anna", "bert"]
        touch(tmp_path, f"carl/DWI_{done}.nii", "carl/mask.nii")  # where there is no other
        with pytest.warns(UserWarning):
            assert found(tmp_path)["carl"] == (f"carl/DWI_{done}.nii", "carl/mask.nii")

    @pytest.mark.parametrize("made", ["ax", "axial", "ep2d", "tra", "RESOLVE", "ep2d_diff", "3T"])
    def test_how_a_scan_was_made_is_no_patients_name(self, tmp_path, made):
        touch(tmp_path, f"p1/{made}_dwi.nii", "p1/lesion.nii", f"p2/{made}_dwi.nii")
        assert found(tmp_path) == {
            "p1": (f"p1/{made}_dwi.nii", "p1/lesion.nii"),
            "p2": (f"p2/{made}_dwi.nii", None),
        }

    @pytest.mark.parametrize("visits", [("day0", "day7"), ("baseline", "followup"), ("2h", "24h")])
    def test_a_folder_may_say_when_and_not_whose(self, tmp_path, visits):
        first, second = visits
        touch(tmp_path, f"p1/{first}/dwi.nii", f"p1/{second}/mask.nii", f"Fuchs/{first}/dwi.nii")
        with pytest.warns(UserWarning, match=r"p1/.*mask\.nii \(of another session"):
            assert found(tmp_path) == {
                "p1": (f"p1/{first}/dwi.nii", None),
                "Fuchs": (f"Fuchs/{first}/dwi.nii", None),
            }

    def test_session_1_and_session_01_are_one(self, tmp_path):
        scan, mask = "sub-1/ses-01/sub-1_ses-1_run-01_dwi.nii", "sub-1_ses-1_run-1_lesion.nii"
        touch(tmp_path, scan, f"derivatives/{mask}", "derivatives/sub-1_ses-11_lesion.nii")
        with pytest.warns(UserWarning, match=r"ses-11_lesion\.nii \(of another session"):
            assert found(tmp_path) == {"sub-1": (scan, f"derivatives/{mask}")}

    def test_an_accent_apart_from_its_letter_is_the_same_name(self, tmp_path):
        scan, mask = "J\u00fcrgen_dwi.nii", "Ju\u0308rgen_lesion.nii"
        touch(tmp_path, scan, mask)
        assert list(found(tmp_path).values()) == [(scan, mask)]

    def test_isles_2024(self, tmp_path):
        for number in ("0001", "0002"):
            name = f"sub-stroke{number}"
            touch(
                tmp_path,
                f"raw_data/{name}/ses-01/{name}_ses-01_ncct.nii.gz",
                f"raw_data/{name}/ses-01/{name}_ses-01_cta.nii.gz",
                f"raw_data/{name}/ses-02/{name}_ses-02_dwi.nii.gz",
                f"raw_data/{name}/ses-02/{name}_ses-02_adc.nii.gz",
                f"derivatives/{name}/ses-01/perfusion-maps/{name}_ses-01_space-ncct_tmax.nii.gz",
                f"derivatives/{name}/ses-01/{name}_ses-01_lvo-msk.nii.gz",
                f"derivatives/{name}/ses-01/{name}_ses-01_cow-msk.nii.gz",
                f"derivatives/{name}/ses-02/{name}_ses-02_lesion-msk.nii.gz",
            )
        cases = found(tmp_path)
        assert list(cases) == ["sub-stroke0001", "sub-stroke0002"]
        for scan, mask in cases.values():
            assert scan.endswith("ses-02_dwi.nii.gz") and mask.endswith("ses-02_lesion-msk.nii.gz")

    def test_a_flat_folder_of_any_names(self, tmp_path):
        touch(
            tmp_path,
            *("Patient7_DWI.nii.gz", "Patient7_ADC.nii.gz", "Patient7_lesion.nii.gz"),
            *("P8_TRACE.nii", "P8_mask.nii", "anna b1000.nii", "anna msk.nii"),
            *("stroke12-dwi.nii", "stroke12-T1.nii", "dwi_09.nii", "lesion_09.nii"),
        )
        assert found(tmp_path) == {
            "Patient7": ("Patient7_DWI.nii.gz", "Patient7_lesion.nii.gz"),
            "P8": ("P8_TRACE.nii", "P8_mask.nii"),
            "anna": ("anna b1000.nii", "anna msk.nii"),
            "stroke12": ("stroke12-dwi.nii", None),
            "09": ("dwi_09.nii", "lesion_09.nii"),
        }

    def test_a_folder_for_each_patient_and_a_name_for_each_kind(self, tmp_path):
        touch(tmp_path, "anna/DWI.nii", "anna/ADC.nii", "anna/mask.nii", "bert/dwi/b1000.nii")
        touch(tmp_path, "bert/dwi/b0.nii", "bert/masks/lesion.nii", "carl/ses-1/trace.nii")
        assert found(tmp_path) == {
            "anna": ("anna/DWI.nii", "anna/mask.nii"),
            "bert": ("bert/dwi/b1000.nii", "bert/masks/lesion.nii"),
            "carl": ("carl/ses-1/trace.nii", None),
        }

    def test_what_is_found_in_capitals_is_read(self, tmp_path):
        touch(tmp_path, "anna/DWI.NII.GZ")
        write(tmp_path / "small.nii.gz", random_scan()).rename(tmp_path / "anna/DWI.NII.GZ")
        (case,) = find_cases(tmp_path)
        np.testing.assert_array_equal(load_case(case).dwi, random_scan())
        write(tmp_path / "small.mha", random_scan()).rename(tmp_path / "anna/DWI.MHA")
        np.testing.assert_array_equal(load_volume(tmp_path / "anna/DWI.MHA")[0], random_scan())

    @pytest.mark.parametrize(
        "name",
        [
            *("sub-2_rec-ADC_dwi", "sub-2_acq-b0_dwi", "sub-2_desc-FA_dwi", "sub-2_rec-MD_dwi"),
            *("sub-2_rec-colFA_dwi", "sub-2_rec-expADC_dwi", "sub-2_desc-TENSOR_dwi"),
            *("sub-2_dwi_ADC", "sub-2_dwi_FA", "sub-2_dwi_b0", "sub-2_dwi_S0", "sub-2_dwi_eADC"),
            *("sub-2_dwi_exp", "sub-2_dwi_RD", "sub-2_dwi_AD", "sub-2_b1000_ADCmap"),
            *(
                "sub-2_TRACE_ADC",
                "sub-2_dwi_b50",
                "sub-2_dwi_FLAIR",
                "sub-2_desc-noise_dwi",
                "sub-2_rec-MK_dwi",
                "sub-2_trace_T2",
                "sub-2_sbref_dwi",
            ),
            *(
                "sub-2_dwi_b000",
                "sub-2_dwi_b0000",
                "sub-2_dwib0",
                "sub-2_dwi_ADC2",
                "sub-2_dwi_GFA",
            ),
            *("sub-2_dwi_fractional_anisotropy", "sub-2_dwi_mean_diffusivity"),
            *(f"sub-2_dwi_{kind}" for kind in ("meanb0", "b0brain", "b-0", "b_0", "avgb0", "expo")),
            *(
                f"sub-2_dwi_{kind}"
                for kind in ("TRACEADC", "adctrace", "ADCm", "ADC10", "ADCvalue")
            ),
            *(
                f"sub-2_dwi_{kind}"
                for kind in ("T2b0", "T2WI", "RGB", "lambda1", "eigenvalue", "M0")
            ),
            *(
                f"sub-2_dwi_{kind}"
                for kind in ("evals", "avDC", "fieldmap", "phasediff", "ODI", "FW")
            ),
            *(f"sub-2_{entity}_dwi" for entity in ("acq-b0AP", "acq-revb0", "desc-meanb0")),
            *(f"sub-2_{entity}_dwi" for entity in ("rec-ADCTRACE", "rec-FAC", "rec-fa1")),
        ],
    )
    def test_a_map_is_never_taken_for_a_scan(self, tmp_path, name):
        touch(tmp_path, f"{name}.nii.gz")
        with pytest.raises(FileNotFoundError, match=rf"{name}\.nii\.gz \(a map that is no diff"):
            find_cases(tmp_path)
        touch(tmp_path, "sub-2_dwi.nii.gz")
        assert found(tmp_path) == {"sub-2": ("sub-2_dwi.nii.gz", None)}

    def test_where_no_volume_is_the_refusal_lists_what_is_there(self, tmp_path):
        touch(tmp_path, "report.txt", "sub-1/dwi.png")
        message = r"found 0 other volumes, but other files; .*report\.txt; .*sub-1/dwi\.png$"
        with pytest.raises(FileNotFoundError, match=message):
            find_cases(tmp_path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match=r"found 0 other volumes$"):
            find_cases(tmp_path / "empty")

    @pytest.mark.parametrize("name", ["sub-2_ADC", "sub-2_FA", "sub-2_b0", "sub-2_T1w", "bold"])
    def test_another_image_is_listed_where_no_scan_is(self, tmp_path, name):
        touch(tmp_path, f"{name}.nii.gz")
        with pytest.raises(FileNotFoundError, match=rf"found 1 other volumes; .*{name}\.nii\.gz$"):
            find_cases(tmp_path)

    @pytest.mark.parametrize(
        "name", ["desc-brain_mask", "brain_mask", "dwi_bet_mask", "desc-csf_mask", "skull-msk"]
    )
    def test_a_mask_of_something_else_is_no_lesion(self, tmp_path, name):
        touch(tmp_path, "sub-1_dwi.nii", f"sub-1_{name}.nii")
        with pytest.warns(UserWarning, match=rf"sub-1_{name}\.nii \(") as told:
            assert found(tmp_path) == {"sub-1": ("sub-1_dwi.nii", None)}
        assert len(told) == 1

    def test_a_lesion_of_the_brainstem_is_a_lesion(self, tmp_path):
        touch(tmp_path, "sub-1_dwi.nii", "sub-1_desc-brainstemLesion_mask.nii")
        assert found(tmp_path)["sub-1"][1] == "sub-1_desc-brainstemLesion_mask.nii"

    def test_of_two_sessions_the_one_with_a_mask_is_taken(self, tmp_path):
        touch(tmp_path, *(f"sub-1/ses-{n}/dwi/sub-1_ses-{n}_dwi.nii" for n in (1, 2)))
        with pytest.raises(ValueError, match=r"sub-1: .*ses-1_dwi.*ses-2_dwi.*Case\(name"):
            find_cases(tmp_path)
        touch(tmp_path, "derivatives/ses-2/sub-1_lesion.nii")
        with pytest.warns(UserWarning, match=r"ses-1_dwi\.nii \(sub-1_ses-2_dwi\.nii is taken"):
            scan, mask = found(tmp_path)["sub-1"]
        assert scan.endswith("ses-2_dwi.nii") and mask == "derivatives/ses-2/sub-1_lesion.nii"

    @pytest.mark.parametrize("key", ["ses", "run", "space"])
    def test_a_mask_of_another_place_is_not_this_scans(self, tmp_path, key):
        touch(tmp_path, f"sub-1_{key}-a_dwi.nii", f"sub-1_{key}-b_msk.nii")
        with pytest.warns(UserWarning, match=rf"{key}-b_msk\.nii \(of another session, run or sp"):
            assert found(tmp_path) == {"sub-1": (f"sub-1_{key}-a_dwi.nii", None)}

    def test_the_trace_is_taken_before_the_directions_it_was_made_from(self, tmp_path):
        touch(tmp_path, "sub-1_dwi.nii", "sub-1_rec-TRACE_dwi.nii", "sub-1_space-MNI_trace.nii")
        with pytest.warns(UserWarning, match=r"sub-1_dwi\.nii \(sub-1_rec-TRACE_dwi\.nii is taken"):
            assert found(tmp_path) == {"sub-1": ("sub-1_rec-TRACE_dwi.nii", None)}

    @pytest.mark.parametrize("key", ["run", "acq", "ses", "dir"])
    def test_two_of_a_kind_are_refused_with_both_names(self, tmp_path, key):
        touch(tmp_path, f"sub-1_{key}-1_dwi.nii", f"sub-1_{key}-2_dwi.nii")
        with pytest.raises(ValueError, match=rf"one scan per patient.*{key}-1_dwi.*{key}-2_dwi"):
            find_cases(tmp_path)


class TestFoldersOfAClinic:
    def test_links_are_followed_and_circles_survived(self, tmp_path):
        disk, root = tmp_path / "disk", tmp_path / "study"
        touch(disk, "x1/dwi.nii", "x2/sub-2_dwi.nii", "masks/sub-2_msk.nii", "x3.nii")
        touch(root, "sub-4/sub-4_dwi.nii")
        for name, target in {
            "anna": disk / "x1",
            "sub-2": disk / "x2",
            "derivatives": disk / "masks",
            "sub-3_dwi.nii": disk / "x3.nii",
            "sub-4/up": root,
            "sub-4/itself": root / "sub-4/itself",
            "again": root / "sub-4",
            "sub-4/copy_of_sub-4_dwi.nii": root / "sub-4/sub-4_dwi.nii",
        }.items():
            (root / name).symlink_to(target)
        with pytest.warns(UserWarning, match=r"sub-4/itself \(a link to nothing\)$"):
            assert found(root) == {
                "anna": ("anna/dwi.nii", None),
                "sub-2": ("sub-2/sub-2_dwi.nii", "derivatives/sub-2_msk.nii"),
                "sub-3": ("sub-3_dwi.nii", None),
                "sub-4": ("sub-4/sub-4_dwi.nii", None),
            }

    def test_the_folder_itself_may_be_a_link(self, tmp_path):
        touch(tmp_path, "disk/sub-1_dwi.nii")
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        assert found(tmp_path / "link") == {"sub-1": ("sub-1_dwi.nii", None)}

    def test_a_link_to_a_patient_who_is_away_is_told(self, tmp_path):
        touch(tmp_path, "sub-1/sub-1_dwi.nii")
        (tmp_path / "sub-2").symlink_to(tmp_path / "unplugged" / "sub-2")
        with pytest.warns(UserWarning, match=r"sub-2 \(a link to nothing\)"):
            assert list(found(tmp_path)) == ["sub-1"]

    @pytest.mark.parametrize("closed", ["sub-2", "sub-2/dwi", "derivatives", "."])
    def test_a_folder_that_cannot_be_listed_is_an_error(self, tmp_path, monkeypatch, closed):
        touch(tmp_path, "sub-1_dwi.nii", "sub-2/dwi/sub-2_dwi.nii", "derivatives/sub-1_msk.nii")
        scandir = os.scandir

        def refuse(folder):
            if Path(folder) == tmp_path / closed:
                raise PermissionError(13, "Permission denied", str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        name = (tmp_path / closed).name
        with pytest.raises(PermissionError, match=rf"{name}: expected a folder that can be listed"):
            find_cases(tmp_path)

    def test_what_a_disk_keeps_for_itself_need_not_be_listed(self, tmp_path, monkeypatch):
        touch(tmp_path, "sub-1_dwi.nii", "lost+found/x", ".Trash/x")
        scandir = os.scandir

        def refuse(folder):
            assert Path(folder) == tmp_path
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        assert len(find_cases(tmp_path)) == 1

    @pytest.mark.parametrize(
        ("names", "command"),
        [
            (["sub-1_dwi.nrrd"], r"SimpleITK.*sub-1_dwi\.nrrd.*sub-1_dwi\.nii\.gz"),
            (["sub-1_dwi.mhd", "sub-1_dwi.raw"], r"SimpleITK.*sub-1_dwi\.mhd"),
            (["sub-1_dwi.hdr", "sub-1_dwi.img"], r"nibabel.*sub-1_dwi\.hdr"),
            (["sub-1_dwi.HDR", "sub-1_dwi.IMG"], r"nibabel.*sub-1_dwi\.HDR"),
            (["sub-1_dwi.mgz"], r"mri_convert .*sub-1_dwi\.mgz"),
            (["sub-1_dwi.mif"], r"mrconvert .*sub-1_dwi\.mif"),
            (["scan/1.dcm", "scan/2.dcm"], r"python -m tools\.import_dicom .*/scan OUT"),
            (["a/1.IMA", "b/c/2.IMA"], r"python -m tools\.import_dicom \S+ OUT"),
        ],
    )
    def test_what_is_not_read_is_told_once_with_the_command_that_converts_it(
        self, tmp_path, names, command
    ):
        touch(tmp_path, *names)
        with pytest.raises(FileNotFoundError, match=command) as refused:
            find_cases(tmp_path)
        assert str(refused.value).count("this converts it") == 1
        touch(tmp_path, "sub-2_dwi.nii")
        with pytest.warns(UserWarning, match=command) as told:
            assert list(found(tmp_path)) == ["sub-2"]
        assert len(told) == 1

    def test_dicom_is_known_by_its_content_too(self, tmp_path):
        (tmp_path / "my scans").mkdir()
        (tmp_path / "my scans" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(10))
        with pytest.raises(FileNotFoundError, match=r"tools\.import_dicom '.*/my scans' OUT"):
            find_cases(tmp_path)

    @pytest.mark.parametrize("name", ["IM0001", "IM-0001-0002", "1.2.840.113619.2"])
    @pytest.mark.parametrize("beside", ["sub-1_dwi", "sub-1_adc", "sub-1_dwi_FA"])
    def test_dicom_beside_other_files_is_named_too(self, tmp_path, name, beside):
        touch(tmp_path, f"{beside}.nii.gz")
        (tmp_path / "ward").mkdir()
        (tmp_path / "ward" / name).write_bytes(bytes(128) + b"DICM" + bytes(10))
        message = r"tools\.import_dicom .*/ward OUT"
        if beside == "sub-1_dwi":
            with pytest.warns(UserWarning, match=message):
                assert find_cases(tmp_path)
        else:
            with pytest.raises(FileNotFoundError, match=message):
                find_cases(tmp_path)

    @pytest.mark.parametrize(
        "name",
        [
            *("sub-1_seg", "sub-1_dseg", "sub-1_dwi_seg", "sub-1_dwi_label", "sub-1_GT"),
            *("sub-1_manual", "sub-1_mask1", "sub-1_roi1", "sub-1_lesionseg", "sub-1_les"),
            *("sub-1_stroke", "sub-1_lesion.mask", "sub-1_segmentation_final", "sub-1_seg1"),
            *("sub-1_manualseg", "sub-1_infarction", "sub-1_strokelesion", "sub-1_acute"),
            *("sub-1_DWIlesion", "sub-1_lesionmap", "sub-1_voi", "sub-1_ground_truth"),
            *("sub-1_annot", "sub-1_contour", "sub-1_core", "sub-1_lesion_v2", "labels/sub-1"),
            *("sub-1_dwi_stroke", "sub-1_dwi_lesionmap", "sub-1_b1000_lesionseg"),
            *(
                "sub-1_dwi_lesion.seg",
                "sub-1_dwi_seg_JD",
                "sub-1_dwi_annotation1",
                "sub-1_dwi_pred",
            ),
        ],
    )
    def test_what_may_be_a_mask_is_named_and_never_a_scan(self, tmp_path, name):
        touch(tmp_path, "sub-1_dwi.nii.gz", f"{name}.nii.gz")
        with pytest.warns(UserWarning, match=rf"{name}\.nii\.gz \(perhaps a mask: .*_lesion_mask"):
            (case,) = find_cases(tmp_path)
        assert case.dwi.name == "sub-1_dwi.nii.gz" and case.lesion is None
        touch(tmp_path, "sub-1_lesion_mask.nii.gz")  # a lesion's mask is there: nothing to say
        (case,) = find_cases(tmp_path)
        assert case.lesion.name == "sub-1_lesion_mask.nii.gz"

    @pytest.mark.parametrize("name", ["bert_dwi_lesion_final", "bert_dwi_infarction", "bert_les"])
    def test_a_mask_is_no_further_patient(self, tmp_path, name):
        touch(tmp_path, "bert_dwi.nii.gz", f"{name}.nii.gz")
        with pytest.warns(UserWarning, match=rf"{name}\.nii\.gz \(perhaps a mask"):
            assert found(tmp_path) == {"bert": ("bert_dwi.nii.gz", None)}

    def test_a_patient_may_be_called_what_a_mask_is(self, tmp_path):
        touch(tmp_path, "stroke01_dwi.nii.gz", "core_dwi.nii.gz", "stroke01_lesion_mask.nii.gz")
        assert found(tmp_path) == {
            "core": ("core_dwi.nii.gz", None),
            "stroke01": ("stroke01_dwi.nii.gz", "stroke01_lesion_mask.nii.gz"),
        }

    def test_the_scan_is_the_one_whose_mask_is_drawn_in_its_space(self, tmp_path):
        """As ISLES 2024 was released: the raw scan has no mask, that in the space of the CT has."""
        raw = "raw_data/sub-stroke0001/ses-02/sub-stroke0001_ses-02_dwi.nii.gz"
        stem = "derivatives/sub-stroke0001/ses-02/sub-stroke0001_ses-02_space-ncct_"
        touch(tmp_path, raw, f"{stem}dwi.nii.gz", f"{stem}lesion-msk.nii.gz", f"{stem}adc.nii.gz")
        (case,) = quietly(find_cases, tmp_path)
        assert case.dwi == tmp_path / f"{stem}dwi.nii.gz"
        assert case.lesion == tmp_path / f"{stem}lesion-msk.nii.gz"

    @pytest.mark.parametrize(
        "name", ["Segmentation.seg.nrrd", "sub-1_lesion.seg.nrrd", "sub-1-label.nrrd"]
    )
    def test_a_mask_in_another_format_is_named_with_its_command(self, tmp_path, name):
        touch(tmp_path, "sub-1_dwi.nii.gz", name)
        with pytest.warns(UserWarning, match=rf"{re.escape(name)} \(nrrd is not read, this conv"):
            assert len(find_cases(tmp_path)) == 1

    def test_of_a_patient_without_sub_too(self, tmp_path):
        touch(tmp_path, "anna_dwi.nii.gz", "anna_segmentation.nii.gz")
        with pytest.warns(UserWarning, match=r"anna_segmentation\.nii\.gz \(perhaps a mask"):
            (case,) = find_cases(tmp_path)
        assert case.subject_id == "anna"

    @pytest.mark.parametrize("suffix", ["nrrd", "mhd", "hdr"])
    @pytest.mark.parametrize("name", ["sub-1", "O'Brien", "two words", "$HOME"])
    def test_the_command_gives_a_scan_that_is_read(self, tmp_path, suffix, name):
        path = tmp_path / f"{name}_dwi.{suffix}"
        image = sitk.GetImageFromArray(random_scan())
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        sitk.WriteImage(image, str(path.with_suffix(".img" if suffix == "hdr" else f".{suffix}")))
        with pytest.raises(FileNotFoundError) as refused:
            find_cases(tmp_path)
        command = str(refused.value).rpartition("this converts it: ")[2].removesuffix(")")
        subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
        (case,) = [case for case in quietly(find_cases, tmp_path) if case.dwi.suffix == ".gz"]
        assert sorted(load_case(case).dwi.ravel()) == sorted(random_scan().ravel())


class TestLoadVolume:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
    def test_every_format_holds_the_same_voxels(self, tmp_path, dtype):
        array = random_scan().astype(dtype)
        paths = [write(tmp_path / f"scan.{suffix}", array) for suffix in FORMATS]
        paths.append(write(tmp_path / "compressed.mha", array, compressed=True))
        for path in paths:
            volume, geometry = load_volume(path)
            np.testing.assert_array_equal(volume, array.astype(np.float32), strict=True)
            assert geometry.size == volume.shape == SHAPE
            assert volume.flags.c_contiguous and volume.flags.owndata

    def test_str_and_path(self, tmp_path):
        path = write(tmp_path / "scan.nii.gz", random_scan())
        np.testing.assert_array_equal(load_volume(str(path))[0], load_volume(path)[0])

    @pytest.mark.parametrize("suffix", ["nii", "mha"])
    @pytest.mark.parametrize("axes", ORIENTATIONS)
    def test_every_voxel_keeps_its_place_in_the_patient(self, tmp_path, axes, suffix):
        """Wherever a voxel is stored, it ends up at the same point of the world, axial in LPS."""
        stored = np.arange(60.0).reshape(3, 4, 5)
        affine = stored_as(axes, stored.shape) @ np.diag([2, 3, 4, 1])
        affine[:3, 3] += (-7, 11, 5)
        path = write_as(tmp_path / f"scan.{suffix}", stored, affine)
        volume, geometry = load_volume(path)
        np.testing.assert_array_equal(np.reshape(geometry.direction, (3, 3)), np.eye(3))
        assert geometry.size == volume.shape
        for value, point in world_points(volume, geometry).items():
            index = np.argwhere(stored == value)[0]
            np.testing.assert_allclose(point, affine[:3, :3] @ index + affine[:3, 3], atol=1e-4)

    def test_the_front_of_the_head_is_row_0_and_the_patients_right_is_column_0(self, tmp_path):
        stored = np.zeros((5, 4, 3), np.float32)  # x to the right, y to the front, z upwards
        stored[4, 3, 2] = 1  # RAS: the rightmost, foremost, topmost voxel
        volume, _ = load_volume(write_nifti(tmp_path / "scan.nii", stored))
        assert np.argwhere(volume).tolist() == [[2, 0, 0]]

    def test_scale_and_offset_in_the_header_are_honoured(self, tmp_path):
        image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
        image.header.set_slope_inter(0.5, 10)
        for suffix in ("nii", "nii.gz"):
            image.to_filename(tmp_path / f"scan.{suffix}")
            volume, _ = load_volume(tmp_path / f"scan.{suffix}")
            assert sorted(volume.ravel().tolist()) == [10 + stored / 2 for stored in range(24)]

    @pytest.mark.parametrize("slope", [0, np.nan, np.inf])
    def test_a_slope_of_0_or_no_number_is_no_scaling(self, tmp_path, slope):
        """NIfTI's rule for 0; nibabel and ITK follow it for what is no number, too."""
        path = write(tmp_path / "scan.nii", np.arange(60, dtype=np.int16).reshape(SHAPE))
        patch_bytes(path, 112, np.float32([slope, 3]).tobytes())
        assert sorted(load_volume(path)[0].ravel().tolist()) == list(range(60))

    def test_a_scale_that_overflows_or_an_offset_that_is_no_number(self, tmp_path):
        path = write(tmp_path / "scan.nii", np.full(SHAPE, 30_000, np.int16))
        patch_bytes(path, 112, np.float32([3e38, 0]).tobytes())
        with pytest.raises(VolumeReadError, match="60 of 60 voxels NaN or infinite"):
            load_volume(path)
        patch_bytes(path, 112, np.float32([1, np.nan]).tobytes())
        with pytest.raises(VolumeReadError, match="invalid intercept nan"):
            load_volume(path)

    def test_big_endian_files(self, tmp_path):
        array = random_scan()
        header = nib.Nifti1Header(endianness=">")
        nib.Nifti1Image(array.T, np.diag([-1, -1, 1, 1]), header).to_filename(tmp_path / "scan.nii")
        assert (tmp_path / "scan.nii").read_bytes()[:4] == (348).to_bytes(4, "big")

        text, end, _ = write(tmp_path / "scan.mha", array).read_bytes().partition(b"LOCAL\n")
        swapped = text.replace(b"OrderMSB = False", b"OrderMSB = True")
        (tmp_path / "scan.mha").write_bytes(swapped + end + array.astype(">f4").tobytes())
        for suffix in ("nii", "mha"):
            np.testing.assert_array_equal(load_volume(tmp_path / f"scan.{suffix}")[0], array)

    def test_nifti_2_is_nifti_1_with_wider_numbers(self, tmp_path):
        place = np.diag([2, 3, 4, 1])
        paths = [
            nifti(tmp_path / f"{kind.__name__}.nii.gz", qform=place, sform=place, kind=kind)
            for kind in (nib.Nifti1Image, nib.Nifti2Image)
        ]
        (one, place_one), (two, place_two) = map(load_volume, paths)
        np.testing.assert_array_equal(one, two)
        assert place_one == place_two

    @pytest.mark.parametrize("trailing", [(1,), (1, 1)])
    @pytest.mark.parametrize("suffix", ["nii.gz", "mha"])
    def test_trailing_single_axes_are_no_volumes(self, tmp_path, trailing, suffix):
        array = random_scan()
        path = tmp_path / f"scan.{suffix}"
        image = sitk.GetImageFromArray(array.reshape(*trailing, *SHAPE), isVector=False)
        sitk.WriteImage(image, str(path))
        np.testing.assert_array_equal(load_volume(path)[0], array)

    @pytest.mark.parametrize("suffix", ["nii.gz", "mha"])
    def test_several_volumes_ask_which(self, tmp_path, suffix):
        arrays = np.stack([random_scan(seed=seed) for seed in range(3)])
        path = tmp_path / f"scan.{suffix}"
        image = sitk.GetImageFromArray(arrays, isVector=False)
        image.SetSpacing((2.0, 2.0, 5.0, 1.0))
        sitk.WriteImage(image, str(path))
        with pytest.raises(ValueError, match=r"scan.*volume_index from 0 to 2.*None"):
            load_volume(path)
        for index, array in enumerate(arrays):
            volume, geometry = load_volume(path, volume_index=index)
            np.testing.assert_array_equal(volume, array)
            assert geometry.spacing == (5, 2, 2)
        for index in (3, -1, 0.5, "first"):
            with pytest.raises(ValueError, match="volume_index"):
                load_volume(path, volume_index=index)

    def test_the_place_of_the_time_axis_does_not_matter(self, tmp_path):
        path = tmp_path / "scan.mha"
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((2, *SHAPE)), isVector=False), str(path))
        content = path.read_bytes().replace(
            b"ElementSpacing = 1 1 1 1", b"ElementSpacing = 1 1 1 900"
        )
        path.write_bytes(content.replace(b"Offset = 0 0 0 0", b"Offset = 0 0 0 -5"))
        assert load_volume(path, volume_index=1)[1].spacing == (1, 1, 1)

    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_non_finite_voxels_are_counted(self, tmp_path, suffix, bad):
        array = random_scan()
        array[1, 1:3, 2] = bad
        path = write(tmp_path / f"scan.{suffix}", array)
        with pytest.raises(VolumeReadError, match=r"scan\..* 2 of 60"):
            load_volume(path)

    def test_what_float32_cannot_hold_is_counted_too(self, tmp_path):
        array = random_scan().astype(np.float64)
        array[0, 0, 0] = 1e300
        for suffix in FORMATS:
            with pytest.raises(VolumeReadError, match="1 of 60"):
                load_volume(write(tmp_path / f"scan.{suffix}", array))

    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize("content", [b"", b"hello, world\n" * 40, bytes(1000)])
    def test_empty_and_text_files(self, tmp_path, suffix, content):
        path = tmp_path / f"scan.{suffix}"
        path.write_bytes(content)
        with pytest.raises(VolumeReadError, match=f"scan.{suffix}"):
            load_volume(path)

    @pytest.mark.parametrize(
        ("actual", "claimed"),
        [("nii", "nii.gz"), ("nii.gz", "nii"), ("mha", "nii"), ("nii", "mha")],
    )
    def test_a_file_under_another_formats_name(self, tmp_path, actual, claimed):
        path = write(tmp_path / f"scan.{actual}", random_scan())
        path.rename(tmp_path / f"renamed.{claimed}")
        with pytest.raises(VolumeReadError, match=f"renamed.{claimed}"):
            load_volume(tmp_path / f"renamed.{claimed}")

    def test_missing_file_folder_and_unknown_suffix(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"gone\.nii"):
            load_volume(tmp_path / "gone.nii")
        (tmp_path / "folder.nii").mkdir()
        with pytest.raises(VolumeReadError, match=r"folder\.nii"):
            load_volume(tmp_path / "folder.nii")
        (tmp_path / "scan.png").touch()
        with pytest.raises(VolumeReadError, match=r"scan\.png.*\.nii\.gz"):
            load_volume(tmp_path / "scan.png")

    def test_an_image_of_two_axes(self, tmp_path):
        path = write_nifti(tmp_path / "slice.nii", np.ones((4, 5), np.float32))
        with pytest.raises(VolumeReadError, match=r"slice\.nii.*three axes"):
            load_volume(path)

    def test_one_voxel_is_a_volume_and_none_is_not(self, tmp_path):
        path = write(tmp_path / "scan.mha", np.full((1, 1, 1), 7, np.float32))
        assert load_volume(path)[0].tolist() == [[[7]]]
        content = path.read_bytes()[:-4]
        path.write_bytes(content.replace(b"DimSize = 1 1 1", b"DimSize = 1 1 0"))
        with pytest.raises(VolumeReadError, match=r"scan.*along each axis, found DimSize 1 1 0"):
            load_volume(path)

    def test_a_colour_image(self, tmp_path):
        path = tmp_path / "colour.mha"
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8)), str(path))
        with pytest.raises(VolumeReadError, match=r"colour.*not one number per voxel but 3"):
            load_volume(path)
        colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
        for suffix, array in (("nii", colours), ("nii.gz", np.ones(SHAPE, np.complex64))):
            path = write_nifti(tmp_path / f"colour.{suffix}", array)
            with pytest.raises(VolumeReadError, match=r"colour.*not one real number per voxel but"):
                load_volume(path)

    def test_a_voxel_size_of_zero_is_not_one_millimetre(self, tmp_path):
        path = patch_bytes(write(tmp_path / "scan.nii", random_scan()), 80, bytes(4))  # pixdim[1]
        with pytest.raises(VolumeReadError, match=r"pixdim.* should be non-zero"):
            load_volume(path)

    def test_a_header_whose_voxels_are_in_another_file(self, tmp_path):
        path = patch_bytes(write(tmp_path / "scan.nii", random_scan()), 344, b"ni1")
        with pytest.raises(VolumeReadError, match=r"scan.*marked b'n\+1', found b'ni1'"):
            load_volume(path)

    @pytest.mark.parametrize(
        ("line", "other", "message"),
        [
            ("ElementSpacing = 1 1 1", "ElementSpacing = 0 1 1", "positive spacing"),
            ("ElementSpacing = 1 1 1", "ElementSpacing = 1 -1 1", "positive spacing"),
            ("ElementSpacing = 1 1 1", "ElementSpacing = 1 1 nan", "finite"),
            ("ElementSpacing = 1 1 1", "ElementSpacing = 1 inf 1", "finite"),
            (
                "ElementSpacing = 1 1 1",
                "ElementSpacing = 1 1",
                "3 finite numbers as ElementSp.*found '1 1'",
            ),
            ("ElementSpacing = 1 1 1", "ElementSpacing = 1 1 thin", "thin"),
            ("ElementSpacing = 1 1 1\n", "", "without ElementSpacing"),
            ("Offset = 0 0 0", "Offset = 0 0 nan", "3 finite numbers as Offset"),
            ("Offset = 0 0 0", "Offset = 0 0 0 0", "3 finite numbers as Offset"),
            ("Offset = 0 0 0\n", "", "without Offset"),
            ("TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = 1 .1 0 0 1 0", "right angles"),
            (
                "TransformMatrix = 1 0 0 0 1 0",
                "TransformMatrix = 1 0 0 0 nan 0",
                "9 finite numbers",
            ),
            ("TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = 1 0 0 0 2 0", "right angles"),
            ("TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = 1 0 0 1 0 0", "RuntimeError"),
            ("DimSize = 5 4 3", "DimSize = 5 4 4", "240 bytes of voxels .* asks for 320"),
            ("DimSize = 5 4 3", "DimSize = 5 4 2", "240 bytes of voxels .* asks for 160"),
            ("DimSize = 5 4 3", "DimSize = 5 -4 -3", "along each axis"),
            ("DimSize = 5 4 3", "DimSize = five 4 3", "five"),
            ("DimSize = 5 4 3", "DimSize = 60", "3 finite numbers as DimSize"),
            ("NDims = 3", "NDims = 2", "2 finite numbers as DimSize"),
            ("NDims = 3\n", "", "without NDims"),
            ("DimSize = 5 4 3\n", "", "without DimSize"),
            ("ElementSpacing = 1 1 1\nDimSize = 5 4 3\n", "", "without DimSize"),
            ("ElementType = MET_FLOAT", "ElementType = MET_DOUBLE", "asks for 480"),
            ("ElementType = MET_FLOAT", "ElementType = MET_STRING", "MET_STRING"),
            ("ElementType = MET_FLOAT\n", "", "without ElementType"),
            ("BinaryData = True", "BinaryData = False", "written out as text"),
            ("BinaryData = True", "BinaryData = yes", "True or False, found 'yes'"),
            ("OrderMSB = False", "OrderMSB = big", "True or False, found 'big'"),
            ("Offset = 0 0 0", "HeaderSize = 4\nOffset = 0 0 0", "found HeaderSize 4"),
            ("CompressedData = False", "CompressedData = True", "CompressedDataSize says None"),
            ("ElementDataFile = LOCAL", "ElementDataFile = scan.raw", "found them in 'scan.raw'"),
        ],
    )
    def test_an_mha_header_with_a_fault_is_named(self, tmp_path, capfd, line, other, message):
        path = write(tmp_path / "scan.mha", random_scan())
        content = path.read_bytes()
        assert content.count(line.encode()) == 1
        path.write_bytes(content.replace(line.encode(), other.encode()))
        with pytest.raises(VolumeReadError, match=rf"scan\.mha.*{message}"):
            load_volume(path)
        assert capfd.readouterr() == ("", "")

    def test_an_mha_with_other_blanks_and_lines_than_simpleitk_writes(self, tmp_path):
        path = write(tmp_path / "scan.mha", random_scan(), spacing=(5, 2, 1))
        expected = load_volume(path)
        content = path.read_bytes()
        text = content.replace(b"Offset = 0", b"Comment = \xb5m, by hand\nnote\nOffset=0")
        path.write_bytes(text.replace(b"ElementSpacing = 1 2 5", b"ElementSpacing =  1  2 5 "))
        volume, geometry = load_volume(path)
        np.testing.assert_array_equal(volume, expected[0])
        assert geometry == expected[1]

    @pytest.mark.parametrize("lie", [b"CompressedDataSize = 9\n", b""])
    def test_a_compressed_mha_whose_header_lies_about_its_length(self, tmp_path, lie):
        path = write(tmp_path / "scan.mha", np.zeros(SHAPE, np.int16), compressed=True)
        lines = path.read_bytes().split(b"\n")
        truth = next(line for line in lines if line.startswith(b"CompressedDataSize")) + b"\n"
        path.write_bytes(path.read_bytes().replace(truth, lie))
        try:
            volume, _ = load_volume(path)
        except VolumeReadError:
            return
        assert not volume.any()


class TestDamage:
    """What is known to have gone wrong; the end of this file looks for what is not."""

    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize("n_bytes", [113, 121])
    def test_too_few_or_too_many_voxels_are_counted(self, tmp_path, capfd, suffix, n_bytes):
        path = write(tmp_path / f"scan.{suffix}", np.zeros(SHAPE, np.int16))
        content = path.read_bytes()
        content = gzip.decompress(content) if suffix == "nii.gz" else content
        damaged = (content + bytes(1))[: len(content) - 120 + n_bytes]
        path.write_bytes(gzip.compress(damaged) if suffix == "nii.gz" else damaged)
        with pytest.raises(VolumeReadError, match=rf"{n_bytes} bytes of voxels.* 120\b"):
            load_volume(path)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("suffix", ["nii.gz", "mha"])
    def test_a_wrong_or_missing_checksum(self, tmp_path, suffix):
        path = write(tmp_path / f"scan.{suffix}", random_scan().round(), compressed=True)
        content = path.read_bytes()
        last = {"nii.gz": -5, "mha": -1}[suffix]  # CRC-32 before the length; Adler-32
        for damaged in (
            content[:last] + bytes([content[last] ^ 1]) + content[len(content) + last + 1 :],
            content[:-1],
        ):
            assert len(content) - len(damaged) in (0, 1)
            path.write_bytes(damaged)
            with pytest.raises(VolumeReadError, match=f"scan.{suffix}"):
                load_volume(path)

    @pytest.mark.parametrize("n_bytes", [-1, 1])
    def test_a_compressed_mha_ends_with_its_voxels(self, tmp_path, n_bytes):
        path = write(tmp_path / "scan.mha", random_scan().round(), compressed=True)
        content = path.read_bytes()
        path.write_bytes((content + bytes(1))[: len(content) + n_bytes])
        match = "expected the file to end with its compressed voxels"
        with pytest.raises(VolumeReadError, match=match):
            load_volume(path)

    def test_a_plain_nifti_under_the_name_of_a_compressed_one(self, tmp_path):
        path = write(tmp_path / "scan.nii", random_scan()).rename(tmp_path / "scan.nii.gz")
        with pytest.raises(VolumeReadError, match=r"scan\.nii\.gz: expected gzip, as its name"):
            load_volume(path)

    def test_what_nibabel_would_repair_is_refused_without_a_word(self, tmp_path, capfd):
        path = patch_bytes(write(tmp_path / "scan.nii", random_scan()), 0, b"\xff")  # sizeof_hdr
        with pytest.raises(VolumeReadError, match="sizeof_hdr should be 348"):
            load_volume(path)
        assert capfd.readouterr() == ("", "")


class TestLoadCase:
    def test_scan_brain_and_lesion(self, tmp_path):
        scan = np.zeros((5, 7, 7), np.float32)
        scan[1:4, 1:6, 1:6] = 100
        scan[2, 3, 3] = 0  # a ventricle: dark, but inside the head
        mask = np.zeros_like(scan, dtype=np.uint8)
        mask[2, 2, 2] = 1
        loaded = load_case(pair(tmp_path, scan, mask))
        assert loaded.subject_id == "sub-1"
        assert (loaded.dwi.dtype, loaded.lesion.dtype, loaded.brain.dtype) == (
            np.float32,
            bool,
            bool,
        )
        np.testing.assert_array_equal(loaded.dwi, scan)
        assert np.argwhere(loaded.lesion).tolist() == [[2, 2, 2]]
        assert loaded.brain.sum() == 3 * 5 * 5
        assert loaded.brain[2, 3, 3]
        assert loaded.spacing == (1, 1, 1)

    def test_an_empty_mask_is_a_patient_without_a_lesion(self, tmp_path):
        lesion = load_case(pair(tmp_path)).lesion
        assert lesion.dtype == bool and not lesion.any()

    def test_no_mask_is_not_an_empty_mask(self, tmp_path):
        case = Case("sub-1", write(tmp_path / "scan.nii", random_scan()))
        assert load_case(case).lesion is None

    def test_a_missing_mask_file(self, tmp_path):
        case = pair(tmp_path)
        case.lesion.unlink()
        with pytest.raises(FileNotFoundError, match="sub-1_msk"):
            load_case(case)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
    def test_0_and_255_are_two_labels(self, tmp_path, dtype):
        mask = (random_scan() > 500).astype(dtype) * dtype(255)
        np.testing.assert_array_equal(load_case(pair(tmp_path, mask=mask)).lesion, mask == 255)

    @pytest.mark.parametrize(
        ("labels", "named"),
        [
            ([0, 1, 2], "found 0, 1, 2"),
            ([0, 0.4], r"found 0, 0\.4"),
            ([0, 1, np.nan], "found 0, 1, nan"),
            ([0, 1, np.inf], "found 0, 1, inf"),
            ([0, 1, 255], "found 0, 1, 255"),
            ([-1, 0], "found -1, 0"),
            ([0, 1, 2, 3, 4], "found 0, 1, 2, 3, 4"),
            ([0, 1, 2, 3, 4, 5], "found 0, 1, 2, 3, 4, …"),
        ],
    )
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_other_labels_are_named(self, tmp_path, labels, named, suffix):
        mask = np.zeros(SHAPE, np.float32)
        mask.flat[: len(labels)] = labels
        scan = write(tmp_path / "scan.mha", random_scan())
        case = Case("sub-1", scan, write(tmp_path / f"mask.{suffix}", mask))
        with pytest.raises(LabelError, match=rf"mask\.{suffix}.*{named}$"):
            load_case(case)

    @pytest.mark.parametrize(
        ("scan", "found"),
        [
            (np.zeros(SHAPE, np.float32), "0 to 0"),
            (np.full(SHAPE, 7, np.int16), "7 to 7"),
            (-random_scan(), "brain above zero"),
            (np.where(random_scan() > 500, 0, -random_scan()), "-.* to 0"),
        ],
    )
    def test_no_brain(self, tmp_path, scan, found):
        with pytest.raises(VolumeReadError, match=f"sub-1_dwi.*{found}"):
            load_case(pair(tmp_path, scan))

    def test_nan_in_the_scan_is_counted(self, tmp_path):
        scan = random_scan()
        scan[0, 0, :3] = np.nan
        with pytest.raises(VolumeReadError, match=r"sub-1_dwi.*3 of 60"):
            load_case(pair(tmp_path, scan))

    def test_a_brain_of_one_voxel_is_a_brain(self, tmp_path):
        scan = np.zeros(SHAPE, np.float32)
        scan[1, 2, 3] = 5
        loaded = load_case(pair(tmp_path, scan, (scan > 0).astype(np.uint8)))
        assert np.argwhere(loaded.brain).tolist() == [[1, 2, 3]]
        np.testing.assert_array_equal(loaded.lesion, loaded.brain)

    def test_a_scan_scaled_to_1_has_a_brain_too(self, tmp_path):
        scan = np.where(np.arange(5) < 2, 0, random_scan() / 1000)
        brain = load_case(pair(tmp_path, scan)).brain
        assert not brain[..., :2].any() and brain[..., 2:].all()

    def test_negative_voxels_are_outside_the_brain(self, tmp_path):
        scan = np.where(np.arange(5) < 2, -3, random_scan()).astype(np.float32)
        brain = load_case(pair(tmp_path, scan)).brain
        assert not brain[..., :2].any() and brain[..., 2:].all()


@pytest.fixture(scope="module")
def head():
    """A synthetic head with its skull on."""
    return simulate_case(3, skull=True)


@pytest.fixture(scope="module")
def stripped(head):
    return np.where(head.brain, head.dwi, 0)


def on_disk(folder, volume, spacing=SPACING):
    return Case(
        "sub-1", write(folder / "sub-1_dwi.nii", volume.astype(np.float32), spacing=spacing)
    )


def dice(found, true):
    return 2 * np.sum(found & true) / (np.sum(found) + np.sum(true))


def centred(volume, inside):
    return (volume - volume[inside].mean()) / volume[inside].std()


class TestBrain:
    @pytest.mark.parametrize("spacing", [None, (5, 2, 2), (4, 1, 1)])
    def test_of_a_stripped_scan_it_is_all_above_zero(self, tmp_path, stripped, spacing):
        case = on_disk(tmp_path, stripped)
        auto = load_case(case, spacing=spacing)
        same = load_case(case, spacing=spacing, brain="stripped")
        np.testing.assert_array_equal(auto.brain, same.brain)
        if spacing is None:
            np.testing.assert_array_equal(auto.brain, binary_fill_holes(auto.dwi > 0))

    @pytest.mark.parametrize("spacing", [(5, 2, 2), (4, 1, 1), (2, 0.7, 0.7)])
    def test_a_resampled_brain_does_not_grow_by_its_smeared_rim(self, tmp_path, stripped, spacing):
        case = on_disk(tmp_path, stripped)
        before, after = load_case(case), load_case(case, spacing=spacing)
        volumes = [scan.brain.sum() * np.prod(scan.spacing) for scan in (before, after)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.01)
        assert volumes[1] < 0.99 * np.sum(after.dwi > 0) * np.prod(spacing)

    def test_of_a_head_with_its_skull_on_it_is_found(self, tmp_path, head):
        case = on_disk(tmp_path, head.dwi)
        auto, found = load_case(case), load_case(case, brain="find")
        np.testing.assert_array_equal(auto.brain, found.brain)
        np.testing.assert_array_equal(auto.dwi, head.dwi)  # the skull stays to be seen
        assert dice(auto.brain, head.brain) >= 0.97
        with pytest.warns(
            UserWarning, match=r"sub-1_dwi.*brain of 600 to 2200 ml.*found 89\d\d ml"
        ):
            load_case(case, brain="stripped")

    def test_whatever_the_air_of_a_head_is(self, tmp_path, head):
        """Scanners leave noise there, or cut it off, or a padding lies around it."""
        level = np.median(head.dwi[head.brain])
        smooth = gaussian_filter(head.dwi, (0, 2, 2))
        airs = {
            "cut off at a level": np.where(head.dwi > 0.05 * level, head.dwi, 0),
            "cut off around the head": np.where(smooth > 0.12 * level, head.dwi, 0),
            "noise on a level": head.dwi + 10,
            "defaced": np.where(np.arange(230)[:, np.newaxis] < 30, 0, head.dwi),
            "padded": np.where(np.abs(np.arange(230) - 115) > 95, 0, head.dwi),
        }
        for name, volume in airs.items():
            brain = load_case(on_disk(tmp_path, volume)).brain
            assert dice(brain, head.brain) >= 0.965, name

    def test_noise_around_a_stripped_brain_is_not_taken_for_brain(self, tmp_path, stripped, head):
        noise = np.random.default_rng(0).rayleigh(5, stripped.shape)
        for noisy in (stripped + noise, np.where(head.brain, stripped, np.rint(noise / 5))):
            assert dice(load_case(on_disk(tmp_path, noisy)).brain, head.brain) >= 0.965

    def test_a_resampled_head_keeps_its_brain(self, tmp_path, head):
        case = on_disk(tmp_path, head.dwi)
        fine, coarse = load_case(case), load_case(case, spacing=(5, 2, 2))
        assert coarse.brain.shape == coarse.dwi.shape
        volumes = [scan.brain.sum() * np.prod(scan.spacing) for scan in (fine, coarse)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.01)

    @pytest.mark.parametrize("as_type", [str, Path])
    def test_another_programs_mask_is_the_brain(self, tmp_path, head, as_type):
        case = on_disk(tmp_path, head.dwi)
        path = write(tmp_path / "mask.nii.gz", head.brain.astype(np.uint8), spacing=SPACING)
        np.testing.assert_array_equal(load_case(case, brain=as_type(path)).brain, head.brain)
        assert load_case(case, spacing=(5, 2, 2), brain=path).brain.shape == (34, 115, 115)

    def test_another_programs_mask_must_be_one_of_this_scan(self, tmp_path, head):
        case = on_disk(tmp_path, head.dwi)
        mask = head.brain.astype(np.uint8)
        elsewhere = write(tmp_path / "elsewhere.nii", mask, spacing=(5, 1, 1.1))
        with pytest.raises(GeometryMismatchError, match=r"elsewhere\.nii.*spacing.*sub-1_dwi"):
            load_case(case, brain=elsewhere)
        labels = write(tmp_path / "labels.nii", 3 * mask, spacing=SPACING)
        with pytest.raises(LabelError, match=r"labels\.nii.*found 0, 3"):
            load_case(case, brain=labels)
        empty = write(tmp_path / "empty.nii", 0 * mask, spacing=SPACING)
        with pytest.raises(LabelError, match=r"empty\.nii: expected the brain of .*empty mask"):
            load_case(case, brain=empty)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_case(case, brain=tmp_path / "nowhere.nii")

    @pytest.mark.parametrize("brain", ["strip", "", None, True, 3])
    def test_a_misspelt_word_is_told(self, tmp_path, brain):
        with pytest.raises(
            ValueError, match=r"brain must be one of \('auto', 'stripped', 'find'\)"
        ):
            load_case(pair(tmp_path), brain=brain)

    def test_a_scan_centred_about_zero_is_refused_with_the_volume_above(
        self, tmp_path, head, stripped
    ):
        """Nothing in it says what is air: the brain above its own mean is half a brain."""
        everywhere = np.ones(head.dwi.shape, bool)
        volumes = {
            "z-scores in the brain": np.where(head.brain, centred(stripped, head.brain), 0),
            "z-scores everywhere": centred(stripped, everywhere),
            "z-scores with the skull": centred(head.dwi, everywhere),
            "[-1, 1]": 2 * stripped / stripped.max() - 1,
            "[-1, 1] with the skull": 2 * head.dwi / head.dwi.max() - 1,
            "less a constant": head.dwi - 100,
        }
        for name, volume in volumes.items():
            case = on_disk(tmp_path, volume)
            for how in ("auto", "find", "stripped"):
                with pytest.raises(VolumeReadError, match=r"sub-1_dwi.*z-scor.* \d+ ml"):
                    load_case(case, brain=how)
                    pytest.fail(name)

    def test_a_centred_scan_with_a_mask_is_loaded_with_a_word(self, tmp_path, head):
        case = on_disk(tmp_path, centred(head.dwi, head.brain))
        mask = write(tmp_path / "mask.nii", head.brain.astype(np.uint8), spacing=SPACING)
        with pytest.warns(UserWarning, match=r"sub-1_dwi.*voxels below, and a brain of 2150 ml"):
            assert load_case(case, brain=mask).brain.sum() == head.brain.sum()

    def test_a_few_voxels_below_zero_are_what_filters_leave(self, tmp_path, stripped):
        ringing = stripped.copy()
        ringing[0, :30, :40] = -5
        assert load_case(on_disk(tmp_path, ringing)).brain.sum() == (stripped > 0).sum()

    @pytest.mark.parametrize(("scale", "ml"), [(0.6, r"46\d ml"), (1.1, r"28\d\d ml")])
    def test_no_brain_is_as_small_or_as_large(self, tmp_path, stripped, scale, ml):
        """A child's or a whale's, or a slip of the spacing."""
        case = on_disk(tmp_path, stripped, np.multiply(SPACING, scale))
        with pytest.warns(UserWarning, match=f"sub-1_dwi.*600 to 2200 ml.*found {ml}"):
            load_case(case, brain="stripped")

    def test_the_bound_is_one_to_the_nearest_tenth_of_a_litre(self, tmp_path, stripped):
        ml = (stripped > 0).sum() * np.prod(SPACING) / 1000
        for found in (2190, 2240):  # all of it is brain, and no word is lost
            case = on_disk(tmp_path, stripped, np.multiply(SPACING, (found / ml) ** (1 / 3)))
            assert load_case(case).brain.sum() == (stripped > 0).sum()
        case = on_disk(tmp_path, stripped, np.multiply(SPACING, (2260 / ml) ** (1 / 3)))
        with pytest.warns(UserWarning, match="found 2260 ml"):
            load_case(case, brain="stripped")

    def test_a_part_of_a_head_may_hold_little_of_it(self, tmp_path, stripped):
        load_case(on_disk(tmp_path, stripped[14:18]))

    def test_the_mask_of_a_brain_is_no_lesions(self, tmp_path, head, stripped):
        case = on_disk(tmp_path, stripped)
        half = np.where(np.arange(34)[:, np.newaxis, np.newaxis] < 14, head.brain, False)
        for mask, is_doubted in ((head.brain, True), (half, False)):
            path = write(tmp_path / "sub-1_mask.nii", mask.astype(np.uint8), spacing=SPACING)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                load_case(Case("sub-1", case.dwi, path))
            assert ["found one of 100% of the brain" in str(word.message) for word in told] == (
                [True] * is_doubted
            )

    def test_a_brain_without_air_about_it_is_doubted(self, tmp_path, stripped):
        crop = stripped[8:24, 60:170, 70:160]
        with pytest.warns(UserWarning, match=r"air around the brain, found all six sides"):
            load_case(on_disk(tmp_path, crop), brain="stripped")
        with pytest.raises(VolumeReadError, match=r"sub-1_dwi.*darker.*brain='stripped' takes"):
            load_case(on_disk(tmp_path, crop))


class TestGeometry:
    @pytest.mark.parametrize(
        ("what", "header"),
        [
            ("spacing", {"spacing": (1.01, 1, 1)}),
            ("origin", {"origin": (0, 0, 0.1)}),
            ("direction", {"direction": [[1, 0, 0], [0, 0.995, -0.0999], [0, 0.0999, 0.995]]}),
        ],
    )
    def test_a_mask_elsewhere_is_refused_with_both_names_and_values(self, tmp_path, what, header):
        with pytest.raises(GeometryMismatchError, match=f"sub-1_msk.*{what}.*sub-1_dwi.*found"):
            load_case(pair(tmp_path, **header))

    @pytest.mark.parametrize("shape", [(3, 4, 6), (3, 5, 4), (4, 3, 5), (5, 4, 3)])
    def test_another_shape(self, tmp_path, shape):
        match = rf"size \(3, 4, 5\).*found \({', '.join(map(str, shape))}\)"
        with pytest.raises(GeometryMismatchError, match=match):
            load_case(pair(tmp_path, mask=np.zeros(shape, np.uint8)))

    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize(
        ("what", "header"),
        [
            ("spacing", {"spacing": (5, 2, 1)}),
            ("origin", {"spacing": (5, 1, 2), "origin": (20, 10, 0)}),
            ("spacing", {"spacing": (5, 1, 2), "direction": ROTATED}),
        ],
    )
    def test_transposed_with_equal_shape(self, tmp_path, what, header, suffix):
        """Rows and columns swapped: the shape cannot tell, but spacing or origin do."""
        place = {"spacing": (5, 1, 2), "origin": (10, 20, 0)}
        scan = write(tmp_path / f"scan.{suffix}", random_scan((3, 4, 4)), **place)
        mask = np.zeros((3, 4, 4), np.uint8)
        mask = write(tmp_path / f"mask.{suffix}", mask, **{**place, **header})
        with pytest.raises(GeometryMismatchError, match=what):
            load_case(Case("sub-1", scan, mask))

    def test_rounding_noise_in_a_header_passes(self, tmp_path):
        noise = 1e-5
        case = pair(tmp_path, spacing=(1 + noise, 1, 1 - noise), origin=(noise, -noise, noise))
        assert load_case(case).lesion is not None

    @pytest.mark.parametrize("axis", range(3))
    @pytest.mark.parametrize("sign", [-1, 1])
    @pytest.mark.parametrize(
        ("what", "tolerance"), [("spacing", 1e-3), ("origin", 1e-2), ("direction", 1e-3)]
    )
    def test_where_noise_ends(self, tmp_path, what, tolerance, axis, sign):
        for share in (0.9, 1.1):
            offset = sign * share * tolerance
            header = {
                "spacing": {"spacing": np.ones(3) + offset * np.eye(3)[axis]},
                "origin": {"origin": offset * np.eye(3)[axis]},
                "direction": {"direction": turned(offset, axis)},
            }[what]
            case = pair(tmp_path, **header)
            if share < 1:
                assert load_case(case).lesion is not None
            else:
                with pytest.raises(GeometryMismatchError, match=f"the {what} "):
                    load_case(case)

    def test_far_from_the_scanners_centre_noise_ends_as_near(self, tmp_path):
        scan = write(tmp_path / "scan.mha", random_scan(), origin=(0, 0, -3000))
        mask = np.zeros(SHAPE, np.uint8)
        mask = write(tmp_path / "mask.mha", mask, origin=(0, 0, -3000.02))
        with pytest.raises(GeometryMismatchError, match="the origin"):
            load_case(Case("sub-1", scan, mask))

    @pytest.mark.parametrize("axes", ORIENTATIONS)
    def test_a_mask_stored_in_another_orientation_lands_on_its_scan(self, tmp_path, axes):
        scan = random_scan()
        lps = nib.orientations.io_orientation(np.diag([-1, -1, 1, 1]))
        to_axes = nib.orientations.ornt_transform(lps, nib.orientations.axcodes2ornt(tuple(axes)))
        mask = nib.orientations.apply_orientation((scan.T > 700).astype(np.uint8), to_axes)
        place = np.diag([-1, -1, 1, 1]) @ nib.orientations.inv_ornt_aff(to_axes, scan.T.shape)
        path = write_nifti(tmp_path / "mask.nii.gz", mask, place)
        case = Case("sub-1", write(tmp_path / "scan.nii", scan), path)
        np.testing.assert_array_equal(load_case(case).lesion, scan > 700)


FAULTS = Path(os.environ.get("VAE_BOOK_DATA") or BOOK.parent / "shared" / "data") / "faults"
PLACE = np.diag([2.0, 2.0, 5.0, 1.0])


class TestFaultsOfConverters:
    """What other programs write: read where it can be, called what it is where it cannot."""

    @pytest.mark.parametrize("name", ["ElementByteOrderMSB", "BinaryDataByteOrderMSB"])
    @pytest.mark.parametrize("word", ["True", "true", "TRUE", "1", "T"])
    @pytest.mark.parametrize("dtype", ["i2", "u4", "f4", "f8"])
    def test_every_spelling_of_a_big_endian_mha(self, tmp_path, name, word, dtype):
        array = np.arange(1, 61).reshape(SHAPE).astype(dtype)
        text, end, _ = write(tmp_path / "scan.mha", array).read_bytes().partition(b"LOCAL\n")
        text = text.replace(b"BinaryDataByteOrderMSB = False", f"{name} = {word}".encode())
        (tmp_path / "scan.mha").write_bytes(text + end + array.astype(f">{dtype}").tobytes())
        np.testing.assert_array_equal(load_volume(tmp_path / "scan.mha")[0], array)

    @pytest.mark.parametrize("word", ["False", "false", "0", "F"])
    def test_every_spelling_of_a_little_endian_mha(self, tmp_path, word):
        path = write(tmp_path / "scan.mha", random_scan())
        content = path.read_bytes().replace(b"OrderMSB = False", b"OrderMSB = " + word.encode())
        path.write_bytes(content)
        np.testing.assert_array_equal(load_volume(path)[0], random_scan())

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"ObjectType = Image\n", b""),
            (b"ObjectType = Image\n", b"Comment = by another program\nObjectType = Image\n"),
            (b"ObjectType = Image\n", b"CompressedData = False\nObjectType = Image\n"),
            (b"ObjectType = Image\n", b"ObjectType = Image\nObjectSubType = MRI\n"),
            (b"\n", b"\r\n"),
            (b" = ", b"="),
            (b" = ", b"\t=\t"),
            (b" = ", b": "),
            (b"ElementSpacing", b"ElementSize"),
            (b"Offset", b"Position"),
            (b"Offset", b"Origin"),
            (b"TransformMatrix", b"Orientation"),
            (b"Offset = 0 0 0", b"Offset = 0, 0, 0"),
            (b"CompressedData = False", b"CompressedData = false"),
            (b"BinaryData = True\n", b""),
        ],
    )
    def test_an_mha_as_other_programs_write_it(self, tmp_path, capfd, old, new):
        path = write(tmp_path / "scan.mha", random_scan())
        text, end, voxels = path.read_bytes().partition(b"LOCAL\n")
        header = text + end
        assert old in header
        path.write_bytes(header.replace(old, new) + voxels)
        np.testing.assert_array_equal(load_volume(path)[0], random_scan())
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(("name", "dtype"), [("MET_LONG", "i4"), ("MET_ULONG", "u4")])
    def test_long_means_four_bytes(self, tmp_path, name, dtype):
        array = np.arange(60, dtype=dtype).reshape(SHAPE)
        path = write(tmp_path / "scan.mha", array)
        found = {"i4": b"MET_INT", "u4": b"MET_UINT"}[dtype]
        path.write_bytes(path.read_bytes().replace(found, name.encode()))
        np.testing.assert_array_equal(load_volume(path)[0], array)

    @staticmethod
    def turned_over(path, length, axis=1):
        """A NIfTI turned half around an axis, with a quaternion of another length than one."""
        turn = np.diag([*np.where(np.arange(3) == axis, 1.0, -1.0), 1.0])
        nifti(path, qform=turn, sform=turn)
        return patch_bytes(
            path, 256, np.where(np.arange(3) == axis, np.float32(length), np.float32(0)).tobytes()
        )

    @pytest.mark.parametrize("length", [1 + 3e-7, 1 + 5e-7, 1 + 1e-5, 1 + 9e-4])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_quaternion_a_hair_too_long_is_of_length_one(self, tmp_path, length, axis):
        exact = self.turned_over(tmp_path / "exact.nii", 1.0, axis)
        long = self.turned_over(tmp_path / "long.nii", length, axis)
        (volume, place), (ours, ours_place) = load_volume(exact), load_volume(long)
        np.testing.assert_array_equal(ours, volume)
        np.testing.assert_allclose(ours_place.origin, place.origin, atol=1e-3)

    def test_without_an_sform_the_mended_qform_is_what_there_is(self, tmp_path):
        exact = self.turned_over(tmp_path / "exact.nii", 1.0, axis=2)
        path = self.turned_over(tmp_path / "scan.nii", 1 + 5e-7, axis=2)
        patch_bytes(path, 254, np.int16([0]).tobytes())  # sform_code
        np.testing.assert_array_equal(load_volume(path)[0], load_volume(exact)[0])

    @pytest.mark.parametrize("length", [1.01, 2.0, np.inf, np.nan])
    def test_a_quaternion_that_is_none_is_called_that(self, tmp_path, length):
        path = self.turned_over(tmp_path / "scan.nii", length)
        with pytest.raises(VolumeReadError, match=r"scan\.nii: expected a qform whose quaternion"):
            load_volume(path)

    @pytest.mark.parametrize("byte", [4, 5, 6, 7, 7 + 8])
    def test_an_unknown_unit_is_named_with_its_byte(self, tmp_path, byte):
        path = patch_bytes(nifti(tmp_path / "scan.nii", qform=PLACE), 123, bytes([byte]))
        message = rf"expected lengths in metres .*found {byte % 8} .*\(xyzt_units {byte}\)"
        with pytest.raises(VolumeReadError, match=message):
            load_volume(path)

    @pytest.mark.parametrize("byte", [0, 2, 2 + 8, 2 + 24, 2 + 56, 2 + 128])
    def test_the_unit_of_time_does_not_matter(self, tmp_path, byte):
        path = patch_bytes(nifti(tmp_path / "scan.nii", qform=PLACE), 123, bytes([byte]))
        assert load_volume(path)[1].spacing == (5, 2, 2)

    @pytest.mark.parametrize("units", ["meter", "mm"])
    def test_a_voxel_longer_than_a_head_is_refused_with_its_lengths(self, tmp_path, units):
        place = PLACE if units == "meter" else np.diag([200.0, 200.0, 500.0, 1.0])
        path = nifti(tmp_path / "scan.nii", qform=place, units=units)
        with pytest.raises(VolumeReadError, match=r"scan\.nii: .*found a spacing of \(5\d*\.0, 2"):
            load_volume(path)

    @pytest.mark.parametrize("suffix", ["mha", "nii", "nii.gz"])
    def test_a_voxel_over_30_mm_is_refused_in_a_short_scan_too(self, tmp_path, suffix):
        path = write(tmp_path / f"scan.{suffix}", random_scan((2, 3, 4)), spacing=(31, 2, 2))
        with pytest.raises(
            VolumeReadError, match=rf"scan\.{suffix}: .*found a spacing of \(31\.0, 2"
        ):
            load_volume(path)
        path = write(tmp_path / f"scan.{suffix}", random_scan((2, 3, 4)), spacing=(30, 2, 2))
        assert load_volume(path)[1].spacing == (30, 2, 2)

    def test_a_scan_of_more_than_a_metre_is_refused(self, tmp_path):
        scan = random_scan((2, 3, 51))
        path = write(tmp_path / "scan.mha", scan, spacing=(1, 1, 20))
        with pytest.raises(VolumeReadError, match=r"an extent of \(2\.0, 3\.0, 1020\.0\) mm"):
            load_volume(path)
        assert load_volume(write(tmp_path / "scan.mha", scan, spacing=(1, 1, 19)))[0].size

    @pytest.mark.parametrize(
        "spacing",
        [
            *((0.5, 0.1, 0.1), (0.2, 0.2, 0.2), (0.65, 0.25, 0.25), (0.2, 0.04, 0.04)),  # cm
            *((0.2, 0.08, 0.08), (0.08, 0.08, 0.08)),  # inches
            *((0.005, 0.001, 0.001), (5e-6, 1e-6, 1e-6)),  # metres
        ],
    )
    def test_lengths_in_another_unit_than_they_say_are_refused(self, tmp_path, spacing):
        path = write(tmp_path / "scan.mha", random_scan(), spacing=spacing)
        with pytest.raises(
            VolumeReadError, match=r"scan\.mha: expected .*found a spacing of .*unit"
        ):
            load_volume(path)
        for fine in ((0.5, 0.5, 0.5), (5, 0.2, 0.2), (2, 0.4, 0.4)):  # finer than any scanner
            assert load_volume(write(path, random_scan(), spacing=fine))[0].size

    def test_gzip_under_another_name_and_twice_is_called_that(self, tmp_path):
        content = write(tmp_path / "scan.nii", random_scan()).read_bytes()
        zipped_once = gzip.compress(content)
        for name, stored, message in (
            ("a.nii", zipped_once, r"a\.nii: expected plain NIfTI.*found gzip; name it \.nii\.gz"),
            ("b.nii.gz", content, r"b\.nii\.gz: expected gzip, .*found a file that is not"),
            ("c.nii.gz", gzip.compress(zipped_once), r"c\.nii\.gz: .*found gzip in gzip"),
            ("d.nii", gzip.compress(zipped_once), r"d\.nii: expected plain NIfTI.*found gzip"),
        ):
            (tmp_path / name).write_bytes(stored)
            with pytest.raises(VolumeReadError, match=message):
                load_volume(tmp_path / name)

    @pytest.mark.parametrize("slope", [1 + 2**-23, 1 - 2**-24, 1 + 2**-22])
    @pytest.mark.parametrize("high", [1, 255])
    def test_labels_a_rounding_away_are_labels(self, tmp_path, slope, high):
        labels = np.zeros(SHAPE, np.int16)
        labels[1, 2, 3] = high
        scan = write(tmp_path / "sub-1_dwi.nii", random_scan() + 1)
        mask = patch_bytes(
            write(tmp_path / "sub-1_msk.nii", labels), 112, np.float32([slope, 0]).tobytes()
        )
        lesion = load_case(Case("sub-1", scan, mask)).lesion
        np.testing.assert_array_equal(lesion, labels > 0)

    def test_a_label_that_is_none_is_told_to_its_last_digit(self, tmp_path):
        labels = np.zeros(SHAPE, np.float32)
        labels[0, 0, 0] = 0.9999
        scan = write(tmp_path / "sub-1_dwi.nii", random_scan() + 1)
        case = Case("sub-1", scan, write(tmp_path / "sub-1_msk.nii", labels))
        with pytest.raises(LabelError, match=r"found 0, 0\.9999$"):
            load_case(case)

    @pytest.mark.skipif(not FAULTS.is_dir(), reason="the small files are not in the data folder")
    @pytest.mark.parametrize(
        "name",
        ["big_endian_true.mha", "dos_line_ends.mha", "comment_first.mha", "no_object_type.mha"],
    )
    def test_files_that_were_read_wrongly_or_refused(self, name):
        assert load_volume(FAULTS / name)[0].ravel().tolist() == list(range(1, 25))

    @pytest.mark.skipif(not FAULTS.is_dir(), reason="the small files are not in the data folder")
    def test_files_of_converters_that_were_refused(self):
        assert load_volume(FAULTS / "quaternion_a_hair_long.nii")[1].spacing == (5, 2, 2)
        for name, message in (("units_seven", "found 7 as the unit"), ("units_metre", "5000.0")):
            with pytest.raises(VolumeReadError, match=message):
                load_volume(FAULTS / f"{name}.nii")
        mask = FAULTS / "labels_slope_a_hair_over_one.nii"
        lesion = load_case(Case("a", mask, mask)).lesion
        assert 0 < lesion.sum() < lesion.size


class TestTwoPlacesInOneNifti:
    """A NIfTI may say where it lies twice: by its qform and by its sform."""

    HERE = np.array([[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1.0]])

    def test_one_of_them_is_enough(self, tmp_path):
        both, qform, sform = (
            load_volume(nifti(tmp_path / f"{number}.nii", **places))[1]
            for number, places in enumerate(
                (
                    {"qform": self.HERE, "sform": self.HERE},
                    {"qform": self.HERE},
                    {"sform": self.HERE},
                )
            )
        )
        # Stored towards the right, front and top; LPS's first voxel is the rightmost, foremost.
        assert both == qform == sform
        assert both == ((3, 4, 5), (4, 3, 2), (30, -29, -18), (1, 0, 0, 0, 1, 0, 0, 0, 1))

    def test_none_of_them_is_no_place(self, tmp_path):
        """Nibabel and SimpleITK guess, each another front and back."""
        with pytest.raises(VolumeReadError, match=r"scan.*neither a qform nor an sform"):
            load_volume(nifti(tmp_path / "scan.nii"))

    @pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
    @pytest.mark.parametrize(
        ("what", "change", "named"),
        [
            ("spacing", np.diag([2, 1, 1, 1]), r"\(4.0, 3.0, 2.0\), the sform \(4.0, 3.0, 4.0\)"),
            ("direction", np.diag([-1, 1, 1, 1]), r"-1.0\), the sform .* 1.0\)"),
            ("origin", [[1, 0, 0, 1], *np.eye(4)[1:]], r"-10.0\), the sform \(.* -12.0\)"),
        ],
    )
    def test_contradicting_each_other_both_are_named(self, tmp_path, what, change, named, suffix):
        path = tmp_path / f"scan.{suffix}"
        nifti(path, qform=self.HERE, sform=self.HERE @ np.array(change))
        with pytest.raises(VolumeReadError, match=rf"scan.*the qform has the {what} .*{named}"):
            load_volume(path)

    def test_noise_between_them_passes(self, tmp_path):
        noisy = self.HERE * (1 + 1e-5)
        _, geometry = load_volume(nifti(tmp_path / "scan.nii", qform=self.HERE, sform=noisy))
        assert geometry.spacing == (4, 3, 2)

    @pytest.mark.parametrize(("units", "millimetres"), [("meter", 1000), ("micron", 0.001)])
    def test_other_units_of_length(self, tmp_path, units, millimetres):
        _, here = load_volume(nifti(tmp_path / "mm.nii", qform=self.HERE))
        in_units = self.HERE.copy()
        in_units[:3] /= millimetres
        _, geometry = load_volume(nifti(tmp_path / "scan.nii", qform=in_units, units=units))
        np.testing.assert_allclose(geometry.spacing, here.spacing, rtol=1e-6)
        np.testing.assert_allclose(geometry.origin, here.origin, rtol=1e-6)
        np.testing.assert_allclose(geometry.direction, here.direction, atol=1e-6)
        unknown = nifti(tmp_path / "unknown.nii", qform=self.HERE, units="unknown")
        assert load_volume(unknown)[1] == here

    def test_sheared_axes(self, tmp_path):
        sheared = self.HERE.copy()
        sheared[0, 1] = 0.01
        with pytest.raises(VolumeReadError, match=r"scan.*axes at right angles, found.*-0\.0033"):
            load_volume(nifti(tmp_path / "scan.nii", sform=sheared))

    def test_an_axis_without_length(self, tmp_path):
        nowhere = self.HERE @ np.diag([1, 1, 0, 1])
        with pytest.raises(VolumeReadError, match=r"scan.*expected positive spacing"):
            load_volume(nifti(tmp_path / "scan.nii", sform=nowhere))


class TestResampling:
    def test_half_the_resolution_averages_the_scan_and_keeps_the_edges(self, tmp_path):
        scan = random_scan((2, 4, 6))
        case = Case("sub-1", write(tmp_path / "scan.nii", scan, spacing=(3, 1, 1)))
        loaded = load_case(case, spacing=(3, 2, 2))
        assert loaded.spacing == (3, 2, 2)
        blocks = scan.reshape(2, 2, 2, 3, 2).mean(axis=(2, 4))
        np.testing.assert_allclose(loaded.dwi, blocks, rtol=1e-5)

    def test_its_own_spacing_changes_nothing(self, tmp_path):
        case = pair(tmp_path, mask=(random_scan() > 500).astype(np.uint8))
        kept, resampled = load_case(case), load_case(case, spacing=[1, 1, 1])
        np.testing.assert_allclose(resampled.dwi, kept.dwi, rtol=1e-6)
        np.testing.assert_array_equal(resampled.lesion, kept.lesion)

    def test_its_own_spacing_changes_nothing_in_an_oblique_scan(self, tmp_path):
        place = {"spacing": (5, 2, 2), "origin": (-9, 4, 7), "direction": turned(0.2, 0)}
        case = Case("sub-1", write(tmp_path / "scan.nii.gz", random_scan(), **place))
        kept, resampled = load_case(case), load_case(case, spacing=(5, 2, 2))
        np.testing.assert_allclose(resampled.dwi, kept.dwi, rtol=1e-4)

    def test_voxels_may_grow_to_the_size_of_the_scan_but_not_swallow_it(self, tmp_path):
        case = pair(tmp_path, np.pad(random_scan(), ((0, 0), (0, 0), (0, 1))), np.zeros((3, 4, 6)))
        assert load_case(case, spacing=(3, 1, 1)).dwi.shape == (1, 4, 6)
        match = r"leave a voxel of the scan's \[3.0, 4.0, 6.0\] mm \(z, y, x\), found \(7.0, 1"
        with pytest.raises(ValueError, match=match):
            load_case(case, spacing=(7, 1, 1))

    @pytest.mark.parametrize("spacing", [(0.001, 0.001, 0.001), (5, 1e-6, 1e-6), (1e-12, 1, 1)])
    def test_more_voxels_than_memory_holds_are_refused(self, tmp_path, spacing):
        match = r"sub-1_dwi.*\[3.0, 4.0, 5.0\] mm \(z, y, x\) fit into memory, found .* mm: .* GiB"
        with pytest.raises(ValueError, match=match):
            load_case(pair(tmp_path), spacing=spacing)

    def test_a_lesion_keeps_its_volume_and_stays_a_mask_on_its_scan(self, tmp_path):
        scan = np.zeros((12, 20, 20), np.float32)
        scan[2:10, 4:16, 4:16] = 100
        mask = np.zeros_like(scan, dtype=np.uint8)
        mask[4:8, 6:12, 6:12] = 1
        loaded = load_case(pair(tmp_path, scan, mask * 255), spacing=np.full(3, 0.5))
        assert loaded.dwi.shape == loaded.lesion.shape == loaded.brain.shape == (24, 40, 40)
        assert loaded.lesion.sum() / 8 == mask.sum()
        assert loaded.brain[loaded.lesion].all()
        # Interpolation smears the rim into the air; the brain does not grow by it.
        assert loaded.brain.sum() / 8 == (scan > 0).sum()
        assert (loaded.dwi[loaded.brain] > 0).all()

    @pytest.mark.parametrize(
        "spacing",
        [2, (1, 1), (1, 1, 0), (1, -1, 1), (1, 1, np.nan), (1, 1, np.inf), "abc", (1, "x", 1)],
    )
    def test_spacing_must_be_three_positive_lengths(self, tmp_path, spacing):
        with pytest.raises(ValueError, match="spacing must be three positive lengths"):
            load_case(pair(tmp_path), spacing=spacing)


def world_points(volume, geometry):
    """Each voxel's point in nibabel's world (x, y, z in RAS), by the voxel's value."""
    step = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    points = np.indices(volume.shape).reshape(3, -1).T @ step.T + geometry.origin
    return dict(zip(volume.ravel().tolist(), points[:, ::-1] * (-1, -1, 1), strict=True))


@pytest.fixture(scope="module")
def case():
    shared = os.environ.get("VAE_BOOK_DATA") or Path(__file__).parents[3] / "shared" / "data"
    root = Path(shared) / "isles2022"
    name = "sub-strokecase0009"
    cases = {case.subject_id: case for case in find_cases(root)} if root.is_dir() else {}
    if name not in cases:
        pytest.skip(f"{name} is not in {root} (VAE_BOOK_DATA names another data folder)")
    return cases[name]


@pytest.fixture(scope="module")
def scan(case):
    return load_case(case)


class TestRealScan:
    """One stroke patient of ISLES 2022; shared/data/README.md states the lesion's size."""

    def test_the_lesion_measures_4_18_ml_in_21_pieces(self, scan):
        assert scan.spacing == (2, 2, 2)
        assert scan.lesion.sum() * np.prod(scan.spacing) / 1000 == pytest.approx(4.18, abs=0.005)
        assert label(scan.lesion)[1] == 21

    def test_a_fresh_infarct_is_bright_on_diffusion(self, scan):
        assert np.median(scan.dwi[scan.lesion]) > np.median(scan.dwi[scan.brain & ~scan.lesion])

    def test_the_brain_is_as_large_as_a_brain(self, scan):
        assert 1000 < scan.brain.sum() * np.prod(scan.spacing) / 1000 < 2000
        assert scan.brain[scan.lesion].all()

    def test_every_voxel_is_where_nibabel_says(self, case):
        volume, geometry = load_volume(case.dwi)
        stored = nib.load(case.dwi)
        voxels = np.asarray(stored.dataobj, dtype=np.float32)
        for index in np.random.default_rng(0).integers(0, volume.shape, size=(200, 3)):
            step = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
            x, y, z = ((step @ index) + geometry.origin)[::-1]
            there = np.linalg.inv(stored.affine) @ (-x, -y, z, 1)
            np.testing.assert_allclose(there, there.round(), atol=1e-3)
            assert volume[tuple(index)] == voxels[tuple(there.round().astype(int)[:3])]

    def test_rows_run_to_the_back_columns_to_the_left_slices_up(self, case):
        _, geometry = load_volume(case.dwi)
        direction = np.reshape(geometry.direction, (3, 3))
        assert (np.diag(direction) > 0.9).all()  # oblique: 12 degrees off the axes

    def test_resampled_it_stays_the_same_patient(self, case, scan):
        coarse = load_case(case, spacing=(4, 2, 2))
        assert coarse.dwi.shape[1:] == scan.dwi.shape[1:]
        assert coarse.lesion.sum() * 16 / 1000 == pytest.approx(4.18, rel=0.2)

    def test_the_flair_lies_on_another_grid(self, case):
        (flair,) = case.dwi.parent.glob("*_flair.nii.gz")
        with pytest.raises(GeometryMismatchError, match="flair"):
            load_case(Case(case.subject_id, flair, case.lesion))

    def test_a_download_that_stopped_early(self, case, tmp_path):
        shutil.copyfile(case.dwi, tmp_path / case.dwi.name)
        os.truncate(tmp_path / case.dwi.name, 1_000_000)
        with pytest.raises(VolumeReadError, match="sub-strokecase0009"):
            load_volume(tmp_path / case.dwi.name)


# -- whatever happens to a file on its way here ---------------------------------------------------
#
# It is read as it was, or refused by name.
#
# What has a checksum (a `.nii.gz` from end to end, the voxels of a compressed `.mha`) must survive
# any damage, and what has none (`.nii`, `.mha`) any change of its length. Out of reach is a flip in
# plain text or plain voxels that gives another file in good order: nobody can know.
#
# `FUZZ_EXAMPLES=20000 pytest tests/helpers/test_scans.py` looks longer, and at random places.

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
        ours = refused(name, content[-length:] if length else b"")
        # A MetaImage header has lines in front that say nothing of the volume.
        assert ours or name.endswith(".mha"), -length


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("byte", [0, 10, 255])
def test_every_pad_is_refused_but_zeros_after_a_gzip_stream(files, refused, name, byte):
    """Zeros there are what tapes left behind: gzip's own reader skips them."""
    content, _ = files[name]
    for n_bytes in (*range(1, 20), 512, 10_000):
        pad = bytes([byte]) * n_bytes
        assert refused(name, pad + content) or name.endswith(".mha")
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
