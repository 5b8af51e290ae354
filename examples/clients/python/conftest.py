"""The suite needs a sidecar: `scripts/with-sidecar.sh` starts one and sets WALSTORAGE_SOCKET."""

import os

import pytest


def pytest_sessionstart(session):
    if "WALSTORAGE_SOCKET" not in os.environ:
        pytest.exit("WALSTORAGE_SOCKET is not set; run this suite through scripts/with-sidecar.sh", returncode=2)
