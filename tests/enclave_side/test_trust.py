import sys

import pytest

from enclave_side.trust import TrustMissing, require_acme, require_trust


def test_what_is_here_is_enough() -> None:
    require_trust("x")
    require_acme("x")


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("acme", "cryptography"):
        monkeypatch.setitem(sys.modules, name, None)  # as import says it where there is none
    with pytest.raises(TrustMissing, match=r"^x needs the extra trust: pip install 'vsockproxy"):
        require_trust("x")
    with pytest.raises(TrustMissing, match=r"^x needs the extra acme: pip install 'vsockproxy"):
        require_acme("x")
