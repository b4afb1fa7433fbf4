"""Before anything is imported the standard streams are there, and signals wait."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run(script: str, redirections: str = "") -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, with the shell's redirections."""
    command = f'exec "$0" -c "$1" {redirections}'
    return subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_no_file_takes_the_number_of_a_closed_stream() -> None:
    """Log lines go to descriptor 2, whatever lies there."""
    done = run(
        """
        import os, sys
        from sidecar import early
        early.begin()
        sys.exit(os.open(os.devnull, os.O_RDONLY))
        """,
        "<&- >&- 2>&-",
    )
    assert done.returncode >= 3


def test_open_streams_stay_as_they_are() -> None:
    done = run("from sidecar import early; early.begin(); print('heard')")
    assert done.stdout == "heard\n"


def test_a_signal_waits_until_it_is_heard() -> None:
    done = run(
        """
        import os, signal
        from sidecar import early
        early.begin()
        for number in early.HEARD:
            os.kill(os.getpid(), number)
        print("alive")
        for number in early.HEARD:
            signal.signal(number, lambda got, _: print(signal.Signals(got).name))
        early.hear()
        """
    )
    assert done.stdout.splitlines()[0] == "alive"
    assert sorted(done.stdout.splitlines()[1:]) == ["SIGHUP", "SIGINT", "SIGTERM"]
