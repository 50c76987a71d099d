"""PyYAML's syntax errors in an operator's words.

PyYAML has two parsers, its own and libyaml's, whose texts differ in detail; the table names a part
that both have, so that the same mistake is reported alike.
"""

from typing import Final

import yaml

__all__ = ("explain_syntax_error",)

# The part of the parser's text, what is wrong, what to write, whether the place that counts is
# where the construct began rather than where the parser gave up.
_EXPLANATIONS: Final = (
    ("alias", "text that begins with '*' without quotes", 'put it in quotes, as "*.name"', False),
    ("anchor", "text that begins with '&' without quotes", "put it in quotes", False),
    ("tag", "text that begins with '!' without quotes", "put it in quotes", False),
    ("directive", "a line that begins with '%'", "remove it", False),
    (
        "mapping values are not allowed",
        "a ':' where no key can stand",
        "indent the keys of one mapping alike, and put text with ': ' in quotes",
        False,
    ),
    ("',' or ']'", "a list that is not closed", "end it with ']'", True),
    ("',' or '}'", "a mapping that is not closed", "end it with '}'", True),
    ("find expected ':'", "a key without ':'", "write KEY: VALUE", True),
    ("unexpected end of stream", "a quote that is not closed", "end the text with it", True),
    ("document indicator", "a quote that is not closed", "end the text with it", True),
    ("document separator", "a quote that is not closed", "end the text with it", True),
    (
        "escape",
        "a '\\' that begins no escape",
        "write '\\\\', or put the text in single quotes",
        False,
    ),
    ("node content", "no value where one has to stand", "write one, or remove the bracket", False),
    ("<document start>", "text after the end of the document", "remove it", False),
)
_INDENTATION = (
    "block collection",
    "block mapping",
    "block sequence",
    "indentation",
)


def explain_syntax_error(text: str, error: yaml.YAMLError) -> tuple[str, str, int]:
    """Say what is wrong in `text`, what to write instead, and in which line."""
    if isinstance(error, yaml.reader.ReaderError):
        # The position is in bytes from libyaml and in characters from PyYAML; but no such character
        # can stand earlier.
        line = text.partition(chr(error.character))[0].count("\n") + 1
        what = f"the character U+{error.character:04X} is not allowed"
        return what, "write it as an escape in double quotes, or remove it", line
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error), "correct the YAML syntax", 1
    problem_line = error.problem_mark.line + 1 if error.problem_mark else 1
    context_line = error.context_mark.line + 1 if error.context_mark else problem_line
    words = f"{error.context or ''} {error.problem or ''}"
    if "cannot start any token" in words and error.problem_mark:
        character = _character_at(text, error.problem_mark.line, error.problem_mark.column)
        if character == "\t":
            return "a tab", "indent with spaces", problem_line
        return (
            f"text that begins with {character!r} without quotes",
            "put it in quotes",
            (problem_line),
        )
    for part, what, mend, is_at_beginning in _EXPLANATIONS:
        if part in words:
            return what, mend, context_line if is_at_beginning else problem_line
    if any(part in words for part in _INDENTATION):
        return (
            "an indentation that fits no line above",
            "indent alike what belongs together",
            (problem_line),
        )
    return error.problem or "broken YAML", "correct the YAML syntax", problem_line


def _character_at(text: str, line: int, column: int) -> str:
    return text.splitlines()[line][column : column + 1]
