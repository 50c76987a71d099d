import re

from parent_side.services.page import PAGE, PAGE_HEADERS, content_security_policy

TEXT = PAGE.decode()


def test_the_page_names_nothing_from_elsewhere() -> None:
    assert not re.search(r"(?:src|href)=\"(?!data:|/)", TEXT)
    assert re.findall(r"https?://[^\s\"')]+", TEXT) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in TEXT
    assert "url(" not in TEXT


def test_the_script_sets_text_as_text_only() -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", TEXT, re.DOTALL)
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
        assert dangerous not in script


def test_its_policy_lets_nothing_else_run() -> None:
    policy = dict(PAGE_HEADERS)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2


def test_another_script_has_another_hash() -> None:
    page = "<style>a</style><script>one</script>"
    assert content_security_policy(page) != content_security_policy(page.replace("one", "two"))


def test_no_handler_and_no_style_stands_in_an_attribute() -> None:
    assert not re.search(r"\s(?:on[a-z]+|style)=\"", TEXT)
