"""Whether Consul is reached, and if not, by what: the network, TLS, its limits, or its quorum."""

from __future__ import annotations

import errno
import socket
import ssl

from sidecar.config.model import Consul, consul_endpoint
from sidecar.core.errors import StoreError, StoreUnreachable
from sidecar.doctor.agent import ADDRESS, CHECK, MOST_SHOWN, Agent, parsed
from sidecar.doctor.findings import Finding, fault, fine, warning
from sidecar.store.transport import Answer

_TRUST = {18, 19, 20, 21}
_EXPIRED = {9, 10}
_NAME = {62, 64}
"""OpenSSL's codes of what is wrong with a certificate."""


async def reach(agent: Agent, config: Consul) -> tuple[list[Finding], Answer | None]:
    """Ask who leads, for which no right is needed. The answer comes back only if it is good."""
    try:
        answer = await agent.get("/v1/status/leader")
    except StoreError as problem:
        said, mend = _unreachable(problem, config)
        return [fault(CHECK, said, mend, ADDRESS, config.address)], None
    found = without_leader(answer, config)
    if found is not None:
        return [found], None
    return [
        fine(CHECK, f"answers; the leader is {parsed(answer)}", ADDRESS, config.address)
    ], answer


def without_leader(answer: Answer, config: Consul) -> Finding | None:
    """What is wrong with the answer to who leads; None where nothing is."""
    here = {"key": ADDRESS, "value": config.address}
    said = answer.body[:MOST_SHOWN].decode("utf-8", "replace").strip()
    if answer.status == 400 and "HTTPS" in said:
        mend = "write https:// in front of it, or set consul.scheme: https (CONSUL_HTTP_SSL)"
        return fault("tls", "speaks TLS, and was asked without", mend, **here)
    if answer.status == 429 or (answer.status == 503 and "rate limit" in said.lower()):
        mend = "raise the server's limits.request_limits, or have fewer clients ask it"
        return warning(CHECK, f"limits our requests ({answer.status} {said})", mend, **here)
    leader = parsed(answer)
    if answer.status == 500 or leader == "":
        mend = "bring its servers back to a majority: `consul operator raft list-peers`"
        return fault(CHECK, f"knows of no leader: {said}", mend, **here)
    if answer.status != 200 or not isinstance(leader, str):
        mend = "name the HTTP address of a Consul agent (port 8500, with TLS 8501)"
        return fault(CHECK, f"what answers there is no Consul ({answer.status})", mend, **here)
    return None


def _unreachable(problem: StoreError, config: Consul) -> tuple[str, str]:
    """What keeps us from it, and the mend."""
    cause: BaseException | None = problem
    while isinstance(cause, StoreError):
        cause = cause.__cause__
    inner = getattr(cause, "certificate_error", None) or getattr(cause, "os_error", None) or cause
    if isinstance(inner, ssl.SSLCertVerificationError):
        return _distrusted(inner)
    text = f"{inner!r} {problem}"
    for sign, said, mend in (
        ("WRONG_VERSION_NUMBER", "speaks no TLS there", "use http://, or its TLS port (8501)"),
        ("RECORD_LAYER_FAILURE", "speaks no TLS there", "use http://, or its TLS port (8501)"),
        (
            "CERTIFICATE_REQUIRED",
            "wants a certificate of ours",
            "set consul.client_cert and consul.client_key",
        ),
        ("UNKNOWN_CA", "doesn't trust our certificate", "have consul.client_cert made by its CA"),
    ):
        if sign in text:
            return said, mend
    if isinstance(problem, StoreUnreachable) and isinstance(cause, TimeoutError):
        mend = "see whether the agent hangs (`consul members` there), or a firewall drops packets"
        return str(problem), mend
    return _by_errno(inner, config) or (str(problem), "see whether a Consul agent runs there")


def _distrusted(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    said = f"its certificate isn't trusted: {error.verify_message}"
    if error.verify_code in _EXPIRED:
        return said, "renew the agent's certificate (and see that both clocks are right)"
    if error.verify_code in _NAME:
        return said, "ask it by a name that its certificate is for"
    if error.verify_code in _TRUST:
        return said, "set consul.ca_file (CONSUL_CACERT) to the authority that signed it"
    return said, "see the agent's certificate: openssl s_client -connect"


def _by_errno(inner: BaseException | None, config: Consul) -> tuple[str, str] | None:
    path = consul_endpoint(config).socket
    if isinstance(inner, socket.gaierror):
        return f"its name isn't known here ({inner.strerror})", "correct the name, or the resolver"
    number = inner.errno if isinstance(inner, OSError) else None
    if number == errno.ENOENT:
        mend = 'have the agent listen there (addresses.http = "unix://…"), or correct the path'
        return "no socket is there", mend
    if number in {errno.EACCES, errno.EPERM}:
        mend = f"let this user open it: set unix_sockets of the agent, or chmod/chgrp {path}"
        return "this user may not open it", mend
    if number == errno.ECONNREFUSED:
        mend = "start a Consul agent there, or say where one is (consul.address, CONSUL_HTTP_ADDR)"
        return "nobody listens there (connection refused)", mend
    return None
