-- Migration 3: how cost and time are spread over calls.
--
-- Derived from the entries by the folding that brings what they add into the sums. measure counts from 0: cost latency
-- ttft. day: since 1970, in the ledger's time zone. body is a sketch, see sketches.py.

CREATE TABLE spread (
    measure smallint NOT NULL,
    day integer NOT NULL,
    dimension bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (measure, day, dimension)
);

ALTER TABLE move ADD COLUMN latency_us bigint, ADD COLUMN ttft_us bigint;

DROP FUNCTION write_calls(
    text, bigint, bytea, text[], bigint[], bigint[], bigint[], smallint[], bigint[], smallint[], smallint[],
    smallint[], smallint[], bigint[], integer[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[],
    bigint[], bytea[], integer[], integer[], uuid[], integer[], integer[], text[], bigint[]
);

-- Writes a batch of calls that nobody has seen, in one statement: its ids, entries, moves and link. An array has one
-- value for each call; hash_place and kind_place count from 1. Raises TLY01 where one of the ids is known.
CREATE FUNCTION write_calls(
    writer text, number bigint, link bytea,
    all_call_id text[], all_started_us bigint[], all_recorded_us bigint[], all_run bigint[], all_source smallint[],
    all_label bigint[], all_status smallint[], all_quality smallint[], all_owed smallint[], all_unpriced smallint[],
    all_cost_micro bigint[], all_cost_pico integer[], all_input bigint[], all_cache_read bigint[],
    all_cache_write bigint[], all_cache_write_5m bigint[], all_cache_write_1h bigint[], all_output bigint[],
    all_reasoning bigint[], all_body bytea[], all_day integer[], all_month integer[],
    all_latency_us bigint[], all_ttft_us bigint[],
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
        cache_write, cache_write_5m, cache_write_1h, output, reasoning, latency_us, ttft_us
    )
    SELECT this, 1, new.started_us / 900000000 - (new.started_us % 900000000 < 0)::integer,
        new.day, new.month, new.run, new.source, new.label, new.status, new.quality, new.owed, new.unpriced,
        new.cost_micro, new.cost_pico, new.input, new.cache_read, new.cache_write, new.cache_write_5m,
        new.cache_write_1h, new.output, new.reasoning, new.latency_us, new.ttft_us
    FROM unnest(
        all_started_us,
        all_day, all_month, all_run, all_source, all_label, all_status, all_quality, all_owed, all_unpriced,
        all_cost_micro, all_cost_pico, all_input, all_cache_read, all_cache_write, all_cache_write_5m,
        all_cache_write_1h, all_output, all_reasoning, all_latency_us, all_ttft_us
    ) AS new (
        started_us,
        day, month, run, source, label, status, quality, owed, unpriced, cost_micro, cost_pico, input, cache_read,
        cache_write, cache_write_5m, cache_write_1h, output, reasoning, latency_us, ttft_us
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
