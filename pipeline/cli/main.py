"""The console script: starts quickly, runs the command, and makes errors into messages and exit codes.

Exit codes: 0 done; 1 the job or the command failed; 2 bad usage or an invalid job file; `submit --wait` adds 3 failed,
4 cancelled, 5 timed out, 6 lost. What answers at once takes at most twice the processor time of importing typer and
Pydantic, which `benchmarks/commands.py` measures; so even typer is imported after the interpreter is set up for that.
"""

from __future__ import annotations

import gc
import shlex
import sys
from typing import NoReturn

from pipeline.cli.streams import drop_unwritten_output, open_closed_streams
from pipeline.errors import PipelineError, SpecError
from pipeline.folding import folded

WITH_THE_WORKER = ("torch", "torchvision")  # left out of the image of TensorBoard and command line
FIRST_COLLECTION = 50_000  # objects; by Python's 700, a tenth of the time of `status` goes into looking at new modules


def main() -> NoReturn:
    """Runs the command that `sys.argv` names, and leaves with its exit code.

    Errors that the program raises on purpose become a message.
    """
    open_closed_streams()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file name need not be text
    gc.set_threshold(FIRST_COLLECTION)
    try:
        from pipeline.cli.app import make_app

        make_app(sys.argv[1:])()
    except PipelineError as error:
        message(f"error: {error}" if not isinstance(error, SpecError) else str(error))
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in WITH_THE_WORKER:
            raise
        words = shlex.join(sys.argv[1:])
        message(
            f"error: this needs {error.name}, which this image does without: docker compose run --rm worker {words}"
        )
        sys.exit(1)
    except OSError as error:  # what the system refuses where no command has a better message: a full disk, say
        drop_unwritten_output()
        if not isinstance(error, BrokenPipeError):  # `pipeline status | head`
            message(f"error: {error}")
        sys.exit(1)
    sys.exit(0)


def message(text: str) -> None:
    print(folded(text, sys.stderr), file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
