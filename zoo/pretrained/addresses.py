"""Addresses of published files: where a host has one, and where the cache does.

A source is "https://host/path", or "hf://owner/repo/file" on the Hugging Face Hub, with "@revision"
behind the repository or the file.
"""

import errno
import hashlib
import os
import re
import socket
import time
from base64 import b64encode
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from ..errors import ZooError
from ..paths import cache_folder

_HUB = re.compile(r"hf://([^/@]+/[^/@]+)(?:@([^/@]+))?/([^@]+?)(?:@([^/@]+))?")


def place(source: str) -> Path:
    """The path in the cache for an address: host and path, or a cleaned form with a hash."""
    url = source
    if source.startswith("hf://"):
        repo, name, revision = on_hub(source)
        url = f"https://huggingface.co/{repo}/resolve/{revision or 'main'}/{name}"
    parts = urlsplit(url)
    if not parts.hostname:
        raise ZooError(f"weights: got {url!r}, expected https://HOST/PATH")
    names = f"{parts.netloc}{parts.path}".split("/")
    tidy = [re.sub(r"[^\w.+=%-]", "_", name) for name in names if name not in ("", ".", "..")]
    file = Path(*tidy)
    if url != f"https://{file.as_posix()}":
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        file = file.with_name(f"{file.stem}-{digest}{file.suffix}")
    return cache_folder() / "files" / file


def on_hub(source: str) -> tuple[str, str, str | None]:
    """Repository, file, revision."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    expected = "expected hf://OWNER/REPO/FILE, or .../FILE@REVISION"
    parts = _HUB.fullmatch(source)
    if parts is None:
        raise ZooError(f"weights: got {source!r}, {expected}")
    try:
        validate_repo_id(parts[1])
    except HFValidationError as error:
        raise ZooError(f"weights: got {source!r} ({cause(error)}), {expected}") from error
    return parts[1], parts[3], parts[2] or parts[4]


def address(source: str) -> tuple[str, str]:
    """The address to request, and the value of the header that logs in there, or ""."""
    if source.startswith("hf://"):
        from huggingface_hub import constants, get_token, hf_hub_url

        repo, file, revision = on_hub(source)
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint)
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        setting, login = "HF_ENDPOINT", f"Bearer {token}" if token else ""
    else:
        setting, login, url = "ZOO_MIRROR", "", source
        if mirror := os.environ.get("ZOO_MIRROR"):
            url = f"{mirror.rstrip('/')}/{source.removeprefix('https://')}"
    if not secure(url):
        got = os.environ.get(setting, "")
        *_, shown = got.rpartition("@")  # without a password, wherever its address went wrong
        raise ZooError(f"{setting}: got {shown!r}, expected https://..., or http://localhost")
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    if at:
        url = url.replace(f"{user}@", "", 1)
        login = f"Basic {b64encode(unquote(user).encode()).decode()}"
    return url, login


def secure(url: str) -> bool:
    """Whether a response cannot be changed on its way: https, or this machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # or ValueError
    except ValueError:
        return False
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    scheme = parts.scheme == "https" or (parts.scheme == "http" and local)
    return scheme and bool(parts.hostname) and re.search(r"[\0- \x7f]", url) is None


NO_NETWORK = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


def no_network(error: object) -> bool:
    """Whether an error says that there is no way to a host, such as no network at all."""
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        return error.errno in NO_NETWORK
    return isinstance(error, socket.gaierror)


def reachable(url: str) -> bool:
    """Whether an address may be tried: a second or two tell, where nobody is there.

    A connection that only takes long may be tried, and so may any through a proxy.
    """
    parts = urlsplit(url)
    if getproxies().get(parts.scheme) or not parts.hostname:
        return True
    port = parts.port or {"http": 80}.get(parts.scheme, 443)
    for wait in (0.5, None):  # a second try, as names are not always found at once
        try:
            socket.create_connection((parts.hostname, port), timeout=5).close()
        except OSError as error:
            if not (no_network(error) or isinstance(error, ConnectionRefusedError)):
                return True
            if wait is not None:
                time.sleep(wait)
        else:
            return True
    return False


# --- what others say, made safe to show -----------------------------------------------------------


def cause(error: BaseException | str) -> str:
    """The reason that an error gives, for a line of ours: without its number and its file."""
    reason = getattr(error, "strerror", None) or str(error).strip()
    return safe(reason.splitlines()[0] if reason else type(error).__name__)


def safe(text: str) -> str:
    """A text of somebody else without control codes and logins, cut where it is long."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:300])
    return re.sub(r"//[^/\s]*@", "//", shown)
