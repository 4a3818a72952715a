"""A built-in cohort of synthetic stroke patients, for a reader without a data set.

Nothing here was measured in a patient. Each scan is simulated on the average anatomy of 152
healthy people [1]_: a pose and a warp of its own, the diffusion-weighted echo [2]_ of tissues with
published values [3]_ [4]_ [5]_, an acute infarct, and then what a scanner does to it all.

References
----------
.. [1] Fonov et al. (2011), NeuroImage 54:313. MNI152's tissue maps; they come with nilearn.
.. [2] Stejskal and Tanner (1965), J Chem Phys 42:288.
.. [3] Whittall et al. (1997), Magn Reson Med 37:34. Water content of the tissues.
.. [4] Stanisz et al. (2005), Magn Reson Med 54:507. T2 at 3 tesla; of CSF, about 2 s.
.. [5] Helenius et al. (2002), AJNR 23:194. ADC; of CSF, about that of free water at 37 °C.
.. [6] Schlaug et al. (1997), Neurology 49:113. The ADC of acute infarcts.
.. [7] Burdette et al. (1999), Radiology 212:333. T2 shine-through.
.. [8] Jezzard and Balaban (1995), Magn Reson Med 34:65. Distortion beside air.
.. [9] Gudbjartsson and Patz (1995), Magn Reson Med 34:910. Rician noise.
.. [10] Maier et al. (2017), Med Image Anal 35:250. Lesion volumes of ISLES 2015.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from joblib import Parallel, cpu_count, delayed
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tqdm.auto import tqdm

from . import whole_number
from .brain import fill_holes
from .scans import Case, Scan

VERSION = 2  # of the simulation: raise it when the same seed gives other scans
SPACING = (5.0, 1.0, 1.0)  # mm
GRID = (34, 218, 174)  # voxels that can hold brain; with the margin, 34 × 230 × 230
MARGIN = ((0, 0), (6, 6), (28, 28))
ECHO_TIME = 80.0  # ms
B_VALUE = 1000.0  # s/mm²
TISSUES = {  # water content, T2 in ms, ADC in mm²/s
    "grey": (0.82, 99.0, 0.89e-3),
    "white": (0.70, 69.0, 0.70e-3),
    "csf": (1.00, 2000.0, 3.00e-3),
}
# All places are in MNI space, LPS (z, y, x) in mm.
TEMPLATE_ORIGIN = np.float32([-72, -98, -98])
BRAIN_CENTRE, BRAIN_EXTENT = (5, 17, 0), (80, 90, 70)
VENTRICLES = (18, 18, 0), (28, 42, 16)  # centre and extent
LENTIFORM_NUCLEI = ((0, 0, -22), (6, 9, 5)), ((0, 0, 22), (6, 9, 5))
AIR = (  # beside the brain: frontal and ethmoid sinuses, the two ears
    ((-8, -58, 0), (8, 5, 18)),
    ((-30, 20, -58), (6, 10, 5)),
    ((-30, 20, 58), (6, 10, 5)),
)
TERRITORIES = (  # of the arteries: share of strokes, centre (of either side), spread
    (0.45, (18, 10, 45), (20, 25, 8)),  # middle cerebral, cortex
    (0.25, (8, 5, 25), (10, 12, 6)),  # middle cerebral, its deep branches
    (0.06, (35, -35, 8), (15, 25, 5)),  # anterior cerebral
    (0.12, (5, 75, 18), (12, 12, 8)),  # posterior cerebral
    (0.12, (-38, 62, 22), (8, 10, 10)),  # cerebellar
)
BOTH_SIDES = 0.1  # share of patients; of the FLAIR slices of SOOP, 10 % are marked on both sides
FACE = (-85, -35, 0), (60, 62, 62)  # centre and extent of what hangs below the brain's front
CAVITIES = (  # nose and maxillary sinuses
    *AIR,
    ((-60, -45, 0), (28, 30, 13)),
    ((-62, -50, -30), (15, 17, 13)),
    ((-62, -50, 30), (15, 17, 13)),
)
EYES = ((-36, -68, -32), (12, 12, 12)), ((-36, -68, 32), (12, 12, 12))
NERVES = ((-32, -42, -20), (4, 20, 5)), ((-32, -42, 20), (4, 20, 5))  # from the eyes to the brain


def dwi_signal(water, t2, adc, *, echo_time: float = ECHO_TIME, b_value: float = B_VALUE):
    """Diffusion-weighted spin echo, ``water · exp(-TE / T2) · exp(-b · ADC)`` [2]_.

    Examples
    --------
    Acute ischaemia may halve the ADC of grey matter, and the scan brightens:

    >>> water, t2, adc = TISSUES["grey"]
    >>> print(f"{dwi_signal(water, t2, adc / 2) / dwi_signal(water, t2, adc):.2f}")
    1.56
    """
    return water * np.exp(-echo_time / t2) * np.exp(-b_value * adc)


def simulate_case(
    seed: int | np.random.SeedSequence, *, infarct: bool = True, skull: bool = False
) -> Scan:
    """Simulate the diffusion-weighted scan of one synthetic stroke patient.

    Parameters
    ----------
    seed : int or numpy.random.SeedSequence
        The same seed gives the same patient.
    infarct : bool
        False gives the same patient on the day before: same head, same noise, healthy tissue. The
        mask still says where the infarct will be, so that a method can be asked what it makes of
        the place alone.
    skull : bool
        True shows the same brain, voxel for voxel, within its head: skull, scalp with its fat
        suppressed, eyes, face, and the noise of air. `brain` still says where the brain is.

    Returns
    -------
    Scan
        ``"sub-phantom"``: volumes of shape (34, 230, 230), voxels of 5 × 1 × 1 mm. Intensities are
        whole numbers, as in a scanner's files; at least three voxels are lesion.

    Raises
    ------
    ValueError
        If the seed is neither a whole number of at least 0 nor a SeedSequence.

    Examples
    --------
    >>> scan = simulate_case(7)
    >>> scan.dwi.shape, scan.spacing
    ((34, 230, 230), (5.0, 1.0, 1.0))
    >>> bool(np.median(scan.dwi[scan.lesion]) > np.median(scan.dwi[scan.brain]))
    True
    """
    if not isinstance(seed, np.random.SeedSequence):
        seed = whole_number("seed", seed, at_least=0)
    rng = np.random.default_rng(seed)
    stroke = _draw_stroke(rng)
    anatomy = _draw_anatomy(rng)
    fraction, mask = _infarct(rng, anatomy, *stroke)
    lot = np.random.Generator(rng.bit_generator.jumped())  # leaves the draws of `rng` as they are
    if lot.random() < BOTH_SIDES:
        centre, spread, _ = _draw_stroke(lot)
        centre[2] = -np.sign(stroke[0][2]) * abs(centre[2])
        volume = stroke[2][0] * 10 ** lot.uniform(-1.5, 0)
        second, second_mask = _infarct(lot, anatomy, centre, spread, [volume])
        fraction, mask = np.maximum(fraction, second), mask | second_mask
    dwi = _acquire(rng, anatomy, _signal(rng, anatomy, fraction if infarct else 0 * fraction))
    lesion = np.zeros(GRID, dtype=bool)
    lesion[anatomy.brain] = mask
    dwi, lesion, brain = (np.pad(volume, MARGIN) for volume in (dwi, lesion, anatomy.brain))
    if skull:
        dwi = _in_its_head(rng, dwi, brain, anatomy.mni)
    return Scan("sub-phantom", dwi, lesion, brain, SPACING)


def write_cohort(root: str | os.PathLike, n_cases: int = 28, *, seed: int = 2015) -> list[Case]:
    """Write the synthetic cohort in the ISLES 2022 layout, once, with a progress bar.

    What is there already is kept: an interrupted call resumes where it stopped, a larger `n_cases`
    adds patients, a smaller one returns the first of them. A cohort of another seed, or of another
    version of the simulation, is deleted and replaced.

    Parameters
    ----------
    root : path
        The folder for ``rawdata/``, ``derivatives/`` and ``manifest.json``; made if missing.
    n_cases : int
        How many patients: ``sub-phantom0001``, ``sub-phantom0002``, …
    seed : int
        Seed of the cohort. Each patient has a seed of their own, spawned from it.

    Returns
    -------
    list of Case
        The patients in order, as `helpers.scans.find_cases` finds them.

    Raises
    ------
    ValueError
        If `n_cases` is not a whole number of at least 1, or `seed` one of at least 0.
    FileExistsError
        If the folder holds other patients, which must not be mixed with synthetic ones.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     [case.subject_id for case in write_cohort(root, n_cases=1)]
    ['sub-phantom0001']
    """
    n_cases = whole_number("n_cases", n_cases)
    seed = whole_number("seed", seed, at_least=0)
    root = Path(root)
    _claim(root, n_cases, seed)
    seeds = np.random.SeedSequence(seed).spawn(n_cases)
    cases = [_case(root, number) for number in range(1, n_cases + 1)]
    todo = [i for i, case in enumerate(cases) if not (case.dwi.exists() and case.lesion.exists())]
    progress = {"total": n_cases, "initial": n_cases - len(todo), "disable": not todo}
    # Another process is worth its start only if there is a handful of patients for it.
    processes = max(1, min(cpu_count(), len(todo) // 4))
    written = Parallel(n_jobs=processes, return_as="generator_unordered")(
        delayed(_write_case)(cases[i], seeds[i]) for i in todo
    )
    for _ in tqdm(written, desc="Synthetic patients", unit="scan", **progress):
        pass
    return cases


def _write_case(case: Case, seed: np.random.SeedSequence) -> None:
    scan = simulate_case(seed)
    # The mask first: a scan that can be found has its mask.
    _write_volume(case.lesion, scan.lesion.astype(np.uint8))
    _write_volume(case.dwi, scan.dwi.astype(np.int16))


class _Anatomy(NamedTuple):
    """A healthy brain on the scan's grid; but for `brain`, a value for each brain voxel."""

    brain: np.ndarray  # bool (z, y, x)
    mni: np.ndarray  # (3, n): where the voxel lies in the template
    grey: np.ndarray  # (n,) fractions of the voxel
    white: np.ndarray
    pile_up: np.ndarray  # (n,) how many times its own signal the voxel gathers


