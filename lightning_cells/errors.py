"""The one error that a user's mistake raises, the one warning, and the words that messages are made of."""

import re
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or the option, what is wrong with it, and what to do. The command
    line prints it without a traceback and exits with status 2. Passwords of addresses in it are hidden.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(without_passwords(str(message)))


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
    """What an error says, or any text, in one line, without passwords."""
    return without_passwords(" ".join(str(text).split()))


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters, without passwords."""
    return without_passwords((str(error).strip() or type(error).__name__).splitlines()[0])[:200]


def origin(error: BaseException) -> BaseException:
    """What an error was raised from: the first InputError on the way back, as parsers wrap it, or where that ends."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


HIDDEN = "***"
_OF_USERS = re.compile(r"(://[^\s/?#:@]*):[^\s/?#]*@")
_SECRETS = "password|passwd|pwd|passphrase|secret|token|key"
_OF_QUERIES = re.compile(rf"([?&;][\w.-]*(?:{_SECRETS})=)[^&;#\s'\"]+", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Hides passwords of addresses such as ``postgresql://me:secret@host/runs?password=secret``."""
    return _OF_QUERIES.sub(rf"\1{HIDDEN}", _OF_USERS.sub(rf"\1:{HIDDEN}@", text))
