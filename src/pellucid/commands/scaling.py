"""`pellucid scaling`."""

from enum import StrEnum
from typing import Annotated

import typer

from pellucid.commands.shared import (
    JsonOption,
    OverwriteOption,
    SeedOption,
    SvgOption,
    check_files,
    write,
)
from pellucid.errors import ArgumentError

commands = typer.Typer()


class Distribution(StrEnum):
    """How the components of queries and keys are drawn."""

    normal = "normal"
    uniform = "uniform"
    signs = "signs"


@commands.command()
def scaling(
    dims: Annotated[
        str, typer.Option(metavar="LIST", help="The values of d_k.")
    ] = "1,4,16,64,256,1024",
    keys: Annotated[int, typer.Option(help="How many keys each query has.")] = 64,
    samples: Annotated[int, typer.Option(help="How many random queries.")] = 512,
    seed: SeedOption = 0,
    distribution: Annotated[
        Distribution, typer.Option(help="Of the components of queries and keys.")
    ] = Distribution.normal,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train two small models instead, one of which divides."),
    ] = False,
    size: Annotated[
        int | None, typer.Option(help="d_k when --train is given (default: 64).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="How many when --train is given (default: 300).")
    ] = None,
    svg: SvgOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Measure why attention scores are divided by √d_k, or train two models to see it."""
    if train:
        if svg is not None:
            raise ArgumentError("--svg goes without --train")
        _train(size or 64, steps or 300, seed, json)
        return
    for name, number in (("size", size), ("steps", steps)):
        if number is not None:
            raise ArgumentError(f"--{name} goes with --train")
    try:
        sizes = [int(size) for size in dims.split(",")]
    except ValueError:
        raise ArgumentError(f"--dims must be numbers separated by commas, not '{dims}'") from None
    if not -(2**63) <= seed < 2**64:
        raise ArgumentError(f"--seed must be from -2**63 to 2**64 - 1, not {seed}")
    check_files(overwrite=overwrite, svg=svg)
    from pellucid.lessons.scaling import measure_scaling, to_json

    measured = measure_scaling(
        sizes, keys=keys, samples=samples, seed=seed, distribution=distribution.value
    )
    if svg is not None:
        from pellucid.lessons.scaling_picture import to_svg

        write(svg, to_svg(measured), "svg", overwrite)
    if json:
        typer.echo(to_json(measured))
    else:
        from rich.console import Console

        from pellucid.commands.printing.scaling import show

        show(measured, Console())


def _train(d_k: int, steps: int, seed: int, json: bool) -> None:
    from rich.console import Console

    from pellucid.commands.printing.scaling import show_training, training
    from pellucid.lessons.scaling_training import compare_training, to_json

    with training(Console(stderr=True)) as progress:
        comparison = compare_training(d_k, steps=steps, seed=seed, progress=progress)
    if json:
        typer.echo(to_json(comparison))
    else:
        show_training(comparison, Console())
