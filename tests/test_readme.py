"""What the README shows is true: its files load, its links lead somewhere (the demo has a test)."""

import re
from pathlib import Path

import pytest

from vsockproxy.config.load import parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

YAML_BLOCKS = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
LINKS = re.findall(r"\]\(([^)#]+)\)", README)


@pytest.mark.parametrize("number", range(len(YAML_BLOCKS)))
def test_each_file_that_is_shown_loads(number: int) -> None:
    document = parse(YAML_BLOCKS[number].encode(), "README.md")
    assert document.config.allowlist


def test_both_sides_are_shown() -> None:
    kinds = [parse(block.encode(), "README.md").kind for block in YAML_BLOCKS]
    assert kinds == ["parent", "enclave"]


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_each_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).is_file()
