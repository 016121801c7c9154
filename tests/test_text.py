"""Markdown tables, mean ± error, and blocks of a page."""

from __future__ import annotations

import math

import pytest

from wavedistill.errors import WavedistillError
from wavedistill.text import fill_block, markdown_table, mean_and_error


def test_a_table_aligns_text_to_the_left_and_numbers_to_the_right():
    assert markdown_table(["a", "b", "c"], [["x", 1, None]]) == "| a | b | c |\n| --- | ---: | ---: |\n| x | 1 | None |"
    assert markdown_table(["a", "b"], [], left=2).splitlines() == ["| a | b |", "| --- | --- |"]
    assert markdown_table(["step"], [[5]], left=0).splitlines()[1] == "| ---: |"


@pytest.mark.parametrize(
    ("mean", "error", "digits", "text"),
    [
        (0.12345, 0.01, None, "0.123 ± 0.010"),
        (-3.14159, 0.05, None, "-3.14 ± 0.05"),
        (31.4159, 0.5, None, "31.4 ± 0.5"),
        (314.159, 5.0, None, "314 ± 5"),
        (3.14159, 0.05, 1, "3.1 ± 0.1"),
        (2.0, math.nan, None, "2.00"),
        (math.nan, math.nan, None, "-"),
    ],
)
def test_a_mean_has_as_many_digits_as_its_size_deserves(mean, error, digits, text):
    assert mean_and_error(mean, error, digits) == text


def test_a_block_is_replaced_and_the_rest_of_the_page_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a:begin -->\nold ± text\n<!-- a:end -->\nafter\n", encoding="utf-8")
    fill_block(page, "a", "new ± text")
    fill_block(page, "a", "newer ± text")
    assert page.read_text(encoding="utf-8") == "before\n<!-- a:begin -->\n\nnewer ± text\n\n<!-- a:end -->\nafter\n"
    with pytest.raises(WavedistillError, match="add <!-- b:begin --> and <!-- b:end -->"):
        fill_block(page, "b", "text")
