-- Migration 1: entries, corrections, rollups, state.
--
-- Truth is what is only ever added: entry.body with the times and ids beside it, correction, batch, and the tables of
-- shared words (word, dimension, label, run). Everything else is derived from it in the same transaction: the other
-- columns of entry (the call as it stands, after corrections), pending and all rollups. `Ledger.verify` recomputes the derived.
--
-- Times are microseconds since 1970 UTC. Money is two limbs: whole 1e-6 USD in _micro, 1e-12 USD in _pico.
-- Codes count from 0:  quality exact estimated lower_bound unknown · status ok error cancelled cut refused
--                      source client gateway log otlp manual import

-- One row per transaction of one writer, with the entries seq = first_seq and following; hash = sha256 over the writer's
-- last hash and the rows of this batch.
CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    writer_id TEXT NOT NULL,
    batch_no INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    batch_hash BLOB NOT NULL
) STRICT;

-- Texts that repeat: values of tags, priced kinds, heads of costs, shapes of usage.
CREATE TABLE word (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

-- What spend is added up over. An absent value is ''.
CREATE TABLE dimension (
    id INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    maker TEXT NOT NULL,
    key TEXT NOT NULL,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    UNIQUE (provider, model, maker, key, team, project)
) STRICT;

-- What many calls share. identity is all of it as one JSON list.
CREATE TABLE label (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    dimension INTEGER NOT NULL REFERENCES dimension,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    maker TEXT,
    tags TEXT NOT NULL
) STRICT;

-- Runs (one agent task each).
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE
) STRICT;

-- One row per call. body (MessagePack) with the id and times beside it is the call as it arrived; source to reasoning
-- are the call as it stands. holder: the call it repeats, or was joined into at joined_us and no longer counts beside.
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY,
    call_id TEXT NOT NULL UNIQUE,
    started_us INTEGER NOT NULL,
    recorded_us INTEGER NOT NULL,
    run INTEGER REFERENCES run,
    source INTEGER NOT NULL,
    label INTEGER NOT NULL REFERENCES label,
    status INTEGER NOT NULL,
    quality INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    cost_micro INTEGER NOT NULL,
    cost_pico INTEGER NOT NULL,
    input INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    amended INTEGER NOT NULL DEFAULT 0,
    repeated INTEGER NOT NULL DEFAULT 0,
    holder INTEGER,
    joined_us INTEGER,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX entry_started ON entry (started_us);
CREATE INDEX entry_run ON entry (run) WHERE run IS NOT NULL;
CREATE INDEX entry_holder ON entry (holder) WHERE holder IS NOT NULL;

-- Finds calls by the provider's id: hash is of provider and id, and several may share one.
CREATE TABLE response (
    hash INTEGER NOT NULL,
    seq INTEGER NOT NULL REFERENCES entry,
    PRIMARY KEY (hash, seq)
) STRICT, WITHOUT ROWID;

-- What the latest batches add to the rollups and to response, written in their transaction and folded in later, many
-- batches at a time. A sum is what its rollup says and what is pending.
CREATE TABLE pending (
    batch INTEGER PRIMARY KEY REFERENCES batch,
    body BLOB NOT NULL
) STRICT;

-- Usage of kinds without a column, of calls as they stand.
CREATE TABLE entry_kind (
    seq INTEGER NOT NULL REFERENCES entry,
    kind TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    PRIMARY KEY (seq, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE correction (
    seq INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL REFERENCES batch,
    correction_id TEXT NOT NULL UNIQUE,
    entry INTEGER NOT NULL REFERENCES entry,
    recorded_us INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX correction_entry ON correction (entry);
CREATE INDEX correction_batch ON correction (batch);

-- Rollups: sums over one axis in one period, as sheets cut into parts of neighbouring values. body is a MessagePack map
-- from value to counters of 64 bits each, packed in the order of FIELDS in sums.py.
-- Grain 0 is a quarter of an hour (period = 15 minutes since 1970 UTC) of the last 62 days, 1 a day (days since 1970) and
-- 2 a month (year * 12 + month - 1), both in the ledger's time zone.
-- Axis 0 has dimensions as values, -1 cells (label * 128 + (source * 5 + status) * 4 + quality), -2 runs. Other axes are
-- words, and so are their values: 'slot:NAME' at grain 0; at grains 1 and 2 'day:NAME' for the tag NAME and 'day=NAME'
-- for provider, model, maker, source, status and quality.
CREATE TABLE sheet (
    grain INTEGER NOT NULL,
    axis INTEGER NOT NULL,
    period INTEGER NOT NULL,
    part INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (grain, axis, period, part)
) STRICT;

-- Rollups: usage of kinds without a counter.
CREATE TABLE sheet_kind (
    grain INTEGER NOT NULL,
    axis INTEGER NOT NULL,
    period INTEGER NOT NULL,
    value INTEGER NOT NULL,
    kind TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    PRIMARY KEY (grain, axis, period, value, kind)
) STRICT, WITHOUT ROWID;

-- Small things kept beside the calls: budgets, keys, import offsets, calibration. Namespace 'ledger' is the ledger's own.
CREATE TABLE state (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;

-- For people with any SQLite tool: the calls that count, as they stand.
CREATE VIEW calls AS
SELECT
    entry.call_id,
    strftime('%Y-%m-%dT%H:%M:%SZ', entry.started_us / 1000000, 'unixepoch') AS started_at,
    label.provider,
    label.model,
    label.tags,
    run.run_id,
    CASE entry.status WHEN 0 THEN 'ok' WHEN 1 THEN 'error' WHEN 2 THEN 'cancelled' WHEN 3 THEN 'cut' ELSE 'refused' END
        AS status,
    CASE entry.quality WHEN 0 THEN 'exact' WHEN 1 THEN 'estimated' WHEN 2 THEN 'lower_bound' ELSE 'unknown' END
        AS quality,
    CASE entry.unpriced WHEN 0 THEN entry.cost_micro / 1e6 END AS usd_about,
    entry.owed,
    entry.input, entry.cache_read, entry.cache_write, entry.cache_write_5m, entry.cache_write_1h, entry.output,
    entry.reasoning
FROM entry
JOIN label ON label.id = entry.label
LEFT JOIN run ON run.id = entry.run
WHERE entry.joined_us IS NULL;
