"""Batches from shards: every patch once an epoch, in an order that a seed decides."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.batches import ShardBatches
from helpers.vae import build_dense_vae, fit_vae, keras


def write(folder, sizes, patch=(2, 3)):
    """Shards whose patches are all different: each holds its number."""
    first, shards = 0, []
    for number, size in enumerate(sizes):
        shards.append(folder / f"sub-{number:04d}")
        shards[-1].mkdir(parents=True)
        patches = np.arange(first, first + size, dtype=np.float32)[:, None, None] + np.zeros(patch)
        np.save(shards[-1] / "patches.npy", patches.astype(np.float32))
        first += size
    return shards


def numbers(batches):
    """The number of each patch of an epoch, batch by batch."""
    return [images[:, 0, 0].astype(int).tolist() for (images,) in batches]


def flat(lists):
    return [number for batch in lists for number in batch]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(any),
    batch_size=st.integers(1, 9),
    window=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_each_patch_comes_exactly_once_an_epoch(tmp_path_factory, sizes, batch_size, window, seed):
    shards = write(tmp_path_factory.mktemp("shards"), sizes)
    batches = ShardBatches(shards, batch_size, seed=seed, window=window)
    for _ in range(2):
        epoch = numbers(batches)
        assert sorted(flat(epoch)) == list(range(sum(sizes)))
        assert {len(batch) for batch in epoch[:-1]} <= {batch_size} and epoch[-1]
        batches.on_epoch_end()


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(lambda n: sum(n) > 3),
    per_part=st.integers(1, 4),
    of=st.integers(1, 3),
)
def test_the_parts_of_a_batch_are_the_batch(tmp_path_factory, sizes, per_part, of):
    shards = write(tmp_path_factory.mktemp("shards"), sizes)
    whole = numbers(ShardBatches(shards, per_part * of))
    parts = [numbers(ShardBatches(shards, per_part * of, part=(i, of))) for i in range(of)]
    together = [flat(batch) for batch in zip(*parts, strict=True)]
    assert flat(together) == flat(whole)[: sum(sizes) // of * of]
    assert all(len(set(map(len, batch))) == 1 for batch in zip(*parts, strict=True))


def test_seed_and_epoch_decide_the_order(tmp_path):
    shards = write(tmp_path, [30] * 10)
    batches, same, other = (ShardBatches(shards, 50, seed=seed, window=4) for seed in (0, 0, 1))
    first = numbers(batches)
    assert first == numbers(batches) == numbers(same) != numbers(other)
    for each in (batches, same):
        each.on_epoch_end()
    assert numbers(batches) == numbers(same) != first
    batches.on_epoch_end()
    third = numbers(batches)
    assert third not in (first, numbers(same))
    same.epoch = 2  # the epochs are counted: training can go on where it stopped
    assert numbers(same) == third


def test_unless_told_otherwise_a_batch_is_as_large_as_in_the_chapters(tmp_path):
    shards = write(tmp_path, [300, 250])
    epoch = numbers(ShardBatches(shards))
    assert [len(batch) for batch in epoch] == [100, 100, 100, 100, 100, 50]
    assert epoch == numbers(ShardBatches(shards, 100, seed=0))


def test_patches_of_several_patients_are_mixed_but_few_files_are_open(tmp_path):
    batches = ShardBatches(write(tmp_path, [40] * 30), 20, window=5)
    for index in range(len(batches)):
        shard, _ = batches.rows(index)
        assert 1 < len(set(shard)) <= 5  # 200 patches a window: no batch of 20 spans two
    # A window is really mixed: neighbours of the same patient are as rare as chance has it.
    shard = np.concatenate([batches.rows(index)[0] for index in range(len(batches))])
    assert np.mean(shard[1:] == shard[:-1]) == pytest.approx(39 / 199, abs=0.05)


def test_memory_does_not_grow_with_the_cohort(tmp_path):
    def peak(shards):
        tracemalloc.start()
        for _ in ShardBatches(shards, 50):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few, many = (write(tmp_path / str(n), [20] * n, (28, 28)) for n in (20, 200))
    one = write(tmp_path / "one", [3000], (28, 28))
    assert peak(one) < one[0].joinpath("patches.npy").stat().st_size / 5
    patches = 180 * 20 * 28 * 28 * 4  # bytes that the larger cohort has more
    assert peak(many) - peak(few) < patches / 20


def test_training_on_shards_is_training_on_their_patches(tmp_path):
    batches = ShardBatches(write(tmp_path, [30, 50, 21], (4, 4)), 20, seed=3)
    for shard in batches.paths:
        np.save(shard, np.load(shard) / 100)
    batches.on_epoch_end()  # as Keras does once before the first epoch, too
    in_memory = np.concatenate([images for (images,) in batches])
    weights = []
    for of in (batches, in_memory):
        keras.utils.set_random_seed(0)
        vae = build_dense_vae(2, input_shape=(4, 4), hidden_units=8)
        vae.compile("adam")
        batches.epoch = 0
        vae.fit(of, batch_size=20 if of is in_memory else None, shuffle=False, verbose=0)
        weights.append(vae.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_book_trains_on_shards_as_on_an_array(tmp_path):
    batches = ShardBatches(write(tmp_path, [200, 150], (4, 4)), 50)
    for path in batches.paths:
        np.save(path, np.load(path) / 350)
    vae = build_dense_vae(2, input_shape=(4, 4), hidden_units=8)
    history = fit_vae(vae, batches, epochs=5, learning_rate=0.05)
    assert len(history["loss"]) == 5 and history["loss"][-1] < history["loss"][0]
    assert int(vae.optimizer.iterations) == 5 * 7
    assert float(vae.optimizer.learning_rate) == pytest.approx(0, abs=1e-4)


def test_a_mixture_prior_needs_an_array(tmp_path):
    vae = build_dense_vae(2, input_shape=(2, 3), hidden_units=4, components=3)
    with pytest.raises(ValueError, match="needs an array"):
        fit_vae(vae, ShardBatches(write(tmp_path, [5])), epochs=3)


@pytest.mark.parametrize(
    ("sizes", "arguments", "message"),
    [
        ([], {}, "found none in 0 shards"),
        ([0, 0], {}, "found none in 2 shards"),
        ([3], {"batch_size": 0}, "^batch_size must be a whole number of at least 1, found 0$"),
        ([3], {"batch_size": "3"}, "^batch_size must be a whole number .* found '3'$"),
        ([3], {"batch_size": 2.5}, "^batch_size must be a whole number .* found 2.5$"),
        ([3], {"seed": -1}, "^seed must be a whole number of at least 0, found -1$"),
        ([3], {"seed": None}, "^seed must be a whole number of at least 0, found None$"),
        ([3], {"part": 3}, "^part must be two numbers, found 3$"),
        ([3], {"part": (0, 1, 2)}, r"^part must be two numbers, found \(0, 1, 2\)$"),
        ([3], {"part": (0, 0)}, "^how many of part must be a whole number of at least 1, found 0$"),
        ([3], {"part": ("0", 1)}, "^which one of part must be a whole number .* found '0'$"),
        ([3], {"part": (-1, 1)}, "^which one of part must be a whole number .* found -1$"),
        ([3], {"batch_size": 5, "part": (0, 2)}, "found batch_size 5 and part 0 of 2"),
        ([3], {"batch_size": 4, "part": (2, 2)}, "part 2 of 2"),
    ],
)
def test_what_cannot_be_batched_is_refused(tmp_path, sizes, arguments, message):
    with pytest.raises(ValueError, match=message):
        ShardBatches(write(tmp_path, sizes), **arguments)


@pytest.mark.parametrize("content", [b"", bytes(200), b"Error 404", None])
@pytest.mark.parametrize("when", ["before", "in between"])
def test_a_damaged_shard_is_named(tmp_path, content, when):
    shards = write(tmp_path, [20, 30])
    damaged = shards[1] / "patches.npy"
    batches = ShardBatches(shards)
    damaged.write_bytes(damaged.read_bytes()[:-50] if content is None else content)
    with pytest.raises(ValueError, match=f"^{damaged}: expected an array .*makes it anew$"):
        ShardBatches(shards) if when == "before" else batches[0]


@pytest.mark.parametrize("index", [2, 7, -1, 0.5, "0", None])
def test_a_batch_beyond_the_end_is_none(tmp_path, index):
    batches = ShardBatches(write(tmp_path, [3, 4]), 5)
    assert len(batches) == 2 and len(batches[np.int64(1)][0]) == 2
    with pytest.raises(IndexError, match=f"^index must be from 0 to 1, found {index!r}$"):
        batches[index]


def test_shards_of_two_patch_sizes_are_refused(tmp_path):
    shards = write(tmp_path / "a", [3], (2, 3)) + write(tmp_path / "b", [3], (3, 2))
    with pytest.raises(ValueError, match=r"\(2, 3\), \(3, 2\)"):
        ShardBatches(shards)


@pytest.mark.parametrize("window", [0, -1, 2.5, True, None, "16"])
def test_a_window_holds_a_patient_or_more(tmp_path, window):
    with pytest.raises(ValueError, match="window must be a whole number of at least 1, found"):
        ShardBatches([tmp_path], window=window)


@pytest.mark.parametrize("as_it_comes", [str, Path])
def test_one_path_is_no_list_of_shards(tmp_path, as_it_comes):
    with pytest.raises(ValueError, match=r"shards must be several folders, .*find_shards"):
        ShardBatches(as_it_comes(tmp_path))
