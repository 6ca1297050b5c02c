"""`pellucid learn`."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pellucid.commands.shared import JsonOption, OverwriteOption, check_files, write
from pellucid.errors import ArgumentError

commands = typer.Typer()


@commands.command()
def learn(
    station: Annotated[
        str | None,
        typer.Argument(metavar="STATION", help="A name or a number; all are listed without it."),
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Give the answers, and ask nothing.")
    ] = False,
    notebook: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a notebook that runs as it is.")
    ] = None,
    slides: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write slides, a self-contained HTML file.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the picture of the station.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the picture in pixels.")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Learn in the browser, where every number can change.")
    ] = False,
    teaches: Annotated[
        bool,
        typer.Option("--class", help="One thing at a time in the browser, large, for a class."),
    ] = False,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Print the address without opening a browser."),
    ] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Learn attention in ten stations: guess, look, change one thing, try your own, check."""
    files = {"notebook": notebook, "slides": slides, "svg": svg, "png": png}
    check_files(overwrite=overwrite, notebook=notebook, slides=slides, svg=svg, png=png)
    from rich.console import Console

    from pellucid.lessons.stations import STATIONS, to_json
    from pellucid.lessons.stations import station as station_of

    if page or teaches:
        if any(files.values()) or answers or json:
            raise ArgumentError("--page and --class show the page: leave out other options")
        _show_page(station_of(station).name if station else None, teaches, not no_browser)
    if station is None:
        if any(files.values()):
            raise ArgumentError("give a station to write: a name or a number")
        if json:
            from pellucid.common.files import to_json as as_json

            listed = [{"name": name, "title": title} for name, title in STATIONS.items()]
            typer.echo(as_json(listed))
        else:
            from pellucid.commands.printing.station import show_path

            show_path(STATIONS, Console())
        return
    from pellucid.commands.printing.console import waiting

    with waiting("working out the station"):
        stop = station_of(station)
    if notebook is not None:
        from pellucid.lessons.notebook import to_notebook

        write(notebook, to_notebook(stop), "notebook", overwrite)
    if slides is not None:
        from pellucid.lessons.slides import to_slides

        write(slides, to_slides(stop), "slides", overwrite)
    if svg is not None:
        from pellucid.lessons.picture import to_svg

        write(svg, to_svg(stop.walk), "svg", overwrite)
    if png is not None:
        from pellucid.common.drawing import to_png
        from pellucid.lessons.picture import to_svg

        write(png, to_png(to_svg(stop.walk, styled=False)), "png", overwrite)
    if json:
        typer.echo(to_json(stop))
    elif answers or not any(files.values()):
        from pellucid.commands.printing.station import show

        asks = not answers and sys.stdin.isatty() and sys.stdout.isatty()
        names = list(STATIONS)
        after = names.index(stop.name) + 1
        show(
            stop,
            Console(),
            _ask if asks else None,
            names[after] if after < len(names) else None,
        )


def _show_page(station: str | None, teaches: bool, browser: bool) -> NoReturn:
    """Serve the page at a station, until Ctrl-C."""
    from pellucid.viewer.reading import models_at_hand
    from pellucid.viewer.serve import listening, serve

    parameters = [f"station={station}"] * (station is not None) + ["class=1"] * teaches
    with listening("127.0.0.1", 0) as at:
        place = "learn" + ("?" + "&".join(parameters) if parameters else "")
        serve([], at, browser, _show_address, models_at_hand(), place=place)


def _show_address(address: str) -> None:
    typer.echo(f"{address}\nCtrl-C stops.")
    sys.stdout.flush()


def _ask(most: int) -> int:
    """A number from 1 to `most`, from whoever sits there."""
    while True:
        given = str(typer.prompt("Your answer")).strip()
        if given.isdecimal() and 1 <= int(given) <= most:
            return int(given)
        typer.echo(f"A number from 1 to {most}, please.")
