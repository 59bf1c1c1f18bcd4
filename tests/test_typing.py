"""What a user's own strict type checker says of a program with the public names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import zoo

model: zoo.Network = zoo.create("resnet18")
model.eval()
config = zoo.TrainConfig(epochs=1)
result = zoo.fit(config)
accuracy: float = result.accuracy
"""


def mypy(program: str, folder: Path) -> str:
    """What `mypy --strict` prints of a program."""
    file = folder / "program.py"
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=",
         f"--cache-dir={folder / 'cache'}", file],
        cwd=folder, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.slow
def test_public_names_are_typed(tmp_path):
    assert mypy(PROGRAM, tmp_path).startswith("Success")
    wrong = mypy(PROGRAM + "zoo.create(18)\nzoo.TrainConfig(epochs='1')\n", tmp_path)
    assert wrong.count("[arg-type]") == 2  # types, not Any
