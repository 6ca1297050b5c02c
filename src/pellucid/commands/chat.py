"""`pellucid chat`."""

from dataclasses import replace
from typing import Annotated

import typer

from pellucid import pretrained
from pellucid.commands.generation import SystemOption
from pellucid.commands.shared import model_option

commands = typer.Typer()


@commands.command()
def chat(
    model: Annotated[
        str | None,
        model_option(f"A decoder with a chat template (default: {pretrained.SMOLLM2})."),
    ] = None,
    system: SystemOption = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Reply in at most N tokens.")] = 512,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="0 always takes the likeliest token (default: the model's own, or 0).",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="The random seed; the same seed gives the same replies."),
    ] = None,
) -> None:
    """Talk with a model: each line is a message; /help lists commands."""
    from pellucid.commands.inputs import opened
    from pellucid.commands.printing import conversation
    from pellucid.models.checkpoints.source import opening
    from pellucid.tasks.conversation import Conversation
    from pellucid.tasks.decoders import open_writer, sampling_of
    from pellucid.tasks.generation import check_numbers
    from pellucid.tasks.sampling import Sampling

    sampling = Sampling(temperature=0.0 if temperature is None else temperature)
    check_numbers(max_tokens=max_tokens, sampling=sampling, samples=1, seed=seed)
    name = model or pretrained.SMOLLM2
    loaded = opened(name, open_writer)
    with opening(name):
        talk = Conversation(loaded, system)
    sampling = sampling_of(loaded)
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    conversation.run(talk, max_tokens=max_tokens, sampling=sampling, seed=seed)
