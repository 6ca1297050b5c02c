"""Make the moving picture that opens the README: ten seconds of `pellucid film`, without sound.

python -m recipes.film
"""

from pathlib import Path

from pellucid.common.files import written_whole
from pellucid.film import fonts, verify
from pellucid.film.encoding import write_gif
from pellucid.film.layout import stage
from pellucid.film.narration import write
from pellucid.film.prompt import understood
from pellucid.film.script import timed, with_detail
from pellucid.film.voices import Silence
from pellucid.film.walk_sources import walk_wished

PAGE = Path(__file__).parent.parent / "docs" / "images" / "film.gif"
PROMPT = "show how 'it' finds 'the animal' in 'The animal did not cross because it was tired'"
SECONDS = (1.0, 0.9, 1.7, 1.7, 1.6, 0.6)
"""Of the lines that nobody hears: as long as the picture needs."""
PAUSE = 0.2
SIZE = (800, 450)
MOST_BYTES = 1_500_000


def main() -> None:
    """Write it, once it has been checked."""
    walk, query, finds = walk_wished(understood(PROMPT))
    script = with_detail(write(walk, query=query, finds=finds, brief=True), 1)
    spoken = []
    for line, seconds in zip(script.lines, SECONDS, strict=True):
        usual = Silence().say(line.text).spoken.seconds
        spoken.append(Silence().say(line.text, usual / seconds).spoken)
    script = timed(script, spoken, PAUSE)
    picture = stage(script, fonts.width, size=SIZE)
    faults = verify.verify(walk, script, picture)
    if faults:
        raise SystemExit("\n".join(map(str, faults)))
    with written_whole(PAGE) as aside, aside.open("w+b") as file:
        write_gif(file, picture)
        size = file.tell()
    if size > MOST_BYTES:
        raise SystemExit(f"{size} bytes are too many")
    print(f"wrote {PAGE}: {script.until:.1f} s, {size:,} bytes")


if __name__ == "__main__":
    main()
