"""`pellucid embed`."""

import typer

commands = typer.Typer()
