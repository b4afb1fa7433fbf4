"""One fleet-wide circuit breaker for each data flow, answered over localhost."""

__version__ = "0.1.0"
"""The one place of the version; the package's metadata is made from it."""
