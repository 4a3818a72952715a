"""The yardstick: what scikit-learn does not measure and this book needs."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.metrics.cluster import contingency_matrix
from sklearn.model_selection import GroupKFold

from helpers import as_array, in_words, whole_number, yes_or_no
from helpers.rehearsal import fewer


def recall_at_purity(is_lesion, score, purity: float = 0.95) -> float:
    """Share of the lesion patches that can be had while `purity` of the chosen ones are lesion.

    Every threshold on the score chooses the patches at or above it. Of the thresholds whose
    choice is pure enough, the best recall counts.

    Parameters
    ----------
    is_lesion : array of bool, shape (n,)
        Which patches are lesion; at least one must be.
    score : array of float, shape (n,)
        Higher means more like a lesion.
    purity : float
        The precision to reach, in (0, 1].

    Returns
    -------
    float
        Recall in [0, 1]; 0 if no threshold is pure enough.

    Raises
    ------
    ValueError
        For arrays of different length, labels other than yes and no (see `helpers.yes_or_no`), no
        lesion, a score that is not finite, or a purity outside (0, 1].

    Examples
    --------
    >>> recall_at_purity([True, True, False, True], [4.0, 3.0, 2.0, 1.0])
    0.6666666666666666
    """
    is_lesion, score = _checked(is_lesion, score)
    if score.ndim != 1:
        raise ValueError(f"score must be one-dimensional, found shape {score.shape}")
    _check_purity(purity)
    precision, recall, _ = precision_recall_curve(is_lesion, score)
    return float(recall[precision >= purity].max())


def cluster_accuracy(labels, clusters) -> float:
    """Share of points that carry their cluster's label, under the best one-to-one matching.

    Parameters
    ----------
    labels, clusters : arrays, shape (n,)
        Class and cluster of each point, by whole numbers, text or truth values; which of these do
        not matter. With more clusters than classes, the clusters left unmatched count as wrong.

    Returns
    -------
    float
        Accuracy in (0, 1].

    Raises
    ------
    ValueError
        For arrays that are empty or differ in length, and for what names no class: fractions, NaN
        or None.

    References
    ----------
    Kuhn (1955), The Hungarian method for the assignment problem, Naval Research Logistics
    Quarterly 2:83.

    Examples
    --------
    >>> cluster_accuracy([7, 7, 9, 9], [1, 1, 0, 1])
    0.75
    """
    labels, clusters = _names("labels", labels), _names("clusters", clusters)
    if labels.shape != clusters.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            "labels and clusters must be one-dimensional, equally long and not empty, found shapes "
            f"{labels.shape} and {clusters.shape}"
        )
    counts = contingency_matrix(labels, clusters)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(labels))


def score_map(lesion, values, brain) -> dict[str, float]:
    """Judge a map of one scan by the mask that an expert drew.

    Parameters
    ----------
    lesion : array of bool, shape (z, y, x)
        The mask; at least one voxel of it in the brain.
    values : array of float, same shape
        Higher means more like a lesion.
    brain : array of bool, same shape
        Only these voxels are judged.

    Returns
    -------
    dict of str to float
        ``"AP"``, average precision over voxels; ``"Dice"`` of the mask and as many voxels of
        highest value as it holds; ``"hit"``, 1 if the voxel of highest value lies in the mask, else
        0.

    Raises
    ------
    ValueError
        For arrays of different shape, masks of other values than 0 and 1, values in the brain that
        are not finite, or a mask without a voxel in the brain.

    References
    ----------
    Dice (1945), Measures of the amount of ecologic association between species, Ecology 26:297.

    Examples
    --------
    >>> lesion, brain = np.array([[[1, 1, 0, 0, 0]]], bool), np.array([[[1, 1, 1, 1, 0]]], bool)
    >>> measures = score_map(lesion, [[[4.0, 1.0, 3.0, 0.0, 9.0]]], brain)
    >>> {name: round(value, 3) for name, value in measures.items()}
    {'AP': 0.833, 'Dice': 0.5, 'hit': 1.0}
    """
    lesion, brain = yes_or_no("lesion", lesion), yes_or_no("brain", brain)
    values = np.ma.asarray(values)  # what is masked outside the brain is not judged
    if not lesion.shape == values.shape == brain.shape:
        raise ValueError(
            "lesion, values and brain must have one shape, found "
            f"{lesion.shape}, {values.shape} and {brain.shape}"
        )
    if not lesion[brain].any():
        raise ValueError("lesion must hold at least one lesion voxel in the brain, found none")
    truth, score = _checked(lesion[brain], values[brain], name="values")
    highest = np.argsort(-score, kind="stable")[: truth.sum()]
    return {
        "AP": float(average_precision_score(truth, score)),
        "Dice": float(truth[highest].mean()),
        "hit": float(truth[highest[0]]),
    }


def patient_bootstrap(
    metric: Callable[[np.ndarray, np.ndarray], float],
    is_lesion,
    score,
    subject_ids,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Ninety-five per cent interval of a metric over patients drawn with replacement.

    Patches of one patient resemble each other, so whole patients are drawn, never patches.
    Draws without both lesion and healthy patches are drawn again.

    Parameters
    ----------
    metric : callable
        ``metric(is_lesion, score)`` to a number; ``sklearn.metrics.roc_auc_score``, say.
    is_lesion : array of bool, shape (n,)
        Which patches are lesion; both kinds must occur.
    score : array of float, shape (n,) or (n, k)
        Higher means more like a lesion; several columns if the metric compares scores.
    subject_ids : array of str, shape (n,)
        The patient of each patch; at least two patients.
    n_resamples : int
        How many times to draw.
    seed : int
        Seed of the draws.

    Returns
    -------
    (float, float)
        The 2.5th and 97.5th percentile.

    Raises
    ------
    ValueError
        For arrays of different length, labels other than yes and no, a single kind of patch, a
        score that is not finite, a patch without a patient, one patient, no resample, a seed that
        is no whole number, or a metric that is no finite number on one of them.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 8 and 13.

    Examples
    --------
    >>> from sklearn.metrics import roc_auc_score
    >>> patient_bootstrap(roc_auc_score, [1, 0, 1, 0], [2.0, 1.0, 2.0, 1.0], ["a", "a", "b", "b"])
    (1.0, 1.0)
    """
    is_lesion, score = _checked(is_lesion, score)
    whole_number("n_resamples", n_resamples)
    whole_number("seed", seed, at_least=0)
    subject_ids = _checked_patients(is_lesion, subject_ids)
    patients, owner = np.unique(subject_ids, return_inverse=True)
    patches_of = [np.flatnonzero(owner == patient) for patient in range(len(patients))]
    has_lesion = np.array([is_lesion[p].any() for p in patches_of])
    has_healthy = np.array([not is_lesion[p].all() for p in patches_of])

    rng = np.random.default_rng(seed)
    values = []
    while len(values) < n_resamples:
        drawn = rng.integers(len(patients), size=len(patients))
        if has_lesion[drawn].any() and has_healthy[drawn].any():
            chosen = np.concatenate([patches_of[patient] for patient in drawn])
            values.append(metric(is_lesion[chosen], score[chosen]))
            _check_number("metric", values[-1])
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def patient_draws(
    is_lesion, score, subject_ids, *, n_draws: int = 200, purity: float = 0.95, seed: int = 0
) -> dict[str, np.ndarray]:
    """Compute the three measures of a score on all patients, and on patients drawn again and again.

    The same as `patient_bootstrap` of each measure, a hundred times faster: the patches are sorted
    once, and a patient drawn twice counts twice. One seed draws the same patients for every score,
    so that the draws of two scores can be subtracted from each other.

    Parameters
    ----------
    is_lesion : array of bool, shape (n,)
        Which patches are lesion; both kinds must occur.
    score : array of float, shape (n,)
        Higher means more like a lesion.
    subject_ids : array of str, shape (n,)
        The patient of each patch; at least two patients.
    n_draws : int
        How many times to draw.
    purity : float
        As for `recall_at_purity`.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict of str to ndarray, shape (1 + n_draws,)
        ``"AUROC"``, ``"AP"`` and ``"recall"`` at the purity; first on the patients as they are,
        then on each draw.

    Raises
    ------
    ValueError
        As `patient_bootstrap`, and for a score of several columns or a purity outside (0, 1].

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 8 and 13.

    Examples
    --------
    >>> draws = patient_draws([1, 0, 1, 0], [2.0, 1.0, 2.0, 1.0], ["a", "a", "b", "b"], n_draws=3)
    >>> draws["AUROC"].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    is_lesion, score = _checked(is_lesion, score)
    if score.ndim != 1:
        raise ValueError(f"score must be one-dimensional, found shape {score.shape}")
    _check_purity(purity)
    whole_number("n_draws", n_draws)
    # With none, each score would be drawn other patients, and no two could be subtracted.
    whole_number("seed", seed, at_least=0)
    subject_ids = _checked_patients(is_lesion, subject_ids)
    order = np.argsort(-score)
    truth = is_lesion[order]
    patients, owner = np.unique(subject_ids[order], return_inverse=True)
    # Patches of one score enter together: cut the list only where the score changes, and of these
    # places only before and after lesions, since nothing that is measured changes in between.
    last = np.r_[np.flatnonzero(np.diff(score[order])), len(order) - 1]
    with_lesion = np.searchsorted(last, np.flatnonzero(truth))
    last = last[np.union1d(np.r_[with_lesion, len(last) - 1], np.maximum(with_lesion - 1, 0))]
    first = np.r_[0, last[:-1] + 1]

    rng = np.random.default_rng(seed)
    rows, times = [], np.ones(len(patients))
    while len(rows) <= n_draws:
        weight = times[owner]
        hits = np.cumsum(np.add.reduceat(weight * truth, first))
        chosen = np.cumsum(np.add.reduceat(weight, first))
        if 0 < hits[-1] < chosen[-1]:
            rows.append(_measures(hits, chosen, purity))
        times = np.bincount(rng.integers(len(patients), size=len(patients)), None, len(patients))
    return dict(zip(("AUROC", "AP", "recall"), np.transpose(rows), strict=True))


def interval(draws, minus=None) -> tuple[float, float, float]:
    """Value on all patients, and the ends of the middle 95 % of the draws.

    Parameters
    ----------
    draws : array of float, shape (1 + n_draws,)
        One of the measures of `patient_draws`.
    minus : array of float, shape (1 + n_draws,), optional
        The same measure of a rival, on the same draws of patients: then the difference is given,
        pair by pair, which is narrower than two intervals side by side.

    Returns
    -------
    (float, float, float)
        The value, the 2.5th and the 97.5th percentile.

    Raises
    ------
    ValueError
        For draws that are not one-dimensional, fewer than two of them, a rival of another number
        of draws, or draws of either that are no finite numbers.

    Examples
    --------
    >>> interval([0.5, 0.25, 0.75], minus=[0.25, 0.0, 0.5])
    (0.25, 0.25, 0.25)
    """
    draws = _draws("draws", draws)
    rival = np.zeros_like(draws) if minus is None else _draws("minus", minus)
    if draws.ndim != 1 or len(draws) < 2 or rival.shape != draws.shape:
        raise ValueError(
            "draws must be one-dimensional, the value and at least one draw, and minus as many; "
            f"found shapes {draws.shape} and {rival.shape}"
        )
    _all_finite("draws", draws)
    _all_finite("minus", rival)
    value, *others = draws - rival
    low, high = np.percentile(others, [2.5, 97.5])
    return float(value), float(low), float(high)


class Folds(list):
    """What `patient_folds` returns: a list that knows its patients, to name them in an error.

    Attributes
    ----------
    subject_ids : ndarray of str, shape (n,)
        The patient of each patch.
    """

    def __init__(self, folds, subject_ids):
        super().__init__(folds)
        self.subject_ids = subject_ids


def patient_folds(subject_ids: np.ndarray, n_folds: int = 4, seed: int = 0) -> Folds:
    """Divide patches into folds so that no patient is on both sides of one.

    Parameters
    ----------
    subject_ids : ndarray of str, shape (n,)
        The patient of each patch.
    n_folds : int
        How many folds; each patient is held out in exactly one. In a rehearsal
        (`helpers.rehearsal`) there are two.
    seed : int
        Seed of the division.

    Returns
    -------
    list of (ndarray of int, ndarray of int)
        Indices of the patches to fit on, and of those held out.

    Raises
    ------
    ValueError
        For fewer patients than folds, less than two folds, a patch without a patient, or a seed
        that is no whole number.

    Examples
    --------
    >>> folds = patient_folds(np.array(["a", "a", "b", "b"]), n_folds=2)
    >>> [test.tolist() for train, test in folds]
    [[2, 3], [0, 1]]
    """
    subject_ids = _patients(subject_ids)
    n_patients = len(np.unique(subject_ids))
    whole = isinstance(n_folds, Integral) and not isinstance(n_folds, bool)
    n_folds = fewer(n_folds, at_least=2) if whole else n_folds
    if not whole or not 2 <= n_folds <= n_patients:
        raise ValueError(
            f"n_folds must be a whole number from 2 to the number of patients, found {n_folds!r} "
            f"folds and {n_patients} patients"
        )
    whole_number("seed", seed, at_least=0)
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed)
    return Folds(splitter.split(subject_ids, groups=subject_ids), subject_ids)


def held_out_score(readout, codes, folds, is_lesion) -> np.ndarray:
    """Score each patch by a readout fitted on the other folds' patients and their labels.

    Parameters
    ----------
    readout : scikit-learn classifier
        Fitted anew for each fold; the one given is not touched.
    codes : sequence of (ndarray, ndarray)
        For each fold, the codes of the patches to fit on and of those held out.
    folds : sequence of (ndarray of int, ndarray of int)
        As `patient_folds` gives them.
    is_lesion : ndarray of bool, shape (n,)
        The labels.

    Returns
    -------
    ndarray of float, shape (n,)
        Probability of lesion; NaN for patches that no fold holds out.

    Raises
    ------
    ValueError
        For labels other than yes and no, codes that are not those of the folds or that the readout
        cannot be fitted on, such as NaN, and a fold to fit on that holds one kind of patches only:
        it is named, with its patients if the folds are those of `patient_folds`.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> x, is_lesion = np.array([[0.0], [9.0], [0.0], [9.0]]), np.array([0, 1, 0, 1], bool)
    >>> folds = patient_folds(np.array(["a", "a", "b", "b"]), n_folds=2)
    >>> codes = [(x[train], x[test]) for train, test in folds]
    >>> np.round(held_out_score(LogisticRegression(), codes, folds, is_lesion)).tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    is_lesion = yes_or_no("is_lesion", is_lesion)
    # All folds are looked at before the first one is fitted, which may take long.
    _check_folds(folds, codes, is_lesion)
    score = np.full(len(is_lesion), np.nan)
    readout = clone(readout)  # so that the one given is what it was
    halves = zip(folds, codes, strict=True)
    for number, ((train, test), (code_train, code_test)) in enumerate(halves, start=1):
        try:
            readout.fit(code_train, is_lesion[train])
            score[test] = readout.predict_proba(code_test)[:, 1]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"readout and codes must go together, in fold {number} {type(readout).__name__} "
                f"found: {in_words(error).splitlines()[0]}"
            ) from error
    return score


