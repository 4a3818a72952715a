"""What the yardstick says where the answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas import NA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from helpers.metrics import (
    cluster_accuracy,
    held_out_score,
    interval,
    patient_bootstrap,
    patient_draws,
    patient_folds,
    recall_at_purity,
    score_map,
)


def by_hand(is_lesion, score, purity):
    """Try every threshold in a plain loop."""
    best = 0.0
    for threshold in score:
        chosen = score >= threshold
        if is_lesion[chosen].mean() >= purity:
            best = max(best, is_lesion[chosen].sum() / is_lesion.sum())
    return best


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30).filter(
        lambda rows: any(lesion for lesion, _ in rows)
    ),
    st.sampled_from([0.3, 0.5, 0.95, 1.0]),
)
def test_recall_at_purity_is_the_best_of_all_thresholds(rows, purity):
    is_lesion, score = (np.array(column) for column in zip(*rows, strict=True))
    assert recall_at_purity(is_lesion, score, purity) == pytest.approx(
        by_hand(is_lesion, score, purity)
    )


def test_a_perfect_score_recalls_all_and_a_constant_one_nothing():
    is_lesion = np.arange(100) < 10
    assert recall_at_purity(is_lesion, is_lesion) == 1.0
    assert recall_at_purity(is_lesion, np.zeros(100)) == 0.0


def test_one_healthy_patch_on_top_spoils_the_purity():
    is_lesion = np.array([False] + [True] * 10 + [False] * 20)
    score = np.arange(31, 0, -1)
    assert recall_at_purity(is_lesion, score) == 0.0
    assert recall_at_purity(is_lesion, score, purity=0.9) == 1.0


@given(st.permutations(range(4)))
def test_cluster_accuracy_does_not_care_what_clusters_are_called(names):
    labels = np.repeat(np.arange(4), [3, 5, 7, 9])
    assert cluster_accuracy(labels, np.array(names)[labels]) == 1.0


def test_two_clusters_cannot_share_one_class():
    assert cluster_accuracy([0] * 10, [0] * 6 + [1] * 4) == 0.6


def test_bootstrap_over_equal_patients_has_no_spread():
    is_lesion = np.tile([True, False, True, False], 5)
    score = np.tile([4.0, 3.0, 2.0, 1.0], 5)
    low, high = patient_bootstrap(roc_auc_score, is_lesion, score, np.repeat(list("abcde"), 4))
    assert low == high == 0.75


def test_bootstrap_draws_patients_not_patches():
    # Within a patient all patches agree: doubling them adds no information and no precision.
    rng = np.random.default_rng(0)
    patients = np.arange(20)
    is_lesion, score = patients % 2 == 0, rng.normal(size=20) + (patients % 2 == 0)
    once = patient_bootstrap(roc_auc_score, is_lesion, score, patients)
    often = patient_bootstrap(
        roc_auc_score, np.repeat(is_lesion, 50), np.repeat(score, 50), np.repeat(patients, 50)
    )
    assert once == pytest.approx(often)
    assert once[1] - once[0] > 0.2


def test_bootstrap_compares_two_scores_on_the_same_patients():
    # The second score is the first, turned round: their AUROC adds up to 1 in every draw.
    rng = np.random.default_rng(0)
    is_lesion, score = np.tile([True, False], 20), rng.normal(size=40)

    def total(is_lesion, scores):
        return sum(roc_auc_score(is_lesion, column) for column in scores.T)

    both = np.column_stack([score, -score])
    low, high = patient_bootstrap(total, is_lesion, both, np.repeat(np.arange(20), 2))
    assert low == pytest.approx(1) and high == pytest.approx(1)


@pytest.mark.parametrize("kind", [bool, int, float])
def test_the_metric_sees_truth_values_and_numbers_whatever_they_came_as(kind):
    def difference(is_lesion, score):
        assert score.dtype == float
        return score[is_lesion].mean() - score[~is_lesion].mean()

    is_lesion = np.array([1, 0, 1, 0]).astype(kind)
    assert patient_bootstrap(difference, is_lesion, [5, 2, 5, 2], list("aabb")) == (3, 3)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    # Two Gaussians with unit variance whose means lie one apart, one patch a patient.
    def difference(is_lesion, score):
        return score[is_lesion].mean() - score[~is_lesion].mean()

    rng = np.random.default_rng(1)
    is_lesion, hits = np.repeat([True, False], 30), 0
    for seed in range(100):
        score = rng.normal(size=60) + is_lesion
        low, high = patient_bootstrap(
            difference, is_lesion, score, np.arange(60), n_resamples=200, seed=seed
        )
        hits += low <= 1 <= high
    assert 88 <= hits <= 99  # an interval that always covers is too wide


# --- many draws at once -----------------------------------------------------------------------

MEASURES = {"AUROC": roc_auc_score, "AP": average_precision_score, "recall": recall_at_purity}


def patients_of(n, *, seed=0):
    """Labels, a score that ties often and says a little, and patients of 1 to 12 patches."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n), rng.integers(1, 13, n))
    is_lesion = rng.random(len(patients)) < 0.4
    return is_lesion, rng.integers(0, 8, len(patients)) + 4 * is_lesion, patients


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=30
    ).filter(lambda rows: all(len(set(column)) > 1 for column in (*zip(*rows, strict=True),)[::2])),
    st.sampled_from([0.3, 0.5, 0.95, 1.0]),
)
def test_without_a_draw_the_measures_are_the_usual_ones(rows, purity):
    is_lesion, score, patients = (np.array(column) for column in zip(*rows, strict=True))
    draws = patient_draws(is_lesion, score, patients, n_draws=1, purity=purity)
    assert draws["AUROC"][0] == pytest.approx(roc_auc_score(is_lesion, score))
    assert draws["AP"][0] == pytest.approx(average_precision_score(is_lesion, score))
    assert draws["recall"][0] == pytest.approx(recall_at_purity(is_lesion, score, purity))


