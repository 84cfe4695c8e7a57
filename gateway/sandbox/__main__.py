"""`python -m gateway.sandbox [--host H] [--port N] [--speed X] [--sync-seconds S] [--public-url URL]`."""

import argparse
import sys

from gateway.sandbox.faults import help_text
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.serve import run


def main(arguments: list[str] | None = None) -> int:
    """Parse the flags and serve until stopped. Returns the exit code: 0 stopped, 1 port taken, 2 bad flags."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway.sandbox",
        description="A simulated Pixapi.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 picks a free port (default: 8090)")
    parser.add_argument("--speed", type=float, default=1.0, help="10 is ten times faster")
    parser.add_argument("--sync-seconds", type=float, default=0.05, help="duration of a synchronous call")
    parser.add_argument("--public-url", help="put before /files/… in answers (default: the Host header)")
    flags = parser.parse_args(arguments)
    try:
        options = SandboxOptions(flags.speed, flags.sync_seconds, flags.public_url)
    except ValueError as error:
        parser.error(str(error))
    try:
        run(flags.host, flags.port, options)
    except OSError as error:
        print(f"cannot listen on {flags.host}:{flags.port}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
