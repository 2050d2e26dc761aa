-- Named queries; each begins with a line `-- name: ...`.

-- name: version
SELECT number FROM schema_version;

-- name: set_version
INSERT INTO schema_version (number) VALUES (%s);

-- name: write_calls
SELECT write_calls(
    %s, %s, %s,
    %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[], %s::smallint[],
    %s::smallint[], %s::smallint[], %s::smallint[], %s::bigint[], %s::integer[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::integer[], %s::integer[],
    %s::bigint[], %s::bigint[],
    %s::uuid[], %s::integer[], %s::integer[], %s::text[], %s::bigint[]
);

-- name: lock_writing
SELECT pg_advisory_xact_lock(1413565529, 1);

-- name: next_batch
SELECT nextval('batch_id');

-- name: lock_making
SELECT pg_advisory_xact_lock(1413565529, 3);

-- name: add_month
SELECT add_month(%s);

-- name: months
SELECT substr(relname, 7) FROM pg_class
WHERE relnamespace = 'tallystick'::regnamespace AND relispartition AND relkind = 'r'
    AND relname ~ '^entry_[0-9]{4}_[0-9]{2}$';

-- name: add_calls
INSERT INTO call (call_id, seq, started_us)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[]);

-- name: set_responses
INSERT INTO response (hash, seq, started_us)
SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[])
ON CONFLICT (hash) DO UPDATE SET seq = excluded.seq, started_us = excluded.started_us;

-- name: copy_entries
COPY entry (
    call_id, started_us, recorded_us, run, source, label, status, quality, owed, unpriced, cost_micro, cost_pico,
    input, cache_read, cache_write, cache_write_5m, cache_write_1h, output, reasoning, body, seq, amended, repeated,
    holder, joined_us
) FROM STDIN;

-- name: change_entries
UPDATE entry SET
    label = new.label, status = new.status, quality = new.quality, owed = new.owed, unpriced = new.unpriced,
    cost_micro = new.cost_micro, cost_pico = new.cost_pico, input = new.input, cache_read = new.cache_read,
    cache_write = new.cache_write, cache_write_5m = new.cache_write_5m, cache_write_1h = new.cache_write_1h,
    output = new.output, reasoning = new.reasoning, amended = new.amended, holder = new.holder,
    joined_us = new.joined_us
FROM unnest(
        %s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::smallint[], %s::smallint[], %s::smallint[],
        %s::bigint[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
        %s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[], %s::bigint[]
) AS new (
    started_us, seq, label, status, quality, owed, unpriced, cost_micro, cost_pico, input, cache_read, cache_write,
    cache_write_5m, cache_write_1h, output, reasoning, amended, holder, joined_us
)
WHERE entry.started_us = new.started_us AND entry.seq = new.seq;

-- name: add_kinds
INSERT INTO entry_kind (seq, started_us, kind, quantity)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bigint[]);

-- name: drop_kinds
DELETE FROM entry_kind WHERE seq = ANY(%s);

-- name: kinds_of
SELECT seq, kind, quantity FROM entry_kind WHERE seq = ANY(%s);

-- name: add_correction
INSERT INTO correction (batch, correction_id, call_id, recorded_us, body) VALUES (%s, %s, %s, %s, %s);

-- name: corrections_by_id
SELECT correction_id, recorded_us, body, call_id FROM correction WHERE correction_id = ANY(%s);

-- name: corrections_of
SELECT correction_id, recorded_us, body, call_id FROM correction WHERE call_id = ANY(%s) ORDER BY seq;

-- name: add_batch
INSERT INTO batch (id, writer_id, batch_no, entries, batch_hash) VALUES (%s, %s, %s, %s, %s);

-- name: batch_written
SELECT 1 FROM batch WHERE writer_id = %s AND batch_no = %s AND batch_hash = %s;

-- name: copy_moves
COPY move (
    batch, quarter, day, month, label, run, source, sign, status, quality, owed, unpriced, cost_micro, cost_pico,
    input, cache_read, cache_write, cache_write_5m, cache_write_1h, output, reasoning, latency_us, ttft_us
) FROM STDIN;

