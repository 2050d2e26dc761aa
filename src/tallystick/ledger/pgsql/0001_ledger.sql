-- Migration 1: entries, corrections, rollups, state, in the schema `tallystick`.
--
-- Truth is what is only ever added: entry.body with the times and ids beside it, correction, batch, and the tables of
-- shared words (word, label, run's names). Everything else is derived from it in the same transaction: the other
-- columns of entry (the call as it stands, after corrections), move and all rollups. `Ledger.verify` recomputes the
-- derived.
--
-- Times are microseconds since 1970 UTC. Money is two limbs: whole 1e-6 USD in _micro, 1e-12 USD in _pico; one call
-- fits bigints, sums are numeric and never overflow.
-- Codes count from 0:  quality exact estimated lower_bound unknown · status ok error cancelled cut refused
--                      source client gateway log otlp manual import
--
-- There are no foreign keys: each would lock the row it points at, and all writers point at the same few.
-- Texts are found by hash indexes (EXCLUDE USING hash), as a B-tree takes none above 2.7 kB.

CREATE TABLE schema_version (number integer NOT NULL);

CREATE SEQUENCE batch_id;

-- One row per transaction of one writer. Its entries have seq = id * 2^24 and following; batch_hash = sha256 over the
-- writer's last hash and the rows of this batch.
CREATE TABLE batch (
    id bigint PRIMARY KEY,
    writer_id text NOT NULL,
    batch_no bigint NOT NULL,
    entries integer NOT NULL,
    batch_hash bytea NOT NULL,
    UNIQUE (writer_id, batch_no)
);

-- Texts that repeat: values of tags, priced kinds, heads of costs, shapes of usage.
CREATE TABLE word (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text text COLLATE "C" NOT NULL,
    EXCLUDE USING hash (text WITH =)
);

-- What spend is added up over. An absent value is ''. identity is all of it as one JSON list.
CREATE TABLE dimension (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity text COLLATE "C" NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    maker text NOT NULL,
    key text NOT NULL,
    team text NOT NULL,
    project text NOT NULL,
    EXCLUDE USING hash (identity WITH =)
);

-- What many calls share. identity is all of it as one JSON list.
CREATE TABLE label (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity text COLLATE "C" NOT NULL,
    dimension bigint NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    maker text,
    tags jsonb NOT NULL,
    EXCLUDE USING hash (identity WITH =)
);

-- One row per run (one agent task), with its sums.
CREATE TABLE run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL,
    calls numeric NOT NULL DEFAULT 0, refused numeric NOT NULL DEFAULT 0, unpriced numeric NOT NULL DEFAULT 0,
    estimated numeric NOT NULL DEFAULT 0, lower_bound numeric NOT NULL DEFAULT 0,
    unknown numeric NOT NULL DEFAULT 0, owed_micro numeric NOT NULL DEFAULT 0, owed_pico numeric NOT NULL DEFAULT 0,
    free_micro numeric NOT NULL DEFAULT 0, free_pico numeric NOT NULL DEFAULT 0, input numeric NOT NULL DEFAULT 0,
    cache_read numeric NOT NULL DEFAULT 0, cache_write numeric NOT NULL DEFAULT 0,
    cache_write_5m numeric NOT NULL DEFAULT 0, cache_write_1h numeric NOT NULL DEFAULT 0,
    output numeric NOT NULL DEFAULT 0, reasoning numeric NOT NULL DEFAULT 0,
    EXCLUDE USING hash (run_id WITH =)
);

-- Which calls are known, over all months: a call_id stands once. seq and started_us find the entry.
CREATE TABLE call (
    call_id text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL,
    started_us bigint NOT NULL
);

-- The entry that stands for a provider's id; hash is 128 bits of provider and id.
CREATE TABLE response (
    hash uuid PRIMARY KEY,
    seq bigint NOT NULL,
    started_us bigint NOT NULL
);

