"""Every client by every case: the ledger says what was served, and the caller notices nothing of it."""

import gc
import warnings

import pytest
from matrix_run import one_certificate, run_cell
from matrix_table import cells
from matrix_words import on_page, table

CELLS = cells()


@pytest.fixture(autouse=True)
def _light(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", one_certificate(tmp_path))
    # What a caller forgets warns when it is collected, with and without us.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect(1)


def parameters():
    for cell in CELLS:
        marks = [pytest.mark.xfail(reason=cell.known, strict=False, raises=AssertionError)] if cell.known else []
        yield pytest.param(cell, id=cell.id, marks=marks)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cell", list(parameters()))
def test_cell(cell):
    row = run_cell(cell)
    assert len(row["entries"]) == len(cell.expect)


def test_the_table_has_every_client_and_no_cell_twice():
    names = {cell.maker.name for cell in CELLS}
    assert names >= {
        "openai", "openai async", "anthropic", "anthropic async", "google-genai", "google-genai async", "boto3",
        "mistralai", "groq", "groq async",
    }  # fmt: skip
    assert len({cell.id for cell in CELLS}) == len(CELLS) > 150


def test_the_page_shows_this_table():
    """Where this fails: python tests/matrix/matrix_script.py --page."""
    assert on_page() == table(CELLS)
