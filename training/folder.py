"""The folder of a run: which run it belongs to, who works in it, whether the run is finished."""

import contextlib
import itertools
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import jax

import zoo
from zoo.errors import ZooError
from zoo.paths import write

from . import distributed, report, typed
from .config import TrainConfig, differences
from .logging import Record, read_records
from .sources.record import record_differences

SHARED = 60  # seconds in which a shared folder shows on one host what another wrote
ELSEWHERE = "choose another --out"
LIBRARIES = ("jax", "flax", "optax")  # that a result depends on


def check_out(out: Path, config: TrainConfig) -> None:
    """Check that a run can be written into a folder.

    Raises:
      ZooError: the folder cannot be used for this run; nothing has been written.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError as error:  # which TensorStore and TensorBoard need
        raise ZooError(f"out: got {os.fsencode(out)!r}, expected a name in UTF-8") from error
    stored = read_json(out / "config.json", f"restore it, or {ELSEWHERE}")
    if stored is not None and (differs := differences(stored, config)):
        raise ZooError(_other_run(out, stored, config, differs))
    if out.exists() and not out.is_dir():
        raise ZooError(f"out: {out} is a file, expected a folder")
    # a hidden file may be a config.json that a crash left half written
    if stored is None and out.exists() and any(p.name[0] != "." for p in out.iterdir()):
        raise ZooError(f"out: {out} holds other files and no config.json: {ELSEWHERE}")
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ZooError(f"out: no permission to write to {existing}")


def _other_run(out: Path, stored: dict[str, Any], config: TrainConfig, differs: list[str]) -> str:
    keys = {name for name in stored if stored[name] != config.to_dict().get(name)} - {"out"}
    there = stored.get("epochs")
    # fine-tuning trains the classifier alone for a share of the epochs
    if "epochs" not in keys or keys - {"epochs", "head_epochs"} or type(there) is not int:
        return f"out: {out} holds another run ({'; '.join(differs)}): {ELSEWHERE}"
    if not is_finished(out):
        return (
            f"out: {out} holds a run of {there} epochs that is not over, asked for "
            f"{config.epochs}: its learning rate is laid out for {there}; finish it with --epochs "
            f"{there}, or {ELSEWHERE}"
        )
    more = max(config.epochs - there, 1)
    return (
        f"out: {out} holds a finished run of {there} epochs, asked for {config.epochs}: its "
        f"learning rate has run its course; to start from its weights, with a course of their "
        f"own: {anew(out, config, epochs=more)}"
    )


def anew(out: Path, config: TrainConfig, **settings: Any) -> str:
    """The command that starts another run from the weights of a finished one."""
    free = next(path for n in itertools.count(2) if not (path := Path(f"{out}-{n}")).exists())
    return report.command(
        TrainConfig.from_dict(
            {
                **config.to_dict(),
                "weights": f"{out / 'model.safetensors'}",
                "layout": None,
                "out": f"{free}",
                "head_epochs": 0,  # its classifier is trained
                **settings,
            }
        )
    )


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Lock the folder against other runs. The system releases the lock when the process ends.

    Raises:
      ZooError: another run holds the lock.
    """
    lock = filelock.FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ZooError(
            f"out: another process is at work in {out}: wait until it ends, or {ELSEWHERE}"
        ) from None
    except (OSError, NotImplementedError) as error:
        if not os.access(out, os.W_OK | os.X_OK):
            raise ZooError(f"out: cannot write to {out}: {error}") from error
        print(f"{out}: no lock to be had ({error}); let no second run use it", file=sys.stderr)
    try:
        for left in out.glob(".*"):  # half a file, of a process that was killed
            if re.fullmatch(r"\..+\.[0-9a-f]{8}", left.name):
                left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def begin(out: Path, config: TrainConfig, record: dict[str, Any]) -> None:
    """Write down what the run is made of: its config, data, versions of libraries and command.

    Args:
      out: the folder.
      config: of the run.
      record: of the data, see `training.sources.base.data_record`.

    Raises:
      ZooError: the folder cannot be written.
    """
    made_of = {
        "config.json": config.to_dict(),  # first: a folder with anything else is not a run's
        "data.json": record,
        "versions.json": {"zoo": zoo.__version__, **{name: version(name) for name in LIBRARIES}},
    }
    new = not (out / "config.json").exists()
    try:
        for name, content in made_of.items():
            if not (out / name).exists():
                write(out / name, (json.dumps(content, indent=2) + "\n").encode())
        if new and (words := typed.COMMAND.get()):
            write(out / typed.FILE, f"{words}\n".encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ZooError(f"out: cannot write to {out}: {error.strerror}") from error
    was = read_json(out / "versions.json", f"restore it, or {ELSEWHERE}") or {}
    now = made_of["versions.json"]
    if other := [f"{name} {was[name]}" for name in was if was[name] != now.get(name, was[name])]:
        warning = f"{out} was begun with {', '.join(other)}: a result may differ in its last digits"
        print(warning, file=sys.stderr)


def check_data(out: Path, config: TrainConfig, record: dict[str, Any]) -> None:
    """Check that a resumed run sees the data it began with, in every process.

    Raises:
      ZooError: the run in the folder used other data, or another process sees other data.
    """
    if differs := record_differences(distributed.from_first(record), record):
        raise ZooError(
            f"data: process {jax.process_index()} finds others than process 0 "
            f"({'; '.join(differs)}): expected the same on all hosts"
        )
    path = out / "data.json"
    stored = read_json(path, "restore it, or delete it if the data are as they were")
    if stored is None or not (differs := record_differences(stored, record)):
        return
    if is_finished(out):
        way_on = f"train on these from its weights: {anew(out, config)}"
    elif any((out / "checkpoints").glob("[0-9]*")):
        weights = f"{out}-last.safetensors"
        export = shlex.join(["zoo", "export", f"{out}", weights, "--epoch", "last"])
        command = anew(out, config, weights=weights)
        way_on = f"train on these from its weights: {export} && {command}"
    else:
        way_on = ELSEWHERE
    raise ZooError(
        f"out: {out} is a run on other data ({'; '.join(differs)}): bring those back, or {way_on}"
    )


def make(out: Path) -> None:
    """Make the folder of a run.

    Raises:
      ZooError: the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"out: cannot write to {out}: {error.strerror}") from error


def check_shared(out: Path) -> None:
    """Check that all processes see the same folder.

    Raises:
      ZooError: the folder that another process made does not show up here.
    """
    begun = time.monotonic()
    while not (out / "config.json").exists():
        if time.monotonic() - begun > SHARED:
            raise ZooError(
                f"out: process 0 made {out}, which process {jax.process_index()} does not see: "
                "expected a folder that all hosts share"
            )
        time.sleep(1)


def is_finished(out: Path) -> bool:
    """Whether the run is finished: it has its network and its report, which is written last."""
    return (out / "report.md").is_file() and (out / "model.safetensors").is_file()


def finished_history(out: Path, config: TrainConfig) -> list[Record]:
    """The records of a finished run.

    Raises:
      ZooError: they are damaged.
    """
    records = read_records(out / "metrics.jsonl")
    stopped = records and "stopped" in records[-1]
    epochs = len(records) if stopped else config.epochs
    if [record.get("epoch") for record in records] != [*range(1, epochs + 1)]:
        raise ZooError(
            f"out: {out / 'metrics.jsonl'} is damaged, expected a record of each of "
            f"{config.epochs} epochs: delete {out / 'report.md'}, and the same command writes both "
            "anew from the last checkpoint"
        )
    return records


def rate_scale(out: Path) -> float:
    """The factor on the learning rate after a rollback of this run; 1 without one.

    Raises:
      ZooError: `rollback.json` is damaged.
    """
    path = out / "rollback.json"
    way_on = f"restore it, or {ELSEWHERE}"
    stored = read_json(path, way_on)
    if stored is None:
        return 1.0
    scale = stored.get("rate_scale")
    if not isinstance(scale, float) or not 0 < scale < 1:
        raise ZooError(f"out: {path} is damaged (rate_scale: {scale!r:.40}): {way_on}")
    return scale


def read_json(path: Path, way_on: str) -> dict[str, Any] | None:
    """The JSON object in a file of the run; None if there is no file.

    Raises:
      ZooError: the file is damaged; the message ends with `way_on`, what to do about it.
    """
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ZooError(f"out: cannot read {path}: {error.strerror}: {way_on}") from error
    except (ValueError, RecursionError) as error:
        why = f"{error}".splitlines()[0]
        raise ZooError(f"out: {path} is damaged ({why:.80}): {way_on}") from error
    if not isinstance(content, dict):
        raise ZooError(f"out: {path} is damaged (it holds no object): {way_on}")
    return content
