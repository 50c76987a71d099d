"""What a test knows of a program that fetches something."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.support.tls_origin import GREETING


class Way(StrEnum):
    """A way in, by its name in the log."""

    NAMES = "names"
    HTTP_PROXY = "http_proxy"
    SOCKS5 = "socks5"


@dataclass(frozen=True, slots=True)
class Use:
    """How a program is told of a way in, and what it says there.

    Args:
        shows: what it writes to stderr of a host that is not listed.
        options: words in front of what it is to fetch.
        variables: of its environment, beside those that our side sets.
        host: where it differs from the program's: whom it fetches from.
        asks: where it differs: what it fetches.
        needs: what it takes beside what the program needs anyway.
    """

    shows: str
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    asks: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """A program that fetches something. Its texts are patterns: `{host}` stands for the host.

    Args:
        command: up to the options of a use.
        uses: the ways in that it supports.
        needs: `tests.sandbox.missing.PACKAGES` says what brings each.
        trust: the variables that tell it whom to trust; none where it verifies nobody, or is told
            by its command.
        verifies: whether it refuses a certificate of somebody whom it does not trust.
        variables: what else it wants in its environment.
        host: whom it fetches from.
        asks: its last words, what it fetches.
        answer: what it writes to stdout then.
    """

    command: tuple[str, ...]
    uses: Mapping[Way, Use]
    needs: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    verifies: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    host: str = "origin.test"
    asks: tuple[str, ...] = ("https://{host}/",)
    answer: str = GREETING


@dataclass(frozen=True, slots=True)
class Places:
    """What the patterns of a client stand for, beside the host.

    Args:
        authority: the file of the certificate authority to trust.
        wgetrc: settings of wget that name it.
        trust_store: it, as Java wants it.
        built: the directory of the programs that the tests compile.
        scratch: a directory of this run alone.
        digest: of the large file in the repository that git clones.
    """

    authority: str
    wgetrc: str
    trust_store: str
    built: str
    scratch: str
    digest: str
