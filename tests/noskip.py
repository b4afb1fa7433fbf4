"""pytest plugin: with BREAKER_TEST_NO_SKIP=1 a skipped test fails the session.

A skip reads like a pass in a summary line, so where everything is meant to run it is a failure.
Expected failures (`xfail`) ran, and are no skips. Loaded by `-p tests.noskip`.
"""

import os

import pytest


class _NoSkip:
    """Collects the skips of one session and turns its exit status."""

    def __init__(self) -> None:
        self.skips: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that skips itself whole."""
        if report.skipped:
            self.skips.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped, in any of its phases."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skips.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session that would have passed."""
        if self.skips and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name them where the reader looks last."""
        if self.skips:
            terminalreporter.section("skipped where nothing may be skipped", red=True)
            for nodeid in self.skips:
                terminalreporter.line(nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Take effect only where it is asked for."""
    if os.environ.get("BREAKER_TEST_NO_SKIP") == "1":
        config.pluginmanager.register(_NoSkip(), "breaker-no-skip")