-- name: add_move_kinds
INSERT INTO move_kind (batch, day, label, source, status, quality, kind, quantity)
SELECT * FROM unnest(
    %s::bigint[], %s::integer[], %s::bigint[], %s::smallint[], %s::smallint[], %s::smallint[], %s::text[], %s::bigint[]
);

-- name: try_folding
SELECT pg_try_advisory_xact_lock(1413565529, 2);

-- name: moves
SELECT count(*) FROM move;

-- name: moved_batches
SELECT DISTINCT batch FROM move;

-- name: fold_cube
INSERT INTO cube (
    grain, period, dimension, source, status, quality,
    calls, refused, unpriced, estimated, lower_bound, unknown, owed_micro, owed_pico, free_micro, free_pico, input,
    cache_read, cache_write, cache_write_5m, cache_write_1h, output, reasoning
)
SELECT
    part.grain, part.period, dimension, source, status, quality,
    sum(calls), sum(refused), sum(unpriced), sum(estimated), sum(lower_bound), sum(unknown), sum(owed_micro),
    sum(owed_pico), sum(free_micro), sum(free_pico), sum(input), sum(cache_read), sum(cache_write),
    sum(cache_write_5m), sum(cache_write_1h), sum(output), sum(reasoning)
FROM moved
CROSS JOIN LATERAL (VALUES (0, quarter), (1, day), (2, month)) AS part (grain, period)
WHERE batch = ANY(%s) AND (part.grain > 0 OR quarter >= %s)
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, 2, 3, 4, 5, 6
ON CONFLICT (grain, period, dimension, source, status, quality) DO UPDATE SET
    calls = cube.calls + excluded.calls, refused = cube.refused + excluded.refused,
    unpriced = cube.unpriced + excluded.unpriced, estimated = cube.estimated + excluded.estimated,
    lower_bound = cube.lower_bound + excluded.lower_bound, unknown = cube.unknown + excluded.unknown,
    owed_micro = cube.owed_micro + excluded.owed_micro, owed_pico = cube.owed_pico + excluded.owed_pico,
    free_micro = cube.free_micro + excluded.free_micro, free_pico = cube.free_pico + excluded.free_pico,
    input = cube.input + excluded.input, cache_read = cube.cache_read + excluded.cache_read,
    cache_write = cube.cache_write + excluded.cache_write,
    cache_write_5m = cube.cache_write_5m + excluded.cache_write_5m,
    cache_write_1h = cube.cache_write_1h + excluded.cache_write_1h, output = cube.output + excluded.output,
    reasoning = cube.reasoning + excluded.reasoning;

-- name: fold_cell
INSERT INTO cell (
    day, label, source, status, quality,
    calls, refused, unpriced, estimated, lower_bound, unknown, owed_micro, owed_pico, free_micro, free_pico, input,
    cache_read, cache_write, cache_write_5m, cache_write_1h, output, reasoning
)
SELECT
    day, label, source, status, quality,
    sum(calls), sum(refused), sum(unpriced), sum(estimated), sum(lower_bound), sum(unknown), sum(owed_micro),
    sum(owed_pico), sum(free_micro), sum(free_pico), sum(input), sum(cache_read), sum(cache_write),
    sum(cache_write_5m), sum(cache_write_1h), sum(output), sum(reasoning)
