"""The bundle in the package is that of the modules beside it."""

from recipes import page


def test_the_bundle_is_what_was_made_of_the_modules_as_they_are() -> None:
    line, _, made = page.BUNDLE.read_text(encoding="utf-8").partition("\n")
    assert line == page.first_line(made), "the page or its bundle has changed: run make page"


def test_the_first_line_hangs_on_every_letter_below_it() -> None:
    _, _, made = page.BUNDLE.read_text(encoding="utf-8").partition("\n")
    assert page.first_line(made + " ") != page.first_line(made)


def test_the_bundle_loads_nothing() -> None:
    bundle = page.BUNDLE.read_text(encoding="utf-8")
    assert "import(" not in bundle
    assert "import{" not in bundle
    assert "https:" not in bundle
    assert bundle.count("export{") == 1  # the widget


def test_the_bundle_can_stand_in_a_page() -> None:
    bundle = page.BUNDLE.read_text(encoding="utf-8")
    assert "<!--" not in bundle
    assert "<script" not in bundle
