"""The matrix for an environment without pytest: prints a line for each cell, and the rows as JSON where asked.

python tests/matrix/matrix_script.py [--json FILE] [--only WORD] [--trace] | --page
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from matrix_run import one_certificate, run_cell
from matrix_table import cells
from matrix_words import write


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--page", action="store_true", help="only put the table into its page")
    asked = parser.parse_args()
    if asked.page:
        write(cells())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SSL_CERT_FILE"] = one_certificate(folder)
        rows = run(asked)
    failed = sum("failed" in row for row in rows)
    print(f"{len(rows)} cells, {failed} failed")
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def run(asked):
    rows = []
    for cell in cells():
        if asked.only not in cell.id:
            continue
        began = time.perf_counter()
        try:
            rows.append(run_cell(cell))
            word = "ok"
        except Exception as error:  # noqa: BLE001 - whatever it is, the other cells still run
            known = bool(cell.known) and isinstance(error, AssertionError)
            word = f"{'known fault' if known else 'FAILED'} {type(error).__name__}: {str(error)[:600]}"
            rows.append({"cell": cell.id, "known" if known else "failed": word})
            if asked.trace:
                traceback.print_exc()
        print(f"{time.perf_counter() - began:6.2f} s  {cell.id}: {word}", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