-- One row per call. body (MessagePack) with the id and times beside it is the call as it arrived; source to reasoning
-- are the call as it stands. holder: the seq of the call it repeats, or was joined into at joined_us and no longer
-- counts beside. Months of 2015 to 2099 have a partition each, made when the first call arrives.
CREATE TABLE entry (
    seq bigint NOT NULL,
    started_us bigint NOT NULL,
    recorded_us bigint NOT NULL,
    run bigint,
    label bigint NOT NULL,
    cost_micro bigint NOT NULL,
    input bigint NOT NULL, cache_read bigint NOT NULL, cache_write bigint NOT NULL, cache_write_5m bigint NOT NULL,
    cache_write_1h bigint NOT NULL, output bigint NOT NULL, reasoning bigint NOT NULL,
    holder bigint,
    joined_us bigint,
    cost_pico integer NOT NULL,
    source smallint NOT NULL,
    status smallint NOT NULL,
    quality smallint NOT NULL,
    owed smallint NOT NULL,
    unpriced smallint NOT NULL,
    amended smallint NOT NULL,
    repeated smallint NOT NULL,
    call_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (started_us, seq)
) PARTITION BY RANGE (started_us);
CREATE INDEX entry_run ON entry (run) WHERE run IS NOT NULL;
CREATE INDEX entry_holder ON entry (holder) WHERE holder IS NOT NULL;
CREATE TABLE entry_before PARTITION OF entry FOR VALUES FROM (MINVALUE) TO (1420070400000000);
CREATE TABLE entry_after PARTITION OF entry FOR VALUES FROM (4102444800000000) TO (MAXVALUE);

-- Usage of kinds without a column, of calls as they stand.
CREATE TABLE entry_kind (
    seq bigint NOT NULL,
    started_us bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL,
    PRIMARY KEY (seq, kind)
);

CREATE TABLE correction (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch bigint NOT NULL,
    correction_id text COLLATE "C" NOT NULL UNIQUE,
    call_id text COLLATE "C" NOT NULL,
    recorded_us bigint NOT NULL,
    body text NOT NULL
);
CREATE INDEX correction_call ON correction (call_id);
CREATE INDEX correction_batch ON correction (batch);

-- What the latest calls add to the rollups (sign 1), or no longer add (-1) as they were corrected or joined into
-- another: written in their transaction, and folded in later, many at a time and by one process at a time, so that no
-- two writers ever wait for one row. A sum is what its rollup says and what has moved since.
-- quarter: of an hour, since 1970 UTC. day: since 1970, and month: year * 12 + month - 1, in the ledger's time zone.
CREATE TABLE move (
    batch bigint NOT NULL,
    quarter bigint NOT NULL,
    label bigint NOT NULL,
    run bigint,
    cost_micro bigint NOT NULL,
    input bigint NOT NULL, cache_read bigint NOT NULL, cache_write bigint NOT NULL, cache_write_5m bigint NOT NULL,
    cache_write_1h bigint NOT NULL, output bigint NOT NULL, reasoning bigint NOT NULL,
    day integer NOT NULL,
    month integer NOT NULL,
    cost_pico integer NOT NULL,
    sign smallint NOT NULL,
    source smallint NOT NULL,
    status smallint NOT NULL,
    quality smallint NOT NULL,
    owed smallint NOT NULL,
    unpriced smallint NOT NULL
);
CREATE INDEX move_batch ON move (batch);

-- The same for usage of kinds without a column, with its sign.
CREATE TABLE move_kind (
    batch bigint NOT NULL,
    day integer NOT NULL,
    label bigint NOT NULL,
    source smallint NOT NULL,
    status smallint NOT NULL,
    quality smallint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL
);
CREATE INDEX move_kind_batch ON move_kind (batch);

-- The moves as the counters of the rollups.
CREATE VIEW moved AS
SELECT
    move.batch, move.quarter, move.day, move.month, move.label, label.dimension, move.run, move.source, move.status,
    move.quality,
    sign AS calls,
    CASE WHEN status = 4 THEN sign ELSE 0 END AS refused,
    sign * unpriced AS unpriced,
    CASE WHEN quality = 1 AND status <> 4 THEN sign ELSE 0 END AS estimated,
    CASE WHEN quality = 2 AND status <> 4 THEN sign ELSE 0 END AS lower_bound,
    CASE WHEN quality = 3 AND status <> 4 THEN sign ELSE 0 END AS unknown,
    sign * cost_micro * owed AS owed_micro,
    sign * cost_pico * owed AS owed_pico,
    sign * cost_micro * (1 - owed) AS free_micro,
    sign * cost_pico * (1 - owed) AS free_pico,
    sign * input AS input, sign * cache_read AS cache_read, sign * cache_write AS cache_write,
    sign * cache_write_5m AS cache_write_5m, sign * cache_write_1h AS cache_write_1h, sign * output AS output,
    sign * reasoning AS reasoning