@pytest.mark.parametrize("n", [3, 15])  # of three, many draws hold one kind of patch only
@pytest.mark.parametrize("name", MEASURES)
def test_the_draws_spread_as_the_bootstrap_says(n, name):
    is_lesion, score, patients = patients_of(n, seed=2)
    draws = patient_draws(is_lesion, score, patients, n_draws=60)
    assert len(draws[name]) == 61
    slow = patient_bootstrap(MEASURES[name], is_lesion, score, patients, n_resamples=60)
    np.testing.assert_allclose(np.percentile(draws[name][1:], [2.5, 97.5]), slow)


def test_one_seed_draws_the_same_patients_for_every_score():
    # The second score is the first, turned round: their AUROC adds up to 1 in every draw.
    is_lesion, score, patients = patients_of(15)
    there, back = (patient_draws(is_lesion, s, patients)["AUROC"] for s in (score, -score))
    np.testing.assert_allclose(there + back, 1)
    assert np.ptp(there) > 0.05
    other = patient_draws(is_lesion, score, patients, seed=1)["AUROC"]
    assert other[0] == there[0] and not np.array_equal(other[1:], there[1:])


def test_the_draws_are_of_patients_not_patches():
    # Patches that say the same thing again add no information and no precision.
    is_lesion, score, patients = patients_of(15)
    once = patient_draws(is_lesion, score, patients)
    often = patient_draws(*(np.repeat(column, 20) for column in (is_lesion, score, patients)))
    for name in MEASURES:
        np.testing.assert_allclose(often[name], once[name])


