"""Networks on the Hugging Face Hub: repositories as timm, and `push_to_hub`, write them.

The Hub's own client does the transfers, with its settings: HF_HOME (its cache, which timm shares),
HF_TOKEN (a login), HF_ENDPOINT (another host), HF_HUB_OFFLINE; ZOO_OFFLINE does the same.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import ZooError
from ..layers import Network, expect_network
from ..settings import shown
from .addresses import address, cause, reachable
from .fetch import hub_fault, offline
from .folder import CARD, CONFIG, HOLDERS, save_folder

PREFIX = "hf-hub:"  # before USER/REPO, as timm has it
LOGIN = "log in with `hf auth login` or HF_TOKEN"
_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
_ADDRESS = re.compile(rf"({_NAME}/{_NAME})(?:@([\w./-]+))?", re.ASCII)


def is_address(name: str) -> bool:
    """Whether a name is that of a repository on the Hub."""
    return name.startswith((PREFIX, "hf_hub:"))  # the second is timm's old spelling


def repository(name: str) -> tuple[str, str | None]:
    """Repository and revision of "hf-hub:USER/REPO" or "hf-hub:USER/REPO@REVISION".

    Raises:
      ZooError: it is something else.
    """
    found = _ADDRESS.fullmatch(name[len(PREFIX) :])
    if not found:
        raise ZooError(
            f"load: got {shown(name)}, expected hf-hub:USER/REPO or hf-hub:USER/REPO@REVISION"
        )
    return found[1], found[2]


# --- from the Hub --------------------------------------------------------------------------------


def snapshot(name: str) -> Path:
    """The folder in the Hub's cache with config.json, tensors and card of a repository.

    The newest of a branch is asked for each time, without `@REVISION` of the main one; what is in
    the cache is not downloaded again. Where the Hub cannot be reached, the cache serves.

    Args:
      name: "hf-hub:USER/REPO", or "hf-hub:USER/REPO@REVISION": a branch, a tag or a commit.

    Raises:
      ZooError: no such repository, revision or file; a login that is wanted; no connection; or
        tensors that are not those that the Hub has.
    """
    repo, revision = repository(name)
    host = address(f"hf://{repo}/{CONFIG}")[0]
    kept = offline() or not reachable(host)  # else the Hub's client tries for half a minute
    config = _file(name, repo, CONFIG, revision, kept)
    if config is None:
        raise ZooError(f"load: {name} has no {CONFIG}: expected a network that timm or zoo pushed")
    commit = config.parent.name
    tensors = next(filter(None, (_file(name, repo, file, commit, kept) for file in HOLDERS)), None)
    if tensors is None and kept and not offline():
        raise _unreachable(f"load: {name}")
    if tensors is None:
        raise ZooError(f"load: {name} has no weights: expected {' or '.join(HOLDERS[:2])}")
    if fault := hub_fault(tensors):
        raise ZooError(f"load: {name}: the Hub's cache has {fault}: delete {tensors} and try again")
    with suppress(ZooError):  # the card only tells the licence
        _file(name, repo, CARD, commit, kept)
    return config.parent


def _file(name: str, repo: str, file: str, revision: str | None, kept: bool) -> Path | None:
    """A file of a repository in the Hub's cache; None if the repository has none of that name.

    `kept`: it is taken from the cache alone.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _told(f"load: {name}", repo, revision):
        try:
            return Path(
                hf_hub_download(
                    repo,
                    file,
                    revision=revision,
                    endpoint=_endpoint(),
                    local_files_only=kept,
                    library_name="jax-cnn-zoo",
                )
            )
        except LocalEntryNotFoundError:
            if not kept:
                raise
            if file == CONFIG and not offline():
                raise
            if file == CONFIG:
                raise ZooError(
                    f"load: {name} is not in the Hub's cache, and ZOO_OFFLINE or HF_HUB_OFFLINE is "
                    "set: expected it there, or a connection"
                ) from None
            return None
        except EntryNotFoundError:
            return None


