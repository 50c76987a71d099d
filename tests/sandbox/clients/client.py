"""What a test knows of a program that fetches something."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.sandbox.sandboxes import Done, Sandbox, need
from tests.sandbox.ways import Way

SOURCES = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Places:
    """What differs from run to run, and what patterns name by these names.

    Args:
        authority: the file of the certificate authority to trust.
        wgetrc: wget's settings that say so.
        trust_store: the same for Java.
        built: the directory of the programs that the tests compile.
        scratch: an empty directory.
        digest: SHA-256 of the large file in the repository that git clones.
    """

    authority: str
    wgetrc: str
    trust_store: str
    built: str
    scratch: str
    digest: str

    def fill(self, pattern: str, host: str) -> str:
        """The pattern with everything in its place."""
        return pattern.format(host=host, **asdict(self))


@dataclass(frozen=True, slots=True)
class Use:
    """How a program is told of a way in, and what it says there. The texts are patterns.

    Args:
        shows: what it writes to stderr of a host that is not listed.
        options: words in front of what it fetches.
        variables: of its environment, beside those that our side sets.
        needs: what it takes beside what the program needs anyway.
        host: whom it fetches from, where it is not the program's host.
        asks: what it fetches, where it is not what the program fetches otherwise.
        answer: what it writes to stdout then.
    """

    shows: str
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    host: str | None = None
    asks: tuple[str, ...] | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A program that fetches something. The texts are patterns.

    Args:
        command: its words up to the options of a use.
        uses: the ways in that it supports.
        needs: what a machine may lack; `tests.sandbox.sandboxes` says how to get it.
        variables: of its environment; by some it learns whom to trust.
        distrusts: what it says of a server that it does not trust; None where it trusts all.
        host: whom it fetches from.
        asks: its last words: what it fetches.
        answer: what it writes to stdout then.
    """

    command: tuple[str, ...]
    uses: Mapping[Way, Use]
    needs: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    distrusts: str | None = "certificate"
    host: str = "origin.test"
    asks: tuple[str, ...] = ("https://{host}/",)
    answer: str = "hello from {host}, over TLSv1.3\n"

    def words(self, way: Way, places: Places, host: str | None = None) -> list[str]:
        """Its command line.

        Args:
            way: one that it supports.
            places: what the patterns name.
            host: whom to fetch from, in place of its own.
        """
        use = self.uses[way]
        host = host or use.host or self.host
        asks = self.asks if use.asks is None else use.asks
        return [places.fill(word, host) for word in (*self.command, *use.options, *asks)]

    def environment(self, way: Way, places: Places, host: str | None = None) -> dict[str, str]:
        """Its variables, for the same arguments."""
        use = self.uses[way]
        host = host or use.host or self.host
        variables = {**self.variables, **use.variables}
        return {name: places.fill(value, host) for name, value in variables.items()}

    def fetch(self, sandbox: Sandbox, way: Way, places: Places, host: str | None = None) -> Done:
        """Run it in a sandbox with that way in; for the same arguments."""
        self.need(way)
        words = self.words(way, places, host)
        return sandbox.run(*words, **self.environment(way, places, host))

    def need(self, way: Way) -> None:
        """Skip the test where this machine lacks what it takes."""
        need(*self.needs, *self.uses[way].needs)

    def expected(self, way: Way, places: Places) -> str:
        """What it writes to stdout where its host is allowed."""
        use = self.uses[way]
        return places.fill(use.answer or self.answer, use.host or self.host)