FROM moved WHERE batch = ANY(%s) GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (day, label, source, status, quality) DO UPDATE SET
    calls = cell.calls + excluded.calls, refused = cell.refused + excluded.refused,
    unpriced = cell.unpriced + excluded.unpriced, estimated = cell.estimated + excluded.estimated,
    lower_bound = cell.lower_bound + excluded.lower_bound, unknown = cell.unknown + excluded.unknown,
    owed_micro = cell.owed_micro + excluded.owed_micro, owed_pico = cell.owed_pico + excluded.owed_pico,
    free_micro = cell.free_micro + excluded.free_micro, free_pico = cell.free_pico + excluded.free_pico,
    input = cell.input + excluded.input, cache_read = cell.cache_read + excluded.cache_read,
    cache_write = cell.cache_write + excluded.cache_write,
    cache_write_5m = cell.cache_write_5m + excluded.cache_write_5m,
    cache_write_1h = cell.cache_write_1h + excluded.cache_write_1h, output = cell.output + excluded.output,
    reasoning = cell.reasoning + excluded.reasoning;

-- name: fold_run
UPDATE run SET
    calls = run.calls + part.calls, refused = run.refused + part.refused, unpriced = run.unpriced + part.unpriced,
    estimated = run.estimated + part.estimated, lower_bound = run.lower_bound + part.lower_bound,
    unknown = run.unknown + part.unknown, owed_micro = run.owed_micro + part.owed_micro,
    owed_pico = run.owed_pico + part.owed_pico, free_micro = run.free_micro + part.free_micro,
    free_pico = run.free_pico + part.free_pico, input = run.input + part.input,
    cache_read = run.cache_read + part.cache_read, cache_write = run.cache_write + part.cache_write,
    cache_write_5m = run.cache_write_5m + part.cache_write_5m,
    cache_write_1h = run.cache_write_1h + part.cache_write_1h, output = run.output + part.output,
    reasoning = run.reasoning + part.reasoning
FROM (
    SELECT
        run,
        sum(calls) AS calls, sum(refused) AS refused, sum(unpriced) AS unpriced, sum(estimated) AS estimated,
        sum(lower_bound) AS lower_bound, sum(unknown) AS unknown, sum(owed_micro) AS owed_micro,
        sum(owed_pico) AS owed_pico, sum(free_micro) AS free_micro, sum(free_pico) AS free_pico,
        sum(input) AS input, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write,
        sum(cache_write_5m) AS cache_write_5m, sum(cache_write_1h) AS cache_write_1h, sum(output) AS output,
        sum(reasoning) AS reasoning
    FROM moved WHERE batch = ANY(%s) AND run IS NOT NULL GROUP BY run
) AS part
WHERE run.id = part.run;

-- name: fold_kind
INSERT INTO cell_kind (day, label, source, status, quality, kind, quantity)
SELECT day, label, source, status, quality, kind, sum(quantity) FROM move_kind
WHERE batch = ANY(%s) GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
ON CONFLICT (day, label, source, status, quality, kind) DO UPDATE SET
    quantity = cell_kind.quantity + excluded.quantity;

-- name: drop_moves
DELETE FROM move WHERE batch = ANY(%s);

-- name: drop_move_kinds
DELETE FROM move_kind WHERE batch = ANY(%s);

-- name: drop_quarters
DELETE FROM cube WHERE grain = 0 AND period < %s;

-- name: entries_by_call
SELECT
    entry.call_id, entry.started_us, entry.recorded_us, entry.run, entry.source, entry.label, entry.status,
    entry.quality, entry.owed, entry.unpriced, entry.cost_micro, entry.cost_pico, entry.input, entry.cache_read,
    entry.cache_write, entry.cache_write_5m, entry.cache_write_1h, entry.output, entry.reasoning, entry.body,
    entry.seq, entry.amended, entry.repeated, entry.holder, entry.joined_us
FROM call JOIN entry ON entry.started_us = call.started_us AND entry.seq = call.seq
WHERE call.call_id = ANY(%s);

-- name: entries_by_response
SELECT
    response.hash,
    entry.call_id, entry.started_us, entry.recorded_us, entry.run, entry.source, entry.label, entry.status,
    entry.quality, entry.owed, entry.unpriced, entry.cost_micro, entry.cost_pico, entry.input, entry.cache_read,
    entry.cache_write, entry.cache_write_5m, entry.cache_write_1h, entry.output, entry.reasoning, entry.body,
    entry.seq, entry.amended, entry.repeated, entry.holder, entry.joined_us
