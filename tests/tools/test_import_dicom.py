"""From a scanner's files to scans that the book finds, and to nothing else."""

import gzip
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from helpers.scans import find_cases, load_case
from tools.import_dicom import import_dicom, main

SHAPE, SPACING = (12, 32, 24), (6.0, 2.0, 1.5)
VENDORS = ["SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems", "Canon", "UIH", ""]
TRACE = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND"]
PATIENT = {
    "PatientID": "MRN4711",
    "PatientName": "Weatherwax^Esmerelda",
    "PatientBirthDate": "19310428",
    "StudyDate": "20240305",
    "AcquisitionDate": "20240305",
    "ContentDate": "20240305",
    "StudyTime": "101112",
    "AcquisitionTime": "101112",
    "AccessionNumber": "ACC0815",
    "InstitutionName": "St Elsewhere",
    "ReferringPhysicianName": "Ogg^Gytha",
    "PatientComments": "fell off a broom",
    "StudyID": "99887",
}
ANOTHER = PATIENT | {"PatientID": "MRN4712", "PatientName": "Garlick^Magrat"}
DIRECTIONS = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


def volume(seed):
    """A volume in which no two voxels are alike, so that a turned or a mixed one is known."""
    values = np.random.default_rng(seed).permutation(np.prod(SHAPE)) + 1
    return values.reshape(SHAPE).astype(np.uint16)


B0, B1000, LATER = volume(0), volume(1), volume(2)


def write_series(
    folder,
    volumes,
    *,
    number=3,
    name="ep2d_diff",
    image_type=("ORIGINAL", "PRIMARY", "M", "ND"),
    patient=PATIENT,
    vendor="SIEMENS",
    study="1.2.3",
    uid=None,
    by_slice=False,
    **tags,
):
    """Write volumes, each with its b-value and direction, as one DICOM file a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    images = [(v, k) for v in range(len(volumes)) for k in range(SHAPE[0])]
    if by_slice:  # all volumes of a slice, then those of the next
        images.sort(key=lambda image: image[::-1])
    paths = []
    for instance, (v, k) in enumerate(images, start=1):
        array, b_value, direction = (*volumes[v], None, None)[:3]
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, uid, "1.2.4"
        ds.Modality, ds.Manufacturer, ds.MRAcquisitionType = "MR", vendor, "2D"
        ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = number, instance, v + 1
        ds.SeriesDescription = ds.ProtocolName = name
        ds.ImageType, ds.ScanningSequence, ds.SequenceVariant = list(image_type), "EP", "SK"
        ds.EchoTime, ds.RepetitionTime, ds.MagneticFieldStrength = 80.0, 5000.0, 3.0
        ds.PatientPosition = "HFS"
        if b_value is not None:
            ds.DiffusionBValue = float(b_value)
            if vendor == "SIEMENS":
                block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
                block.add_new(0x0C, "IS", str(b_value))
        if direction is not None:
            ds.DiffusionGradientOrientation = [float(x) for x in direction]
            if vendor == "SIEMENS":
                block.add_new(0x0E, "FD", [float(x) for x in direction])
        ds.Rows, ds.Columns = array.shape[1:]
        ds.SliceThickness = ds.SpacingBetweenSlices = SPACING[0]
        ds.PixelSpacing, ds.ImageOrientationPatient = list(SPACING[1:]), [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-18, -32, k * SPACING[0]]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.PixelData = array[k].astype("<u2").tobytes()
        for tag, value in (patient | tags).items():
            setattr(ds, tag, value)
        path = folder / f"{patient['PatientID']}_IM{number:03}_{instance:04}"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def item(**values):
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def write_frames(path, volumes, *, vendor="SIEMENS", by_slice=False, number=5):
    """Write volumes, each with its b-value, directionality and type, as frames of one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedMRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.5", "1.2.4"
    ds.Modality, ds.Manufacturer, ds.SeriesDescription = "MR", vendor, "DWI"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = number, 1, 1
    ds.Rows, ds.Columns = SHAPE[1:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[
                item(
                    SliceThickness=SPACING[0],
                    SpacingBetweenSlices=SPACING[0],
                    PixelSpacing=list(SPACING[1:]),
                )
            ],
            MRTimingAndRelatedParametersSequence=[item(RepetitionTime=5000.0)],
            MREchoSequence=[item(EffectiveEchoTime=80.0)],
        )
    ]
    images = [(v, k) for v in range(len(volumes)) for k in range(SHAPE[0])]
    if by_slice:
        images.sort(key=lambda image: image[::-1])
    groups, pixels = [], b""
    for v, k in images:
        array, b_value, directionality, kind = (*volumes[v], "NONE")[:4]
        diffusion = item(DiffusionBValue=float(b_value), DiffusionDirectionality=directionality)
        groups.append(
            item(
                FrameContentSequence=[item(StackID="1", InStackPositionNumber=k + 1)],
                PlanePositionSequence=[item(ImagePositionPatient=[-18, -32, k * SPACING[0]])],
                MRDiffusionSequence=[diffusion],
                MRImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", kind, "NONE"])],
            )
        )
        pixels += array[k].astype("<u2").tobytes()
    ds.PerFrameFunctionalGroupsSequence, ds.NumberOfFrames = groups, len(images)
    ds.PixelData = pixels
    for tag, value in PATIENT.items():
        setattr(ds, tag, value)
    ds.save_as(path, enforce_file_format=True)


