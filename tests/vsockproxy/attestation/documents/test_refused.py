import warnings

import pytest

from tests.support.forged_documents import Forge
from tests.vsockproxy.attestation.documents.case import Case
from tests.vsockproxy.attestation.documents.refused_certificates import (
    EXTENSIONS,
    FORMS,
    MALFORMED,
    REFUSED_BY_THE_LIBRARY,
)
from tests.vsockproxy.attestation.documents.refused_chains import CHAINS, REQUIREMENTS, TIMES
from tests.vsockproxy.attestation.documents.refused_envelopes import (
    BYTES_OF_IT,
    ENVELOPES,
    SIGNATURES,
    TAGS,
)
from tests.vsockproxy.attestation.documents.refused_fields import (
    CERTIFICATES_AS_FIELDS,
    MEASUREMENTS,
    NAMES,
    PAYLOADS,
    TYPES,
)
from vsockproxy.attestation.documents import (
    AWS_ROOT,
    DocumentRefused,
    Reason,
    Requirements,
    verify_document,
)

TABLES = (
    *(BYTES_OF_IT, TAGS, ENVELOPES, SIGNATURES),
    *(PAYLOADS, NAMES, TYPES, MEASUREMENTS, CERTIFICATES_AS_FIELDS),
    *(CHAINS, TIMES, FORMS, EXTENSIONS, MALFORMED, REFUSED_BY_THE_LIBRARY, REQUIREMENTS),
)
CASES = [
    pytest.param(case, id=f"{case.reason}: {name}")
    for table in TABLES
    for name, case in table.items()
]


@pytest.mark.parametrize("case", CASES)
def test_a_document_is_refused_for_its_own_reason(case: Case) -> None:
    forge = Forge() if case.forge is None else case.forge()
    requirements = {"roots": (forge.root,), **case.requirements}
    if requirements["roots"] is None:
        requirements["roots"] = (AWS_ROOT,)

    with pytest.raises(DocumentRefused) as caught:
        verify_document(case.make(forge), Requirements(**requirements), case.at)

    assert caught.value.reason == case.reason, caught.value.text
    assert case.text in caught.value.text
    assert caught.value.text.isprintable()
    assert str(caught.value) == f"{case.reason}: {caught.value.text}"


def test_every_reason_has_a_case() -> None:
    told = {case.reason for table in TABLES for case in table.values()}
    assert set(Reason) - told == set()
    assert sum(map(len, TABLES)) >= 100


def test_a_serial_number_below_one_is_refused_where_the_library_only_warns() -> None:
    case = MALFORMED["a serial number of zero"]
    assert case.forge is not None
    forge = case.forge()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DocumentRefused) as caught:
            verify_document(case.make(forge), Requirements(roots=(forge.root,)), case.at)
    assert caught.value.reason is Reason.MALFORMED_CERTIFICATE