def test_the_draws_do_not_depend_on_the_order_of_the_patches():
    is_lesion, score, patients = patients_of(15)
    shuffled = np.random.default_rng(0).permutation(len(score))
    once = patient_draws(is_lesion, score, patients)
    again = patient_draws(is_lesion[shuffled], score[shuffled], patients[shuffled])
    for name in MEASURES:
        np.testing.assert_allclose(again[name], once[name])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: recall_at_purity([False, False], [1, 2]),
            "^is_lesion must hold at least one lesion",
        ),
        (lambda: recall_at_purity([True], [1, 2]), r"shapes \(1,\) and \(2,\)"),
        (lambda: recall_at_purity([True], [[1, 2]]), r"one-dimensional, found shape \(1, 2\)"),
        (lambda: recall_at_purity([True], [np.nan]), "1 values that are not finite"),
        (lambda: recall_at_purity([True], [1], purity=0), r"\(0, 1\], found 0"),
        (lambda: recall_at_purity([True], [1], purity=1.5), r"\(0, 1\], found 1.5"),
        (lambda: cluster_accuracy([], []), r"^labels and clusters must .* found shapes \(0,\) and"),
        (lambda: cluster_accuracy([1], [1, 2]), r"\(1,\) and \(2,\)"),
        (lambda: patient_bootstrap(max, [1, 0], [1, 2], ["a"]), "subject_ids has shape"),
        (
            lambda: patient_bootstrap(max, [1, 0], [1, 2], ["a", "a"]),
            "^a bootstrap .* two, found 1$",
        ),
        (lambda: patient_bootstrap(max, [1, 1], [1, 2], ["a", "b"]), "^is_lesion .* only lesion$"),
        (
            lambda: patient_bootstrap(max, [1, 0], [1, 2], ["a", "b"], n_resamples=0),
            "at least 1, found 0",
        ),
        (lambda: patient_draws([0, 0], [1, 2], ["a", "b"]), "at least one lesion patch"),
        (lambda: patient_draws([1, 1], [1, 2], ["a", "b"]), "found only lesion"),
        (lambda: patient_draws([1, 0], [1, np.inf], ["a", "b"]), "1 values that are not finite"),
        (lambda: patient_draws([1, 0], [1, 2], ["a"]), "subject_ids has shape"),
        (lambda: patient_draws([1, 0], [1, 2], ["a", "a"]), "at least two, found 1"),
        (lambda: patient_draws([1, 0], [1, 2], ["a", "b"], n_draws=0), "at least 1, found 0"),
        (lambda: patient_draws([1, 0], [[1], [2]], ["a", "b"]), r"found shape \(2, 1\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_rehearsal_has_two_folds(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    assert [len(test) for _, test in patient_folds(np.array(list("aabbccdd")))] == [4, 4]


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=60).filter(
        lambda ids: len(set(ids)) > 2
    ),
    st.integers(2, 3),
    st.integers(0, 5),
)
def test_every_patient_is_held_out_once_and_never_fitted_on_then(ids, n_folds, seed):
    ids = np.array(ids)
    folds = patient_folds(ids, n_folds, seed)
    assert len(folds) == n_folds
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(ids)))
    for train, test in folds:
        assert len(train) and len(test)
        assert not set(ids[train]) & set(ids[test])
        assert sorted([*train, *test]) == list(range(len(ids)))


def test_the_seed_decides_who_is_held_out_together():
    ids = np.repeat(np.arange(20), 3)
    first, again, other = (patient_folds(ids, seed=seed)[0][1].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert patient_folds(ids)[0][1].tolist() == first and len(patient_folds(ids)) == 4


def test_an_interval_needs_one_draw_and_no_more():
    assert interval([0.5, 0.25]) == (0.5, 0.25, 0.25)
    with pytest.raises(ValueError, match=r"at least one draw.*found shapes \(1,\)"):
        interval([0.5])


def test_a_held_out_score_has_not_seen_the_patients_labels():
    # Each patient has a code of their own, so that who has seen the labels can tell them apart.
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(12), 10)
    is_lesion = np.repeat(rng.permutation(12) % 2 == 0, 10)
    codes, folds = np.eye(12)[ids], patient_folds(ids)
    readout, split = LogisticRegression(), [(codes[a], codes[b]) for a, b in folds]
    assert readout.fit(codes, is_lesion).score(codes, is_lesion) == 1
    score = held_out_score(readout, split, folds, is_lesion)
    assert all(np.ptp(score[test]) < 1e-6 for _, test in folds)
    # What all patients share is learnt from the others.
    told = [(is_lesion[a, None] * 9.0, is_lesion[b, None] * 9.0) for a, b in folds]
    assert ((held_out_score(readout, told, folds, is_lesion) > 0.5) == is_lesion).all()
    for other, n in ((split[:-1], 3), (split * 2, 8)):
        with pytest.raises(ValueError, match=f"^codes must be one pair .* found {n} for 4 folds$"):
            held_out_score(readout, other, folds, is_lesion)


# -- maps ------------------------------------------------------------------------------------------


def test_a_map_that_is_the_mask_is_perfect_and_its_opposite_finds_nothing():
    rng = np.random.default_rng(0)
    brain = rng.random((3, 9, 9)) < 0.8
    lesion = brain & (rng.random(brain.shape) < 0.1)
    assert score_map(lesion, lesion, brain) == {"AP": 1, "Dice": 1, "hit": 1}
    worst = score_map(lesion, ~lesion, brain)
    assert worst["Dice"] == worst["hit"] == 0 and worst["AP"] < 0.2


