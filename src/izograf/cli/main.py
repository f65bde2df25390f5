"""Entry point: runs the command line and turns every foreseen failure into one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from izograf.cli.app import Stopped, app, load_verbs
from izograf.cli.waiting import choose_waiting
from izograf.schema.errors import Cancelled, InvalidInput, IzografError, StorageError

INTERRUPTED = 130
SHORT_OF_MEMORY = "There is not enough memory: ask for less at a time, or close other programs."


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0, or the error's own code with one sentence on stderr."""
    choose_waiting(os.environ)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command line `arguments` (default: the process's own)."""
    load_verbs()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_text(given)
        code = app(args=given or ["--help"], prog_name="izograf", standalone_mode=False)
    except (KeyboardInterrupt, Cancelled):
        code = INTERRUPTED
    except Stopped:
        return INTERRUPTED
    except IzografError as error:
        return _failed(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a path that is too long, a folder that may not be read, ...
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}.", StorageError.exit_code)
    except MemoryError:
        return _failed(SHORT_OF_MEMORY, IzografError.exit_code)
    except Exception as error:
        # Typer's usage errors: their type moved between its releases, what they offer did not.
        if not hasattr(error, "format_message"):
            raise
        return _failed(_usage_sentence(error), InvalidInput.exit_code)
    if code == INTERRUPTED:
        print("Interrupted.", file=sys.stderr)  # noqa: T201
    return code if isinstance(code, int) else 0


def _failed(sentence: str, exit_code: int) -> int:
    print(f"Error: {sentence}", file=sys.stderr)  # noqa: T201
    return exit_code


def _usage_sentence(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "izograf"
    return f"{error.format_message().rstrip('.')}. See {command} --help."


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode("utf-8", "backslashreplace").decode()
            raise InvalidInput(
                f"{shown} is not valid text: rename the file or folder in UTF-8."
            ) from None


if __name__ == "__main__":
    main()
