"""What the yardstick says where the answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from helpers.metrics import cluster_accuracy, patient_bootstrap, recall_at_purity


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recall_at_purity([False, False], [1, 2]), "at least one lesion patch, found none"),
        (lambda: recall_at_purity([True], [1, 2]), r"shapes \(1,\) and \(2,\)"),
        (lambda: recall_at_purity([True], [[1, 2]]), r"one-dimensional, found shape \(1, 2\)"),
        (lambda: recall_at_purity([True], [np.nan]), "1 values that are not finite"),
        (lambda: recall_at_purity([True], [1], purity=0), r"\(0, 1\], found 0"),
        (lambda: cluster_accuracy([], []), "not empty"),
        (lambda: cluster_accuracy([1], [1, 2]), r"\(1,\) and \(2,\)"),
        (lambda: patient_bootstrap(max, [1, 0], [1, 2], ["a"]), "subject_ids has shape"),
        (lambda: patient_bootstrap(max, [1, 0], [1, 2], ["a", "a"]), "at least two, found 1"),
        (lambda: patient_bootstrap(max, [1, 1], [1, 2], ["a", "b"]), "found only lesion"),
        (
            lambda: patient_bootstrap(max, [1, 0], [1, 2], ["a", "b"], n_resamples=0),
            "at least 1, found 0",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
