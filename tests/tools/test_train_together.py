"""One process or two: the same batches, the same losses, the same weights."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from helpers.vae import keras
from tools import train_together
from tools.train_together import join, main

COMMAND = [sys.executable, "-m", "tools.train_together"]


@pytest.fixture
def shards(tmp_path):
    """Three patients, of whose patches the last batch is not full."""
    rng = np.random.default_rng(0)
    for name, size in {"a": 130, "b": 50, "c": 78}.items():
        (tmp_path / "shards" / name).mkdir(parents=True)
        (tmp_path / "shards" / name / "fingerprint.txt").touch()
        patches = rng.random((size, 12, 12)).astype(np.float32) * rng.random((size, 1, 1))
        np.save(tmp_path / "shards" / name / "patches.npy", patches.astype(np.float32))
    return tmp_path / "shards"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train(shards, folder, n_processes):
    """Train in processes of their own; return each one's history and weights."""
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(n_processes))
    started = []
    for process in range(n_processes):
        command = [*COMMAND, shards, "--save", folder / f"{process}.keras", "--epochs", "2"]
        command += ["--batch-size", "64", "--latent-dim", "2"]
        if n_processes > 1:
            command += ["--addresses", addresses, "--process", process]
        environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        started.append(
            subprocess.Popen(
                list(map(str, command)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    results = []
    for process, running in enumerate(started):
        said, complaint = running.communicate(timeout=300)
        assert running.returncode == 0, complaint
        history = json.loads(said.splitlines()[-1])
        weights = keras.saving.load_model(folder / f"{process}.keras").get_weights()
        results.append((history, weights))
    return results


def test_two_processes_learn_what_one_does(shards, tmp_path):
    pytest.importorskip("jax")
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    ((alone, alone_weights),) = train(shards, tmp_path / "one", 1)
    (first, first_weights), (second, second_weights) = train(shards, tmp_path / "two", 2)
    assert first == second
    for ours, theirs in zip(first_weights, second_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, values in alone.items():
        assert first[name] == pytest.approx(values, rel=1e-4), name
    for ours, theirs in zip(first_weights, alone_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_one_process_needs_no_addresses_and_saves_what_keras_loads(shards, tmp_path, capsys):
    main([str(shards), "--save", str(tmp_path / "vae.keras"), "--epochs", "1"])
    history = json.loads(capsys.readouterr().out)
    assert len(history["loss"]) == 1
    assert keras.saving.load_model(tmp_path / "vae.keras").encoder.input_shape == (None, 12, 12)


@pytest.mark.parametrize(
    ("save", "told"),
    [
        ("vae.h5", "expected the name of a .keras file, found"),
        ("vae", "expected the name of a .keras file, found"),
        ("folder.keras", "expected the name of a .keras file, found"),
        ("file/vae.keras", "file: nothing can be written there"),
    ],
)
def test_a_model_that_could_not_be_saved_is_not_trained(
    shards, tmp_path, monkeypatch, capsys, save, told
):
    monkeypatch.setattr(train_together, "fit_vae", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main([str(shards), "--save", str(tmp_path / save)])
    assert told in capsys.readouterr().err


def test_shards_that_are_not_there_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing"), "--save", str(tmp_path / "new" / "vae.keras")])
    assert f"{tmp_path / 'nothing'}: expected shards, found none" in capsys.readouterr().err


def test_an_interrupted_save_leaves_no_half_of_a_model(shards, tmp_path, monkeypatch):
    def half(vae, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(train_together, "fit_vae", lambda *_, **__: {})
    monkeypatch.setattr(keras.Model, "save", half)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "vae.keras").write_bytes(b"an earlier one")
    with pytest.raises(KeyboardInterrupt):
        main([str(shards), "--save", str(tmp_path / "saved" / "vae.keras")])
    (left,) = (tmp_path / "saved").iterdir()
    assert left.read_bytes() == b"an earlier one"


def test_several_processes_need_jax(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(RuntimeError, match=r"KERAS_BACKEND=jax.*'tensorflow'"):
        join(["127.0.0.1:1", "127.0.0.1:2"], 0)


def test_there_is_one_process_for_each_address(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="from 0 to 1, one for each address, found 2"):
        join(["127.0.0.1:1", "127.0.0.1:2"], 2)
