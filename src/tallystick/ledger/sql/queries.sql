-- Named queries; each begins with a line `-- name: ...`.

-- name: add_batch
INSERT INTO batch (id, writer_id, batch_no, first_seq, entries, batch_hash) VALUES (?, ?, ?, ?, ?, ?);

-- name: next_ids
SELECT
    coalesce((SELECT max(seq) FROM entry), 0) + 1,
    coalesce((SELECT max(id) FROM batch), 0) + 1,
    (SELECT value FROM state WHERE namespace = 'ledger' AND key = 'slot_floor'),
    (SELECT value FROM state WHERE namespace = 'ledger' AND key = 'zone'),
    (SELECT min(batch) FROM pending),
    (SELECT max(batch) FROM pending);

-- name: add_entry
INSERT INTO entry (
    call_id, started_us, recorded_us, run, source, label, status, quality, owed, unpriced, cost_micro, cost_pico,
    input, cache_read, cache_write, cache_write_5m, cache_write_1h, output, reasoning, body
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: add_entry_kind
INSERT INTO entry_kind (seq, kind, quantity) VALUES (?, ?, ?);

-- name: drop_entry_kinds
DELETE FROM entry_kind WHERE seq = ?;

-- name: amend_entry
UPDATE entry SET
    label = ?, status = ?, quality = ?, owed = ?, unpriced = ?, cost_micro = ?, cost_pico = ?,
    input = ?, cache_read = ?, cache_write = ?, cache_write_5m = ?, cache_write_1h = ?, output = ?, reasoning = ?,
    amended = 1
WHERE seq = ?;

-- name: hold_entry
UPDATE entry SET holder = ?, joined_us = ? WHERE seq = ?;

-- name: flag_repeated
UPDATE entry SET holder = ?, repeated = 1 WHERE seq = ?;

-- name: family
SELECT seq, call_id, started_us, recorded_us, run, body, joined_us FROM entry
WHERE seq = ?1 OR holder = ?1 ORDER BY seq;

-- name: entry_by_call
SELECT seq, call_id, started_us, recorded_us, run, body, joined_us FROM entry WHERE call_id = ?;

-- name: entry_by_seq
SELECT call_id, started_us, recorded_us, run, body, source, holder FROM entry WHERE seq = ?;

-- name: responses
SELECT seq FROM response WHERE hash = ?;

-- name: add_response
INSERT INTO response (hash, seq) VALUES (?, ?);

-- name: add_pending
INSERT INTO pending (batch, body) VALUES (?, ?);

-- name: pending_after
SELECT batch, body FROM pending WHERE batch > ? ORDER BY batch;

-- name: drop_pending
DELETE FROM pending;

-- name: add_correction
INSERT INTO correction (batch, correction_id, entry, recorded_us, body) VALUES (?, ?, ?, ?, ?);

-- name: correction_by_id
SELECT correction.recorded_us, correction.body, entry.call_id
FROM correction JOIN entry ON entry.seq = correction.entry
WHERE correction.correction_id = ?;

-- name: corrections_of
SELECT correction.correction_id, correction.recorded_us, correction.body, entry.call_id
FROM correction JOIN entry ON entry.seq = correction.entry
WHERE correction.entry = ? ORDER BY correction.seq;

-- name: word_id
SELECT id FROM word WHERE text = ?;

-- name: add_word
INSERT INTO word (text) VALUES (?) RETURNING id;

-- name: word_text
SELECT text FROM word WHERE id = ?;

-- name: dimension_id
SELECT id FROM dimension WHERE provider = ? AND model = ? AND maker = ? AND key = ? AND team = ? AND project = ?;

-- name: add_dimension
INSERT INTO dimension (provider, model, maker, key, team, project) VALUES (?, ?, ?, ?, ?, ?) RETURNING id;

-- name: label_id
SELECT id FROM label WHERE identity = ?;

-- name: add_label
INSERT INTO label (identity, dimension, provider, model, maker, tags) VALUES (?, ?, ?, ?, ?, ?) RETURNING id;

-- name: label_identity
SELECT identity, dimension FROM label WHERE id = ?;

-- name: run_row
SELECT id FROM run WHERE run_id = ?;

-- name: add_run_row
INSERT INTO run (run_id) VALUES (?) RETURNING id;

-- name: run_name
SELECT run_id FROM run WHERE id = ?;

-- name: sheet_row
SELECT body FROM sheet WHERE grain = ? AND axis = ? AND period = ? AND part = ?;

-- name: put_sheet_row
INSERT INTO sheet (grain, axis, period, part, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET body = excluded.body;

-- name: drop_sheet_row
DELETE FROM sheet WHERE grain = ? AND axis = ? AND period = ? AND part = ?;

-- name: add_sheet_kind
INSERT INTO sheet_kind (grain, axis, period, value, kind, quantity) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET quantity = quantity + excluded.quantity;

-- name: drop_slots
DELETE FROM sheet WHERE grain = 0 AND period < ?;

-- name: drop_slot_kinds
DELETE FROM sheet_kind WHERE grain = 0 AND period < ?;

-- name: get_state
SELECT value FROM state WHERE namespace = ? AND key = ?;

-- name: set_state
INSERT INTO state (namespace, key, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value;

-- name: drop_state
DELETE FROM state WHERE namespace = ? AND key = ?;

-- name: all_state
SELECT key, value FROM state WHERE namespace = ? ORDER BY key;

-- name: joined_into
SELECT entry.call_id FROM entry JOIN entry AS holder ON holder.seq = entry.holder
WHERE holder.call_id = ? AND entry.joined_us IS NOT NULL ORDER BY entry.seq;

-- name: spread_row
SELECT body FROM spread WHERE measure = ? AND day = ? AND part = ?;

-- name: put_spread_row
INSERT INTO spread (measure, day, part, body) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET body = excluded.body;

-- name: spread_rows
SELECT day, body FROM spread WHERE measure = ? AND day >= ? AND day < ?;