FROM move JOIN label ON label.id = move.label;

-- Rollup: quarters of an hour of the last 62 days (grain 0), days (1) and months (2) by dimension, source, status and
-- quality.
CREATE TABLE cube (
    grain smallint NOT NULL,
    source smallint NOT NULL,
    status smallint NOT NULL,
    quality smallint NOT NULL,
    period bigint NOT NULL,
    dimension bigint NOT NULL,
    calls numeric NOT NULL DEFAULT 0, refused numeric NOT NULL DEFAULT 0, unpriced numeric NOT NULL DEFAULT 0,
    estimated numeric NOT NULL DEFAULT 0, lower_bound numeric NOT NULL DEFAULT 0,
    unknown numeric NOT NULL DEFAULT 0, owed_micro numeric NOT NULL DEFAULT 0, owed_pico numeric NOT NULL DEFAULT 0,
    free_micro numeric NOT NULL DEFAULT 0, free_pico numeric NOT NULL DEFAULT 0, input numeric NOT NULL DEFAULT 0,
    cache_read numeric NOT NULL DEFAULT 0, cache_write numeric NOT NULL DEFAULT 0,
    cache_write_5m numeric NOT NULL DEFAULT 0, cache_write_1h numeric NOT NULL DEFAULT 0,
    output numeric NOT NULL DEFAULT 0, reasoning numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (grain, period, dimension, source, status, quality)
);

-- Rollup: days by label, source, status and quality: it knows every tag.
CREATE TABLE cell (
    day integer NOT NULL,
    source smallint NOT NULL,
    status smallint NOT NULL,
    quality smallint NOT NULL,
    label bigint NOT NULL,
    calls numeric NOT NULL DEFAULT 0, refused numeric NOT NULL DEFAULT 0, unpriced numeric NOT NULL DEFAULT 0,
    estimated numeric NOT NULL DEFAULT 0, lower_bound numeric NOT NULL DEFAULT 0,
    unknown numeric NOT NULL DEFAULT 0, owed_micro numeric NOT NULL DEFAULT 0, owed_pico numeric NOT NULL DEFAULT 0,
    free_micro numeric NOT NULL DEFAULT 0, free_pico numeric NOT NULL DEFAULT 0, input numeric NOT NULL DEFAULT 0,
    cache_read numeric NOT NULL DEFAULT 0, cache_write numeric NOT NULL DEFAULT 0,
    cache_write_5m numeric NOT NULL DEFAULT 0, cache_write_1h numeric NOT NULL DEFAULT 0,
    output numeric NOT NULL DEFAULT 0, reasoning numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (day, label, source, status, quality)
);

-- Rollup: usage of kinds without a column, by the same.
CREATE TABLE cell_kind (
    day integer NOT NULL,
    source smallint NOT NULL,
    status smallint NOT NULL,
    quality smallint NOT NULL,
    label bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    quantity numeric NOT NULL,
    PRIMARY KEY (day, label, source, status, quality, kind)
);

-- Small things kept beside the calls: budgets, keys, import offsets, calibration. Namespace 'ledger' is the ledger's
-- own.
CREATE TABLE state (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (namespace, key)
);

