"""A stand: `tally up` as a process over a prepared ledger, before a simulated provider."""

import urllib.request
from contextlib import contextmanager

import msgspec
from gateway_desk import up
from pages_ledger import LEDGERS

from tallystick.ledger.opening import open_ledger
from tallystick.simulator import Answer, Simulator


class Stand:
    """`url` is where the pages are, `openai` what a client takes as its base URL, `sim` the provider behind it."""

    def __init__(self, folder, kind, now, place=None):
        self.folder = folder
        self.ledger = place or str(folder / "pages.db")
        with open_ledger(self.ledger, zone="UTC") as ledger:
            LEDGERS[kind](ledger, now)
        self.url = self.openai = ""
        self.sim = None

    @contextmanager
    def started(self, *words, answer=None):
        """The stand, serving."""
        with Simulator(answer or Answer(output_tokens=40)) as self.sim:
            options = ["--upstream", f"openai={self.sim.openai_url}", *words]
            with up(self.folder, *options, env={"TALLY_LEDGER": self.ledger}) as (told, _):
                self.url, self.openai = told["url"], told["urls"]["openai"]
                yield self

    def get(self, path):
        """What the JSON interface, or a page with ?format=json, answers."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return msgspec.json.decode(answer.read())

    def budgets(self):
        """The budgets, by name."""
        return {one["name"]: one for one in self.get("/tally/v1/budgets")["budgets"]}
