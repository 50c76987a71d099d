"""The page of the admin endpoint: one file, nothing from elsewhere, and no script but its own."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

__all__ = ("PAGE", "PAGE_HEADERS", "content_security_policy")


def content_security_policy(page: str) -> str:
    """The policy under which `page` works, and nothing that somebody smuggles into it.

    Its own style and script are named by their hashes (CSP Level 3, section 2.3.1).
    """
    scripts = _hashes(page, "script")
    styles = _hashes(page, "style")
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(page: str, element: str) -> str:
    found = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (hashlib.sha256(text.encode()).digest() for text in found)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


_TEXT: Final = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

PAGE: Final = _TEXT.encode()
"""The page itself; what it shows it asks for, every second, at /status."""

PAGE_HEADERS: Final = (
    ("Content-Security-Policy", content_security_policy(_TEXT)),
    ("X-Frame-Options", "DENY"),
)
