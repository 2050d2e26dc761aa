-- Named queries about holds; each begins with a line `-- name: ...`.

-- name: hold_record
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE hold_id = ?;

-- name: all_holds
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold ORDER BY id;

-- name: holds_in_state
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE state = ? ORDER BY id;

-- name: open_holds
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE state = 0 ORDER BY id;

-- name: suspect_holds
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE state = 3 ORDER BY id;

-- name: add_hold
INSERT INTO hold (
    hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: keep_hold
INSERT INTO hold (
    hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (hold_id) DO UPDATE SET
    state = excluded.state, owner = excluded.owner, expires_us = excluded.expires_us, output = excluded.output,
    parts = excluded.parts, settlement = excluded.settlement;

-- name: hold_owners
SELECT DISTINCT owner FROM hold WHERE state = 0
UNION SELECT owner FROM waiter;

-- name: holds_of_owner
SELECT hold_id FROM hold WHERE state = 0 AND owner = ?;

-- name: overdue_holds
SELECT hold_id FROM hold WHERE state = 0 AND expires_us <= ?;

-- name: account
SELECT seed, settled, suspect, held, unlearned, overdraft FROM account
WHERE budget_id = ? AND value = ? AND period = ?;

-- name: window
SELECT period FROM account WHERE budget_id = ? AND value = ? AND period >= ? AND period <= ?;

-- name: keep_account
INSERT INTO account (seed, settled, suspect, held, unlearned, overdraft, budget_id, value, period)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    settled = excluded.settled, suspect = excluded.suspect, held = excluded.held, unlearned = excluded.unlearned,
    overdraft = excluded.overdraft;

-- name: accounts
SELECT budget_id, value, period, seed, settled, suspect, held, unlearned, overdraft FROM account
ORDER BY budget_id, value, period;

-- name: budgets
SELECT body, dropped FROM budget;

-- name: keep_budget
INSERT INTO budget (budget_id, body, dropped) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET body = excluded.body, dropped = excluded.dropped;

-- name: add_waiter
INSERT INTO waiter (owner, until_us, places) VALUES (?, ?, ?) RETURNING id;

-- name: drop_waiter
DELETE FROM waiter WHERE id = ?;

-- name: drop_waiters_of
DELETE FROM waiter WHERE owner = ?;

-- name: drop_late_waiters
DELETE FROM waiter WHERE until_us < ?;

-- name: other_waiters
SELECT id, places FROM waiter WHERE owner <> ?;

-- name: rolled
SELECT floor, left_at, at_us FROM rolled WHERE budget_id = ? AND value = ?;

-- name: all_rolled
SELECT budget_id, value, floor FROM rolled;

-- name: keep_rolled
INSERT INTO rolled (budget_id, value, floor, left_at, at_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET floor = excluded.floor, left_at = excluded.left_at, at_us = excluded.at_us;

-- name: drop_accounts
DELETE FROM account WHERE budget_id = ? AND value = ? AND period < ?;
