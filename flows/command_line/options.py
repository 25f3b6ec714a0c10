"""What every command shares: the application, its options, and how what can go wrong becomes one message and an exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An atlas of the diffusion design space: one study file, one command, labelled answers.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"diffatlas {version('diffatlas')}")  # noqa: T201
        raise typer.Exit(0)


@app.callback()
def _whole(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
) -> None:
    pass


FAILED, WRONG_INPUT, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 130
err = Console(stderr=True, highlight=False, soft_wrap=True)

StudyArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped study.", metavar="STUDY")]
StoreOption = Annotated[
    str, typer.Option("--store", envvar="DIFFATLAS_STORE", help="A folder, or s3://bucket/prefix.", metavar="URI")
]
StudyOption = Annotated[str | None, typer.Option("--study", help="Only this study's points.", metavar="NAME")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one key of the study, for example steps=[1,2,4].", metavar="KEY=VALUE"),
]
RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Compute failed points again.")]
ForceOption = Annotated[
    str | None,
    typer.Option(
        "--force", help="Compute these points again, training included: \"formulation == 'edm'\".", metavar="EXPR"
    ),
]
AsOfOption = Annotated[str | None, typer.Option("--as-of", help="A snapshot, a tag or a time.", metavar="WHEN")]
ForceUnlockOption = Annotated[
    bool,
    typer.Option(
        "--force-unlock", help="Take over a lock whose holder is sure to be gone (another host, object storage)."
    ),
]
ByOption = Annotated[str | None, typer.Option("--by", help="Group by these columns.", metavar="A,B")]
MetricOption = Annotated[str | None, typer.Option("--metric", help="Only these metrics.", metavar="M,...")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what can go wrong into one message and its exit code."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output (head, less) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except OSError as error:
        stop(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), UNAVAILABLE)
    except KeyboardInterrupt:
        stop("interrupted: what is committed stays; run the same command again to go on", INTERRUPTED)
    except Exception as error:
        code = code_of(error)
        if code is None:
            raise
        stop(told_of(error), code)


def told_of(error: Exception) -> str:
    """What an error says."""
    return str(error.args[0] if isinstance(error, LookupError) and error.args else error)


def code_of(error: Exception) -> int | None:
    """The exit code of an error that is the caller's or a service's; None of one that is ours.

    By name, along the classes: importing the modules that define them takes seconds, and most commands need few of them.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"StudyError", "QueryError", "UnknownStudy", "WrongReference", "ExportError"}:
        return WRONG_INPUT
    return UNAVAILABLE if names & {"StoreUnavailable", "ServiceUnavailable"} else None


def stop(message: str, code: int) -> NoReturn:
    """End the command with one message for eyes and an exit code."""
    err.print(message, markup=False)
    raise typer.Exit(code)


def split(text: str | None) -> list[str]:
    """The names in a list such as ``a, b``; commas in brackets belong to a name."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()] if text else []


def width() -> int | None:
    """The width of tables: the terminal's, or 120 where there is none."""
    return None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120"))