def import_one(folder, out):
    """The one scan that comes out, as the book loads it."""
    import_dicom(folder, out)
    (case,) = find_cases(out)
    return load_case(case)


def refusal(folder, capsys):
    """What is said where nothing can be used, and that nothing is written then."""
    out = folder.parent / "nothing"
    assert main([str(folder), str(out)]) == 1
    assert not out.exists()
    message = capsys.readouterr().err.split("python -m tools.import_dicom: ")[1].strip()
    assert "\n" not in message and "Traceback" not in message
    return message


@pytest.fixture
def scanner(tmp_path):
    return tmp_path / "scanner"


class TestWhichVolume:
    @pytest.mark.parametrize("by_slice", [False, True])
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_of_two_b_values_in_one_series_the_higher(
        self, scanner, tmp_path, vendor, by_slice, capsys
    ):
        volumes = [(B0, 0), (B1000, 1000)]
        write_series(scanner, volumes, vendor=vendor, by_slice=by_slice)
        scan = import_one(scanner, tmp_path / "out")
        assert scan.subject_id == "sub-1" and scan.spacing == SPACING
        np.testing.assert_array_equal(scan.dwi, B1000)
        told = capsys.readouterr().out
        assert "sub-1_dwi.nii.gz: series 3 (ep2d_diff), 24 files: b = 1000, the highest of" in told
        assert json.loads((tmp_path / "out" / "sub-1_dwi.json").read_text())["BValue"] == 1000

    @pytest.mark.parametrize("by_slice", [False, True])
    @pytest.mark.parametrize(
        ("maker", "creator", "place", "kind", "told"),
        [
            ("SIEMENS", "SIEMENS MR HEADER", (0x0019, 0x0C), "IS", int),
            ("GE MEDICAL SYSTEMS", "GEMS_PARM_01", (0x0043, 0x39), "IS", lambda b: [b, 8, 0, 0]),
            ("GE MEDICAL SYSTEMS", "GEMS_PARM_01", (0x0043, 0x39), "IS", lambda b: [10**9 + b, 8]),
            ("GE MEDICAL SYSTEMS", "GEMS_PARM_01", (0x0043, 0x39), "UN", lambda b: b"%d\\8" % b),
            ("Philips Medical Systems", "Philips Imaging DD 001", (0x2001, 0x03), "FL", float),
            ("UIH", "Image Private Header", (0x0065, 0x09), "FD", float),
        ],
        ids=["Siemens", "GE", "GE with 1e9", "GE of no type", "Philips", "United Imaging"],
    )
    def test_where_older_software_keeps_the_b_value(
        self, scanner, tmp_path, maker, creator, place, kind, told, by_slice
    ):
        for path in write_series(scanner, [(B1000, 1000), (B0, 0)], vendor="", by_slice=by_slice):
            ds = pydicom.dcmread(path)
            b_value = int(ds.DiffusionBValue)
            del ds.DiffusionBValue
            ds.Manufacturer = maker
            group, at = place
            ds.private_block(group, creator, create=True).add_new(at, kind, told(b_value))
            ds.save_as(path)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_a_makers_b_value_that_cannot_be_read_is_none(self, scanner, capsys):
        for path in write_series(scanner, [(B0,), (B1000,)]):
            ds = pydicom.dcmread(path)
            block = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
            block.add_new(0x39, "UN", b"none \xff")
            ds.save_as(path)
        assert "nothing says which b-value each has" in refusal(scanner, capsys)

    @pytest.mark.parametrize("b_values", [(1000, 0), (0, 500, 1000), (50, 800), (0, 3000, 1000)])
    def test_the_highest_wherever_it_stands(self, scanner, tmp_path, b_values):
        volumes = [(volume(b), b) for b in b_values]
        write_series(scanner, volumes)
        np.testing.assert_array_equal(
            import_one(scanner, tmp_path / "out").dwi, volume(max(b_values))
        )

    @pytest.mark.parametrize("vendor", ["SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems"])
    def test_directions_are_averaged_to_a_trace(self, scanner, tmp_path, vendor, capsys):
        parts = [volume(10 + i) for i in range(3)]
        volumes = [(B0, 0, (0, 0, 0))] + [
            (part, 1000, d) for part, d in zip(parts, DIRECTIONS, strict=True)
        ]
        write_series(scanner, volumes, vendor=vendor)
        expected = np.prod(np.stack(parts).astype(float), axis=0) ** (1 / 3)
        np.testing.assert_allclose(import_one(scanner, tmp_path / "out").dwi, expected, rtol=1e-5)
        assert "geometric mean of 3 volumes" in capsys.readouterr().out

    def test_a_series_of_its_own_for_each_b_value(self, scanner, tmp_path, capsys):
        write_series(scanner, [(B0, 0)], number=2, name="DWI b0")
        write_series(scanner, [(B1000, 1000)], number=3, name="DWI b1000")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)
        assert "left: series 2 (DWI b0), 12 files: its highest b-value is 0" in (
            capsys.readouterr().out
        )

    @pytest.mark.parametrize(
        "name", ["DWI", "TRACE", "ep2d_diff_b1000", "Ax DWI b1000s", "dwi_iso"]
    )
    def test_without_a_b_value_the_name_decides(self, scanner, tmp_path, name, capsys):
        write_series(scanner, [(B1000,)], name=name, vendor="ACME")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)
        assert "its b-value is not told" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("worse", "better", "why"),
        [
            (
                {"volumes": [(B0, 2000, (1, 0, 0))], "name": "DTI"},
                {"volumes": [(B1000, 1000)], "name": "ep2d_diff_TRACEW", "image_type": TRACE},
                "because it is trace-weighted",
            ),
            (
                {"volumes": [(B0, 500)], "image_type": TRACE},
                {"volumes": [(B1000, 1000)], "image_type": TRACE},
                "because its b-value is higher",
            ),
            ({"volumes": [(B0, 1000)]}, {"volumes": [(B1000, 1000)]}, "because it is later"),
        ],
    )
    def test_of_several_series_the_best_and_it_is_said_why(
        self, scanner, tmp_path, worse, better, why, capsys
    ):
        numbers = (3, 4) if "later" in why else (4, 3)
        write_series(scanner, **worse, number=numbers[0])
        write_series(scanner, **better, number=numbers[1])
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)
        told = capsys.readouterr().out
        assert f"left: series {numbers[0]} (" in told and why in told

    def test_of_two_alike_the_one_with_more_slices(self, scanner, tmp_path, capsys):
        write_series(scanner, [(B1000, 1000)], number=3)
        for path in write_series(scanner, [(LATER, 1000)], number=4)[9:]:
            path.unlink()  # a slab of the same head, measured later
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)
        assert "because it has more slices" in capsys.readouterr().out

    def test_b_values_tell_volumes_apart_where_numbers_do_not(self, scanner, tmp_path):
        """In every other slice the weighted image was measured first."""
        paths = write_series(scanner, [(B0, 0), (B1000, 1000)], by_slice=True, AcquisitionNumber=1)
        for path in paths:
            ds = pydicom.dcmread(path)
            if round(ds.ImagePositionPatient[2] / SPACING[0]) % 2:
                ds.InstanceNumber += 1 if ds.InstanceNumber % 2 else -1
                ds.save_as(path)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_a_mosaic(self, scanner, tmp_path):
        """A real scanner's headers; their images were blackened, and are replaced here."""
        scanner.mkdir()
        there = Path(nib.__file__).parent / "nicom" / "tests" / "data"
        for name in ("siemens_dwi_0", "siemens_dwi_1000"):
            packed = (there / f"{name}.dcm.gz").read_bytes()
            (scanner / f"{name}.dcm").write_bytes(gzip.decompress(packed))
        ds = pydicom.dcmread(scanner / "siemens_dwi_1000.dcm")
        tiles = np.random.default_rng(3).integers(1, 4000, (7, 7, 128, 128)).astype("<u2")
        ds.PixelData = tiles.swapaxes(1, 2).tobytes()
        ds.save_as(scanner / "siemens_dwi_1000.dcm")
        with pytest.warns(UserWarning, match="expected a brain"):  # noise is none
            scan = import_one(scanner, tmp_path / "out")
        assert scan.spacing == pytest.approx((3, 1.8, 1.8), rel=0.01)
        np.testing.assert_array_equal(scan.dwi, tiles.reshape(49, 128, 128)[:48])