FROM response JOIN entry ON entry.started_us = response.started_us AND entry.seq = response.seq
WHERE response.hash = ANY(%s);

-- name: entries_by_holder
SELECT
    entry.call_id, entry.started_us, entry.recorded_us, entry.run, entry.source, entry.label, entry.status,
    entry.quality, entry.owed, entry.unpriced, entry.cost_micro, entry.cost_pico, entry.input, entry.cache_read,
    entry.cache_write, entry.cache_write_5m, entry.cache_write_1h, entry.output, entry.reasoning, entry.body,
    entry.seq, entry.amended, entry.repeated, entry.holder, entry.joined_us
FROM entry
WHERE entry.holder = ANY(%s) ORDER BY entry.seq;

-- name: joined_into
SELECT entry.call_id, entry.started_us, entry.recorded_us, entry.run, entry.body FROM entry
WHERE entry.holder = (SELECT call.seq FROM call WHERE call.call_id = %s) AND entry.joined_us IS NOT NULL
ORDER BY entry.seq;

-- name: word_id
SELECT id FROM word WHERE text = %s;

-- name: add_word
SELECT add_word(%s);

-- name: word_text
SELECT text FROM word WHERE id = %s;

-- name: dimension_id
SELECT id FROM dimension WHERE identity = array_to_json(ARRAY[%s, %s, %s, %s, %s, %s]::text[])::text;

-- name: add_dimension
SELECT add_dimension(ARRAY[%s, %s, %s, %s, %s, %s]::text[]);

-- name: label_id
SELECT id FROM label WHERE identity = %s;

-- name: add_label
SELECT add_label(%s, %s, %s, %s, %s, %s);

-- name: label_identity
SELECT identity, dimension FROM label WHERE id = %s;

-- name: labels
SELECT id, identity FROM label WHERE id = ANY(%s);

-- name: run_row
SELECT id FROM run WHERE run_id = %s;

-- name: add_run_row
SELECT add_run(%s);

-- name: add_run_rows
SELECT wanted, add_run(wanted) FROM unnest(%s::text[]) AS wanted;

-- name: run_name
SELECT run_id FROM run WHERE id = %s;

-- name: runs
SELECT id, run_id FROM run WHERE id = ANY(%s);

-- name: get_state
SELECT value FROM state WHERE namespace = %s AND key = %s;

-- name: set_state
INSERT INTO state (namespace, key, value) VALUES (%s, %s, %s)
ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value;

-- name: found_state
INSERT INTO state (namespace, key, value) VALUES ('ledger', %s, %s) ON CONFLICT DO NOTHING;

-- name: drop_state
DELETE FROM state WHERE namespace = %s AND key = %s;

-- name: all_state
SELECT key, value FROM state WHERE namespace = %s ORDER BY key;

-- name: spread_moves
SELECT day, dimension, sign, status, unpriced, cost_micro, cost_pico, latency_us, ttft_us
FROM move JOIN label ON label.id = move.label WHERE status <> 4 AND batch = ANY(%s);

-- name: spread_moves_of_days
SELECT day, dimension, sign, status, unpriced, cost_micro, cost_pico, latency_us, ttft_us
FROM move JOIN label ON label.id = move.label WHERE status <> 4 AND day >= %s AND day < %s;

-- name: spread_rows_of
SELECT spread.measure, spread.day, spread.dimension, spread.body
FROM unnest(%s::smallint[], %s::integer[], %s::bigint[]) AS wanted (measure, day, dimension)
JOIN spread USING (measure, day, dimension);

-- name: put_spread_rows
INSERT INTO spread (measure, day, dimension, body)
SELECT * FROM unnest(%s::smallint[], %s::integer[], %s::bigint[], %s::bytea[])
ON CONFLICT (measure, day, dimension) DO UPDATE SET body = excluded.body;

-- name: spread_rows
SELECT day, dimension, body FROM spread WHERE measure = %s AND day >= %s AND day < %s;
