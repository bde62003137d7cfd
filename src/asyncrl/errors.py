"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """A mistake in what the user asked: one line saying what is wrong and what to do. The command line exits with 2."""
