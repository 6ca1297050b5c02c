"""Put the modules of the page together in one file, for notebooks and files of their own.

    python -m recipes.page

It needs Node, which nobody else does: the bundle is in the package. Its first line tells which
modules it was made of, and what was made of them.
"""

import subprocess
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from pellucid.common.files import write_whole
from pellucid.errors import FileError
from recipes import told

PAGE = Path(__file__).parent.parent / "src" / "pellucid" / "viewer" / "page"
BUNDLE = PAGE / "bundle.js"
ESBUILD = "esbuild@0.28.2"


def first_line(made: str) -> str:
    """What the bundle begins with: the modules as they are now, and all that stands below it."""
    found = sha256()
    for path in sorted(PAGE.glob("*.js")):
        if path != BUNDLE:
            text = path.read_bytes()
            found.update(f"{path.name} {len(text)}\n".encode() + text)
    below = sha256(made.encode()).hexdigest()
    return f"// Made by make page of modules with the sha256 {found.hexdigest()}, and is {below}"


def main() -> None:
    """Write the bundle.

    Raises:
        FileError: esbuild cannot be run, or refuses the modules.
    """
    with TemporaryDirectory() as directory:
        made = Path(directory) / "bundle.js"
        command = ["npx", "--yes", ESBUILD, str(PAGE / "widget.js"), f"--outfile={made}"]
        command += [
            "--bundle",
            "--minify",
            "--format=esm",
            "--target=es2022",
            "--log-level=warning",
        ]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=directory
            )
        except OSError as error:
            raise FileError(f"cannot run npx, a part of Node: {error.strerror}") from error
        if ran.returncode:
            raise FileError(f"{ESBUILD} could not put the page together: {ran.stderr.strip()}")
        content = made.read_text(encoding="utf-8")
        write_whole(BUNDLE, f"{first_line(content)}\n{content}")
    print(f"{BUNDLE.name}: {BUNDLE.stat().st_size:,} bytes")


if __name__ == "__main__":
    told(main)