def test_what_lies_outside_the_brain_is_not_judged():
    lesion = np.zeros((1, 4, 4), bool)
    lesion[0, 0, :2] = True
    brain = np.ones(lesion.shape, bool)
    brain[0, 3] = brain[0, 0, 1] = False
    values = np.arange(16.0)[::-1].reshape(1, 4, 4)
    loud = np.where(brain, values, 99)
    assert score_map(lesion, loud, brain) == score_map(lesion, values, brain)
    assert score_map(lesion, values, brain)["AP"] == 1


def test_dice_at_the_true_volume_is_that_of_the_two_sets():
    rng = np.random.default_rng(1)
    lesion, values = rng.random((2, 8, 8)) < 0.2, rng.random((2, 8, 8))
    brain = np.ones(lesion.shape, bool)
    chosen = values >= np.sort(values, axis=None)[-lesion.sum()]
    dice = 2 * (chosen & lesion).sum() / (chosen.sum() + lesion.sum())
    assert score_map(lesion, values, brain)["Dice"] == pytest.approx(dice)


@pytest.mark.parametrize(
    ("shape", "lesions", "message"),
    [((1, 2, 2), 1, "must have one shape"), ((1, 2, 3), 0, "^lesion must hold .* in the brain")],
)
def test_a_map_that_cannot_be_judged_is_refused(shape, lesions, message):
    lesion = np.zeros((1, 2, 3), bool)
    lesion[0, 0, :lesions] = True
    with pytest.raises(ValueError, match=message):
        score_map(lesion, np.zeros(shape), np.ones((1, 2, 3), bool))


# -- labels are yes or no --------------------------------------------------------------------------

NO_LABELS = {
    "fractions": [0.0, 0.25, 1.0, 0.0],
    "nearly one": np.float32([0, 0.99999994, 1, 0]),
    "no mask": [np.nan, 1.0, 0.0, 0.0],
    "nothing but NaN": [np.nan] * 4,
    "infinite": [0, np.inf, 1, 0],
    "1 and 2": [1, 2, 2, 1],
    "-1 and 1": [-1, 1, 1, -1],
    "0 and 255": np.uint8([0, 255, 255, 0]),
    "text of numbers": ["0", "1", "1", "0"],
    "text of truths": ["False", "True", "True", "False"],
    "None": [None, True, True, False],
    "objects": np.array([0, 1, 1, 0], object),
    "bytes": [b"0", b"1", b"1", b"0"],
    "complex": [0j, 1, 1, 0],
}
YES_OR_NO = [bool, int, np.uint8, np.int64, float, np.float16, np.float32]


def judged(is_lesion):
    """What every judge says of the same four patches of two patients."""
    score, patients = [4.0, 3.0, 2.0, 1.0], np.array(list("abab"))
    codes = np.array(score)[:, None]
    folds = [(np.arange(4), np.arange(4))]
    boxes = np.reshape(is_lesion, (1, 2, 2)), np.reshape(score, (1, 2, 2)), np.ones((1, 2, 2))
    return {
        "recall": lambda: recall_at_purity(is_lesion, score),
        "bootstrap": lambda: patient_bootstrap(
            average_precision_score, is_lesion, score, patients, n_resamples=9
        ),
        "draws": lambda: patient_draws(is_lesion, score, patients, n_draws=9)["AP"].tolist(),
        "held out": lambda: held_out_score(
            LogisticRegression(), [(codes, codes)], folds, is_lesion
        ).tolist(),
        "map": lambda: score_map(*boxes),
        "brain": lambda: score_map(np.ones((1, 2, 2)), boxes[1], boxes[0]),
    }


JUDGES = list(judged([1, 0, 1, 0]))


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("labels", NO_LABELS.values(), ids=NO_LABELS)
def test_what_is_neither_yes_nor_no_is_refused(labels, judge):
    with pytest.raises(ValueError, match=r"^(is_lesion|lesion|brain) must hold 0 and 1 only, foun"):
        judged(labels)[judge]()


@pytest.mark.parametrize("judge", JUDGES)
def test_yes_and_no_may_come_in_any_type_of_number(judge):
    expected = judged([True, False, True, False])[judge]()
    for dtype in YES_OR_NO:
        assert judged(np.array([1, 0, 1, 0], dtype))[judge]() == expected
    assert judged([1, 0, 1.0, False])[judge]() == expected


def test_a_refused_label_is_shown_with_all_its_digits():
    with pytest.raises(ValueError, match=r"found \[0\.0, 0\.9999999403953552, 1\.0\]"):
        recall_at_purity(NO_LABELS["nearly one"], [1, 2, 3, 4])


