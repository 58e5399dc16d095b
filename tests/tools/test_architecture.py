"""docs/architecture.md is what the imports and docstrings make of it."""

from tests.architecture import PAGE, first_words, rewritten


def test_the_page_shows_the_code_as_it_is():
    page = PAGE.read_text()
    assert rewritten(page) == page, "python -m tests.architecture"


def test_the_first_sentence_of_a_module(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""One | two\nthree.\n\nFour.\n"""\n')
    assert first_words(path) == "One \\| two three."
