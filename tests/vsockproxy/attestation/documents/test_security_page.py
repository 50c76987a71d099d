import re
from pathlib import Path

from tests.vsockproxy.attestation.documents.refused_chains import REQUIREMENTS
from vsockproxy.attestation.documents import Reason

PAGE = (Path(__file__).parents[4] / "docs" / "security.md").read_text(encoding="utf-8")


def told() -> list[str]:
    """The reasons in the table of steps, in its order."""
    rows = re.findall(r"^\| [\w ]+ \|.*\|((?: `\w+`)+) \|$", PAGE, re.MULTILINE)
    return [reason for row in rows for reason in re.findall(r"`(\w+)`", row)]


def test_the_page_tells_every_reason_once() -> None:
    assert sorted(told()) == sorted(Reason)


def test_the_page_tells_what_is_required_last() -> None:
    last = {case.reason for case in REQUIREMENTS.values()}
    assert set(told()[-len(last) :]) == last
