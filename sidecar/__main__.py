"""`breaker-sidecar` and `python -m sidecar`."""

import sys


def main() -> None:
    """Run the command line; ends the process."""
    if sys.argv[1:2] == ["run"]:
        from sidecar import early

        early.begin()
    from sidecar.cli.main import cli

    cli(prog_name="breaker-sidecar")


if __name__ == "__main__":
    main()
