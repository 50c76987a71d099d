"""Which entry of a parent's file an enclave has, and what follows from it.

The first entry that is for an enclave counts, by its CID, by what it has attested, or by both.
Where an entry demands attestation, an enclave without it has nothing: the file's own allowlist is
for the CIDs that no entry could be for.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from parent_side.trust import Attested, Trust
from vsockproxy.config.document import Document
from vsockproxy.config.model import EnclaveEntry, Limits, ParentConfig
from vsockproxy.policy import Policy, may_connect

__all__ = ("Entries", "Identity")

_ANY_ENCLAVE: Final = -1
_NO_ENCLAVE: Final = -2
_NOT_ATTESTED: Final = -3
"""Stand, in the place of an entry's number, for the enclaves without one: for those that have the
file's lists, those that may not connect, and those that would have to attest."""

Identity = tuple[int, Attested | None]
"""A CID, and what the enclave there has attested, if anything."""


class Entries:
    """The entries of one document.

    Args:
        document: the parent's file.
        known: enclaves whose policy is compiled at once; others' are when they are asked for.

    Raises:
        RootsNotUsable: the file of root certificates, which the document names, cannot be read.
    """

    def __init__(self, document: Document, known: Iterable[Identity] = ()) -> None:
        config = document.config
        assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
        self.config = config
        self.document = document
        demands = any(entry.pcrs for entry in config.enclaves)
        self.trust = Trust.read(config.attestation) if demands else None
        self._policies: dict[int, Policy] = {}
        for cid, attested in known:
            self.policy_for(cid, attested)

    def demand_attestation(self, cid: int) -> bool:
        """Whether an enclave is to attest, if it can."""
        return self.trust is not None and self.config.wants_attestation(cid)

    def admit(self, cid: int, attested: Attested | None) -> bool:
        """Whether an enclave may have a session."""
        key = self._key(cid, attested)
        return key not in (_NO_ENCLAVE, _NOT_ATTESTED)

    def policy_for(self, cid: int, attested: Attested | None = None) -> Policy:
        """The lists of one enclave."""
        key = self._key(cid, attested)
        policy = self._policies.get(key)
        if policy is None:
            policy = Policy.compile(self.document, cid=cid, pcrs=self._pcrs(attested))
            self._policies[key] = policy
        return policy

    def limits_of(self, cid: int, attested: Attested | None = None) -> Limits:
        """The limits of one enclave."""
        found = self._find(cid, attested)
        return self.config.limits if found is None else self.config.limits_for(found[1])

    def most_streams(self, cid: int) -> int:
        """The most streams that an enclave may have, whatever it attests."""
        possible = [each for each in self.config.enclaves if each.could_be_for(cid)]
        if not self.demand_attestation(cid):
            return self.limits_of(cid).streams
        return max(self.config.limits_for(entry).streams for entry in possible)

    def name_of(self, cid: int, attested: Attested | None = None) -> str | None:
        """The configured name of an enclave."""
        found = self._find(cid, attested)
        return None if found is None else found[1].name

    def _find(self, cid: int, attested: Attested | None) -> tuple[int, EnclaveEntry] | None:
        return self.config.entry_of(cid, self._pcrs(attested))

    def _key(self, cid: int, attested: Attested | None) -> int:
        found = self._find(cid, attested)
        if found is not None:
            return found[0]
        if not may_connect(self.document, cid):
            return _NO_ENCLAVE
        return _NOT_ATTESTED if self.config.wants_attestation(cid) else _ANY_ENCLAVE

    def _pcrs(self, attested: Attested | None) -> Mapping[int, bytes] | None:
        """What is believed of an enclave."""
        if attested is None or self.trust is None or not self.trust.holds_for(attested):
            return None
        return attested.pcrs
