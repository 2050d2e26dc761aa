"""Words: the matrix as a table for people. It is made from the cells, which the suite runs."""

from itertools import groupby
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "capture-matrix.md"
START, END = "<!-- every client by every case -->\n", "<!-- end of every client by every case -->"
WORDS = {"exact": "exact", "lower_bound": "at least", "unknown": "unknown", "unread": "unknown", "free": "no cost"}


def table(cells):
    """Markdown: a row for each case, a column for each client, and in it what the ledger says of the calls."""
    clients = list(dict.fromkeys(cell.maker.name for cell in cells))
    cases = list(dict.fromkeys(cell.case for cell in cells))
    found = {(cell.case, cell.maker.name): _said(cell) for cell in cells}
    rows = [["case", *clients], ["---"] * (1 + len(clients))]
    rows += [[case, *(found.get((case, client), "") for client in clients)] for case in cases]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _said(cell):
    parts = []
    for word, several in groupby(WORDS[expected] for expected in cell.expect):
        number = len(list(several))
        parts.append(word if number == 1 else f"{number} x {word}")
    return ", ".join(parts) + (" (fault)" if cell.known else "")


def on_page():
    """The table as the page has it."""
    return PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]


def write(cells):
    """Puts the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + START + table(cells) + END + rest.partition(END)[2], encoding="utf-8")
