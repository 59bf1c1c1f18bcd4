"""`tools/` writes CSV that any reader takes, and is no part of what is installed."""

import csv
import tomllib

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


def test_all_packages_are_installed_and_the_tools_are_not():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in ("zoo", "training")
        for path in (ROOT / package).rglob("*.py")
    }
    assert project["package-dir"] == {"zoo.checkpoints": "checkpoints"}
    assert set(project["packages"]) == there | {"zoo.checkpoints"}
