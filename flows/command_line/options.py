"""What every command shares: the application, its options, and how what can go wrong becomes one
message and an exit code.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from diffusion import plugins
from diffusion.errors import DiffatlasError, WrongInput, WrongValue
from flows.exit_codes import INTERRUPTED, UNAVAILABLE, exit_code_of
from flows.request import LEAST_SHARD_LIMIT

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


err = Console(stderr=True, highlight=False, soft_wrap=True)

StudyArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped study.", metavar="STUDY")]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="DIFFATLAS_STORE", help="A folder, s3://bucket/prefix, or atlas: to read.", metavar="URI"
    ),
]
StudyOption = Annotated[str | None, typer.Option("--study", help="Only this study's points.", metavar="NAME")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one key of the study, for example steps=[1,2,4].", metavar="KEY=VALUE"),
]
RayOption = Annotated[str | None, typer.Option("--ray", help="An existing Ray cluster.", metavar="ADDRESS")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Local workers (default: the cores).")]
PageOption = Annotated[Path | None, typer.Option("--report", help="Where the page goes (reports/NAME.html).")]
RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Compute failed points again.")]
ForceOption = Annotated[
    str | None,
    typer.Option(
        "--force", help="Compute these points again, training included: \"formulation == 'edm'\".", metavar="EXPR"
    ),
]
BesideOption = Annotated[
    str | None, typer.Option("--beside", help="Show the numbers beside those of this store (atlas:).", metavar="URI")
]
AgainstOption = Annotated[
    str | None, typer.Option("--against", help="Another store, held against this one (atlas:).", metavar="URI")
]
AsOfOption = Annotated[str | None, typer.Option("--as-of", help="A snapshot, a tag or a time.", metavar="WHEN")]
ForceUnlockOption = Annotated[
    bool,
    typer.Option(
        "--force-unlock", help="Take over a lock whose holder is sure to be gone (another host, object storage)."
    ),
]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Minutes to wait for a store that another run has.", metavar="MINUTES")
]
ShardLimitOption = Annotated[
    float | None,
    typer.Option(
        "--shard-limit",
        min=LEAST_SHARD_LIMIT,
        help="Minutes that a shard may take (default: 10 times what is planned, at least 10).",
        metavar="MINUTES",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="DIFFATLAS_DEVICE",
        help="Where workers compute; auto: on the GPUs of the Ray cluster, if it has any.",
        metavar="auto|cpu|cuda",
    ),
]
ByOption = Annotated[str | None, typer.Option("--by", help="Group by these columns.", metavar="A,B")]
MetricOption = Annotated[str | None, typer.Option("--metric", help="Only these metrics.", metavar="M,...")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def _allow(given: list[str] | None) -> list[str]:
    modules = [module for text in given or () for module in split(text)]
    try:
        with plugins.typed():  # those that lie in the working folder are found there
            plugins.allow(modules)
    except WrongValue as error:
        raise typer.BadParameter(str(error)) from None
    return modules


AllowPluginsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-plugins",
        callback=_allow,
        help="Modules that names such as mine:Sampler may import, besides those in the working folder.",
        metavar="MODULE,...",
    ),
]


class WrongOption(WrongInput, ValueError):
    """An option of the command line that cannot be used as given."""

    kind = "wrong-option"


def check_device(device: str) -> None:
    """Refuse an unknown device. Whether there is a GPU, the Ray cluster says."""
    accepted = ("auto", "cpu", "cuda")
    if device not in accepted:
        raise WrongOption(f"--device: found {device!r}; accepted: {', '.join(accepted)}")


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what can go wrong into one message and its exit code."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output (head, less) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except DiffatlasError as error:
        _stop(str(error), exit_code_of(error))
    except OSError as error:
        _stop(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), UNAVAILABLE)
    except KeyboardInterrupt:
        _stop("interrupted: what is committed stays; run the same command again to go on", INTERRUPTED)


def _stop(message: str, code: int) -> NoReturn:
    """End the command with one message for eyes and an exit code."""
    err.print(message, markup=False)
    raise typer.Exit(code)


@contextmanager
def writing(path: Path | None) -> Iterator[None]:
    """Say which path cannot be written, and why.

    Raises:
        WrongOption: the path cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WrongOption(f"cannot write {path}: {error.strerror or error}") from error


def split(text: str | None) -> list[str]:
    """The names in a list such as ``a, b``; commas in brackets belong to a name."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()] if text else []


def width() -> int | None:
    """The width of tables: the terminal's, or 120 where there is none."""
    return None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120"))
