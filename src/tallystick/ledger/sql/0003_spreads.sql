-- Migration 3: how cost and time are spread over calls.
--
-- Derived from the entries in the transaction that folds what they add to the sums. measure counts from 0: cost latency
-- ttft. day: since 1970, in the ledger's time zone. Cut into parts of 128 neighbouring dimensions; body is a MessagePack map
-- from dimension to a sketch, see sketches.py.

CREATE TABLE spread (
    measure INTEGER NOT NULL,
    day INTEGER NOT NULL,
    part INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (measure, day, part)
) STRICT;
