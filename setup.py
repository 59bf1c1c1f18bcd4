"""What `pyproject.toml` cannot say: addresses that an index page can follow.

In the repository README.md links to files beside it. An index shows the text alone, so links and
the picture become absolute here, to the tag of this version at the address of the repository:
`ZOO_REPOSITORY` in the environment, or that of git's remote `origin`, or what a source distribution
was made with. Where there is none, the text stays and the links go.
"""

import os
import re
import subprocess
from email import message_from_string
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def repository() -> str:
    """`https://HOST/OWNER/NAME`, or "" where nobody says it."""
    made = HERE / "PKG-INFO"  # within a source distribution, which no git knows of
    if address := os.environ.get("ZOO_REPOSITORY", ""):
        return address.rstrip("/")
    if made.is_file():
        urls = message_from_string(made.read_text("utf-8")).get_all("Project-URL", [])
        return next((u.partition(", ")[2] for u in urls if u.startswith("Repository, ")), "")
    if not (HERE / ".git").exists():  # a folder within another's repository
        return ""
    try:
        asked = subprocess.run(
            ["git", "remote", "get-url", "origin"], cwd=HERE, capture_output=True, text=True
        )
    except OSError:
        return ""
    ssh = re.sub(r"^(?:ssh://)?git@([^:/]+)[:/]", r"https://\1/", asked.stdout.strip())
    address = ssh.removesuffix(".git")
    return address if re.fullmatch(r"https://[\w.-]+/[\w./-]+", address) else ""


def readme(text: str, address: str, version: str) -> str:
    """README.md with absolute links."""

    def absolute(found: re.Match[str]) -> str:
        picture, name, path = found.groups()
        if address:
            return f"{picture}[{name}]({address}/{'raw' if picture else 'blob'}/v{version}/{path})"
        return "" if picture else name

    return LINK.sub(absolute, text)


def urls(address: str) -> dict[str, str]:
    """The addresses beside the text, of the repository's pages."""
    pages = {
        "Repository": "",
        "Documentation": "/blob/main/docs/index.md",
        "Changelog": "/blob/main/CHANGELOG.md",
        "Issues": "/issues",
    }
    return {name: address + page for name, page in pages.items()} if address else {}


if __name__ == "__main__":
    version = re.search(r'^__version__ = "(.*)"', (HERE / "zoo/__init__.py").read_text(), re.M)[1]
    setup(
        long_description=readme((HERE / "README.md").read_text("utf-8"), repository(), version),
        long_description_content_type="text/markdown",
        project_urls=urls(repository()),
    )
