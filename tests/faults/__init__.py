"""What is done to the project to see it survive; `python -m tests.faults` runs all of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' own ways to write files
