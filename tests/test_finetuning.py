"""Fine-tuning as a whole. Its settings: test_config.py; what the classifier starts from:
test_linear.py.
"""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

import zoo
from training import cli, evaluation, finetuning, session


@pytest.fixture
def opened(monkeypatch):
    """The datasets opened so far, by name."""
    names = []
    open_dataset = session.data.open_dataset

    def opening(name, **how):
        names.append(name)
        return open_dataset(name, **how)

    monkeypatch.setattr(session.data, "open_dataset", opening)
    return names


@pytest.fixture
def first(tiny, tmp_path):
    """A file of weights to start from."""
    zoo.save(zoo.create("tiny", num_classes=4), tmp_path / "first.safetensors")
    return str(tmp_path / "first.safetensors")


def test_data_are_opened_once_without_epochs_too(opened, first, undrawn, monkeypatch, tmp_path):
    monkeypatch.setitem(finetuning.FINETUNE, "epochs", 1)
    monkeypatch.setattr(finetuning, "FINETUNE_STEPS", 60)  # 14 batches an epoch
    settings = {"batch_size": 16, "per_class": 23, "head_init": "random"}
    result = zoo.finetune("tiny", "digits", weights=first, out=f"{tmp_path / 'a'}", **settings)
    assert result.history[-1]["step"] == 5 * 14
    assert opened == ["digits"]
    words = ["finetune", "tiny", "--data", "digits", "--out", f"{tmp_path / 'b'}"]
    words += ["--weights", first, "--batch-size", "16", "--per-class", "23"]
    cli.main([*words, "--head-init", "random"])
    assert opened == ["digits"] * 2
    same = (tmp_path / "b/model.safetensors").read_bytes()
    assert same == (tmp_path / "a/model.safetensors").read_bytes()


@pytest.mark.parametrize(("share", "place"), [(0.0, 1), (0.5, 0), (1.0, 4)])
def test_of_the_weights_on_the_way_the_best_are_kept(
    share, place, first, undrawn, monkeypatch, tmp_path, capsys
):
    """Those halfway are measured first, and then 0, 25, 75 and 100 %."""
    settings = {"weights": first, "epochs": 1, "per_class": 32, "head_init": "random"}
    settings |= {"freeze_bn": False, "learning_rate": 0.01}
    nearly = min(share, 0.9999)  # all the way has the statistics of the steps
    want = zoo.finetune(
        "tiny", "digits", **settings, wise_ft=nearly, keep="last", out=f"{tmp_path / 'a'}"
    )
    run, accuracies = evaluation.run, iter(0.9 if i == place else 0.5 for i in range(5))
    with monkeypatch.context() as patch:
        patch.setattr(
            evaluation, "run", lambda *args: replace(run(*args), accuracy=next(accuracies))
        )
        got = zoo.finetune("tiny", "digits", **settings, out=f"{tmp_path / 'b'}")
    assert got.accuracy == 0.9
    assert got.history[-1]["wise_ft"] == share
    advice = {0: "; training gained nothing here", 0.5: "\n", 1: "; with more time --epochs 2 may"}
    kept = f"those {share:.0%} of the way are kept: 90.00% of the validation pictures right"
    assert kept + advice[share] in capsys.readouterr().err
    there, here = (load_file(result.out / "model.safetensors") for result in (want, got))
    said = (
        f"| weights | {share:.0%} of the way from the first ones to the trained ones, the best of"
    )
    assert all(said in (got.out / name).read_text() for name in ("card.md", "report.md"))
    cli.main(["export", str(got.out), str(tmp_path / "saved.safetensors"), "--epoch", "last"])
    saved = load_file(tmp_path / "saved.safetensors")
    for name, value in there.items():
        np.testing.assert_allclose(here[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
        np.testing.assert_array_equal(saved[name], here[name], err_msg=name)


def test_a_run_that_stops_early_keeps_the_best_weights_too(first, undrawn, monkeypatch, tmp_path):
    settings = {"weights": first, "epochs": 3, "per_class": 16, "head_init": "random"}
    run, accuracies = evaluation.run, iter((0.5, 0.4, *(0.3, 0.3, 0.3, 0.9)))
    with monkeypatch.context() as patch:
        patch.setattr(
            evaluation, "run", lambda *args: replace(run(*args), accuracy=next(accuracies))
        )
        result = zoo.finetune("tiny", "digits", **settings, patience=1, out=f"{tmp_path / 'run'}")
    assert len(result.history) == 2
    assert result.history[-1]["stopped"] == "no better val_accuracy in 1 epochs"
    assert (result.history[-1]["wise_ft"], result.accuracy) == (1.0, 0.9)
