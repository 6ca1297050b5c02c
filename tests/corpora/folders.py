"""A small folder of files to work on, and what is in the output of a run over it."""

import pyarrow.dataset


def folder_of(directory, texts):
    """A folder with the texts in a .txt file, a .csv file within a folder, and an empty line."""
    folder = directory / "texts"
    (folder / "more").mkdir(parents=True)
    half = len(texts) // 2
    (folder / "a.txt").write_text("\n".join([*texts[:half], "", ""]), encoding="utf-8")
    rows = [f'"{text}",{number}' for number, text in enumerate(texts[half:])]
    (folder / "more" / "b.csv").write_text("\n".join(["text,n", *rows]), encoding="utf-8")
    return folder


def rows_of(output, name="parts"):
    """The rows of all Parquet files, in the order of file and line."""
    table = pyarrow.dataset.dataset(output / name).to_table()
    return table.sort_by([("file", "ascending"), ("line", "ascending")]).to_pylist()


TEXTS = [
    f"{who} {does} the {what}."
    for who in ("A fox", "The old king", "My neighbour", "Nobody")
    for does in ("sees", "paints", "has forgotten")
    for what in ("river", "long road", "letter")
]
"""36 texts."""
