"""Text of others is nothing but text: `zoo.text`."""

import html
import re

import pytest

from zoo.text import block, cell, code, link, markdown, markdown_link, plain

NASTY = (
    "<img src=x onerror=alert(1)>",
    "[a](javascript:x) ![b](http://c) <http://d>",
    "a|b\\\\|c",
    "`a` ``b``",
    "__a__ _b_ **c** ~d~ $e$ snake_case",
    "line\nline\r\n\n# heading",
    "\x1b[2J\x00\u202e\udcff",
    "&amp; &#60;",
    "http://a.b www.c.d e@f.g",
    "`",
    " ",
)


def test_plain_text_is_one_line_that_can_be_printed():
    assert plain("Straße 猫") == "Straße 猫"
    assert plain("a\nb\t\x1b[31m\udcff\u202e") == r"a\nb\t\x1b[31m\udcff\u202e"
    assert plain("👩‍👧") == "👩‍👧"
    for text in NASTY:
        assert len(plain(text).splitlines()) == 1
        assert plain(text).encode().isascii()


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("form", [markdown, code])
def test_markdown_shows_the_text_and_nothing_else(form, text):
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    page = reader.render(f"| a | b |\n|---|---|\n| {form(text).replace('|', chr(92) + '|')} | c |")
    if form is markdown:
        page = reader.render(f"| a | b |\n|---|---|\n| {form(text)} | c |")
    cells = re.findall("<td>(.*?)</td>", page)
    assert len(cells) == 2
    shown = cells[0].removeprefix("<code>").removesuffix("</code>")
    assert "<" not in shown
    assert html.unescape(shown).strip() == plain(text).strip()


def test_addresses_are_not_linked():
    assert markdown("http://a.b") == r"http\://a.b"
    assert markdown("www.a.b, WWW.c") == r"www\.a.b, WWW\.c"


def test_blocks_end_where_they_should():
    assert block("a\n```\nb", "sh") == "````sh\na\n```\nb\n````"


@pytest.mark.parametrize("text", ["=1", "+1+1", "-x", "@a", "\ta", "\ra", "＝1"])  # noqa: RUF001
def test_formulas_are_text_in_a_table(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["", "a=1", "-1", "+1.5", -1, 2.5, None, "photos/-1.jpg"])
def test_what_is_no_formula_stays_as_it_is(value):
    assert cell(value) == value


def test_links_lead_to_the_web():
    assert link("https://arxiv.org/abs/1512.03385") == "https://arxiv.org/abs/1512.03385"
    assert link("javascript:alert(1)") == link("data:text/html,x") == ""
    assert markdown_link("a]", 'http://a/"> (c') == r"[a\]](http://a/%22%3E%20%28c)"


def test_what_means_nothing_in_markdown_stays():
    text = "a * b, 3 < 4 > 2, snake_case, R&D, 50 %, (x) {y} #1 + 2 - 3. d: e!"
    assert markdown(text) == text.replace("&", "\\&")
