"""Patterns of names, such as slice_{slice}_*.png, as regular expressions with a group for each {part}."""

import re
from functools import lru_cache
from itertools import pairwise

from lib.base.errors import UserError

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
TOKEN = re.compile(r"\{(?P<name>[A-Za-z_]\w*)\}|(?P<star>\*)|(?P<any>\?)|\[(?P<set>!?[^\]]+)\]|(?P<plain>.)")
MOST_GOING_BACK = 4  # wildcards of a name that may try every length: a second for the longest names


@lru_cache(maxsize=256)
def compile_pattern(segment: str, known: tuple[tuple[str, str], ...] = (), classes: tuple[str, ...] = ()) -> re.Pattern:
    """A pattern, or a segment of one, that a whole text must match, as an expression with a group for each part.

    `known` are the parts found above the segment, with their values; `{class}` is one of `classes` if there are any.
    Raises UserError where it is no pattern.
    """
    try:
        return re.compile(_without_backtracking(_tokens(segment, dict(known), classes), segment))
    except re.error as error:
        raise UserError(f"'{segment}' is not a pattern of file names: {error}") from None


def _tokens(segment: str, known: dict[str, str], classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """The segment's tokens as (kind, regular expression), kind being part, again, star or fixed."""
    tokens, groups = [], set()
    for token in TOKEN.finditer(segment):
        if name := token["name"]:
            if name in groups:
                tokens.append(("fixed" if name in known else "again", f"(?P={name})"))
            elif name in known:
                tokens.append(("fixed", f"(?P<{name}>{re.escape(known[name])})"))
            elif name == "class" and classes:
                longest_first = sorted(map(re.escape, classes), key=len, reverse=True)
                tokens.append(("fixed", f"(?P<class>{'|'.join(longest_first)})"))
            else:
                tokens.append(("part", f"(?P<{name}>.+?)"))
            groups.add(name)
        elif token["star"]:
            tokens.append(("star", ".*"))
        elif token["any"]:
            tokens.append(("fixed", "."))
        elif token["set"]:
            negated = token["set"].startswith("!")
            members = re.sub(r"([\\\[^&~|])", r"\\\1", token["set"].removeprefix("!"))
            tokens.append(("fixed", f"[{'^' if negated else ''}{members}]"))
        else:
            tokens.append(("fixed", re.escape(token["plain"])))
    return tokens


def _without_backtracking(tokens: list[tuple[str, str]], segment: str) -> str:
    """The tokens as one expression that takes time linear in most names: `{a}_{b}_..._{g}` would take years for some.

    What a wildcard and the fixed text after it match first, they keep (an atomic group): later wildcards can only gain
    by an early match. Exceptions may still go back: the last wildcard, which reaches to the end; a star before a part,
    which takes as much as it can; and segments in which a part stands twice.
    """
    wild = [number for number, (kind, _) in enumerate(tokens) if kind in ("part", "star")]
    may_go_back = {number for number in wild if any(kind == "again" for kind, _ in tokens)} | set(wild[-1:])
    may_go_back |= {star for star, part in pairwise(wild) if (tokens[star][0], tokens[part][0]) == ("star", "part")}
    if len(may_go_back) > MOST_GOING_BACK:
        raise UserError(
            f"'{segment}' may take years to match; use fewer * before {{parts}}, or a part only once in a name"
        )
    written, is_open = "", False
    for number, (kind, expression) in enumerate(tokens):
        if number in wild:
            written += ")" * is_open
            is_open = number not in may_go_back
            written += "(?>" * is_open + (".*?" if kind == "star" and is_open else expression)
        else:
            written += expression
    return written + ")" * is_open
