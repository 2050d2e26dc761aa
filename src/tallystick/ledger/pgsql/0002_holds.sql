-- Migration 2: budgets, their accounts, and the holds that move them.
--
-- Truth is budget, hold, rolled and account.seed: the other figures of an account are what its holds stand for and its
-- seed, in the same transaction. `Ledger.verify` recomputes them. Amounts are in whole picodollars, tokens or calls.
-- state 'ledger' 'budgets' is the version of the budgets, which grows with each change of one.
-- States of a hold count from 0: open settled released suspect
--
-- Whoever works on these tables has the advisory lock (1413565529, 5) to the end of his transaction, so he reads them
-- as they stand; where he needs the lock (1413565529, 1) too, he takes it afterwards.

CREATE TABLE budget (
    budget_id text COLLATE "C" PRIMARY KEY,
    body text NOT NULL,
    dropped boolean NOT NULL
);

-- Room on each page is left for the next version of a row, as the same few rows change all the time.
CREATE TABLE account (
    budget_id text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL,
    seed numeric NOT NULL,
    settled numeric NOT NULL,
    suspect numeric NOT NULL,
    held numeric NOT NULL,
    unlearned bigint NOT NULL,
    overdraft numeric NOT NULL,
    PRIMARY KEY (budget_id, value, period)
) WITH (fillfactor = 25);

-- The accounts of rolling budgets come to an end: those of periods before floor are dropped, and what their holds still
-- do is theirs alone. left_at is where the window began at at_us; it is the next floor.
CREATE TABLE rolled (
    budget_id text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    floor text COLLATE "C" NOT NULL,
    left_at text COLLATE "C" NOT NULL,
    at_us bigint NOT NULL,
    PRIMARY KEY (budget_id, value)
);

-- One row per hold, and per call that was charged without one (owner ''). parts (JSON) are what it has to do with each
-- account, settlement a digest of the charges that ended it. id grows with time; it needs no index, as only a list of
-- all holds is in its order.
CREATE TABLE hold (
    id bigint GENERATED ALWAYS AS IDENTITY,
    authorised_us bigint NOT NULL,
    expires_us bigint NOT NULL,
    output bigint NOT NULL,
    state smallint NOT NULL,
    unlearned smallint NOT NULL,
    hold_id text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    payload text NOT NULL,
    parts text NOT NULL,
    settlement text
);
CREATE INDEX hold_open ON hold (owner, expires_us) WHERE state = 0;
CREATE INDEX hold_suspect ON hold (id) WHERE state = 3;

-- Who makes holds, and when he was last seen by the server's clock.
CREATE TABLE owner (
    owner text COLLATE "C" PRIMARY KEY,
    seen timestamptz NOT NULL
) WITH (fillfactor = 25);

-- The asks that wait for holds in flight, first come first served; places (JSON) is where.
CREATE TABLE waiter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    until timestamptz NOT NULL,
    owner text COLLATE "C" NOT NULL,
    places text NOT NULL
);

-- Grows with each piece of work on holds: who finds it as he left it knows that everything else is, too.
CREATE SEQUENCE hold_turn;
-- As long as none was taken the first looks like the one before it.
SELECT nextval('hold_turn');

-- Begins work on holds: takes the lock and reads what the work is about: the holds `ids` (JSON list), the accounts in
-- `ranges` (JSON list of budget_id, value, first and last period) and in the parts of those holds, and the asks of others
-- that wait. Each statement sees all that was committed before the lock was had.
CREATE FUNCTION open_holds(
    me text, ids text, ranges text,
    OUT turn bigint, OUT version text, OUT holds text, OUT accounts text, OUT others text
) LANGUAGE plpgsql SET enable_seqscan TO off AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1413565529, 5);
    SELECT last_value INTO turn FROM hold_turn;
    SELECT value INTO version FROM state WHERE namespace = 'ledger' AND key = 'budgets';
    SELECT json_agg(json_build_array(
        hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
    )) INTO holds
    FROM json_array_elements_text(ids::json) AS wanted (id) JOIN hold ON hold_id = wanted.id;
    WITH parts AS (
        SELECT part FROM json_array_elements(holds::json) AS one, json_array_elements((one ->> 8)::json) AS part
    ), wanted AS (
        SELECT part ->> 0 AS budget_id, part ->> 1 AS value, coalesce(part ->> 3, part ->> 2) AS first,
            part ->> 2 AS last FROM parts
        UNION
        SELECT range ->> 0, range ->> 1, range ->> 2, range ->> 3 FROM json_array_elements(ranges::json) AS range
    )
    SELECT json_agg(json_build_array(
        account.budget_id, account.value, period, seed::text, settled::text, suspect::text, held::text,
        unlearned::text, overdraft::text
    )) INTO accounts
    FROM wanted JOIN account ON account.budget_id = wanted.budget_id AND account.value = wanted.value
        AND account.period >= wanted.first AND account.period <= wanted.last;
    SELECT json_agg(json_build_array(id, places)) INTO others FROM waiter WHERE owner <> me;
