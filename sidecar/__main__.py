"""`breaker-sidecar` and `python -m sidecar`."""

from sidecar.cli.main import cli


def main() -> None:
    """Run the command line; ends the process."""
    cli(prog_name="breaker-sidecar")


if __name__ == "__main__":
    main()
