"""The one error that a user's mistake raises, the one warning, and the words that messages are made of."""

import re
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or the option, what is wrong with it, and what to do. The command
    line prints it without a traceback and exits with status 2.
    """


class Doubt(UserWarning):
    """What was found can hardly be what the user wants.

    The message is one line that says why, and what to do. The command line prints it and exits with status 0.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say where there is no `name`: the nearest of what there is, or else all of it."""
    from difflib import get_close_matches  # only for those who made a mistake

    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"


def one_line(text: object) -> str:
    """What an error says, or any text, in one line."""
    return " ".join(str(text).split())


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def origin(error: BaseException) -> BaseException:
    """What an error was raised from: the first InputError on the way back, as parsers wrap it, or where that ends."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def without_passwords(text: str) -> str:
    """Hides passwords of addresses such as ``postgresql://me:secret@host/runs``."""
    return re.sub(r"(://[^\s/:@]*):[^\s/@]+@", r"\1:***@", text)
