"""Attestation documents of real enclaves, each with a note of what is expected of it."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "vectors" / "attestation-documents"


@dataclass(frozen=True, slots=True)
class RealDocument:
    """One of them."""

    path: Path
    note: dict[str, Any]

    @property
    def data(self) -> bytes:
        """The document itself."""
        return self.path.read_bytes()

    @property
    def time(self) -> datetime:
        """When it was made, as it says itself."""
        return datetime.fromisoformat(self.note["timestamp_utc"])


REAL_DOCUMENTS = {
    path.stem: RealDocument(path, json.loads(path.with_suffix(".json").read_text("utf-8")))
    for path in sorted(FOLDER.glob("*.cbor"))
}
"""By the name of their file."""
