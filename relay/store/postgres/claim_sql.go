package postgres

// claimFunction hands out recipients of an account, as queue.Claims says. It is one
// function so that no relay holds the account's turn over its network, and so that
// what it reads once it has the turn is newer than what the claim before left.
//
// The lanes that have something ready are found by steps down the index of what is
// ready, one for each lane, however much waits in it. No planner may decide otherwise by
// what a table looked like when the session began.
const claimFunction = `
CREATE FUNCTION smtp2rest.promote_1(of_account text, moment bigint, longest bigint, most int) RETURNS void LANGUAGE plpgsql
	SET enable_seqscan = off SET jit = off SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM smtp2rest.recipients WHERE state = 1 AND account = of_account AND due <= moment) THEN
		UPDATE smtp2rest.recipients r SET state = 0 FROM (SELECT mail, n FROM smtp2rest.recipients
			WHERE state = 1 AND account = of_account AND due <= moment ORDER BY due LIMIT most FOR UPDATE SKIP LOCKED) x WHERE r.mail = x.mail AND r.n = x.n;
	END IF;
	IF longest > 0 AND EXISTS (SELECT 1 FROM smtp2rest.recipients WHERE state = 1 AND account = of_account AND due > moment + longest) THEN
		UPDATE smtp2rest.recipients r SET state = 0 FROM (SELECT mail, n FROM smtp2rest.recipients
			WHERE state = 1 AND account = of_account AND due > moment + longest ORDER BY due LIMIT most FOR UPDATE SKIP LOCKED) x WHERE r.mail = x.mail AND r.n = x.n;
	END IF;
END $$;

-- Up to so many lanes of an account that have something ready, from after one on.
CREATE FUNCTION smtp2rest.lanes_1(of_account text, INOUT turns text[], INOUT lanes text[], most int, closed text[]) LANGUAGE plpgsql
	SET enable_seqscan = off SET jit = off SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	begin_turn text COLLATE "C" := turns[1];
	begin_lane text COLLATE "C" := lanes[1];
	at_turn text COLLATE "C" := turns[1];
	at_lane text COLLATE "C" := lanes[1];
	wrapped bool := false;
	step int := 0; -- 0: the next lane, 1: the next turn, 2: the first of all
BEGIN
	turns := '{}';
	lanes := '{}';
	WHILE cardinality(lanes) < most LOOP
		IF step = 0 THEN
			SELECT r.turn, r.lane INTO at_turn, at_lane FROM smtp2rest.recipients r
				WHERE r.state = 0 AND r.account = of_account AND (r.turn, r.lane) > (at_turn, at_lane) ORDER BY r.account, r.turn, r.lane LIMIT 1;
		ELSIF step = 1 THEN
			SELECT r.turn, r.lane INTO at_turn, at_lane FROM smtp2rest.recipients r
				WHERE r.state = 0 AND r.account = of_account AND r.turn > at_turn ORDER BY r.account, r.turn, r.lane LIMIT 1;
		ELSE
			SELECT r.turn, r.lane INTO at_turn, at_lane FROM smtp2rest.recipients r
				WHERE r.state = 0 AND r.account = of_account ORDER BY r.account, r.turn, r.lane LIMIT 1;
		END IF;
		IF NOT FOUND THEN
			EXIT WHEN wrapped;
			wrapped := true;
			step := 2;
			CONTINUE;
		END IF;
		EXIT WHEN wrapped AND (at_turn, at_lane) > (begin_turn, begin_lane); -- once around
		IF at_turn = ANY(closed) THEN
			step := 1;
			CONTINUE;
		END IF;
		step := 0;
		turns := turns || at_turn::text;
		lanes := lanes || at_lane::text;
	END LOOP;
END $$;

-- The lane of the mail that came last, before the others. See queue.ClaimRequest.
CREATE FUNCTION smtp2rest.latest_1(of_account text, INOUT turns text[], INOUT lanes text[], closed text[], passed bigint[]) LANGUAGE plpgsql
	SET enable_seqscan = off SET jit = off AS $$
DECLARE
	pick record;
	place int;
BEGIN
	SELECT r.turn, r.lane INTO pick FROM smtp2rest.recipients r
		WHERE r.mail > (SELECT last_value FROM smtp2rest.arrivals) - 2000 AND r.state = 0 AND r.account = of_account
			AND r.mail <> ALL(passed) AND r.turn <> ALL(closed)
		ORDER BY (r.turn, r.lane) IN (SELECT p.turn, p.lane FROM smtp2rest.recipients p WHERE p.mail = ANY(passed)), r.mail DESC LIMIT 1;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	SELECT x.i INTO place FROM unnest(turns, lanes) WITH ORDINALITY AS x(t, l, i) WHERE x.t = pick.turn AND x.l = pick.lane;
	IF place IS NOT NULL THEN
		turns := turns[:place - 1] || turns[place + 1:];
		lanes := lanes[:place - 1] || lanes[place + 1:];
	END IF;
	turns := pick.turn::text || turns;
	lanes := pick.lane::text || lanes;
END $$;

CREATE FUNCTION smtp2rest.claim_1(of_relay bigint, of_account text, moment bigint, longest bigint, most int,
	limited text[], allowed int[], pass_over text[], newest bool)
RETURNS TABLE (seq bigint, id text, sender text, lane text, domain text, urgent bool, received bigint, client text, bounce_of text, account text,
	size bigint, damaged bool, n int, addr text, attempts int, since bigint, fence bigint, unknown bool) LANGUAGE plpgsql
	SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
	turns text[];
	lanes text[];
	passed bigint[];
	closed text[];
	portion int;
	taken bigint[];
	taken_n int[];
	taken_turn text[];
	taken_lane text[];
	last int;
BEGIN
	PERFORM 1 FROM smtp2rest.relays r WHERE r.id = of_relay AND r.expires > clock_timestamp();
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the lease of this relay has ended' USING ERRCODE = 'S2R01';
	END IF;
	PERFORM smtp2rest.promote_1(of_account, moment, longest, 1000);
	IF NOT EXISTS (SELECT 1 FROM smtp2rest.recipients r WHERE r.state = 0 AND r.account = of_account) THEN
		RETURN;
	END IF;
	SELECT ARRAY[t.turn], ARRAY[t.lane] INTO turns, lanes FROM smtp2rest.turns t WHERE t.account = of_account FOR UPDATE;
	IF NOT FOUND THEN
		INSERT INTO smtp2rest.turns VALUES (of_account, '', '') ON CONFLICT DO NOTHING;
		SELECT ARRAY[t.turn], ARRAY[t.lane] INTO turns, lanes FROM smtp2rest.turns t WHERE t.account = of_account FOR UPDATE;
	END IF;
	SELECT coalesce(array_agg(m.seq), '{}') INTO passed FROM smtp2rest.mails m WHERE m.id = ANY(pass_over);
	SELECT coalesce(array_agg(x.turn), '{}') INTO closed FROM unnest(limited, allowed) AS x(turn, n) WHERE x.n <= 0;
	-- So many lanes may have nothing but what is passed over.
	SELECT * INTO turns, lanes FROM smtp2rest.lanes_1(of_account, turns, lanes, most + cardinality(passed), closed);
	IF newest THEN
		SELECT * INTO turns, lanes FROM smtp2rest.latest_1(of_account, turns, lanes, closed, passed);
	END IF;
	IF cardinality(lanes) = 0 THEN
		RETURN;
	END IF;
	-- Where there are fewer lanes than slots, more is read of each until that is enough.
	portion := least(most, 2 * (most / cardinality(lanes)) + 1);
	LOOP
		WITH x AS (
			SELECT l.turn, l.lane, l.ord, r.mail, r.n, r.rn FROM unnest(turns, lanes) WITH ORDINALITY AS l(turn, lane, ord)
			CROSS JOIN LATERAL (SELECT q.mail, q.n, row_number() OVER () AS rn FROM (SELECT q.mail, q.n FROM smtp2rest.recipients q
				WHERE q.state = 0 AND q.account = of_account AND q.turn = l.turn AND q.lane = l.lane AND q.mail <> ALL(passed)
				ORDER BY q.account, q.turn, q.lane, q.mail, q.n LIMIT portion) q) r
		), y AS (
			SELECT x.*, row_number() OVER (PARTITION BY x.turn ORDER BY x.rn, x.ord) AS of_turn FROM x
		), z AS (
			SELECT y.* FROM y LEFT JOIN unnest(limited, allowed) AS w(turn, n) ON w.turn = y.turn
			WHERE w.n IS NULL OR y.of_turn <= w.n ORDER BY y.rn, y.ord LIMIT most
		)
		SELECT coalesce(array_agg(z.mail ORDER BY z.rn, z.ord), '{}'), array_agg(z.n ORDER BY z.rn, z.ord),
			array_agg(z.turn ORDER BY z.rn, z.ord), array_agg(z.lane ORDER BY z.rn, z.ord)
			INTO taken, taken_n, taken_turn, taken_lane FROM z;
		EXIT WHEN cardinality(taken) = most OR portion >= most;
		portion := least(most, 4 * portion);
	END LOOP;
	last := cardinality(taken);
	IF last > 1 OR last = 1 AND NOT newest THEN -- what goes first for being the newest is no turn
		UPDATE smtp2rest.turns t SET turn = taken_turn[last], lane = taken_lane[last] WHERE t.account = of_account;
	END IF;
	RETURN QUERY
	WITH chosen AS MATERIALIZED (
		SELECT r.mail, r.n, r.fence, r.settled, r.started, x.ord FROM unnest(taken, taken_n) WITH ORDINALITY AS x(mail, n, ord)
		JOIN smtp2rest.recipients r ON r.mail = x.mail AND r.n = x.n WHERE r.state = 0 FOR UPDATE OF r SKIP LOCKED
	), lost AS ( -- attempts that were never settled
		INSERT INTO smtp2rest.attempts SELECT c.mail, c.n, c.fence, c.started, true, false, 0, 0, '', '', '', 0, 0 FROM chosen c WHERE c.fence <> c.settled
	), trimmed AS (
		DELETE FROM smtp2rest.attempts a USING chosen c WHERE c.fence <> c.settled AND a.mail = c.mail AND a.n = c.n
			AND a.fence <= (SELECT b.fence FROM smtp2rest.attempts b WHERE b.mail = c.mail AND b.n = c.n ORDER BY b.fence DESC LIMIT 1 OFFSET 19)
	), u AS (
		UPDATE smtp2rest.recipients r SET state = 2, hold = false, attempts = r.attempts + 1, started = moment, owner = of_relay, fence = nextval('smtp2rest.fences')
		FROM chosen c WHERE r.mail = c.mail AND r.n = c.n
		RETURNING r.mail, r.n, r.addr, r.attempts, r.since, r.fence, c.fence <> c.settled AS unknown, c.ord
	)
	SELECT m.seq, m.id, m.sender, m.lane, m.domain, m.urgent, m.received, m.client, m.bounce_of, m.account, m.size, m.damaged,
		u.n, u.addr, u.attempts, u.since, u.fence, u.unknown
	FROM u JOIN smtp2rest.mails m ON m.seq = u.mail ORDER BY u.ord;
END $$;

-- Ends the claims of owners that are gone.
CREATE FUNCTION smtp2rest.free_1(of_relay bigint, of_part int, gone bigint[]) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	freed int;
	on_hold int;
BEGIN
	WITH x AS MATERIALIZED (
		SELECT mail, n FROM smtp2rest.recipients WHERE state = 2 AND owner = ANY(gone) FOR UPDATE SKIP LOCKED
	), u AS (
		UPDATE smtp2rest.recipients r SET state = CASE WHEN r.hold THEN 3 ELSE 0 END, hold = false FROM x WHERE r.mail = x.mail AND r.n = x.n RETURNING r.state
	)
	SELECT count(*), count(*) FILTER (WHERE state = 3) INTO freed, on_hold FROM u;
	PERFORM smtp2rest.held_1(of_relay, of_part, on_hold);
	RETURN freed;
END $$;

CREATE FUNCTION smtp2rest.held_1(of_relay bigint, of_part int, n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF n > 0 THEN
		PERFORM smtp2rest.count_1(of_relay, of_part, (-n, n, 0, 0, 0, 0, 0, 0, 0)::smtp2rest.counted, (0, 0, 0, 0, 0, 0, 0, 0, 0)::smtp2rest.counted);
	END IF;
END $$;

-- Gives back what was claimed by an owner whose claim had no answer: nobody tried it.
CREATE FUNCTION smtp2rest.unclaim_1(of_relay bigint, of_part int, known bigint[]) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	freed int;
	on_hold int;
BEGIN
	WITH x AS MATERIALIZED (
		SELECT mail, n FROM smtp2rest.recipients WHERE state = 2 AND owner = of_relay AND fence <> ALL(known) FOR UPDATE SKIP LOCKED
	), u AS (
		UPDATE smtp2rest.recipients r SET state = CASE WHEN r.hold THEN 3 ELSE 0 END, hold = false, attempts = r.attempts - 1, settled = r.fence
		FROM x WHERE r.mail = x.mail AND r.n = x.n RETURNING r.state
	)
	SELECT count(*), count(*) FILTER (WHERE state = 3) INTO freed, on_hold FROM u;
	PERFORM smtp2rest.held_1(of_relay, of_part, on_hold);
	RETURN freed;
END $$;

-- Ends the leases that were not renewed, and what is left of relays that are gone. It
-- says how many recipients wait again.
CREATE FUNCTION smtp2rest.reap_1(of_relay bigint, of_part int) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	gone bigint[];
	freed int := 0;
	sums record;
BEGIN
	DELETE FROM smtp2rest.relays WHERE id IN (SELECT id FROM smtp2rest.relays WHERE expires < clock_timestamp() FOR UPDATE SKIP LOCKED);
	SELECT array_agg(DISTINCT owner) INTO gone FROM smtp2rest.recipients WHERE state = 2 AND owner NOT IN (SELECT id FROM smtp2rest.relays);
	IF gone IS NOT NULL THEN
		freed := smtp2rest.free_1(of_relay, of_part, gone);
	END IF;
	IF EXISTS (SELECT 1 FROM smtp2rest.counts WHERE relay <> 0 AND relay NOT IN (SELECT id FROM smtp2rest.relays)) THEN
		PERFORM 1 FROM smtp2rest.counts WHERE relay <> 0 AND relay NOT IN (SELECT id FROM smtp2rest.relays) ORDER BY relay, part FOR UPDATE;
		WITH x AS (DELETE FROM smtp2rest.counts WHERE relay <> 0 AND relay NOT IN (SELECT id FROM smtp2rest.relays) RETURNING *)
		SELECT (coalesce(sum(open), 0), coalesce(sum(held), 0), coalesce(sum(sent), 0), coalesce(sum(failed), 0), coalesce(sum(unbounced), 0),
			coalesce(sum(mails), 0), coalesce(sum(bytes), 0), coalesce(sum(failed_mails), 0), coalesce(sum(failed_bytes), 0))::smtp2rest.counted AS c INTO sums FROM x;
		PERFORM smtp2rest.count_1(0, 0, sums.c, (0, 0, 0, 0, 0, 0, 0, 0, 0)::smtp2rest.counted);
	END IF;
	RETURN freed;
END $$;

CREATE FUNCTION smtp2rest.leave_1(of_relay bigint) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM smtp2rest.relays WHERE id = of_relay;
	RETURN smtp2rest.reap_1(0, 1);
END $$;
`
