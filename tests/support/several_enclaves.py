"""One parent and several enclaves, each on a unix socket that gives it its own CID."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.pair import SHOWN_LINES, Side, free_port


class SeveralEnclaves:
    """A parent with one ingress listener, and enclaves that offer services.

    Args:
        services: by CID, the `ingress` of each enclave's file.
        listener: further keys of the parent's listener.
        parent: further keys of parent.yaml.
        enclave: further keys of each enclave.yaml.
        links: of each enclave.
    """

    def __init__(
        self,
        services: Mapping[int, Sequence[Mapping[str, Any]]],
        listener: Mapping[str, Any],
        *,
        host: str = "127.0.0.1",
        parent: Mapping[str, Any] | None = None,
        enclave: Mapping[str, Any] | None = None,
        links: int = 2,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="vsockproxy-test-")
        self.path = Path(self._directory.name)
        self.port = free_port()
        shown = f"[{host}]" if ":" in host else host
        self._parent_file = self._write(
            "parent",
            {
                "listen": [f"unix://{self._link(cid)}?cid={cid}" for cid in services],
                "ingress": [{"listen": f"tcp://{shown}:{self.port}", **listener}],
                **(parent or {}),
            },
        )
        self._enclave_files = {
            cid: self._write(
                f"enclave-{cid}",
                {
                    "parent": f"unix://{self._link(cid)}",
                    "ingress": list(offered),
                    "links": links,
                    "shim": {"http_proxy": None, "streams": str(self.path / f"{cid}.streams")},
                    **(enclave or {}),
                },
            )
            for cid, offered in services.items()
        }
        self.enclaves: dict[int, Side] = {}
        self._parent: Side | None = None

    def _link(self, cid: int) -> Path:
        return self.path / f"{cid}.sock"

    def _write(self, name: str, content: Mapping[str, Any]) -> Path:
        path = self.path / f"{name}.yaml"
        path.write_text(json.dumps({"log": {"format": "json"}, **content}, indent=1))
        return path

    @property
    def parent(self) -> Side:
        """The parent's side."""
        assert self._parent is not None
        return self._parent

    def start_enclave(self, cid: int) -> Side:
        """Start one enclave, and wait until the parent knows of it."""
        if (former := self.enclaves.get(cid)) is not None:
            former.kill()
        after = len(self.parent.lines)
        side = self.enclaves[cid] = Side("enclave", self._enclave_files[cid])
        side.wait_for_event("ready")
        self.parent.wait_for_event("link_up", after=after, cid=cid)
        return side

    def __enter__(self) -> Self:
        try:
            self._parent = Side("parent", self._parent_file)
            self._parent.wait_for_event("ready")
            for cid in self._enclave_files:
                self.start_enclave(cid)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is not None:
            for side in (self.parent, *self.enclaves.values()):
                print(f"the {side.name} said last:", *side.raw[-SHOWN_LINES:], sep="\n")
        self._close()

    def _close(self) -> None:
        for side in self.enclaves.values():
            side.kill()
        if self._parent is not None:
            self._parent.kill()
        self._directory.cleanup()