class TestFrames:
    """One file with all images, as newer scanners write."""

    @pytest.mark.parametrize("by_slice", [False, True])
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_of_two_b_values_the_higher(self, scanner, tmp_path, vendor, by_slice, capsys):
        volumes = [(B0, 0, "NONE"), (B1000, 1000, "ISOTROPIC")]
        write_frames(scanner / "all", volumes, vendor=vendor, by_slice=by_slice)
        scan = import_one(scanner, tmp_path / "out")
        assert scan.spacing == SPACING
        np.testing.assert_array_equal(scan.dwi, B1000)
        told = capsys.readouterr().out
        assert "b = 1000, the highest of 0, 1000, volume 2 of 2, trace-weighted by the" in told

    def test_three_b_values_are_not_taken_for_one(self, scanner, tmp_path):
        """dcm2niix calls each b-value of a trace-weighted frame 2000."""
        volumes = [(B0, 0, "NONE"), (LATER, 500, "ISOTROPIC"), (B1000, 1000, "ISOTROPIC")]
        write_frames(scanner / "all", volumes, vendor="Philips Medical Systems")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_a_map_among_the_frames_is_passed_over(self, scanner, tmp_path):
        volumes = [(LATER, 1000, "ISOTROPIC", "ADC"), (B0, 0, "NONE"), (B1000, 1000, "ISOTROPIC")]
        write_frames(scanner / "all", volumes)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_a_trace_is_taken_before_its_directions(self, scanner, tmp_path):
        parts = [(volume(10 + i), 1000, "DIRECTIONAL") for i in range(3)]
        volumes = [(B0, 0, "NONE"), *parts, (B1000, 1000, "ISOTROPIC")]
        write_frames(scanner / "all", volumes)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_a_file_for_each_b_value(self, scanner, tmp_path):
        write_frames(scanner / "a" / "1", [(B1000, 1000, "ISOTROPIC")])
        write_frames(scanner / "b" / "1", [(B0, 0, "NONE")])
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_compressed_frames(self, scanner, tmp_path):
        write_frames(scanner / "all", [(B0, 0, "NONE"), (B1000, 1000, "ISOTROPIC")])
        ds = pydicom.dcmread(scanner / "all")
        ds.compress(RLELossless)
        ds.save_as(scanner / "all")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    @pytest.mark.parametrize("share", [0.07, 0.2, 0.5, 0.99])
    def test_a_file_cut_short_is_named(self, scanner, share, capsys):
        path = scanner / "all"
        write_frames(path, [(B0, 0, "NONE"), (B1000, 1000, "ISOTROPIC")])
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        assert f"{path} is cut short or damaged" in refusal(scanner, capsys)