@pytest.mark.parametrize("score", [["1", "2"], [None, 1], [1j, 2], np.array([1, 2], object)])
def test_a_score_is_a_number(score):
    for judge in (
        lambda: recall_at_purity([1, 0], score),
        lambda: patient_draws([1, 0], score, ["a", "b"]),
        lambda: score_map([[[1, 0]]], [[score]], [[[1, 1]]]),
    ):
        with pytest.raises(ValueError, match="must hold real numbers, found dtype"):
            judge()


def test_a_map_may_hold_anything_outside_the_brain_and_only_numbers_inside():
    lesion, brain = np.array([[[1, 0, 0]]]), np.array([[[1, 1, 0]]])
    assert score_map(lesion, [[[2.0, 1.0, np.nan]]], brain)["AP"] == 1
    with pytest.raises(ValueError, match="values holds 1 values that are not finite, of 2"):
        score_map(lesion, [[[np.nan, 1.0, 0.0]]], brain)


@pytest.mark.parametrize(
    "labels", [[0.3, 0.7], [np.nan, 1], [np.inf, 1], [None, 1], [1j, 2], [0.99999994, 1]]
)
def test_a_class_has_a_name_and_a_fraction_is_none(labels):
    for name, pair in {"labels": (labels, [0, 1]), "clusters": ([0, 1], labels)}.items():
        with pytest.raises(ValueError, match=f"^{name} must be whole numbers, text or bool, found"):
            cluster_accuracy(*pair)


@pytest.mark.parametrize(
    "labels",
    [
        [7, 9, 9],
        [-1, 1, 1],
        [1.0, 2.0, 2.0],
        [False, True, True],
        ["b", "a", "a"],
        np.array(["b", "a", "a"], object),
        np.uint8([0, 255, 255]),
    ],
)
def test_classes_may_have_any_names(labels):
    assert cluster_accuracy(labels, [0, 1, 1]) == 1
    assert cluster_accuracy(["x", "y", "x"], labels) == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", [[np.nan, "a"], ["", "a"], ["a", None], (" ", "a"), ["a", NA]])
def test_a_class_that_is_missing_among_text_is_refused(labels):
    for name, pair in {"labels": (labels, [0, 1]), "clusters": ([0, 1], labels)}.items():
        with pytest.raises(ValueError, match=f"^{name} must be whole numbers, .* found (1|dtype)"):
            cluster_accuracy(*pair)


@pytest.mark.parametrize(
    "names", [[1, "1"], ["1", 2.0], [True, "a"], [b"a", "a"], [np.int64(1), "a"]]
)
@pytest.mark.parametrize("as_it_comes", [list, tuple, lambda names: np.array(names, object)])
def test_names_are_of_one_kind(names, as_it_comes):
    names = as_it_comes(names)
    for argument, judge in {
        "labels": lambda: cluster_accuracy(names, [0, 1]),
        "clusters": lambda: cluster_accuracy([0, 1], names),
        "subject_ids": lambda: patient_folds(names, 2),
        r"subject_ids\b": lambda: patient_draws([1, 0], [1, 2], names),
    }.items():
        with pytest.raises(
            ValueError, match=f"^{argument} must be all text or all numbers, found "
        ):
            judge()


@pytest.mark.parametrize(
    "ids",
    [
        ["a", None],
        ["a", np.nan],
        ("a", NA),
        ["a", ""],
        np.array(["a", " "]),
        np.array(["", "b"], object),
        [1.0, np.nan],
        np.array([np.nan, "b"], object),
        "ab",
    ],
)
def test_a_patch_without_a_patient_is_refused(ids):
    for judge in (
        lambda: patient_folds(ids, 2),
        lambda: patient_draws([1, 0], [1, 2], ids),
        lambda: patient_bootstrap(max, [1, 0], [1, 2], ids),
    ):
        with pytest.raises(ValueError, match="subject_ids"):
            judge()


@pytest.mark.parametrize(("ids", "n_folds"), [("aabb", 3), ("aaaa", 2), ("abcd", 1), ("", 4)])
def test_there_are_from_two_folds_to_one_a_patient(ids, n_folds):
    with pytest.raises(ValueError, match=f"found {n_folds} folds and {len(set(ids))} patients"):
        patient_folds(np.array(list(ids), str), n_folds)