def licence_on(card: Path) -> str:
    """The licence in the front matter of a card; "" if it names none."""
    try:
        text = card.read_text("utf-8", "replace")[:100_000]
    except OSError:
        return ""
    front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    line = r"^license(_name)?:[ \t]*(.+?)[ \t\r]*$"
    found: dict[str, str] = dict(re.findall(line, front[1] if front else "", re.MULTILINE))
    plain, named = (found.get(key, "").strip("\"'") for key in ("", "_name"))
    return named or plain if plain == "other" else plain


# --- to the Hub ----------------------------------------------------------------------------------


def push_to_hub(
    model: Network,
    repo: str,
    *,
    format: str = "timm",
    private: bool = False,
    revision: str | None = None,
    message: str = "Add model",
) -> str:
    """Upload a network to the Hugging Face Hub, for timm and for `zoo.load("hf-hub:USER/REPO")`.

    The repository gets model.safetensors, config.json with classes and preprocessing, and, if it
    has none yet, a README.md with the licence and the origin of the weights (`model.origin`).

    Args:
      model: the network.
      repo: "USER/REPO"; it is made if it is not there.
      format: "timm": timm's names, so that `timm.create_model("hf-hub:USER/REPO",
        pretrained=True)` loads it; "safetensors": what `zoo.save` writes, for networks that timm
        has not.
      private: whether a repository that is made is private.
      revision: a branch, made if it is not there; None: the main one.
      message: of the commit.

    Returns:
      The address of the repository's page.

    Raises:
      ZooError: a network that the format cannot hold; no login, or one that may not write there;
        no connection.

    >>> zoo.push_to_hub(zoo.load("runs/pets"), "me/pets")    # doctest: +SKIP
    'https://huggingface.co/me/pets'
    """
    expect_network("push_to_hub", model)
    if not isinstance(repo, str) or not _ADDRESS.fullmatch(repo) or "@" in repo:
        raise ZooError(f"push_to_hub: got {shown(repo)}, expected USER/REPO")
    from huggingface_hub import HfApi

    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / repo.rpartition("/")[2]
        save_folder(model, folder, format, repo)
        with _told("push_to_hub", repo, revision):
            api = HfApi(endpoint=_endpoint(), library_name="jax-cnn-zoo")
            page = api.create_repo(repo, private=private, exist_ok=True)
            if revision:
                api.create_branch(repo, branch=revision, exist_ok=True)
            if api.file_exists(repo, CARD, revision=revision):
                (folder / CARD).unlink()
            api.upload_folder(
                repo_id=repo, folder_path=folder, revision=revision, commit_message=message
            )
    return str(page)


# --- both ways -----------------------------------------------------------------------------------


def _endpoint() -> str | None:
    """The host, if it is not the usual one.

    Raises:
      ZooError: HF_ENDPOINT is no address that is safe to use.
    """
    address(f"hf://any/repository/{CONFIG}")
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _unreachable(what: str) -> ZooError:
    return ZooError(
        f"{what}: the Hub cannot be reached, and its cache has no such file: check the connection, "
        "or set HF_ENDPOINT to a copy"
    )


@contextmanager
def _told(what: str, repo: str, revision: str | None) -> Iterator[None]:
    """Tell what the Hub's client says in one line of ours."""
    from huggingface_hub import errors

    try:
        yield
    except (ZooError, errors.EntryNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(what) from error
        raise
    except errors.GatedRepoError as error:
        raise ZooError(
            f"{what}: {repo} is gated: ask for access on its page, then {LOGIN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ZooError(
            f"{what}: no repository {repo}, or a private one: for that {LOGIN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ZooError(
            f"{what}: {repo} has no revision {revision}: expected a branch, a tag or a commit"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        hint = f": {LOGIN}" if status in (401, 403) else ""
        raise ZooError(f"{what}: the Hub refuses {repo} ({cause(error)}){hint}") from error
    except Exception as error:  # of whichever HTTP library the client has
        raise ZooError(f"{what}: the Hub cannot be used ({cause(error)})") from error
