"""Asks before every line it would send, by requests."""

import os
import sys

import requests

ADDRESS = os.environ.get("BREAKER_SIDECAR_ADDRESS", "localhost:9100")
URL = f"http://{ADDRESS}/allowed/{os.environ.get('BREAKER', 'default')}"
NO_ANSWER = f"{os.environ.get('BREAKER_DEFAULT', 'admit')} no-answer"  # admit or reject
session = requests.Session()  # keeps the connection
session.trust_env = False  # no proxy stands before the sidecar


def ask() -> str:
    try:
        answer = session.head(URL, timeout=0.25)
        _breaker, after = answer.headers["X-Breaker"], answer.headers.get("Retry-After")
    except (requests.RequestException, KeyError):  # no X-Breaker: somebody else
        return NO_ANSWER
    return "admit" if answer.ok else f"reject {after}"


for _message in sys.stdin:
    print(ask(), flush=True)
