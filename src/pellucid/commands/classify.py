"""`pellucid classify`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid import pretrained
from pellucid.commands.corpora import OverOption, PartOption, WorkersOption, check_alone, work_over
from pellucid.commands.shared import (
    COLUMNS,
    BalancedOption,
    ColumnOption,
    DelimiterOption,
    EncodingOption,
    FileOption,
    JsonOption,
    OverwriteOption,
    PredictOption,
    SeedOption,
    SeparatorOption,
    StrictOption,
    Texts,
    check_files,
    check_seed,
    give,
    model_option,
    output_option,
    plain_console,
    wrote,
)
from pellucid.errors import ArgumentError

commands = typer.Typer()


@commands.command("classify")
def label_texts(
    texts: Texts = None,
    examples: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labelled texts to learn from: .csv, .tsv, .jsonl, ..."),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A head that --save wrote, so that --examples are not needed."
        ),
    ] = None,
    file: FileOption = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    label: Annotated[
        str, typer.Option(metavar="NAME", help="The column of the examples with the label.")
    ] = "label",
    predict: PredictOption = None,
    separator: SeparatorOption = None,
    balanced: BalancedOption = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the head, a safetensors file.")
    ] = None,
    seed: SeedOption = 0,
    model: Annotated[
        str | None,
        model_option(
            "A model that labels texts, from `pellucid train classifier` or Hugging Face (default: "
            "Pellucid's own, for film reviews). With --examples or --head any encoder (default: "
            "all-MiniLM-L6-v2, or that of the head)."
        ),
    ] = None,
    strict: StrictOption = False,
    over: OverOption = None,
    workers: WorkersOption = "1",
    part: PartOption = None,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Label texts: learn the labels from examples, or use a trained model (by default, whether a
    film review is positive).
    """
    has_own = False
    if examples is None and head is None:
        model = model or str(pretrained.SENTIMENT)
        head = _trained_head(model)
        has_own = head is None
    elif examples is not None and head is not None:
        raise ArgumentError("give either --examples, labelled texts, or --head, a saved head")
    if head is not None and save is not None:
        raise ArgumentError("--save goes with --examples; the head is saved already")
    if head is not None and (predict is not None or separator is not None or balanced):
        raise ArgumentError("--predict, --separator and --balanced go with --examples")
    from dataclasses import replace

    from pellucid.commands.inputs import embedded, opened, read_texts
    from pellucid.commands.printing import classification
    from pellucid.commands.printing.console import note
    from pellucid.common.files import to_json
    from pellucid.tasks import evaluate, open_encoder, targets
    from pellucid.tasks import predict as predict_labels
    from pellucid.tasks.classify import Head, OwnClassifier, check_head
    from pellucid.tasks.embedding import PROBE, name_of
    from pellucid.text.table_reading import Reading, has_columns
    from pellucid.text.text_inputs import from_arguments

    reading = Reading(delimiter=delimiter, encoding=encoding)
    check_alone("model", "head", "strict")
    if over is not None:
        from pellucid.corpora import Classify

        task = Classify(head=head, model=model, strict=strict)
        return work_over(task, over, output, json, workers, part, column, reading, overwrite)
    check_files(COLUMNS, overwrite=overwrite, saves="head", save=save, output=output)
    check_seed(seed)
    classifier = None if head is None else Head.load(head)
    if classifier is not None and model is None:
        model = classifier.model
    labelled = learnt = None
    if examples is not None:
        several = predict == "labels" or separator is not None
        labelled = read_texts(
            None, examples, column, label, reading=reading, strict=strict, may_lack=several
        )
        learnt = targets.read(labelled.labels, targets.kind_named(predict), separator)
        if predict is None and separator is None and isinstance(learnt[0], float):
            note(f"'{label}' is a number, so numbers are predicted; --predict label for labels")
    items = None
    if texts or file is not None or examples is None:
        columned = (
            column
            if labelled is None or (file and (file.is_dir() or has_columns(file, reading)))
            else None
        )
        items = read_texts(texts, file, columned, reading=reading, strict=strict)
    elif output is not None:
        raise ArgumentError("--output needs texts to classify; give some, or --file")
    encoder = opened(model, open_encoder)
    report: dict[str, Any] = {"model": name_of(model)}
    console = plain_console()
    if has_own and items is not None:
        own = OwnClassifier.of(encoder)
        shares = embedded(encoder, items, strict=strict, compute=predict_labels)
        report |= {"kind": own.kind, "labels": list(own.labels)}
        give(
            output,
            json,
            overwrite=overwrite,
            data=lambda: (
                report | {"notes": items.notes} | {"items": classification.data(items, own, shares)}
            ),
            columns=lambda: classification.columns(items, own, shares),
            show=lambda: classification.show(items, own, shares, console),
        )
        return
    probe = embedded(encoder, from_arguments([PROBE]))[0]
    if classifier is None:
        assert labelled is not None
        assert learnt is not None
        vectors = embedded(encoder, labelled, strict=strict)
        evaluation = evaluate(vectors, learnt, seed, texts=labelled.texts, balanced=balanced)
        classifier = Head.fit(vectors, learnt, balanced=balanced, model=model, probe=probe)
        if evaluation is not None:
            classifier = replace(
                classifier, temperature=evaluation.temperature, margin=evaluation.margin
            )
        report |= {"held_out": None if evaluation is None else evaluation.data()}
    else:
        check_head(classifier, probe, model)
    report |= {"kind": classifier.kind, "labels": list(classifier.labels)}
    predictions = None
    if items is not None:
        predictions = classifier.predictions(embedded(encoder, items, strict=strict))
    # Nothing is printed or written until everything that can fail has been done.
    if save is not None:
        classifier.save(save, overwrite=overwrite)
        wrote(save)
    if labelled is not None and not json:
        classification.show_evaluation(evaluation, labelled, console)
        if items is not None and output is None:
            console.print()
    if items is None or predictions is None:
        if json:
            typer.echo(to_json(report))
        return
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: (
            report
            | {"notes": [*(labelled.notes if labelled else ()), *items.notes]}
            | {"items": classification.data(items, classifier, predictions)}
        ),
        columns=lambda: classification.columns(items, classifier, predictions),
        show=lambda: classification.show(items, classifier, predictions, console),
    )


def _trained_head(model: str) -> Path | None:
    """The head in the directory of a model; None if the model has a classifier of its own."""
    from pellucid.common.files import printable
    from pellucid.common.untrusted import inside, json_in
    from pellucid.models.checkpoints.classifying import labels_texts
    from pellucid.models.checkpoints.source import directory_of, opening
    from pellucid.tasks.classify import FILE

    directory = directory_of(model)
    with opening(model):
        file = inside(directory, FILE)
        has_config = (directory / "config.json").is_file()
        if not file.is_file() and has_config and labels_texts(json_in(directory, "config.json")):
            return None
    if not file.is_file():
        raise ArgumentError(
            f"--model '{printable(model)}' has neither a {FILE} with labels, which `pellucid train "
            "classifier` writes, nor a classifier of its own; give --examples, labelled "
            "texts, or --head, a saved head"
        )
    return file