@pytest.mark.parametrize("readout", [LogisticRegression(), KNeighborsClassifier(2), GaussianNB()])
@pytest.mark.parametrize(("value", "kind"), [(True, "lesion"), (False, "healthy")])
def test_a_fold_of_one_kind_is_named_with_its_patients(readout, value, kind):
    ids = np.repeat(["sub-1", "sub-2", "sub-3"], 4)
    folds = patient_folds(ids, 3)
    codes = [(np.eye(12)[a], np.eye(12)[b]) for a, b in folds]
    # Only the patient whom the second fold holds out has both kinds.
    alone = ids[folds[1][1][0]]
    is_lesion = np.where((ids == alone) & (np.arange(12) % 2 == 0), not value, value)
    others = ", ".join(sorted(set(ids) - {alone}))
    told = f"^fold 2 of 3 must be .* found {kind} ones alone, 8 of them"
    with pytest.raises(ValueError, match=f"{told}, of the patients {others}$"):
        held_out_score(readout, codes, folds, is_lesion)
    with pytest.raises(ValueError, match=f"{told}$"):  # whose they are, a plain list does not tell
        held_out_score(readout, codes, list(folds), is_lesion)


def test_of_many_patients_the_first_are_named():
    ids = np.array([f"sub-{n:02}" for n in range(40)])
    folds = patient_folds(ids)
    codes = [(a, b) for a, b in folds]
    with pytest.raises(ValueError, match=r"patients (sub-\d\d, ){9}sub-\d\d and 20 more$"):
        held_out_score(LogisticRegression(), codes, folds, np.zeros(40))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_lesion": [0, 1, 0]}, r"^is_lesion must have shape \(4,\), .* found \(3,\)"),
        ({"is_lesion": [[0, 1, 0, 1]]}, r"^is_lesion must have shape \(4,\), .* found \(1, 4\)"),
        ({"codes": [(np.zeros((3, 1)), np.zeros((2, 1)))] * 2}, "fold 1 must be 2 to .* found 3 a"),
        ({"codes": [(np.zeros((2, 1)), np.zeros((1, 1)))] * 2}, "fold 1 .* 2 held out, found 2 an"),
    ],
)
def test_codes_and_labels_are_those_of_the_folds(changes, message):
    folds = patient_folds(np.array(list("aabb")), 2)
    arguments = {"codes": [(np.zeros((2, 1)),) * 2] * 2, "is_lesion": [0, 1, 0, 1]} | changes
    with pytest.raises(ValueError, match=message):
        held_out_score(LogisticRegression(), folds=folds, **arguments)


def test_a_patch_that_no_fold_holds_out_has_no_score():
    x, is_lesion = np.array([[0.0], [9.0], [0.0], [9.0]]), [0, 1, 0, 1]
    folds = patient_folds(np.array(list("aabb")), 2)[:1]
    score = held_out_score(LogisticRegression(), [(x[a], x[b]) for a, b in folds], folds, is_lesion)
    assert np.isfinite(score[folds[0][1]]).all() and np.isnan(score[folds[0][0]]).all()
    masks = [tuple(np.isin(np.arange(4), half) for half in folds[0])]  # halves told by masks
    again = held_out_score(LogisticRegression(), [(x[a], x[b]) for a, b in masks], masks, is_lesion)
    np.testing.assert_array_equal(again, score)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("score", lambda m, y, ids: recall_at_purity(y, m)),
        ("score", lambda m, y, ids: recall_at_purity(y, [1.0, np.ma.masked, 2.0, 3.0])),
        ("score", lambda m, y, ids: patient_draws(y, m, ids)),
        ("score", lambda m, y, ids: patient_bootstrap(roc_auc_score, y, m, ids)),
        ("subject_ids", lambda m, y, ids: patient_draws(y, y, m)),
        ("subject_ids", lambda m, y, ids: patient_bootstrap(roc_auc_score, y, y, m)),
        ("subject_ids", lambda m, y, ids: patient_folds(m, 2)),
        ("is_lesion", lambda m, y, ids: recall_at_purity(m == 1, y)),
        ("is_lesion", lambda m, y, ids: patient_draws(m == 1, y, ids)),
        ("is_lesion", lambda m, y, ids: held_out_score(None, [], [], m == 1)),
        ("labels", lambda m, y, ids: cluster_accuracy(m, y)),
        ("clusters", lambda m, y, ids: cluster_accuracy(y, m)),
        ("draws", lambda m, y, ids: interval(m)),
        ("draws", lambda m, y, ids: interval([1.0, np.ma.masked])),
        ("minus", lambda m, y, ids: interval(y, m)),
        ("lesion", lambda m, y, ids: score_map(m == 1, y, y)),
        ("brain", lambda m, y, ids: score_map(y, y, m == 1)),
        ("values", lambda m, y, ids: score_map(y, m, np.ones(4))),
    ],
)
def test_what_is_masked_is_refused(name, call):
    masked = np.ma.array([1.0, 2.0, 3.0, 4.0], mask=[0, 1, 0, 0])
    with pytest.raises(ValueError, match=f"^{name} must hold no masked .* found 1 masked values$"):
        call(masked, np.array([1, 0, 1, 0]), list("abab"))


