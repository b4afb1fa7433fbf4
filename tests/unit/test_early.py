"""Before anything is imported the standard streams are there, and somebody hears signals."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


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


def test_a_signal_that_comes_with_the_handlers_goes_to_them() -> None:
    """Whoever listened during the start takes nothing away."""
    done = run(
        """
        import os, signal
        from sidecar import early
        early.begin()
        os.kill(os.getpid(), signal.SIGHUP)
        print("alive")
        for number in early.HEARD:
            signal.signal(number, lambda got, _: print(signal.Signals(got).name))
        early.hear()
        for number in early.STOPPING:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 3 * early.LOOK_S)
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], early.LOOK_S)
        """
    )
    assert done.stdout.splitlines() == ["alive", "SIGHUP", *["SIGTERM"] * 2, *["SIGINT"] * 2]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_ends_a_start_that_hangs(name: str) -> None:
    """In something that no handler interrupts; before there is a loop nothing has begun."""
    done = run(
        f"""
        import os, signal, threading
        from sidecar import early
        early.begin()
        print("begun", flush=True)
        os.kill(os.getpid(), signal.{name})
        threading.Event().wait()
        """
    )
    assert (done.returncode, done.stdout) == (0, "begun\n")


def test_a_loop_is_asked_to_end_and_one_that_hangs_is_ended() -> None:
    """It is told why; whether it hears within the time is what counts."""
    script = """
        import os, queue, signal, sys, threading
        from sidecar import early
        early.STUCK_S = 0.5
        early.begin()
        early.LISTENER.say = lambda *said: print(*said, flush=True)
        calls = queue.Queue()
        early.starting(lambda *call: calls.put(call), lambda why: print(why, flush=True))
        os.kill(os.getpid(), signal.SIGTERM)
        call, *args = calls.get()
        """
    hears = """
        call(*args)
        threading.Event().wait(1.0)
        sys.exit(7)
        """
    hangs = """
        threading.Event().wait()
        """
    done = run(script + hears)
    assert (done.returncode, done.stdout) == (7, "SIGTERM\n")
    done = run(script + hangs)
    assert (done.returncode, done.stdout) == (0, "event loop 0.5\n")


@pytest.mark.parametrize(("begun", "code"), [(True, 5), (False, 0)])
def test_a_thread_that_hangs_keeps_the_ended_process_for_a_moment(begun: bool, code: int) -> None:
    """Only where the process is the daemon's own; a second stop changes nothing."""
    done = run(
        f"""
        import os, signal, threading
        from sidecar import early
        early.LINGER_S = 0.2
        if {begun}:
            early.begin()
        early.LISTENER.say = lambda *said: print(*said, flush=True)
        early.ended(5)
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=threading.Event().wait, args=(1.0,)).start()
        """
    )
    assert (done.returncode, done.stdout) == (code, "threads 0.2\n" if begun else "")