def _measures(hits, chosen, purity) -> tuple[float, float, float]:
    """AUROC, average precision and recall at a purity, from running counts down the list."""
    recall, precision = hits / hits[-1], hits / np.maximum(chosen, 1)
    misses = (chosen - hits) / (chosen[-1] - hits[-1])
    area = np.trapezoid(np.r_[0, recall], np.r_[0, misses])
    average = np.sum(np.diff(np.r_[0, recall]) * precision)
    return area, average, np.max(recall, where=precision >= purity, initial=0)


def _check_folds(folds, codes, is_lesion) -> None:
    patients = getattr(folds, "subject_ids", None)
    n = "n" if patients is None else len(patients)
    if is_lesion.ndim != 1 or n not in ("n", len(is_lesion)):
        raise ValueError(
            f"is_lesion must have shape ({n},), one label for each patch of the folds, "
            f"found {is_lesion.shape}"
        )
    if len(codes) != len(folds):
        raise ValueError(
            f"codes must be one pair for each fold, found {len(codes)} for {len(folds)} folds"
        )
    for number, (fold, halves) in enumerate(zip(folds, codes, strict=True), start=1):
        try:
            expected = [len(is_lesion[half]) for half in fold]
        except IndexError as error:
            raise ValueError(
                f"is_lesion must hold a label for each patch of the folds, found {len(is_lesion)}: "
                f"fold {number} asks for others"
            ) from error
        for half in halves:
            as_array(f"codes of fold {number}", half)
        found = [np.shape(half)[0] for half in halves]
        if found != expected:
            raise ValueError(
                f"codes of fold {number} must be {expected[0]} to fit on and {expected[1]} held "
                f"out, found {found[0]} and {found[1]}"
            )
        kinds = np.unique(is_lesion[fold[0]])
        if len(kinds) < 2:
            only = "lesion" if kinds.any() else "healthy"
            of_whom = "" if patients is None else f", of the patients {_listed(patients[fold[0]])}"
            raise ValueError(
                f"fold {number} of {len(folds)} must be fitted on both kinds of patches, found "
                f"{only} ones alone, {found[0]} of them{of_whom}"
            )


