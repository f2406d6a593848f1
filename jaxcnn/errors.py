"""What is raised for a user's mistake: a ValueError whose message the commands print as one line, with exit code 2."""


class UserError(ValueError):
    """The user's input is wrong.

    The message is one line that names the file or the value, says what is wrong with it, and what to do.
    """
