"""TLS to Consul: whom to trust, what to show, and what a failure means in words for an operator."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.store.transport import ConsulSettings

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_WRONG_HOST: Final = (62, 64)
"""OpenSSL's verify codes: of a host name, and of an IP address."""

_ALERTS: Final = (
    (
        ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE"),
        "Consul wants a client certificate: set consul.client_cert and consul.client_key",
    ),
    (
        ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_DECRYPT_ERROR"),
        "Consul does not trust the client certificate (consul.client_cert)",
    ),
    (
        ("ALERT_CERTIFICATE_EXPIRED",),
        "the client certificate (consul.client_cert) has expired",
    ),
    (
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"),
        "no TLS is spoken there: is consul.scheme or the port wrong?",
    ),
)


class Unusable(OSError):
    """A file for TLS can't be used; the text names key and file."""


def context(settings: ConsulSettings) -> ssl.SSLContext:
    """Who is trusted and what is shown. Raises Unusable."""
    try:
        made = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as fault:  # ssl's errors are of that kind
        raise Unusable(f"consul.ca_file {settings.ca_file}: {_reason(fault)}") from fault
    if not settings.tls_verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if settings.client_cert:
        try:
            made.load_cert_chain(settings.client_cert, settings.client_key)
        except OSError as fault:
            pair = f"{settings.client_cert} and {settings.client_key}"
            raise Unusable(f"consul.client_cert and client_key {pair}: {_reason(fault)}") from fault
    return made


def _reason(fault: OSError) -> str:
    if not isinstance(fault, ssl.SSLError):
        return fault.strerror or str(fault)
    if fault.reason == "KEY_VALUES_MISMATCH":
        return "the key is another certificate's"
    return "not in PEM format, or another kind of file"


def stamps(settings: ConsulSettings) -> tuple[tuple[int, int, int] | None, ...]:
    """What tells that one of the files was replaced."""
    return tuple(_stamps(settings))


def _stamps(settings: ConsulSettings) -> Iterator[tuple[int, int, int] | None]:
    for name in (settings.ca_file, settings.client_cert, settings.client_key):
        try:
            stat = Path(name).stat() if name else None
        except OSError:
            stat = None
        yield (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat is not None else None


def meaning(fault: BaseException, settings: ConsulSettings) -> str | None:
    """What a failed call means where TLS is the reason; None where it isn't."""
    if settings.scheme != "https":
        return None
    cause = _cause(fault)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _untrusted(cause, settings)
    said = str(cause)
    for words, text in _ALERTS:
        if any(word in said for word in words):
            return text
    return None


def _cause(fault: BaseException) -> BaseException:
    """ssl's own error below aiohttp's, which wraps it in different ways."""
    inner = getattr(fault, "certificate_error", None) or getattr(fault, "os_error", None)
    return inner if isinstance(inner, BaseException) else fault


def _untrusted(fault: ssl.SSLCertVerificationError, settings: ConsulSettings) -> str:
    if fault.verify_code in _WRONG_HOST:
        return f"Consul's certificate is not for {settings.host}, as consul.address names it"
    if fault.verify_code == _EXPIRED:
        return "Consul's certificate has expired"
    if fault.verify_code == _NOT_YET_VALID:
        return "Consul's certificate is not valid yet: is this machine's clock right?"
    trusted = f"consul.ca_file {settings.ca_file}" if settings.ca_file else "this system"
    return f"Consul's certificate is not signed by an authority that {trusted} names"
