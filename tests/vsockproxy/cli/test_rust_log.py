import pytest

from vsockproxy.cli.rust_log import DEFAULT_LEVEL, level_of
from vsockproxy.log_lines import Level

LEVELS: dict[str, tuple[str, Level]] = {
    "nothing": ("", DEFAULT_LEVEL),
    "off": ("off", "error"),
    "error": ("error", "error"),
    "warn": ("warn", "warning"),
    "info": ("info", "info"),
    "debug": ("debug", "debug"),
    "trace": ("trace", "debug"),
    "capital letters": ("INFO", "info"),
    "spaces": (" info , ", "info"),
    "the last of several levels": ("error,debug", "debug"),
    "our target": ("vsock_proxy=info", "info"),
    "a module of our target": ("vsock_proxy::proxy=debug", "debug"),
    "our target without a level says everything": ("vsock_proxy", "debug"),
    "our target counts more than a level": ("debug,vsock_proxy=error", "error"),
    "the most talkative of our modules": ("vsock_proxy=warn,vsock_proxy::dns=info", "info"),
    "other targets do not count": ("hickory_resolver=trace", DEFAULT_LEVEL),
    "a name that only begins as ours": ("vsock_proxy_two=trace", DEFAULT_LEVEL),
    "other targets beside a level": ("error,hickory_resolver=trace", "error"),
    "a filter on texts": ("info/kms=x,debug", "info"),
    "a word that is no level is a target": ("loud", DEFAULT_LEVEL),
}


@pytest.mark.parametrize("case", LEVELS)
def test_the_level(case: str) -> None:
    text, level = LEVELS[case]
    assert level_of(text) == (level, ())


@pytest.mark.parametrize(
    ("text", "unreadable"),
    [
        pytest.param("vsock_proxy=loud", ("vsock_proxy=loud",), id="no level"),
        pytest.param("info,a=b=c", ("a=b=c",), id="two signs"),
        pytest.param("=info", ("=info",), id="no target"),
        pytest.param("a=1,b=2", ("a=1", "b=2"), id="several"),
    ],
)
def test_what_cannot_be_read_is_handed_back(text: str, unreadable: tuple[str, ...]) -> None:
    level, found = level_of(text)
    assert found == unreadable
    assert level == ("info" if text.startswith("info") else DEFAULT_LEVEL)
