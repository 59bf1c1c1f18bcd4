"""The article's arithmetic, on the networks themselves."""

import pytest

from training.cli import main
from zoo.report.claims import claims

# what the article says, and how near our networks come to it
EXPECTED = [
    (12, 4),  # AlexNet over Inception v1: 8.7, for v1 has 7 million parameters, not 5
    (12, 2),  # without v1's classifier: 10.2
    (18 / 25, 1e-9),
    (2 / 7, 1e-9),
    (1 / 9, 0.003),
    (0.9, 0.07),
    (0.9, 0.01),
    (0, 0.03),  # global average pooling leaves a fiftieth of the classifier
]


def test_claims():
    found = claims()
    assert len(found) == len(EXPECTED)
    for claim, (article, tolerance) in zip(found, EXPECTED, strict=True):
        assert claim.ours == pytest.approx(article, abs=tolerance), claim.says


def test_formulas_are_the_numbers():
    for claim in claims():
        a, b = (int(part.replace(",", "")) for part in claim.formula.split(" (")[0].split(" / "))
        assert claim.ours == a / b


def test_command(capsys):
    main(["params", "--claims"])
    out = capsys.readouterr().out
    assert "article 18/25 = 0.72; here 0.720 = 4,718,592 / 6,553,600" in out
    title, *lines = out.splitlines()
    assert "深度学习技巧1" in title
    assert len(lines) == 2 * len(EXPECTED)
