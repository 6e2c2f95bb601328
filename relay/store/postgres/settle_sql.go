package postgres

// settleFunction ends attempts, and returns the numbers of those that are stale, from 1.
// Mails are locked in their order before anything else, as by all that changes more
// than claims do, so that two relays that settle recipients of one mail see each
// other's, and none waits in a circle.
const settleFunction = `
CREATE FUNCTION smtp2rest.settle_1(of_relay bigint, of_part int, forget bool,
	s_id text[], s_n int[], s_fence bigint[], s_result int[], s_at bigint[], s_due bigint[], s_back bool[], s_count text[],
	s_kind int[], s_status int[], s_message_id text[], s_detail text[], s_cause text[], s_retry_after bigint[], s_took bigint[])
RETURNS int[] LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
	stale int[];
	x_ord int[];
	x_mail bigint[];
	x_n int[];
	ended bigint[];
	finished bigint[];
	sums smtp2rest.counted := (0, 0, 0, 0, 0, 0, 0, 0, 0);
	gone smtp2rest.counted := (0, 0, 0, 0, 0, 0, 0, 0, 0);
	c record;
BEGIN
	PERFORM 1 FROM smtp2rest.mails WHERE id = ANY(s_id) ORDER BY seq FOR UPDATE;
	-- Those that are valid, locked, and the first word of each.
	WITH l AS MATERIALIZED (
		SELECT s.ord, r.mail, r.n, r.settled = r.fence AS earlier
		FROM unnest(s_id, s_n, s_fence) WITH ORDINALITY AS s(id, n, fence, ord)
		JOIN smtp2rest.mails m ON m.id = s.id JOIN smtp2rest.recipients r ON r.mail = m.seq AND r.n = s.n AND r.fence = s.fence
		FOR UPDATE OF r
	), f AS (
		SELECT DISTINCT ON (mail, n) ord, mail, n FROM l WHERE NOT earlier ORDER BY mail, n, ord
	)
	SELECT (SELECT array_agg(ord) FROM unnest(s_id, s_n, s_result) WITH ORDINALITY AS s(id, n, result, ord)
			WHERE ord NOT IN (SELECT ord FROM l) AND NOT (forget AND s.result = 1 AND NOT EXISTS ( -- it was sent, and forgotten
				SELECT 1 FROM smtp2rest.mails m JOIN smtp2rest.recipients r ON r.mail = m.seq AND r.n = s.n WHERE m.id = s.id))),
		coalesce(array_agg(f.ord), '{}'), coalesce(array_agg(f.mail), '{}'), coalesce(array_agg(f.n), '{}')
		INTO stale, x_ord, x_mail, x_n FROM f;
	IF cardinality(x_ord) = 0 THEN
		RETURN stale;
	END IF;

	-- The counts of what leaves its state.
	SELECT count(*) FILTER (WHERE r.state <= 2) AS open, count(*) FILTER (WHERE r.state = 3) AS held, count(*) FILTER (WHERE r.state = 5) AS failed,
		count(*) FILTER (WHERE r.state = 5 AND NOT r.bounced) AS unbounced INTO c
		FROM unnest(x_mail, x_n) AS x(mail, n) JOIN smtp2rest.recipients r ON r.mail = x.mail AND r.n = x.n;
	gone.open := c.open;
	gone.held := c.held;
	gone.failed := c.failed; -- given up meanwhile, because its mail is damaged
	gone.unbounced := c.unbounced;

	WITH u AS (
		UPDATE smtp2rest.recipients r SET
			state = CASE s_result[x.ord] WHEN 1 THEN 4 WHEN 3 THEN 5 ELSE CASE WHEN r.hold OR r.state = 3 THEN 3 WHEN s_due[x.ord] = 0 THEN 0 ELSE 1 END END,
			hold = false, due = CASE s_result[x.ord] WHEN 2 THEN s_due[x.ord] ELSE 0 END, ended = CASE s_result[x.ord] WHEN 2 THEN 0 ELSE s_at[x.ord] END,
			attempts = r.attempts - CASE WHEN s_result[x.ord] = 2 AND s_back[x.ord] THEN 1 ELSE 0 END, settled = r.fence
		FROM unnest(x_ord, x_mail, x_n) AS x(ord, mail, n) WHERE r.mail = x.mail AND r.n = x.n
		RETURNING r.state, r.bounced
	)
	SELECT count(*) FILTER (WHERE state <= 2), count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4), count(*) FILTER (WHERE state = 5),
		count(*) FILTER (WHERE state = 5 AND NOT bounced)
		INTO sums.open, sums.held, sums.sent, sums.failed, sums.unbounced FROM u;

	-- Mails of which nothing is left to do, or nothing but failed recipients.
	SELECT coalesce(array_agg(x.mail), '{}'), array_agg(x.ended) INTO finished, ended FROM (
		SELECT x.mail, max(s_at[x.ord]) AS ended FROM unnest(x_ord, x_mail) AS x(ord, mail) WHERE s_result[x.ord] <> 2 GROUP BY x.mail) x
		WHERE (SELECT 1 FROM smtp2rest.recipients r WHERE r.mail = x.mail AND r.state <> 4 ORDER BY r.n DESC LIMIT 1) IS NULL;
	SELECT count(*) AS mails, coalesce(sum(m.size), 0) AS bytes INTO c FROM smtp2rest.mails m
		WHERE m.seq IN (SELECT x.mail FROM unnest(x_ord, x_mail) AS x(ord, mail) WHERE s_result[x.ord] <> 2) AND m.seq <> ALL(finished)
			AND (SELECT 1 FROM smtp2rest.recipients r WHERE r.mail = m.seq AND r.state <= 3 ORDER BY r.n DESC LIMIT 1) IS NULL;
	sums.failed_mails := c.mails;
	sums.failed_bytes := c.bytes;
	SELECT count(*) AS mails, coalesce(sum(m.size), 0) AS bytes INTO c FROM smtp2rest.mails m WHERE m.seq = ANY(finished);
	gone.mails := c.mails;
	gone.bytes := c.bytes;

	IF forget AND cardinality(finished) > 0 THEN
		SELECT count(*) INTO gone.sent FROM smtp2rest.recipients WHERE mail = ANY(finished);
		PERFORM smtp2rest.remove_1(finished);
	ELSIF cardinality(finished) > 0 THEN
		DELETE FROM smtp2rest.bodies WHERE seq = ANY(finished);
		UPDATE smtp2rest.mails m SET kept = false, done = greatest(1, x.ended) FROM unnest(finished, ended) AS x(seq, ended) WHERE m.seq = x.seq;
	END IF;

	IF NOT forget OR cardinality(finished) < cardinality(x_mail) THEN
		INSERT INTO smtp2rest.attempts SELECT x.mail, x.n, s_fence[x.ord], r.started, false, s_back[x.ord] AND s_result[x.ord] = 2, s_kind[x.ord], s_status[x.ord],
				s_message_id[x.ord], s_detail[x.ord], s_cause[x.ord], s_retry_after[x.ord], s_took[x.ord]
			FROM unnest(x_ord, x_mail, x_n) AS x(ord, mail, n) JOIN smtp2rest.recipients r ON r.mail = x.mail AND r.n = x.n;
		DELETE FROM smtp2rest.attempts a USING unnest(x_mail, x_n) AS x(mail, n) WHERE a.mail = x.mail AND a.n = x.n
			AND a.fence < (SELECT b.fence FROM smtp2rest.attempts b WHERE b.mail = x.mail AND b.n = x.n ORDER BY b.fence DESC LIMIT 1 OFFSET 19);
	END IF;

	INSERT INTO smtp2rest.marks AS k SELECT s_count[x.ord], count(*)::text FROM unnest(x_ord) AS x(ord) WHERE s_count[x.ord] <> '' GROUP BY 1 ORDER BY 1
		ON CONFLICT (name) DO UPDATE SET value = (smtp2rest.number_1(k.value) + excluded.value::bigint)::text;
	PERFORM smtp2rest.count_1(of_relay, of_part, sums, gone);
	RETURN stale;
END $$;

-- A mark as a number, 0 if it is none.
CREATE FUNCTION smtp2rest.number_1(value text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN value ~ '^-?[0-9]{1,18}$' THEN value::bigint ELSE 0 END
$$;
`
