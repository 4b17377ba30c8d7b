"""The one exception a user of this package is meant to read."""


class TrecxError(Exception):
    """Bad input, missing or damaged data, an impossible request.

    Its message is one sentence that names what was wrong and, where there is a choice, the allowed
    values. The command line prints it on one line and exits with status 2; notebooks show it last.
    """
