"""Pictures of every page, light and dark, wide and narrow, over a lifelike ledger: into docs/images, as PNG."""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from pages_rig import Browser, missing
from pages_stand import Stand

from tallystick.dashboard.views import VIEWS

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"wide": (1280, 900, 1500), "narrow": (390, 844, 1700)}
"""Width, height, and how much of a long page is shown at the most, in pixels."""

LARGEST = 250_000
"""Bytes of a picture."""


def pages(stand):
    """The pages by name: those of the navigation, a run and a call."""
    run = stand.get("/tally/v1/runs?since=7d")["runs"][0]["group"]["run"]
    call = stand.get("/tally/v1/calls?limit=1")["calls"][0]["call_id"]
    listed = {view.path.strip("/") or "now": view.path for view in VIEWS if view.show is not None}
    return {**listed, "run": f"/runs/{run}", "call": f"/calls/{call}"}


def main():
    told = argparse.ArgumentParser(description=__doc__)
    told.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    told.add_argument("--only", nargs="*", help="names of pages")
    given = told.parse_args()
    if reason := missing():
        sys.exit(reason)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand(Path(folder), "crowded", datetime.now(UTC))
        with stand.started():
            browser = Browser(Path(folder) / "browser")
            try:
                for name, path in pages(stand).items():
                    if not given.only or name in given.only:
                        taken(browser, stand.url + path, given.out / name)
            finally:
                browser.close()


def taken(browser, url, place):
    """Takes the pictures of a page."""
    for size, (wide, tall, most) in SIZES.items():
        with browser.page(wide=wide, tall=tall) as page:
            page.goto(url)
            page.until("document.querySelector('[data-pulse]')?.dataset.pulse !== 'off'")
            for scheme in ("light", "dark"):
                page.scheme(dark=scheme == "dark")
                data = page.picture(most)
                if len(data) > LARGEST:
                    sys.exit(f"{place.name} takes {len(data):,} bytes; {LARGEST:,} are allowed")
                file = place.with_name(f"{place.name}-{scheme}-{size}.png")
                file.write_bytes(data)
                print(f"{file.name:<32}{len(data):>9,} bytes")


if __name__ == "__main__":
    main()
