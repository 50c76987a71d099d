"""Every rule of WIRE_FORMAT.md has a test that names it, and every test names rules that exist."""

import ast
import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[2]
DOCUMENT = Path(__file__).parents[3] / "vsockproxy" / "session" / "WIRE_FORMAT.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
RULE = re.compile(r"^- \*\*(W-\d{3})\*\* (.+?) → (.+)$", re.MULTILINE)


def rules() -> list[str]:
    return [match[1] for match in RULE.finditer(TEXT)]


def covered() -> Counter[str]:
    """How many tests name each rule, read from `@covers(...)` on functions called test_*."""
    found: Counter[str] = Counter()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "covers":
                    found.update(ast.literal_eval(argument) for argument in decorator.args)
    return found


def test_the_document_has_rules() -> None:
    assert len(rules()) > 50
    assert len(set(rules())) == len(rules()), "an id is used twice"
    assert rules() == sorted(rules()), "ids grow from top to bottom"


def test_each_must_is_in_a_rule_and_each_rule_has_a_must() -> None:
    introduction, body = TEXT.split("## 1.")
    assert "MUST" in introduction
    for line in body.splitlines():
        assert ("MUST" in line) == bool(RULE.match(line)), line


def test_each_rule_has_a_test() -> None:
    assert sorted(set(rules()) - set(covered())) == []


def test_each_test_names_rules_that_exist() -> None:
    assert sorted(set(covered()) - set(rules())) == []
