"""`tools/` writes CSV that any reader takes, and is no part of what is installed."""

import csv
import tomllib

import pytest
from conftest import ROOT

from tools import csv_files


def test_what_is_written_is_read_again(tmp_path):
    row = ["plain", "a, b", 'said "yes"', "two\nlines", "", "é"]
    written = csv_files.text([["p", "q", "r", "s", "t", "u"], row])
    (tmp_path / "a.csv").write_text(written, "utf-8", newline="")
    (read,) = csv_files.read(tmp_path / "a.csv")
    assert list(read.values()) == row
    assert list(csv.reader(written.splitlines(keepends=True)))[1] == row
    assert "\r" not in written


def test_it_is_not_installed():
    setuptools = pytest.importorskip("setuptools")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = setuptools.find_packages(str(ROOT), include=include)
    assert {name.partition(".")[0] for name in packages} == {"zoo", "training"}
