"""The one exception whose message is meant for the person at the keyboard."""

SHOWN = 3  # how many ids or files an error lists


class UserError(Exception):
    """Bad input or settings: one sentence that says what is wrong, in which file or setting, and what to do.

    The command line prints the sentence without a traceback and exits with code 2.
    """


def listed(ids: list[str]) -> str:
    """The first few ids and how many there are beyond them."""
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(f"'{image_id}'" for image_id in ids[:SHOWN]) + more