def test_masked_codes_are_refused():
    masked, y = np.ma.array(np.ones((4, 2)), mask=np.eye(4, 2)), [1, 0, 1, 0]
    with pytest.raises(
        ValueError, match=r"^codes of fold 1 must hold no .* found 2 masked values$"
    ):
        held_out_score(LogisticRegression(), [(masked, masked)], [(np.arange(4),) * 2], y)


def test_a_masked_array_with_nothing_masked_is_an_array():
    score, y, ids = (
        np.ma.array([4.0, 3.0, 2.0, 1.0]),
        np.ma.array([1, 0, 1, 0]),
        np.ma.array([*"abab"]),
    )
    plain = (list(map(np.asarray, (y, score, ids))), (y, score, ids))
    (expected, found) = (patient_draws(*each)["AP"].tolist() for each in plain)
    assert found == expected
    # What is masked outside the brain is not judged.
    brain, hidden = np.array([1, 1, 1, 0]), np.ma.array(score, mask=[0, 0, 0, 1])
    assert score_map(y, hidden, brain) == score_map(y, score, brain)


@pytest.mark.parametrize("n", [np.nan, np.inf, "3", None, 1.5, True, 0, -1, [3]])
def test_draws_are_counted_in_whole_numbers(n):
    data = [1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0], list("abab")
    with pytest.raises(ValueError, match=r"^n_draws must be a whole number of at least 1, found"):
        patient_draws(*data, n_draws=n)
    with pytest.raises(
        ValueError, match=r"^n_resamples must be a whole number of at least 1, found"
    ):
        patient_bootstrap(roc_auc_score, *data, n_resamples=n)


@pytest.mark.parametrize("seed", [None, -1, 1.5, "0", True, [1, 2], np.nan])
def test_a_seed_is_a_whole_number(seed):
    """With none, two scores would be drawn other patients, and their difference would be noise."""
    data = [1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0], list("abab")
    for call in (
        lambda: patient_draws(*data, seed=seed),
        lambda: patient_bootstrap(roc_auc_score, *data, seed=seed),
        lambda: patient_folds(np.array(list("abab")), 2, seed=seed),
    ):
        with pytest.raises(ValueError, match=r"^seed must be a whole number of at least 0, found"):
            call()
    assert len(patient_folds(np.array(list("abab")), 2, seed=np.int8(3))) == 2


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("score", lambda ragged, y, ids: patient_draws(y, ragged, ids)),
        ("is_lesion", lambda ragged, y, ids: patient_draws(ragged, y, ids)),
        ("subject_ids", lambda ragged, y, ids: patient_draws(y, y, ragged)),
        ("subject_ids", lambda ragged, y, ids: patient_folds(ragged, 2)),
        ("labels", lambda ragged, y, ids: cluster_accuracy(ragged, y)),
        ("draws", lambda ragged, y, ids: interval(ragged)),
        (
            "codes of fold 1",
            lambda ragged, y, ids: held_out_score(
                LogisticRegression(), [(ragged, ragged)], [(np.arange(4),) * 2], y
            ),
        ),
    ],
)
def test_rows_of_different_lengths_are_told_with_their_name(name, call):
    with pytest.raises(ValueError, match=f"^{name} must be an array, found rows of different"):
        call([[1], [1, 2], [1], [0]], np.array([1, 0, 1, 0]), list("abab"))


@pytest.mark.parametrize("n_folds", ["2", None, 2.0, np.nan, True, [2]])
def test_folds_are_counted_in_whole_numbers(n_folds, monkeypatch):
    for quick in "01":
        monkeypatch.setenv("VAE_BOOK_QUICK", quick)
        with pytest.raises(
            ValueError, match=r"^n_folds must be a whole number from 2 to the number"
        ):
            patient_folds(list("aabb"), n_folds)