def _listed(subject_ids, most=10) -> str:
    """Name the patients, or the first of many."""
    patients = np.unique(subject_ids)
    more = f" and {len(patients) - most} more" if len(patients) > most else ""
    return ", ".join(map(str, patients[:most])) + more


def _patients(subject_ids) -> np.ndarray:
    """Check that each patch has a patient."""
    subject_ids, n_missing = _named("subject_ids", subject_ids)
    if subject_ids.ndim != 1 or n_missing:
        raise ValueError(
            f"subject_ids must be one-dimensional and name a patient each, found shape "
            f"{subject_ids.shape} and {n_missing} without a name"
        )
    return subject_ids


def _named(name, values) -> tuple[np.ndarray, int]:
    """Take names as an array, and count those that are none: None, NaN and empty text."""
    from pandas import isna  # seldom loaded already

    names = as_array(name, values)
    given = names
    if isinstance(values, (list, tuple)) and names.dtype.kind in "US":
        # NumPy made text of all that stands beside text in a list: of numbers, None and NaN, too.
        given = np.array(values, dtype=object)
    missing = isna(given)
    if given.dtype.kind == "O":
        blank = [isinstance(value, (str, bytes)) and not value.strip() for value in given.flat]
        missing = missing | np.array(blank, bool).reshape(given.shape)
        found = {type(value) for value in given[~missing].flat}
        text = {kind for kind in found if issubclass(kind, str)}
        if text and text != found:
            raise ValueError(
                f"{name} must be all text or all numbers, found "
                f"{' and '.join(sorted(kind.__name__ for kind in found))}"
            )
    elif given.dtype.kind in "UST":
        missing = missing | (np.strings.str_len(np.strings.strip(given)) == 0)
    return names, np.count_nonzero(missing)


