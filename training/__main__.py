"""The command `zoo`, as `python -m training` too: it heeds signals before it imports all else."""

from . import stopping


def main() -> None:
    """Run the command line of this process."""
    stopping.take_over()
    from .cli import main as command

    command()


if __name__ == "__main__":
    main()
