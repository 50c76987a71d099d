"""What the programs in a sandbox talk to, and a sandbox for each way in, which they share."""

import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sandbox.clients.building import build
from tests.sandbox.clients.client import Places
from tests.sandbox.destinations import Destination, side_files
from tests.sandbox.sandboxes import (
    GIT_VARIABLES,
    NOT_PERMITTED,
    Sandbox,
    need,
    open_sandbox,
    run_sandbox,
)
from tests.sandbox.trust import trust_files
from tests.sandbox.ways import SHIMS, Way
from tests.support.certificates import Authority
from tests.support.postgres_like import postgres_like
from tests.support.smtp_like import smtp_like
from tests.support.tls_origin import Origin