def _draw_stroke(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and spread of the starved territory; volumes in ml of infarct and satellites [10]_."""
    shares, centres, spreads = zip(*TERRITORIES, strict=True)
    territory = rng.choice(len(TERRITORIES), p=shares)
    centre = np.array(centres[territory]) * (1, 1, rng.choice([-1, 1]))
    n_satellites = min(rng.geometric(0.5) - 1, 12)
    infarct = np.clip(rng.lognormal(np.log(2.5), 2.1), 0.03, 340.0)
    satellites = infarct * 10 ** rng.uniform(-2.2, -0.8, n_satellites)
    return centre, np.array(spreads[territory]), np.r_[infarct, satellites]


def _draw_anatomy(rng: np.random.Generator) -> _Anatomy:
    """Give the average brain a size, a pose, a warp and an age; bend it beside air."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(GRID, SPACING, strict=True)]
    # From the scan to the template and not back, because each voxel of the scan needs a value.
    turn = Rotation.from_rotvec(rng.normal(0, (5, 3, 3)), degrees=True).as_matrix()
    to_mni = turn / rng.lognormal(0, 0.035, 3)
    offset = BRAIN_CENTRE + rng.normal(0, (1.5, 3, 2))
    shift = _air_shift(rng, axes, lambda place: np.linalg.solve(to_mni, place - offset))
    z, y, x = np.meshgrid(*map(np.float32, axes), indexing="ij", sparse=True)
    mni = np.empty((3, *GRID), dtype=np.float32)
    for row, start, out in zip(np.float32(to_mni), np.float32(offset), mni, strict=True):
        out[:] = row[0] * z + row[1] * (y + shift) + row[2] * x + start
        out += 2.5 * _smooth_field(rng, 22.0)

    maps = _templates()
    voxels = mni - TEMPLATE_ORIGIN[:, None, None, None]
    whole = ndimage.map_coordinates(maps[0], voxels, order=1)
    brain = fill_holes(whole > 0.5)
    grey, white = (ndimage.map_coordinates(m, voxels[:, brain], order=1) for m in maps[1:])
    # Stroke patients are older than the template's people: their sulci and ventricles are wider.
    csf = np.clip(whole[brain] - grey - white, 0, 1) * rng.lognormal(1.2, 0.35)
    total = np.maximum(grey + white + csf, 1e-3)
    # Signal is conserved: where the shift brings tissue together, it piles up.
    pile_up = np.maximum(1 + np.gradient(shift, SPACING[1], axis=1), 0.1)
    return _Anatomy(brain, mni[:, brain], grey / total, white / total, pile_up[brain])


def _air_shift(rng: np.random.Generator, axes, to_scan) -> np.ndarray:
    """How far air displaces the echo-planar image along its rows, in mm [8]_."""
    curves = ([], [], [])
    for centre, extent in AIR:
        for _ in range(7):  # pockets; each bends the magnetic field around it
            pocket = to_scan(rng.normal(centre, extent))
            peak = rng.lognormal(np.log(5.5), 0.4)
            for curve, axis, middle, width in zip(curves, axes, pocket, (10, 3.5, 7), strict=True):
                bell = np.exp(-0.5 * ((axis - middle) / width) ** 2)
                curve.append(np.cbrt(peak) * bell)
    return _sum_of_products(*map(np.float32, curves))


def _infarct(
    rng: np.random.Generator, anatomy: _Anatomy, centre, spread, volumes
) -> tuple[np.ndarray, np.ndarray]:
    """Infarcted fraction of each brain voxel, and the mask that an expert would draw."""
    same_side = anatomy.mni[2] * centre[2] > 0
    tissue = anatomy.grey + anatomy.white > 0.4
    eligible = same_side & tissue & (anatomy.pile_up > 0.75)  # nobody marks a signal void
    likely = np.exp(-0.5 * _distance(anatomy.mni, centre, spread) ** 2)
    fraction = np.zeros_like(likely)
    mask = np.zeros(len(likely), dtype=bool)
    for i, volume in enumerate(volumes):
        chance = np.cumsum(likely * (eligible & ~mask), dtype=float)
        centre = anatomy.mni[:, np.searchsorted(chance, rng.random() * chance[-1])]
        radius = (3000 * volume / (4 * np.pi)) ** (1 / 3)
        # An ellipsoid with a wavering edge, grown until it holds the volume.
        wobble = _smooth_field(rng, max(0.45 * radius, 2.5))[anatomy.brain]
        score = _distance(anatomy.mni, centre, radius * rng.lognormal(0, 0.25, 3)) - 0.3 * wobble
        score[~eligible] = np.inf
        n_voxels = max(3, round(1000 * volume / np.prod(SPACING)))
        edge = np.partition(score, n_voxels)[n_voxels - 1 : n_voxels + 1].mean()
        mask |= score < edge
        fade = min(1.6, radius / 7)  # mm in which infarcted turns into healthy tissue
        fraction = np.maximum(fraction, _sigmoid((edge - score) * np.float32(radius / fade)))
        if i == 0:  # its satellites are emboli of the same shower: they land near it
            likely = np.exp(-0.5 * _distance(anatomy.mni, centre, np.full(3, radius + 15)) ** 2)
    return fraction, mask


def _signal(rng: np.random.Generator, anatomy: _Anatomy, infarct: np.ndarray) -> np.ndarray:
    """Echo of each brain voxel, from what health and disease make of its T2 and ADC."""

    def texture(length: float) -> np.ndarray:
        return _smooth_field(rng, length)[anatomy.brain]

    t2 = np.exp(0.05 * texture(25.0) + 0.07 * texture(5.0))
    adc = np.exp(0.03 * texture(25.0) + 0.05 * texture(5.0))
    for nucleus in LENTIFORM_NUCLEI:  # full of iron, which shortens T2
        t2 *= 1 - 0.3 * np.exp(-0.5 * _distance(anatomy.mni, *nucleus) ** 4)
    # T2 shine-through [7]_: old disease of small vessels, bright although its ADC is high.
    reach = 2 * (_distance(anatomy.mni, *VENTRICLES) - 0.9)
    old = anatomy.white * _sigmoid(4 * (texture(4.0) - rng.uniform(0.4, 1.8) - reach))
    t2 *= 1 + rng.uniform(1.2, 2.8) * old
    adc *= 1 + rng.uniform(0.0, 0.3) * old
    # Acute ischaemia [6]_: water trapped in the cells, oedema above all in white matter.
    severity = infarct * np.clip(1 + 0.25 * texture(5.0), 0.6, 1.4)
    t2 *= 1 + rng.uniform(0.15, 0.3) * severity * (1 + 1.5 * anatomy.white)
    adc *= 1 - rng.uniform(0.35, 0.45) * severity

    signal = (1 - anatomy.grey - anatomy.white) * dwi_signal(*TISSUES["csf"])
    for name in ("grey", "white"):
        water, healthy_t2, healthy_adc = TISSUES[name]
        signal += getattr(anatomy, name) * dwi_signal(water, healthy_t2 * t2, healthy_adc * adc)
    return signal * anatomy.pile_up


def _acquire(rng: np.random.Generator, anatomy: _Anatomy, signal: np.ndarray) -> np.ndarray:
    """What the scanner makes of the signal: coil, blur, noise [9]_, gain and whole numbers."""
    # The coil's elements sit around the head: what is near the surface is near to them.
    depth = _distance(anatomy.mni, BRAIN_CENTRE, BRAIN_EXTENT)
    signal = signal * np.exp(0.10 * _smooth_field(rng, 45.0)[anatomy.brain] + 0.3 * depth**4)
    typical = np.median(signal)
    channels = rng.standard_normal((2, *GRID), dtype=np.float32) * np.float32(0.16 * typical)
    channels[0][anatomy.brain] += signal
    # Noise passes through the same point spread, widest along the phase-encoded rows.
    channels = ndimage.gaussian_filter(channels, (0, 0, 1.0, 0.7), truncate=3)
    magnitude = np.hypot(*channels) * (rng.uniform(150, 600) / typical)
    # At least 1 in the brain, because 0 means stripped off with the skull.
    return np.where(anatomy.brain, np.clip(np.rint(magnitude), 1, 32767), 0).astype(np.float32)


def _in_its_head(
    rng: np.random.Generator, dwi: np.ndarray, brain: np.ndarray, mni: np.ndarray
) -> np.ndarray:
    """Put around the brain what a fat-suppressed diffusion-weighted scan shows of the head."""
    # The brain's voxels tell the pose, which carries on to those around it.
    places = np.stack([*np.indices(dwi.shape, dtype=np.float32), np.ones(dwi.shape, np.float32)])
    inside = places[:, brain]
    pose = np.linalg.lstsq(inside[:, ::29].T, mni[:, ::29].T, rcond=None)[0].T.astype(np.float32)
    mni = pose @ places.reshape(4, -1)

    def within(places: tuple) -> np.ndarray:
        return np.min([_distance(mni, *place) for place in places], axis=0).reshape(dwi.shape) < 1

    def texture(length: float) -> np.ndarray:
        noise = rng.standard_normal(dwi.shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, length / np.array(SPACING))
        return noise / noise.std()

    # Outwards: 2 mm of CSF, bone, and scalp; all of it thicker here and thinner there.
    depth = ndimage.distance_transform_edt(~brain, SPACING).astype(np.float32)
    bone, scalp = np.cumsum([2 + rng.uniform(4, 7), rng.uniform(4, 8)])
    depth /= np.exp(0.1 * texture(20.0))
    head = np.where(depth < scalp, 0.2 * np.exp(0.3 * texture(6.0)), 0)
    # Muscle, bone and marrow of the face are dim; its mucous membranes are as bright as a brain.
    face = within([FACE]) & (depth >= bone)
    muscles = 0.16 * np.exp(0.4 * texture(6.0))
    head[face] = (muscles + 0.6 * _sigmoid(6 * (texture(5.0) - 1.8)))[face]
    head[depth < bone] = 0.06
    head[depth < 2] = rng.uniform(0.2, 0.35)  # CSF
    head[within(CAVITIES)] = 0
    head[within(EYES)] = rng.uniform(0.45, 0.8)
    head[within(NERVES) & (depth > 1)] = rng.uniform(0.4, 0.7)

    typical = np.float32(np.median(dwi[brain]))
    channels = rng.standard_normal((2, *dwi.shape), dtype=np.float32) * (0.16 * typical)
    channels[0] += np.where(brain, dwi, typical * head)
    channels = ndimage.gaussian_filter(channels, (0, 0, 1.0, 0.7), truncate=3)
    magnitude = np.clip(np.rint(np.hypot(*channels)), 0, 32767)
    return np.where(brain, dwi, magnitude).astype(np.float32)


@lru_cache(maxsize=1)
def _templates() -> np.ndarray:
    """Brain, grey and white matter of MNI152, (3, z, y, x) in LPS at 1 mm, means over a slab."""
    from nilearn import datasets  # here, because it takes a second to import

    names = ("brain_mask", "gm_template", "wm_template")
    loaders = (getattr(datasets, f"load_mni152_{name}") for name in names)
    brain, grey, white = (
        load(resolution=1).get_fdata(dtype=np.float32).T[:, ::-1, ::-1] for load in loaders
    )
    # A mean of 152 people is blurred; cubes give a voxel back to the likeliest of its tissues.
    sharp = np.stack([grey, white, np.clip(brain - grey - white, 0, 1)]) ** 3
    sharp *= brain / np.maximum(sharp.sum(axis=0), 1e-6)
    maps = np.stack([brain, sharp[0], sharp[1]])
    return ndimage.uniform_filter1d(maps, round(SPACING[0]), axis=1, mode="constant")


def _smooth_field(rng: np.random.Generator, length: float, *, rank: int = 32) -> np.ndarray:
    """Gaussian random field of unit variance on the grid; `length` in mm says how smooth.

    A sum of products of random curves: tens of times cheaper than filtering a volume of noise.
    """
    curves = []
    for size, step in zip(GRID, SPACING, strict=True):
        noise = rng.standard_normal((rank, size)).astype(np.float32)
        curve = ndimage.gaussian_filter1d(noise, length / step, axis=1, mode="wrap")
        curves.append(curve / np.sqrt(np.mean(curve**2, axis=1, keepdims=True)))
    return _sum_of_products(*curves) / np.float32(np.sqrt(rank))


def _sum_of_products(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.tensordot(z[:, :, None] * y[:, None, :], x, axes=(0, 0))


def _distance(places: np.ndarray, centre, extent) -> np.ndarray:
    """Distance of the (3, n) places from the centre, in units of the extent."""
    scaled = (places - np.float32(centre)[:, None]) / np.float32(extent)[:, None]
    return np.sqrt(np.einsum("in,in->n", scaled, scaled))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


def _case(root: Path, number: int) -> Case:
    subject = f"sub-phantom{number:04d}"
    session = Path(subject, "ses-0001")
    return Case(
        subject,
        root / "rawdata" / session / f"{subject}_ses-0001_dwi.nii.gz",
        root / "derivatives" / session / f"{subject}_ses-0001_msk.nii.gz",
    )


def _claim(root: Path, n_cases: int, seed: int) -> None:
    """Make the folder hold this cohort and no other."""
    manifest = root / "manifest.json"
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        same = (found["seed"], found["version"]) == (seed, VERSION)
        n_found = int(found["n_cases"])
    except (OSError, ValueError, KeyError, TypeError):
        same, n_found = False, 0
    if same and n_found >= n_cases:
        return
    if strangers := [p for p in root.glob("rawdata/sub-*") if "sub-phantom" not in p.name]:
        raise FileExistsError(
            f"{root}: expected a folder for synthetic patients only, found {strangers[0].name}"
        )
    if not same:
        for old in [*root.glob("rawdata/sub-phantom*"), *root.glob("derivatives/sub-phantom*")]:
            shutil.rmtree(old)
    label = "Synthetic scans, simulated by helpers/phantom.py: not patients."
    content = {"description": label, "seed": seed, "version": VERSION, "n_cases": n_cases}
    with _whole(manifest) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_volume(path: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    spacing = np.array(SPACING[::-1])
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((-0.5 * spacing * (np.array(image.GetSize()) - 1)).tolist())
    image.SetMetaData("ITK_FileNotes", "synthetic, not a patient")
    with _whole(path) as temporary:
        sitk.WriteImage(image, str(temporary))


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Lend a temporary name, so that `path` is written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process's number, because two notebooks may be writing the same cohort.
    temporary = path.with_name(f"._{os.getpid()}_{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