-- The number of a text that is new or that another process has just added. Each INSERT looks again, so the loop ends.
CREATE FUNCTION add_word(wanted text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found bigint;
BEGIN
    -- Whatever uses the number is committed, and synced, later.
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        INSERT INTO word (text) VALUES (wanted) ON CONFLICT DO NOTHING RETURNING id INTO found;
        EXIT WHEN found IS NOT NULL;
        SELECT id INTO found FROM word WHERE text = wanted;
        EXIT WHEN found IS NOT NULL;
    END LOOP;
    RETURN found;
END $$;

CREATE FUNCTION add_run(wanted text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found bigint;
BEGIN
    -- Whatever uses the number is committed, and synced, later.
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        INSERT INTO run (run_id) VALUES (wanted) ON CONFLICT DO NOTHING RETURNING id INTO found;
        EXIT WHEN found IS NOT NULL;
        SELECT id INTO found FROM run WHERE run_id = wanted;
        EXIT WHEN found IS NOT NULL;
    END LOOP;
    RETURN found;
END $$;

CREATE FUNCTION add_dimension(parts text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found bigint;
    whole CONSTANT text := array_to_json(parts)::text;
BEGIN
    -- Whatever uses the number is committed, and synced, later.
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        INSERT INTO dimension (identity, provider, model, maker, key, team, project)
        VALUES (whole, parts[1], parts[2], parts[3], parts[4], parts[5], parts[6])
        ON CONFLICT DO NOTHING RETURNING id INTO found;
        EXIT WHEN found IS NOT NULL;
        SELECT id INTO found FROM dimension WHERE identity = whole;
        EXIT WHEN found IS NOT NULL;
    END LOOP;
    RETURN found;
END $$;

CREATE FUNCTION add_label(whole text, part bigint, of_provider text, of_model text, of_maker text, all_tags jsonb)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found bigint;
BEGIN
    -- Whatever uses the number is committed, and synced, later.
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        INSERT INTO label (identity, dimension, provider, model, maker, tags)
        VALUES (whole, part, of_provider, of_model, of_maker, all_tags)
        ON CONFLICT DO NOTHING RETURNING id INTO found;
        EXIT WHEN found IS NOT NULL;
        SELECT id INTO found FROM label WHERE identity = whole;
        EXIT WHEN found IS NOT NULL;
    END LOOP;
    RETURN found;
END $$;

-- Writes a batch of calls that nobody has seen, in one statement: its ids, entries, moves and link. An array has one
-- value for each call; hash_place and kind_place count from 1. Raises TLY01 where one of the ids is known.
CREATE FUNCTION write_calls(
    writer text, number bigint, link bytea,
    all_call_id text[], all_started_us bigint[], all_recorded_us bigint[], all_run bigint[], all_source smallint[],
    all_label bigint[], all_status smallint[], all_quality smallint[], all_owed smallint[], all_unpriced smallint[],
    all_cost_micro bigint[], all_cost_pico integer[], all_input bigint[], all_cache_read bigint[],
    all_cache_write bigint[], all_cache_write_5m bigint[], all_cache_write_1h bigint[], all_output bigint[],
    all_reasoning bigint[], all_body bytea[], all_day integer[], all_month integer[],
    hashes uuid[], hash_place integer[], kind_place integer[], kinds text[], quantities bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    this bigint;
    base bigint;
    done bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1413565529, 1);
    this := nextval('batch_id');
    base := (this << 24) - 1;
    -- In the order of the keys, so that no two batches wait for each other.
    INSERT INTO call (call_id, seq, started_us)
    SELECT new.id, base + new.n, new.at FROM unnest(all_call_id, all_started_us) WITH ORDINALITY AS new (id, at, n)
    ORDER BY new.id COLLATE "C" ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done < cardinality(all_call_id) THEN
        RAISE 'some call is known' USING ERRCODE = 'TLY01';
    END IF;
    INSERT INTO response (hash, seq, started_us)
    SELECT new.hash, base + new.place, all_started_us[new.place] FROM unnest(hashes, hash_place) AS new (hash, place)
    ORDER BY new.hash ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done < cardinality(hashes) THEN
        RAISE 'some response is known' USING ERRCODE = 'TLY01';
    END IF;
    INSERT INTO entry (
        seq, amended, repeated,
        call_id, started_us, recorded_us, run, source, label, status, quality, owed, unpriced, cost_micro,
        cost_pico, input, cache_read, cache_write, cache_write_5m, cache_write_1h, output, reasoning, body
    )
    SELECT base + new.n, 0, 0,
        new.call_id, new.started_us, new.recorded_us, new.run, new.source, new.label, new.status, new.quality,
        new.owed, new.unpriced, new.cost_micro, new.cost_pico, new.input, new.cache_read, new.cache_write,
        new.cache_write_5m, new.cache_write_1h, new.output, new.reasoning, new.body
    FROM unnest(
        all_call_id, all_started_us, all_recorded_us, all_run, all_source, all_label, all_status, all_quality,
        all_owed, all_unpriced, all_cost_micro, all_cost_pico, all_input, all_cache_read, all_cache_write,
        all_cache_write_5m, all_cache_write_1h, all_output, all_reasoning, all_body
    ) WITH ORDINALITY AS new (
        call_id, started_us, recorded_us, run, source, label, status, quality, owed, unpriced, cost_micro,
        cost_pico, input, cache_read, cache_write, cache_write_5m, cache_write_1h, output, reasoning, body, n
    );
    INSERT INTO move (
        batch, sign, quarter,
        day, month, run, source, label, status, quality, owed, unpriced, cost_micro, cost_pico, input, cache_read,
        cache_write, cache_write_5m, cache_write_1h, output, reasoning
    )
    SELECT this, 1, new.started_us / 900000000 - (new.started_us % 900000000 < 0)::integer,
        new.day, new.month, new.run, new.source, new.label, new.status, new.quality, new.owed, new.unpriced,
        new.cost_micro, new.cost_pico, new.input, new.cache_read, new.cache_write, new.cache_write_5m,
        new.cache_write_1h, new.output, new.reasoning
    FROM unnest(
        all_started_us,
        all_day, all_month, all_run, all_source, all_label, all_status, all_quality, all_owed, all_unpriced,
        all_cost_micro, all_cost_pico, all_input, all_cache_read, all_cache_write, all_cache_write_5m,
        all_cache_write_1h, all_output, all_reasoning
    ) AS new (
        started_us,
        day, month, run, source, label, status, quality, owed, unpriced, cost_micro, cost_pico, input, cache_read,
        cache_write, cache_write_5m, cache_write_1h, output, reasoning
    );
    IF cardinality(kinds) > 0 THEN
        INSERT INTO entry_kind (seq, started_us, kind, quantity)
        SELECT base + new.place, all_started_us[new.place], new.kind, new.quantity
        FROM unnest(kind_place, kinds, quantities) AS new (place, kind, quantity);
        INSERT INTO move_kind (batch, day, label, source, status, quality, kind, quantity)
        SELECT this, all_day[new.place], all_label[new.place], all_source[new.place], all_status[new.place],
            all_quality[new.place], new.kind, new.quantity
        FROM unnest(kind_place, kinds, quantities) AS new (place, kind, quantity);
    END IF;
    INSERT INTO batch (id, writer_id, batch_no, entries, batch_hash)
    VALUES (this, writer, number, cardinality(all_call_id), link);
END $$;

-- Makes the partition of a month (year * 12 + month - 1). It is made apart and attached, which disturbs neither readers
-- nor writers.
CREATE FUNCTION add_month(month integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first CONSTANT date := make_date(month / 12, month % 12 + 1, 1);
    name CONSTANT text := 'entry_' || to_char(first, 'YYYY_MM');
BEGIN
    PERFORM pg_advisory_xact_lock(1413565529, 4);
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE entry INCLUDING ALL)', name);
        EXECUTE format(
            'ALTER TABLE entry ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
            name,
            (first - date '1970-01-01')::bigint * 86400000000,
            ((first + interval '1 month')::date - date '1970-01-01')::bigint * 86400000000
        );
    END IF;
END $$;

-- For people with any tool: the calls that count, as they stand.
CREATE VIEW calls AS
SELECT
    entry.call_id,
    timestamptz 'epoch' + entry.started_us * interval '1 microsecond' AS started_at,
    label.provider,
    label.model,
    label.tags,
    run.run_id,
    (ARRAY['ok', 'error', 'cancelled', 'cut', 'refused'])[entry.status + 1] AS status,
    (ARRAY['exact', 'estimated', 'lower_bound', 'unknown'])[entry.quality + 1] AS quality,
    CASE entry.unpriced WHEN 0 THEN (entry.cost_micro::numeric * 1000000 + entry.cost_pico) / 1000000000000 END AS usd,
    entry.owed = 1 AS owed,
    entry.input, entry.cache_read, entry.cache_write, entry.cache_write_5m, entry.cache_write_1h, entry.output,
    entry.reasoning
FROM entry
JOIN label ON label.id = entry.label
LEFT JOIN run ON run.id = entry.run
WHERE entry.joined_us IS NULL;
