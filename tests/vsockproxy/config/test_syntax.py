from typing import Any

import pytest
import yaml

from vsockproxy.config.syntax import explain_syntax_error

PARSERS: dict[str, Any] = {"libyaml": getattr(yaml, "CSafeLoader", None), "PyYAML": yaml.SafeLoader}

ERRORS = {
    "a wildcard without quotes": (
        "a: *.b.c\n",
        "1: text that begins with '*' without quotes: put it in quotes, as \"*.name\"",
    ),
    "an ampersand without quotes": (
        "a: &\n",
        "1: text that begins with '&' without quotes: put it in quotes",
    ),
    "an exclamation mark without quotes": (
        "a: !<\n",
        "1: text that begins with '!' without quotes: put it in quotes",
    ),
    "an at sign without quotes": (
        "a:\n  b: @c\n",
        "2: text that begins with '@' without quotes: put it in quotes",
    ),
    "a tab": ("a:\n\tb: 1\n", "2: a tab: indent with spaces"),
    "a colon in text": (
        "a: b: c\n",
        "1: a ':' where no key can stand: "
        "indent the keys of one mapping alike, and put text with ': ' in quotes",
    ),
    "a key indented too far": (
        "a: 1\n  b: 2\n",
        "2: a ':' where no key can stand: "
        "indent the keys of one mapping alike, and put text with ': ' in quotes",
    ),
    "a key indented too little": (
        "a:\n    b: 1\n  c: 2\n",
        "3: an indentation that fits no line above: indent alike what belongs together",
    ),
    "a list item's key indented too little": (
        "a:\n  - b: 1\n   c: 2\n",
        "3: an indentation that fits no line above: indent alike what belongs together",
    ),
    "a list that is not closed": (
        "a: 1\nb: [1\nc: 2\n",
        "2: a list that is not closed: end it with ']'",
    ),
    "a mapping that is not closed": (
        "a: 1\nb: {c: 1\nd: 2\n",
        "2: a mapping that is not closed: end it with '}'",
    ),
    "a bracket too many": (
        "a: }\n",
        "1: no value where one has to stand: write one, or remove the bracket",
    ),
    "a quote that is not closed": (
        "a: 1\nb: 'x\n\n",
        "2: a quote that is not closed: end the text with it",
    ),
    "a document mark within quotes": (
        "a: 'x\n---\n",
        "1: a quote that is not closed: end the text with it",
    ),
    "a backslash in double quotes": (
        'a: "\\q"\n',
        "1: a '\\' that begins no escape: write '\\\\', or put the text in single quotes",
    ),
    "a line without a colon": ("a: 1\nbc\nd: 1\n", "2: a key without ':': write KEY: VALUE"),
    "text after the end": (
        "a: 1\n...\nb: 2\n",
        "3: text after the end of the document: remove it",
    ),
    "a control character": (
        "a: 1\nb: \x07\n",
        "2: the character U+0007 is not allowed: "
        "write it as an escape in double quotes, or remove it",
    ),
}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(("text", "explanation"), ERRORS.values(), ids=ERRORS)
def test_both_parsers_errors_are_explained_alike(parser: str, text: str, explanation: str) -> None:
    loader = PARSERS[parser]
    if loader is None:
        pytest.skip("PyYAML was built without libyaml")
    with pytest.raises(yaml.YAMLError) as caught:
        list(yaml.parse(text, Loader=loader))
    what, mend, line = explain_syntax_error(text, caught.value)
    assert f"{line}: {what}: {mend}" == explanation


def test_an_unknown_error_keeps_the_parsers_words() -> None:
    error = yaml.MarkedYAMLError(problem="found something new")
    assert explain_syntax_error("", error) == ("found something new", "correct the YAML syntax", 1)
    assert explain_syntax_error("", yaml.YAMLError("new")) == ("new", "correct the YAML syntax", 1)