@pytest.mark.parametrize("result", [np.nan, np.inf, None, "0.5", [0.5, 0.6], 1j])
def test_a_metric_returns_a_number(result):
    with pytest.raises(ValueError, match=r"^metric must return a finite number, found"):
        patient_bootstrap(lambda *_: result, [1, 0], [1, 2], ["a", "b"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x * np.nan, "LogisticRegression found: Input X contains NaN"),
        (lambda x: x.ravel(), "LogisticRegression found: Expected 2D array"),
        (lambda x: np.full(x.shape, "a"), "LogisticRegression found: "),
    ],
)
@pytest.mark.parametrize("half", [0, 1])
def test_codes_that_a_readout_cannot_take_are_named_with_their_fold(change, told, half):
    x, folds = np.arange(4.0)[:, None], patient_folds(np.array(list("aabb")), 2)
    codes = [[x[a], x[b]] for a, b in folds]
    codes[1][half] = change(codes[1][half])
    with pytest.raises(ValueError, match=f"^readout and codes must .* in fold 2 {told}"):
        held_out_score(LogisticRegression(), codes, folds, [1, 0, 1, 0])


def test_a_readout_that_takes_nan_gets_it():
    x, folds = np.array([[0.0], [np.nan], [0.0], [np.nan]]), patient_folds(list("aabb"), 2)
    codes = [(x[a], x[b]) for a, b in folds]
    score = held_out_score(DecisionTreeClassifier(), codes, folds, [0, 1, 0, 1])
    assert score.tolist() == [0, 1, 0, 1]


def test_labels_are_as_many_as_the_folds_ask_for():
    folds = list(patient_folds(np.array(list("aabb")), 2))
    with pytest.raises(
        ValueError, match=r"^is_lesion must hold a label for each patch .* found 3:"
    ):
        held_out_score(LogisticRegression(), [(np.ones((2, 1)),) * 2] * 2, folds, [1, 0, 1])


def test_the_purity_is_a_share():
    for purity in (0, 1.01, np.nan, -0.5, "0.9", None, [0.5, 0.6], 1j):
        with pytest.raises(ValueError, match="purity must lie in"):
            patient_draws([1, 0], [1, 2], ["a", "b"], purity=purity)


# -- values with their intervals -------------------------------------------------------------------


def test_an_interval_holds_nineteen_of_twenty_draws_and_not_the_value_itself():
    low_to_high = np.linspace(0, 1, 1001)
    assert interval(np.r_[7.0, low_to_high]) == pytest.approx((7, 0.025, 0.975))


def test_a_difference_is_taken_pair_by_pair():
    rng = np.random.default_rng(0)
    patients = rng.normal(size=201)  # what both scores owe to the patients drawn
    value, low, high = interval(patients + 0.5, minus=patients)
    assert (value, low, high) == pytest.approx((0.5, 0.5, 0.5))
    assert interval(patients, minus=patients) == (0, 0, 0)
    _, low, high = interval(patients)
    assert high - low > 3


@pytest.mark.parametrize(
    ("draws", "minus"),
    [
        ([0.5], None),
        (0.5, None),
        ([], None),
        ([[0.5, 0.4]], None),
        ([0.5, 0.4], [0.5]),
        ([0.5, 0.4], 0.5),
    ],
)
def test_draws_that_are_none_are_refused(draws, minus):
    with pytest.raises(ValueError, match="at least one draw, and minus as many; found shapes"):
        interval(draws, minus)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_draws_are_finite(bad):
    with pytest.raises(ValueError, match=r"^draws holds 2 values that are not finite, of 3$"):
        interval([1.0, bad, bad])
    with pytest.raises(ValueError, match=r"^minus holds 1 values that are not finite, of 3$"):
        interval([1.0, 2.0, 3.0], minus=(1.0, bad, 1.0))


@pytest.mark.parametrize("draws", [["0.5", "0.4"], [0.5, None], None, [1j, 2]])
def test_draws_are_numbers(draws):
    with pytest.raises(ValueError, match=r"^draws must hold real numbers, found dtype"):
        interval(draws)
    with pytest.raises(ValueError, match=r"^minus must hold real numbers, found dtype"):
        interval([1.0, 2.0], minus=["1", "2"])


def test_draws_may_come_out_of_a_table_of_objects():
    draws = [0.5, np.float32(0.25), 1]
    assert interval(np.array(draws, object), minus=np.array(draws, object)) == (0, 0, 0)
    assert interval(np.array(draws, object)) == interval(draws)
