"""Check the types of the page's modules, which their JSDoc comments declare: part of `make lint`.

    python -m recipes.page_types

It needs Node. Without Node, or without TypeScript (which npm fetches once), the types are not
checked, a line says so, and the exit status is 0.
"""

import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parent / "tsconfig.json"
TSC = ["npx", "--yes", "--package=typescript@5.9.3", "tsc"]


def main() -> int:
    """Print the errors; the exit status."""
    try:
        found = subprocess.run([*TSC, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        print(f"The types of the page were not checked: cannot run npx: {error.strerror}")
        return 0
    if found.returncode:
        problem = (found.stderr.strip() or "npx failed").splitlines()[0]
        print(f"The types of the page were not checked: cannot get TypeScript: {problem}")
        return 0
    ran = subprocess.run([*TSC, "--project", str(CONFIG)], check=False)
    if not ran.returncode:
        print("Success: no issues found in the types of the page")
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