def _names(name, values) -> np.ndarray:
    """Check that values name classes; a number between two whole ones is none."""
    values, n_missing = _named(name, values)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):
        values = values.astype(str)  # as pandas holds text
    if values.dtype.kind not in "buifUT":
        raise ValueError(f"{name} must be whole numbers, text or bool, found dtype {values.dtype}")
    if (
        values.dtype.kind == "f"
        and (part := ~np.isfinite(values) | (values != np.rint(values))).any()
    ):
        raise ValueError(
            f"{name} must be whole numbers, text or bool, found "
            f"{np.unique(values[part])[:5].tolist()}"
        )
    if n_missing:
        raise ValueError(f"{name} must be whole numbers, text or bool, found {n_missing} missing")
    return values


def _check_purity(purity) -> None:
    try:
        share = bool(0 < purity <= 1)
    except (TypeError, ValueError):  # no number
        share = False
    if not share:
        raise ValueError(f"purity must lie in (0, 1], found {purity!r}")


def _checked_patients(is_lesion, subject_ids) -> np.ndarray:
    subject_ids = _patients(subject_ids)
    if subject_ids.shape != is_lesion.shape:
        raise ValueError(
            f"subject_ids has shape {subject_ids.shape}, is_lesion has {is_lesion.shape}"
        )
    if is_lesion.all():
        raise ValueError("is_lesion must hold both kinds of patches, found only lesion")
    if len(np.unique(subject_ids)) < 2:
        raise ValueError("a bootstrap over patients needs at least two, found 1")
    return subject_ids


