"""The one error that a user's mistake raises."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or the option, what is wrong with it, and what to do. The command
    line prints it without a traceback and exits with status 2.
    """
