"""py-consul without its synchronous client.

The package imports that client, and with it `requests`, `urllib3` and `charset_normalizer`, as
soon as any part of it is imported: 6 MB in every sidecar of a fleet for code that never runs. So
a stand-in holds the place of `consul.std` while the parts that are used get imported, and is taken
away again: whoever imports `consul.std` afterwards gets the real one. Where somebody has imported
py-consul before, and in releases that import the client lazily, all this changes nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, NoReturn

_CLIENT = "consul.std"


class Consul:
    """What `consul.Consul` is in this process."""

    def __new__(cls, *_args: object, **_options: object) -> NoReturn:
        """Say where the real one is."""
        raise ImportError("the synchronous client is not loaded here: import it from consul.std")


def _load(module: str) -> Any:
    if "consul" in sys.modules:
        return importlib.import_module(module)
    stand_in: Any = ModuleType(_CLIENT)
    stand_in.Consul = Consul
    sys.modules[_CLIENT] = stand_in
    try:
        return importlib.import_module(module)
    finally:
        if sys.modules.get(_CLIENT) is stand_in:
            del sys.modules[_CLIENT]


base: Any = _load("consul.base")
"""py-consul's endpoints, which build every request; see `transport` for how they are sent."""
