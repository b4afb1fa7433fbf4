"""aiohttp's own TLS contexts trust nobody, others stay as they were, and garbage is collected."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, ssl
kept = ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths
from sidecar import lean
lean.begin()
assert not gc.isenabled()
from aiohttp import connector
assert kept == (ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths)
for context in (connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED):
    assert context.cert_store_stats()["x509_ca"] == 0
assert connector._SSL_CONTEXT_VERIFIED.verify_mode is ssl.CERT_REQUIRED
from sidecar.store.transport import ConsulSettings, tls_context
trusted = tls_context(ConsulSettings(scheme="https"))
assert trusted.cert_store_stats() == ssl.create_default_context().cert_store_stats()
lean.begun()
assert gc.isenabled()
assert gc.get_freeze_count()
"""


def test_a_lean_start() -> None:
    """In a process of its own: here aiohttp has been imported long ago."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
