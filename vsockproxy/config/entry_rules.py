"""What the model's types cannot say of `enclaves`: whom each entry is for, and which counts."""

from collections.abc import Iterator, Sequence
from typing import Final

from vsockproxy.config.conversion import Found
from vsockproxy.config.errors import Fault
from vsockproxy.config.model import EnclaveEntry, ParentAttestation
from vsockproxy.config.source import join_path

__all__ = ("check_entries", "describe_entry")

_MOST_DIGITS_SHOWN: Final = 12


def describe_entry(entry: EnclaveEntry) -> str:
    """Whom an entry is for, in words: `CID 16 (web)`, `CID 16 with PCR0 0123456789ab…`."""
    words = [] if entry.cid is None else [f"CID {entry.cid}"]
    pcrs = sorted(entry.measurements.items())
    shown = [f"PCR{index} {value.hex()[:_MOST_DIGITS_SHOWN]}…" for index, value in pcrs]
    words += [" and ".join(shown)] if shown else []
    return " with ".join(words) + (f" ({entry.name})" if entry.name else "")


def check_entries(sections: Sequence[Found]) -> Iterator[Fault]:
    """Yield every breach of a rule for `enclaves`, in no particular order."""
    allows_debug = any(
        isinstance(each.section, ParentAttestation) and each.section.allow_debug
        for each in sections
    )
    earlier: list[tuple[str, EnclaveEntry]] = []
    for found in sections:
        entry = found.section
        if not isinstance(entry, EnclaveEntry) or found.invalid & {"cid", "pcrs"}:
            continue
        if entry.cid is None and not entry.pcrs:
            mend = "write an integer within 0-4294967294, or pcrs: {0: 96 hexadecimal digits}"
            yield Fault(join_path(found.path, "cid"), "missing", mend)
            continue
        yield from _check_zeros(found.path, entry, allows_debug=allows_debug)
        for path, other in earlier:
            if _covers(other, entry):
                yield _never_used(found.path, entry, path, other)
                break
        earlier.append((found.path, entry))


def _check_zeros(path: str, entry: EnclaveEntry, *, allows_debug: bool) -> Iterator[Fault]:
    for index, value in entry.pcrs.items():
        if not any(bytes.fromhex(value)) and not allows_debug:
            what = f"PCR{index} of zeros: nothing was measured into it, as in debug mode"
            mend = "write the measurement of your image, or attestation: {allow_debug: true}"
            yield Fault(join_path(join_path(path, "pcrs"), index), what, mend)


def _covers(earlier: EnclaveEntry, later: EnclaveEntry) -> bool:
    """Whether `earlier` is for every enclave that `later` is for."""
    if later.cid is None and earlier.cid is not None:
        return False
    is_for_its_cid = later.cid is None or earlier.could_be_for(later.cid)
    return is_for_its_cid and earlier.measurements.items() <= later.measurements.items()


def _never_used(path: str, entry: EnclaveEntry, first: str, other: EnclaveEntry) -> Fault:
    if not entry.pcrs:
        what = f"CID {entry.cid} has an entry already, {first}"
        return Fault(join_path(path, "cid"), what, "write one entry for each CID")
    if entry.cid == other.cid and entry.measurements == other.measurements:
        what = f"these measurements have an entry already, {first}"
        return Fault(join_path(path, "pcrs"), what, "write one entry for them")
    what = f"{first} is for all that this is for, and the first entry counts"
    return Fault(join_path(path, "pcrs"), what, f"write it before {first}")
