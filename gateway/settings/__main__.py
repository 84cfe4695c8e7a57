"""`python -m gateway.settings toml|table|write`: the settings' documentation, printed or written.

`write` brings config/gateway.toml and docs/configuration.md of the current directory's checkout up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.settings.reference import gateway_toml, settings_table, write_reference


def main() -> int:
    """Exit code 0, or 1 when there is no document to write to."""
    parser = argparse.ArgumentParser(prog="python -m gateway.settings", description=__doc__)
    parser.add_argument("what", choices=("toml", "table", "write"))
    what = parser.parse_args().what
    if what != "write":
        sys.stdout.write(gateway_toml() if what == "toml" else settings_table())
        return 0
    try:
        written = write_reference(Path.cwd())
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot write the settings' documentation: {error}\n")
        return 1
    sys.stdout.writelines(f"{path}\n" for path in written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