class TestMaps:
    @pytest.mark.parametrize(
        "image_type",
        [
            ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"],
            ["DERIVED", "PRIMARY", "DIFFUSION", "FA", "ND"],
            ["DERIVED", "PRIMARY", "EADC"],
            ["DERIVED", "SECONDARY", "DIFFUSION", "EXP"],
            ["DERIVED", "PRIMARY", "DIFFUSION", "TENSOR"],
        ],
        ids=str,
    )
    def test_never_are_they_taken_for_a_scan(self, scanner, image_type, capsys):
        write_series(scanner, [(B1000, 1000)], image_type=image_type, name="ep2d_diff")
        assert f"it is a map ({image_type[-1 if image_type[-1] != 'ND' else -2]})" in refusal(
            scanner, capsys
        )

    @pytest.mark.parametrize(
        "name", ["dADC", "eADC map", "DWI_ADC", "ep2d_diff_FA", "DTI colFA", "MD"]
    )
    def test_nor_by_their_names(self, scanner, name, capsys):
        write_series(scanner, [(B1000,)], name=name)
        assert "by its name it is a map" in refusal(scanner, capsys)

    def test_a_map_within_the_series_is_set_apart(self, scanner, tmp_path, capsys):
        paths = write_series(scanner, [(B0, 0), (B1000, 1000), (LATER, None)])
        for path in paths[24:]:
            ds = pydicom.dcmread(path)
            ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
            ds.save_as(path)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)
        assert "12 files: it is a map (ADC)" in capsys.readouterr().out

    def test_two_b_values_under_a_name_with_adc_are_a_scan(self, scanner, tmp_path):
        write_series(scanner, [(B0, 0), (B1000, 1000)], name="DWI ADC")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    @pytest.mark.parametrize("spacing", [None, [0, 0], []])
    def test_without_a_pixels_size_no_millimetre_is_made_up(self, scanner, spacing, capsys):
        write_series(scanner, [(B0, 0), (B1000, 1000)], PixelSpacing=spacing)
        assert "its images do not say how large a pixel is" in refusal(scanner, capsys)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            (
                {"name": "t2_tirm_tra_dark-fluid"},
                "nothing in it says that it is diffusion-weighted",
            ),
            ({"name": "t1_mprage_iso"}, "nothing in it says that it is diffusion-weighted"),
            ({"name": "DWI", "Modality": "CT"}, "it is no MRI but CT"),
            ({"name": "DWI b0", "vendor": "ACME"}, "has no diffusion weighting"),
        ],
    )
    def test_what_is_no_diffusion_is_left_with_the_reason(self, scanner, changes, reason, capsys):
        write_series(scanner, [(B0,)], **changes)
        assert reason in refusal(scanner, capsys)

    @pytest.mark.parametrize("b_value", [0, 50, 100])
    def test_a_low_b_value_is_no_diffusion_weighting(self, scanner, b_value, capsys):
        write_series(scanner, [(B0, b_value)], name="DWI")
        assert f"its highest b-value is {b_value}" in refusal(scanner, capsys)