def _checked(is_lesion, score, name="score") -> tuple[np.ndarray, np.ndarray]:
    is_lesion, score = yes_or_no("is_lesion", is_lesion), _numbers(name, score)
    if is_lesion.ndim != 1 or is_lesion.shape != score.shape[:1]:
        raise ValueError(
            f"is_lesion must be one-dimensional and as long as {name}, found shapes "
            f"{is_lesion.shape} and {score.shape}"
        )
    _all_finite(name, score)
    if not is_lesion.any():
        raise ValueError("is_lesion must hold at least one lesion patch, found none")
    return is_lesion, score


def _draws(name, values) -> np.ndarray:
    values = as_array(name, values)
    if values.dtype.kind == "O" and all(isinstance(value, Real) for value in values.flat):
        values = values.astype(float)  # as pandas holds numbers beside a column of another kind
    return _numbers(name, values)


def _numbers(name, values) -> np.ndarray:
    values = as_array(name, values)
    if values.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers, found dtype {values.dtype}")
    return values.astype(float)


def _check_number(name, result) -> None:
    number = np.asarray(result)
    if number.size != 1 or number.dtype.kind not in "buif" or not np.isfinite(number).all():
        raise ValueError(f"{name} must return a finite number, found {result!r}")


def _all_finite(name, values) -> None:
    if bad := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(f"{name} holds {bad} values that are not finite, of {values.size}")
