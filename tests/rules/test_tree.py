"""What holds for every file of the tree, whoever wrote it."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rules.architecture import PACKAGES

ROOT = Path(__file__).parents[2]

_PICTURES = (".png",)
"""Compressed bytes happen to spell anything."""

_BUILT = {"build", "dist", "__pycache__"}


def tree(folder: Path) -> Iterator[Path]:
    """The files below `folder` that are kept: nothing built, cached or hidden, but for .ci."""
    for path in sorted(folder.iterdir()):
        if path.name in _BUILT or (path.name.startswith(".") and path.name != ".ci"):
            continue
        if path.is_dir():
            yield from tree(path)
        elif path.suffix != ".pyc":
            yield path


FILES = {str(path.relative_to(ROOT)): path for path in tree(ROOT)}
PYTHON = [name for name in FILES if name.endswith(".py")]
MODULES = [name for name in PYTHON if name.startswith(PACKAGES)]
NOT_TESTS = [name for name in PYTHON if "/test_" not in name]  # those may be long tables

LONG_MODULES: dict[str, str] = {
    "vsockproxy/dataplane/stream_end.py": "one stream's end: its halves share every field",
}
"""Modules above `MAX_LINES`, each with the reason why it is one thing."""

MAX_LINES = 500

_VAGUE = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utilities", "utils"}

# Parted, so that this file does not hold what it looks for.
FORBIDDEN_TEXTS = {
    "a folder of one machine": re.compile(r"/(?:work|root|Users)/|/home/[a-z]|\.py" + "env"),
    "a package registry's host": re.compile(
        r"\b(?:pypi\.org|pythonhosted\.org|(?:deb|security)\.debian\.org|npmjs\.(?:org|com))\b"
    ),
    "unfinished work": re.compile(
        r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|NotImplemented" + "Error)\\b"
    ),
}

_EXCEPTION = re.compile(
    r"type: ignore(?:\[[\w, -]+\])?|noqa(?:: ?[A-Z]+\d+(?:, ?[A-Z]+\d+)*)?"
    r"|pragma: no (?:cover|branch)|fmt: (?:off|on|skip)"
)
_WORDS_OF_A_REASON = 2


def forbidden(text: str) -> list[str]:
    """What `text` holds that no file may: its line, its kind and the words."""
    return [
        f"line {number}: {kind}: {match[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        for kind, pattern in FORBIDDEN_TEXTS.items()
        if (match := pattern.search(line))
    ]


def bare_exceptions(source: str) -> list[str]:
    """Comments that turn a check off without saying why, beside it or in the line above."""
    comments = {
        token.start[0]: token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    bare = []
    for line, token in comments.items():
        reason, exceptions = _EXCEPTION.subn("", token.string)
        above = comments.get(line - 1)
        if above and above.line.lstrip().startswith("#"):
            reason += above.string
        if exceptions and len(re.findall(r"\w+", reason)) < _WORDS_OF_A_REASON:
            bare.append(f"line {line}: {token.string}")
    return bare


def extra_statements(source: str) -> list[str]:
    """Statements of an `__init__.py` other than docstring, imports, version and `__all__`."""
    return [
        f"line {node.lineno}: {ast.unparse(node)[:60]}"
        for node in ast.parse(source).body
        if not (
            isinstance(node, ast.Import | ast.ImportFrom)
            or re.match(r"['\"]|__version__ = |__all__ = \(", ast.unparse(node))
        )
    ]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(_PICTURES)])
def test_file_speaks_only_of_the_project(name: str) -> None:
    assert forbidden(FILES[name].read_text(encoding="utf-8", errors="replace")) == []


@pytest.mark.parametrize("name", PYTHON)
def test_exceptions_to_checks_have_a_reason(name: str) -> None:
    assert bare_exceptions(FILES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", NOT_TESTS)
def test_module_is_short_or_says_why_not(name: str) -> None:
    length = len(FILES[name].read_text(encoding="utf-8").splitlines())
    assert (length > MAX_LINES) == (name in LONG_MODULES), f"{length} lines"


@pytest.mark.parametrize("name", NOT_TESTS)
def test_module_has_a_docstring(name: str) -> None:
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body


@pytest.mark.parametrize("name", PYTHON)
def test_module_is_named_for_what_it_holds(name: str) -> None:
    parts = {word for part in Path(name).with_suffix("").parts for word in part.split("_")}
    assert not parts & _VAGUE


@pytest.mark.parametrize("name", [name for name in MODULES if name.endswith("__init__.py")])
def test_package_only_gives_names_out(name: str) -> None:
    assert extra_statements(FILES[name].read_text(encoding="utf-8")) == []


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for name, path in FILES.items() if name.endswith(".py")} - {ROOT}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_walk_finds_the_tree() -> None:
    assert {"Makefile", ".ci/run", "vsockproxy/errors.py", "tests/conftest.py"} <= set(FILES)
    assert not any(name.startswith((".venv", ".git/")) for name in FILES)


FORBIDDEN = {
    "a path of a session": "see /wo" + "rk/notes",
    "a home folder": "cache = '/ho" + "me/alice/.cache'",
    "a registry": "pip install --index-url https://py" + "pi.org/simple",
    "a mark of unfinished work": "# TO" + "DO: later",
    "a stub": "raise NotImplemented" + "Error",
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_a_forbidden_text_is_seen(case: str) -> None:
    assert forbidden("fine\n" + FORBIDDEN[case]) != []


def test_texts_that_only_look_forbidden_pass() -> None:
    assert forbidden("mktemp XXXXXX; /network/; chroot/; homework/") == []


BARE = {
    "an ignore": "x = f()  # type: " + "ignore[attr-defined]",
    "a noqa": "x = f()  # no" + "qa: E501",
    "two of them": "x = f()  # type: " + "ignore[a]  # no" + "qa: B001",
    "uncovered lines": "x = f()  # pragma: " + "no cover",
    "a word is no reason": "x = f()  # no" + "qa: E501 long",
}


@pytest.mark.parametrize("case", BARE)
def test_an_exception_without_a_reason_is_seen(case: str) -> None:
    assert len(bare_exceptions(BARE[case])) == 1


REASONED = {
    "beside it": "x = f()  # type: " + "ignore[attr-defined]  # uvloop has no stubs",
    "in the line above": "# uvloop has no stubs\nx = f()  # type: " + "ignore[attr-defined]",
    "only text in a string": "x = 'no" + "qa: E501'",
}


@pytest.mark.parametrize("case", REASONED)
def test_an_exception_with_a_reason_passes(case: str) -> None:
    assert bare_exceptions(REASONED[case]) == []


def test_code_in_a_package_file_is_seen() -> None:
    good = '"""What it is."""\n\nfrom a import b\n\n__all__ = ("b",)\n'
    assert extra_statements(good) == []
    assert len(extra_statements(good + "\nb.start()\n")) == 1
    assert len(extra_statements('"""What it is."""\n\n__all__ = ["b"]\n')) == 1
