"""JSON of KMS's protocol, read so that no second reader can understand it differently.

RFC 8259 leaves open what a repeated name means. A call in which KMS saw another KeyId than we did
would make our check of the answer worthless, so there is none.
"""

import json
from typing import Any

__all__ = ("JsonRefused", "read_object")


class JsonRefused(ValueError):
    """No JSON object, or one that two readers could read in two ways; the text quotes nothing."""


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        JsonRefused: it is none.
    """
    try:
        found = json.loads(
            body.decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        raise JsonRefused("it is no UTF-8") from None
    except RecursionError:
        raise JsonRefused("it is nested too deeply") from None
    except JsonRefused:
        raise
    except ValueError:  # json quotes what it does not like
        raise JsonRefused("it is no JSON") from None
    if not isinstance(found, dict):
        raise JsonRefused("it is no JSON object")
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonRefused("it has a name twice in one object")
    return found


def _no_constant(_: str) -> None:
    raise JsonRefused("it has a number that JSON does not have")
