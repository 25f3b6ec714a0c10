"""The exit codes of our commands, and which errors lead to which."""

from diffusion.errors import DiffatlasError, Unavailable, WrongInput

FAILED, WRONG_INPUT, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 130

_OF_ERRORS = ((WrongInput, WRONG_INPUT), (Unavailable, UNAVAILABLE))


def exit_code_of(error: DiffatlasError) -> int:
    """Return the exit code of a command that ends with an error of ours."""
    return next((code for base, code in _OF_ERRORS if isinstance(error, base)), FAILED)
