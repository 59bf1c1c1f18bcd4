"""The command `zoo push`: a network goes to the Hugging Face Hub."""

import argparse
from typing import TYPE_CHECKING

from .command import note

if TYPE_CHECKING:
    from .command import Commands


def add(command: "Commands") -> None:
    """Add the subcommand."""
    parser = command.add(
        "push",
        _push,
        "upload a network to the Hugging Face Hub, for timm and for hf-hub:USER/REPO here",
        "zoo push runs/photos me/photos --private",
    )
    parser.add_argument("model", help="the file of a network, the folder of a run, or weights")
    parser.add_argument("repo", metavar="USER/REPO", help="made if it is not there")
    parser.add_argument(
        "--format", default="timm", help="timm (the default), or safetensors, which zoo alone loads"
    )
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch (main)")
    parser.add_argument("--message", default="Add model", help="of the commit")


def _push(args: argparse.Namespace) -> None:
    from .pretrained.hub import push_to_hub
    from .pretrained.store import load

    model = load(args.model)
    note(args, *model.notes)
    page = push_to_hub(
        model,
        args.repo,
        format=args.format,
        private=args.private,
        revision=args.revision,
        message=args.message,
    )
    print(page)
