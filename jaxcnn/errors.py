"""What is raised for the user's mistakes; the commands tell it in one line and exit with 2."""


class UserError(Exception):
    """The user's input is wrong.

    The message is one line that names the file or option, says what is wrong with it, and what to do.
    """
