-- Named queries about holds; each begins with a line `-- name: ...`.

-- name: open_holds
SELECT turn, version, holds, accounts, others FROM open_holds(%s, %s, %s);

-- name: write_holds
SELECT turn, numbers FROM write_holds(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
);

-- name: write_holds_and_calls
SELECT turn, numbers, CASE WHEN turn IS NOT NULL THEN write_calls(
    %s, %s, %s,
    %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[], %s::smallint[],
    %s::smallint[], %s::smallint[], %s::smallint[], %s::bigint[], %s::integer[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::integer[], %s::integer[],
    %s::bigint[], %s::bigint[],
    %s::uuid[], %s::integer[], %s::integer[], %s::text[], %s::bigint[]
) END
FROM write_holds(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
);

-- name: turn
SELECT last_value FROM hold_turn;

-- name: hold_record
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE hold_id = %s;

-- name: all_holds
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold ORDER BY id;

-- name: holds_in_state
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE state = %s ORDER BY id;

-- name: open_holds_listed
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE state = 0 ORDER BY id;

-- name: suspect_holds_listed
SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
FROM hold WHERE state = 3 ORDER BY id;

-- name: dead_owners
SELECT known.owner FROM (SELECT owner FROM hold WHERE state = 0 UNION SELECT owner FROM waiter) AS known
WHERE known.owner <> %s AND NOT EXISTS (
    SELECT 1 FROM owner WHERE owner.owner = known.owner
        -- While the server was away nobody could be seen.
        AND greatest(owner.seen, pg_postmaster_start_time()) > clock_timestamp() - %s * interval '1 second'
);

-- name: lost_holds
SELECT hold_id FROM hold WHERE state = 0 AND (expires_us <= %s OR owner = ANY(%s));

-- name: drop_waiters
DELETE FROM waiter WHERE owner = ANY(%s) OR until < clock_timestamp() - interval '1 second' RETURNING id;

-- name: drop_owners
DELETE FROM owner WHERE owner = ANY(%s) OR seen < clock_timestamp() - interval '1 day';

-- name: drop_other_numbers
DELETE FROM waiter WHERE owner = %s AND id <> ALL(%s);

-- name: beat
INSERT INTO owner (owner, seen) VALUES (%s, clock_timestamp())
ON CONFLICT (owner) DO UPDATE SET seen = excluded.seen;

-- name: listen
LISTEN tallystick_holds;

-- name: account
SELECT seed, settled, suspect, held, unlearned, overdraft FROM account
WHERE budget_id = %s AND value = %s AND period = %s;

-- name: window
SELECT period FROM account WHERE budget_id = %s AND value = %s AND period >= %s AND period <= %s;

-- name: all_accounts
SELECT budget_id, value, period, seed, settled, suspect, held, unlearned, overdraft FROM account
ORDER BY budget_id, value, period;

-- name: accounts_of
SELECT budget_id, value, period, seed, settled, suspect, held, unlearned, overdraft FROM account
WHERE budget_id = %s ORDER BY budget_id, value, period;

-- name: drop_accounts
DELETE FROM account WHERE budget_id = %s AND value = %s AND period < %s;

-- name: budgets
SELECT body, dropped FROM budget;

-- name: keep_budget
INSERT INTO budget (budget_id, body, dropped) VALUES (%s, %s, %s)
ON CONFLICT (budget_id) DO UPDATE SET body = excluded.body, dropped = excluded.dropped;

-- name: rolled
SELECT floor, left_at, at_us FROM rolled WHERE budget_id = %s AND value = %s;

-- name: all_rolled
SELECT budget_id, value, floor FROM rolled;

-- name: keep_rolled
INSERT INTO rolled (budget_id, value, floor, left_at, at_us) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (budget_id, value) DO UPDATE SET
    floor = excluded.floor, left_at = excluded.left_at, at_us = excluded.at_us;

-- name: any_holds
SELECT EXISTS (SELECT FROM budget) OR EXISTS (SELECT FROM account) OR EXISTS (SELECT FROM hold);

-- name: copy_budgets
COPY budget (budget_id, body, dropped) FROM STDIN;

-- name: copy_accounts
COPY account (budget_id, value, period, seed, settled, suspect, held, unlearned, overdraft) FROM STDIN;

-- name: copy_rolled
COPY rolled (budget_id, value, floor, left_at, at_us) FROM STDIN;

-- name: copy_holds
COPY hold (
    hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
) FROM STDIN;