END $$;

-- Ends work on holds: writes what was changed. Rows of holds that are not there yet and of those that are come as arrays,
-- a column each, those that are only given back as an array of their ids; `changed_accounts` is a JSON list of rows; then
-- numbers of asks whose wait is over, and new ones that wait (seconds, places), JSON lists, whose numbers it returns. What
-- there is nothing of is null. With `wake` the others are told to look again. Whoever has not got the lock names the turn he
-- has worked from; where that is over nothing is written, and `turn` comes back null.
CREATE FUNCTION write_holds(
    me text, worked_from bigint, beat boolean,
    new_ids text[], new_states smallint[], new_owners text[], new_authorised bigint[], new_expires bigint[],
    new_outputs bigint[], new_unlearned smallint[], new_payloads text[], new_parts text[], new_settlements text[],
    ids text[], states smallint[], owners text[], expires bigint[], outputs bigint[], all_parts text[],
    settlements text[],
    given_back text[], changed_accounts text, served text, waiters text, wake boolean,
    OUT turn bigint, OUT numbers text
) LANGUAGE plpgsql
-- A few rows are found by their ids, however large the table has become and whatever the planner thinks of it.
SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off AS $$
BEGIN
    IF worked_from IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(1413565529, 5);
        IF worked_from <> (SELECT last_value FROM hold_turn) THEN
            RETURN;
        END IF;
    END IF;
    turn := nextval('hold_turn');
    -- Who asked for a number of a word switched this off.
    PERFORM set_config('synchronous_commit', 'on', true);
    IF beat THEN
        INSERT INTO owner (owner, seen) VALUES (me, clock_timestamp())
        ON CONFLICT ON CONSTRAINT owner_pkey DO UPDATE SET seen = excluded.seen;
    END IF;
    IF changed_accounts IS NOT NULL THEN
        INSERT INTO account (budget_id, value, period, seed, settled, suspect, held, unlearned, overdraft)
        SELECT
            one ->> 0, one ->> 1, one ->> 2, (one ->> 3)::numeric, (one ->> 4)::numeric, (one ->> 5)::numeric,
            (one ->> 6)::numeric, (one ->> 7)::bigint, (one ->> 8)::numeric
        FROM json_array_elements(changed_accounts::json) AS one
        ON CONFLICT (budget_id, value, period) DO UPDATE SET
            settled = excluded.settled, suspect = excluded.suspect, held = excluded.held,
            unlearned = excluded.unlearned, overdraft = excluded.overdraft;
    END IF;
    IF new_ids IS NOT NULL THEN
        INSERT INTO hold (
            hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement
        )
        SELECT * FROM unnest(
            new_ids, new_states, new_owners, new_authorised, new_expires, new_outputs, new_unlearned, new_payloads,
            new_parts, new_settlements
        );
    END IF;
    IF ids IS NOT NULL THEN
        UPDATE hold SET
            state = one.state, owner = one.owner, expires_us = one.expires_us, output = one.output, parts = one.parts,
            settlement = one.settlement
        FROM unnest(ids, states, owners, expires, outputs, all_parts, settlements)
            AS one (hold_id, state, owner, expires_us, output, parts, settlement)
        WHERE hold.hold_id = one.hold_id;
    END IF;
    IF given_back IS NOT NULL THEN
        UPDATE hold SET state = 2 WHERE hold_id = ANY(given_back);
    END IF;
    IF served IS NOT NULL THEN
        DELETE FROM waiter WHERE id IN (SELECT json_array_elements_text(served::json)::bigint);
    END IF;
    IF waiters IS NOT NULL THEN
        WITH added AS (
            INSERT INTO waiter (owner, until, places)
            SELECT me, clock_timestamp() + (one ->> 0)::float8 * interval '1 second', one ->> 1
            FROM json_array_elements(waiters::json) WITH ORDINALITY AS listed (one, place) ORDER BY place
            RETURNING id
        )
        SELECT json_agg(id ORDER BY id) INTO numbers FROM added;
    END IF;
    IF wake THEN
        PERFORM pg_notify('tallystick_holds', '');
    END IF;
END $$;
