"""Schemathesis makes requests out of the document, right and wrong ones: each is answered as the document says."""

import os
import subprocess
import sys
from pathlib import Path

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_what_is_made_out_of_the_document_is_answered_as_it_says(served, tmp_path):
    # The stream of live events has a test of its own: it does not end.
    words = [
        "run", f"http://127.0.0.1:{served.port}/tally/v1/openapi.json", "--exclude-path", "/live", "--checks", CHECKS,
        "--phases", "coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--no-color", "--warnings", "off",
    ]  # fmt: skip
    program = Path(sys.executable).with_name("schemathesis")
    env = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": ""}
    done = subprocess.run(
        [program, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    tested = done.stdout.split("Tested: ")[1].split()[0]
    assert int(tested) == 13
    assert served.get("/calls", limit="1")[0] == 200
