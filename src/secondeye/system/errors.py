"""The one exception for what a user can put right."""


class UserError(Exception):
    """One line: what is wrong, where, and what to do. The command line prints it and ends non-zero."""
