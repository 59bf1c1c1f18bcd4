"""Fine-tuning as a whole. Its settings: test_config.py; what the classifier starts from:
test_linear.py.
"""

import pytest

import zoo
from training import cli, finetuning, session


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
