"""How plots look and how they become files."""

import io
import xml.etree.ElementTree as ET

import pytest
from conftest import ROOT
from PIL import Image

from zoo import plotting


@plotting.styled
def plot(title):
    figure = plotting.figure(4, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], color=plotting.BLUE)
    axes.set_title(title)
    plotting.tidy(axes)
    return figure


def test_both_forms_are_reproducible_and_foreign_letters_and_formulas_are_no_error():
    for form in ("png", "svg"):
        files = [plotting.encode(plot("猫 $a_b"), form) for _ in range(2)]  # warnings are errors
        assert files[0] == files[1]
    assert ET.fromstring(files[0]).tag.endswith("svg")


def test_a_plot_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = plot("")
    plotting.save(figure, tmp_path / "a.picture", dpi=50)
    with Image.open(tmp_path / "a.picture") as image:
        assert (image.format, image.size) == ("PNG", (200, 150))
    before = (tmp_path / "a.picture").read_bytes()

    def half(data: io.BytesIO, **_settings: object) -> None:
        data.write(before[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", half)
    for name in ("a.picture", "b.png"):
        with pytest.raises(OSError, match="No space"):
            plotting.save(figure, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["a.picture"]
    assert (tmp_path / "a.picture").read_bytes() == before


def test_nobody_else_saves_or_styles_plots():
    words = (".savefig(", "pyplot", "rc_context", "spines[[", "#0072B2")
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("zoo", "training")
        for path in (ROOT / package).rglob("*.py")
        if any(word in path.read_text("utf-8") for word in words)
    }
    assert found == {"zoo/plotting.py"}
