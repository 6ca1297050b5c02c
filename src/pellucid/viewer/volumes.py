"""What the page shows: a saved recording, or a text that a model reads first."""

from pathlib import Path

from pellucid import pretrained
from pellucid.common.files import printable
from pellucid.errors import ArgumentError
from pellucid.lens.layer_selection import Layers
from pellucid.lens.recording import Recording
from pellucid.readers.forward_pass import Step, recorded
from pellucid.viewer.catalogue import MOST_TEXT, MOST_VALUES, Rerun, Volume

SUFFIX = ".safetensors"
MOST_TITLE = 60


def is_recording(argument: str | None) -> bool:
    """Whether an argument names a recording rather than a text."""
    return argument is not None and argument.endswith(SUFFIX)


def saved(name: str, layers: Layers | None = None) -> Volume:
    """A recording from a file, or of some of its layers.

    Raises:
        FileError: no such file, or no recording.
        UnknownNameError: one of the layers is none of it.
    """
    seen = Recording.load(name)
    return Volume(seen if layers is None else seen.of_layers(layers), Path(name).name)


def title_of(text: str, file: Path | None = None) -> str:
    """What to call a text: its file, or how it begins."""
    return " ".join(text.split())[:MOST_TITLE] if file is None else file.name


def read(
    text: str,
    title: str,
    *,
    target: str | None = None,
    model: str | None = None,
    layers: Layers | None = None,
    max_tokens: int | None = None,
    new_tokens: int | None = None,
    step: Step,
) -> Volume:
    """What a model sees in a text, or in what it generates from it.

    Args:
        text: what it reads.
        title: what to call it.
        target: what the decoder of an encoder-decoder reads; the text as well unless given.
        model: as for `open_checkpoint`.
        layers: those to record; all if None.
        max_tokens: truncate longer texts.
        new_tokens: the most to generate; none if None.
        step: called with the progress.

    Raises:
        ArgumentError: the text is too long for the model, or no attention can be recorded.
        FileError: the model cannot be opened.
    """
    if new_tokens is not None:
        if target is not None:
            raise ArgumentError(
                "give --target, which is read, or --new-tokens, which generates, not both"
            )
        from pellucid.viewer.generated import recorded_generation

        volume = recorded_generation(text, title, model, layers, new_tokens, step)
    else:
        _, inputs, seen = recorded(
            text,
            target,
            model,
            layers,
            max_tokens,
            step,
            values_up_to=MOST_VALUES,
            answers=True,
        )
        volume = Volume(seen, title, rerun=Rerun(model, inputs))
    name = pretrained.DECODER.name if model is None else printable(Path(model).name or model)
    return volume._replace(text=text if len(text) <= MOST_TEXT else "", model=name)