class TestDamage:
    @pytest.mark.parametrize(
        ("missing", "reason"),
        [
            (lambda i: i >= 18, "some of its 12 slices have 2 images, others 1"),
            (lambda i: i == 23, "some of its 12 slices have 2 images, others 1"),
            (lambda i: i in (5, 18), "some of its 12 slices have 2 images, others 1"),
            (lambda i: i == 5, "some of its 12 slices have 2 images, others 1"),
            (lambda i: i % 12 == 5, "they are 6 mm apart, and 12 mm in one place"),
            (lambda i: i % 12 in (5, 6), "they are 6 mm apart, and 18 mm in one place"),
            (lambda i: i % 12 > 8, "of those numbered 1 to 21, none is 10 to 12"),
        ],
        ids=["its end", "the last", "two", "one", "a slice", "two slices", "the top"],
    )
    def test_a_series_cut_short_is_left(self, scanner, missing, reason, capsys):
        for i, path in enumerate(write_series(scanner, [(B0, 0), (B1000, 1000)])):
            if missing(i):
                path.unlink()
        assert reason in refusal(scanner, capsys)

    def test_a_header_that_says_how_many_is_believed(self, scanner, capsys):
        paths = write_series(scanner, [(B1000, 1000)], ImagesInAcquisition=12)
        for path in paths[9:]:
            path.unlink()
        assert "images are missing: expected 12, found 9" in refusal(scanner, capsys)

    def test_another_series_of_the_patient_is_taken_then(self, scanner, tmp_path, capsys):
        for path in write_series(scanner, [(LATER, 1000)], number=9)[3:5]:
            path.unlink()
        write_series(scanner, [(B0, 0), (B1000, 1000)], number=4)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)
        assert "left: series 9 (ep2d_diff), 10 files: slices are missing" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "keep", [lambda n: n - 700, lambda n: n - 1, lambda n: 300, lambda n: 140]
    )
    def test_a_file_cut_short_is_named(self, scanner, keep, capsys):
        path = write_series(scanner, [(B0, 0), (B1000, 1000)])[3]
        whole = path.read_bytes()
        path.write_bytes(whole[: keep(len(whole))])
        assert str(path) in refusal(scanner, capsys)

    def test_the_same_file_in_two_folders_counts_once(self, scanner, tmp_path):
        paths = write_series(scanner / "a", [(B0, 0), (B1000, 1000)])
        (scanner / "b").mkdir()
        for path in paths[5:9]:
            shutil.copy(path, scanner / "b")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_an_export_of_every_second_image_is_whole(self, scanner, tmp_path):
        for i, path in enumerate(write_series(scanner, [(B0, 0), (B1000, 1000)], by_slice=True)):
            if i % 2 == 0:  # b = 0
                path.unlink()
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    @pytest.mark.parametrize(
        ("number_of", "by_slice"),
        [
            (lambda i: i + 1001, False),
            (lambda i: 3 * i + 2, False),
            (lambda i: 2 * i + 1, True),  # of two echoes the first
            (lambda i: i + 1 if i < 1 else i + 40, False),
            (lambda i: 1 + 3 * (i // 2) + 2 * (i % 2), True),  # of three b-values two
            (lambda i: i + 1 + i // 5, False),
            (lambda i: 1 + i**2 % 97 + 100 * i, False),
            (lambda i: i + 1 + 12 * (i > 11), False),  # of three volumes two
            (lambda i: i + 1 + 988 * (i > 11), False),  # 1 to 12, and 1001 to 1012
            (lambda i: 12 - i if i < 12 else 36 - i, False),
            (lambda i: i % 12 + 1, False),
            (lambda i: i + 1 if i < 12 else i % 12 + 1 + 6, False),
        ],
        ids=[
            "begins late", "steps of three", "every second", "one before the others",
            "two of three", "a jump here and there", "no order", "a volume left out",
            "a thousand on", "from the top", "each volume anew", "overlapping",
        ],
    )  # fmt: skip
    def test_numbers_do_not_matter_where_no_slice_is_missing(
        self, scanner, tmp_path, number_of, by_slice
    ):
        paths = write_series(scanner, [(B0, 0), (B1000, 1000)], by_slice=by_slice)
        for i, path in enumerate(paths):
            ds = pydicom.dcmread(path)
            ds.InstanceNumber = number_of(i)
            ds.save_as(path)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    @pytest.mark.parametrize("number_of", [lambda i: i + 501, lambda i: 2 * i, lambda i: i**2])
    @pytest.mark.parametrize(
        ("missing", "reason"),
        [
            (lambda i: i == 17, "some of its 12 slices have 2 images, others 1"),
            (lambda i: i % 12 == 5, "they are 6 mm apart, and 12 mm in one place"),
            (lambda i: i >= 20, "some of its 12 slices have 2 images, others 1"),
        ],
        ids=["one", "a slice", "its end"],
    )
    def test_a_missing_slice_is_missed_by_its_place_whatever_the_numbers(
        self, scanner, number_of, missing, reason, capsys
    ):
        for i, path in enumerate(write_series(scanner, [(B0, 0), (B1000, 1000)])):
            ds = pydicom.dcmread(path)
            ds.InstanceNumber = number_of(i)
            path.unlink() if missing(i) else ds.save_as(path)
        assert reason in refusal(scanner, capsys)

    @pytest.mark.parametrize("step", [1, 2, 5])
    @pytest.mark.parametrize(
        ("missing", "found"),
        [
            (lambda k: k > 8, [10, 11, 12]),
            (lambda k: k < 2, [13, 14]),
            (lambda k: k in (0, 11), [12, 13]),
            (lambda k: k > 4, [6, 7, 8, 9, 10, 11, 12]),
        ],
        ids=["the top", "the bottom", "both", "more than half"],
    )
    def test_volumes_cut_alike_at_their_ends_are_known_by_the_numbers(
        self, scanner, missing, found, step, capsys
    ):
        paths = write_series(scanner, [(B0, 0), (LATER, 500), (B1000, 1000)])
        for i, path in enumerate(paths):
            ds = pydicom.dcmread(path)
            ds.InstanceNumber = step * (i + 1)
            path.unlink() if missing(i % 12) else ds.save_as(path)
        first, last = step * (found[0] - 1) + 1, step * (found[-1] + 1) - 1
        assert f"none is {first} to {last}, where a volume ends" in refusal(scanner, capsys)

    def test_a_localizer_is_left(self, scanner, capsys):
        paths = write_series(scanner, [(B1000, 1000)])
        for path in paths[6:]:
            ds = pydicom.dcmread(path)
            ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            ds.save_as(path)
        assert "lie in several directions" in refusal(scanner, capsys)


class TestPatients:
    @pytest.mark.parametrize("uid", [None, "1.2.3.4"], ids=["own series", "one series' number"])
    def test_two_in_one_folder_are_two_scans(self, scanner, tmp_path, uid):
        write_series(scanner, [(B0, 0), (B1000, 1000)], uid=uid)
        write_series(scanner, [(B0, 0), (LATER, 1000)], uid=uid, patient=ANOTHER)
        import_dicom(scanner, tmp_path / "out")
        scans = [load_case(case) for case in find_cases(tmp_path / "out")]
        assert [scan.subject_id for scan in scans] == ["sub-1", "sub-2"]
        np.testing.assert_array_equal(scans[0].dwi, B1000)
        np.testing.assert_array_equal(scans[1].dwi, LATER)

    @pytest.mark.parametrize(
        "name",
        ["Weatherwax^Esmerelda^^^", "WEATHERWAX^ESMERELDA", " Weatherwax^Esmerelda ^"],
    )
    def test_one_patient_under_another_spelling_is_one_scan(self, scanner, tmp_path, name):
        write_series(scanner / "1", [(B0, 0), (B1000, 1000)], number=3)
        again = PATIENT | {"PatientName": name}
        write_series(scanner / "2", [(B0, 0), (LATER, 1000)], number=4, patient=again)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, LATER)

    def test_without_names_the_study_tells_them_apart(self, scanner, tmp_path):
        nobody = PATIENT | {"PatientID": "", "PatientName": ""}
        for study, array in (("1.2.8", B1000), ("1.2.9", LATER)):
            write_series(scanner / study, [(array, 1000)], study=study, patient=nobody)
        assert len(import_dicom(scanner, tmp_path / "out")) == 2

    def test_the_patient_stays_behind(self, scanner, tmp_path, capsys):
        out = tmp_path / "out"
        # A technician may have typed the name where the series is described.
        write_series(scanner, [(B0, 0), (B1000, 1000)], name="DWI Weatherwax 19310428")
        import_dicom(scanner, out)
        header = nib.load(out / "sub-1_dwi.nii.gz").header
        for field in ("descrip", "aux_file", "intent_name", "db_name"):
            assert header[field] == b""
        assert not header.extensions
        uids = {str(pydicom.dcmread(path).SeriesInstanceUID) for path in scanner.iterdir()}
        for secret in {*PATIENT.values(), "Weatherwax", "Esmerelda", "MRN", "1.2.3", *uids}:
            for path in out.iterdir():
                whole = path.read_bytes()
                content = gzip.decompress(whole) if path.suffix == ".gz" else whole
                assert secret.encode() not in content.replace(B1000.tobytes(), b"")
                assert secret.encode() not in whole[:64]  # gzip keeps a name and a date
                assert secret not in path.name
        assert sorted(os.listdir(out)) == ["sub-1_dwi.json", "sub-1_dwi.nii.gz"]

    def test_numbers_go_on_and_no_scan_comes_twice(self, scanner, tmp_path):
        out = tmp_path / "out"
        write_series(scanner / "a", [(B1000, 1000)])
        write_series(scanner / "b", [(LATER, 1000)], patient=ANOTHER)
        assert [p.name for p in import_dicom(scanner / "b", out)] == ["sub-1_dwi.nii.gz"]
        before = (out / "sub-1_dwi.nii.gz").read_bytes()
        paths = import_dicom(scanner, out)
        assert [p.name for p in paths] == ["sub-2_dwi.nii.gz", "sub-1_dwi.nii.gz"]
        assert (out / "sub-1_dwi.nii.gz").read_bytes() == before and len(find_cases(out)) == 2

    def test_a_name_of_ones_own(self, scanner, tmp_path, capsys):
        write_series(scanner, [(B1000, 1000)])
        for _ in range(2):  # the same scan again is no other one
            assert main([str(scanner), str(tmp_path / "out"), "--name", "Clinic7"]) == 0
        assert [case.subject_id for case in find_cases(tmp_path / "out")] == ["sub-Clinic7"]
        write_series(scanner, [(LATER, 1000)], number=8)
        assert main([str(scanner), str(tmp_path / "out"), "--name", "Clinic7"]) == 1
        assert "sub-Clinic7_dwi.nii.gz: expected no scan of this name" in capsys.readouterr().err
        np.testing.assert_array_equal(load_case(find_cases(tmp_path / "out")[0]).dwi, B1000)

    @pytest.mark.parametrize("name", ["", "a_b", "../out", "ä", "sub-1", "a b"])
    def test_a_name_that_cannot_name_a_patient(self, scanner, tmp_path, name):
        with pytest.raises(ValueError, match="name: expected letters and digits, found"):
            import_dicom(scanner, tmp_path / "out", name=name)

    def test_one_name_is_not_for_two(self, scanner, tmp_path):
        write_series(scanner, [(B1000, 1000)])
        write_series(scanner, [(LATER, 1000)], patient=ANOTHER)
        with pytest.raises(ValueError, match=r"name: expected one patient in .*, found 2"):
            import_dicom(scanner, tmp_path / "out", name="one")
        assert not (tmp_path / "out").exists()


class TestFolders:
    def test_any_depth_among_other_files(self, scanner, tmp_path):
        deep = scanner.joinpath(*"123456789abc")
        paths = write_series(deep, [(B0, 0), (B1000, 1000)])
        for path in paths[::3]:  # one series in many folders
            (scanner / path.name).mkdir()
            path.rename(scanner / path.name / "image.dcm")
        (scanner / "report.pdf").write_bytes(b"%PDF")
        (scanner / "._IM003_0001").write_bytes(b"a Mac's")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_links_are_followed_and_circles_survived(self, scanner, tmp_path, capsys):
        write_series(tmp_path / "disk", [(B0, 0), (B1000, 1000)])
        scanner.mkdir()
        (scanner / "patient").symlink_to(tmp_path / "disk")
        (tmp_path / "disk" / "back").symlink_to(scanner)
        (scanner / "nowhere").symlink_to(tmp_path / "never")
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)
        told = capsys.readouterr().out
        assert f"left: {scanner / 'nowhere'}: expected a file, found a link to what is" in told
        (tmp_path / "disk").rename(tmp_path / "away")
        assert refusal(scanner, capsys).count("a link to what is not there") == 2

    def test_a_folder_that_cannot_be_listed_is_an_error(self, scanner, monkeypatch, capsys):
        write_series(scanner, [(B1000, 1000)])
        (scanner / "locked").mkdir()
        scandir = os.scandir

        def refuse(path):
            if str(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        message = refusal(scanner, capsys)
        assert "Permission denied" in message and "locked" in message

    def test_files_without_a_preamble(self, scanner, tmp_path):
        for path in write_series(scanner, [(B0, 0), (B1000, 1000)]):
            ds = pydicom.dcmread(path)
            bare = Dataset({e.tag: e for e in ds})
            with path.open("wb") as file:
                pydicom.dcmwrite(file, bare, implicit_vr=True, little_endian=True)
            assert path.read_bytes()[:2] == b"\x08\x00"
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    def test_compressed_images(self, scanner, tmp_path):
        for path in write_series(scanner, [(B0, 0), (B1000, 1000)]):
            ds = pydicom.dcmread(path)
            ds.compress(RLELossless)
            ds.save_as(path)
        np.testing.assert_array_equal(import_one(scanner, tmp_path / "out").dwi, B1000)

    @pytest.mark.parametrize(
        ("files", "found"),
        [
            ({}, "found 0 other files"),
            ({"a.txt": b"a", "b/c.txt": b"c"}, "found 2 other files (2 with .txt)"),
            ({"sub-1_dwi.nii.gz": b"?" * 400}, "found 1 other files (1 with .nii.gz)"),
            ({"README": b"a DICM file, it says" * 40}, "found 1 other files (1 with no suffix)"),
            ({"export.zip": b"PK"}, "found 1 other files (1 with .zip); unpack the archive first"),
        ],
        ids=["empty", "texts", "a scan", "a text that says DICM", "an archive"],
    )
    def test_no_dicom_at_all(self, scanner, files, found, capsys):
        scanner.mkdir()
        for name, content in files.items():
            (scanner / name).parent.mkdir(exist_ok=True)
            (scanner / name).write_bytes(content)
        assert refusal(scanner, capsys) == f"{scanner}: expected DICOM files, {found}"

    def test_no_folder_at_all(self, scanner, capsys):
        assert "expected a folder of DICOM files, found no folder" in refusal(scanner, capsys)
