"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Bad input or settings: one sentence that says what is wrong, in which file or setting, and what to do.

    The command line prints the sentence without a traceback and exits with code 2.
    """
