"""Tables and plots of docs/results are what the committed runs give."""

import pytest

from bench.pages import RESULTS, files, written


def test_the_pages_are_what_the_runs_give():
    stale = [str(file.relative_to(RESULTS)) for file, data in files().items() if file.read_bytes() != data]
    assert not stale, f"run python -m bench.pages: {stale}"


PAGE = "before\n\n<!-- bench.pages a -->\n\n| old |\n\n<!-- end -->\n\nafter"


def test_only_what_is_between_the_marks_is_written():
    text = written(PAGE, {"a": "| new |", "b": "| other |"})
    assert text == PAGE.replace("old", "new")
    assert written(text, {"a": "| new |"}) == text


def test_an_empty_table_is_filled_and_its_neighbour_stays():
    empty = PAGE.replace("| old |\n\n", "")
    both = {"a": "| new |", "b": "| other |"}
    assert written(empty + "\n\n" + PAGE.replace(" a ", " b "), both) == "\n\n".join(
        [PAGE.replace("old", "new"), PAGE.replace(" a ", " b ").replace("old", "other")]
    )


@pytest.mark.parametrize(("page", "named"), [(PAGE, "asks for a; there are b"), ("nothing", "asks for no table")])
def test_a_page_that_asks_for_another_table_is_named(page, named):
    with pytest.raises(ValueError, match=named):
        written(page, {"b": "| new |"})
