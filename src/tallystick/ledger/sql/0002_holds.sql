-- Migration 2: budgets, their accounts, and the holds that move them.
--
-- Truth is budget, hold, rolled and account.seed: the other figures of an account are what its holds stand for and its seed, in
-- the same transaction. `Ledger.verify` recomputes them. Amounts are decimal text, in whole picodollars, tokens or
-- calls: they may be larger than 64 bits. state 'ledger' 'budgets' is the version of the budgets, which grows with each
-- change of one.
-- States of a hold count from 0: open settled released suspect

CREATE TABLE budget (
    budget_id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    dropped INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE account (
    budget_id TEXT NOT NULL,
    value TEXT NOT NULL,
    period TEXT NOT NULL,
    seed TEXT NOT NULL,
    settled TEXT NOT NULL,
    suspect TEXT NOT NULL,
    held TEXT NOT NULL,
    unlearned INTEGER NOT NULL,
    overdraft TEXT NOT NULL,
    PRIMARY KEY (budget_id, value, period)
) STRICT, WITHOUT ROWID;

-- The accounts of rolling budgets come to an end: those of periods before floor are dropped, and what their holds still
-- do is theirs alone. left_at is where the window began at at_us; it is the next floor.
CREATE TABLE rolled (
    budget_id TEXT NOT NULL,
    value TEXT NOT NULL,
    floor TEXT NOT NULL,
    left_at TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (budget_id, value)
) STRICT, WITHOUT ROWID;

-- One row per hold, and per call that was charged without one (owner ''). parts (JSON) are what it has to do with each
-- account, settlement a digest of the charges that ended it.
CREATE TABLE hold (
    id INTEGER PRIMARY KEY,
    hold_id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    owner TEXT NOT NULL,
    authorised_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    output INTEGER NOT NULL,
    unlearned INTEGER NOT NULL,
    payload TEXT NOT NULL,
    parts TEXT NOT NULL,
    settlement TEXT
) STRICT;
CREATE INDEX hold_open ON hold (owner, expires_us) WHERE state = 0;
CREATE INDEX hold_suspect ON hold (id) WHERE state = 3;

-- The asks that wait for holds in flight, first come first served; places (JSON) is where.
CREATE TABLE waiter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    until_us INTEGER NOT NULL,
    places TEXT NOT NULL
) STRICT;
