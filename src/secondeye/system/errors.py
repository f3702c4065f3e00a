"""The one exception for errors that the user can fix."""


class UserError(Exception):
    """An error message of one line: what, where, remedy. The command line prints it and exits with 1."""
