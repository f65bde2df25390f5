"""Entry point: runs the command line and turns every foreseen failure into one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Spinning OpenMP threads beside another busy process slow small calls 10-25 times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


from izograf.cli.app import app, load_verbs
from izograf.schema.errors import Cancelled, IzografError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0, or the error's own code with one sentence on stderr."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command line `arguments` (default: the process's own)."""
    load_verbs()
    try:
        app(args=None if arguments is None else list(arguments), prog_name="izograf")
    except SystemExit as stop:  # how typer ends, also after reporting a usage error
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (KeyboardInterrupt, Cancelled):
        print("Interrupted.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except IzografError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
