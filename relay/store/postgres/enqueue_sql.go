package postgres

// enqueueFunction stores mails. A mail is an element of m, a recipient one of r, an
// attempt of the first try one of a; m_ and a_ say which mail and recipient it belongs
// to. It returns each mail's seq, 0 for one that is there already, and nothing when
// there is no room. A mail whose content comes in bodies of its own has its seq already.
const enqueueFunction = `
CREATE FUNCTION smtp2rest.enqueue_1(of_relay bigint, of_part int, max_mails bigint, max_bytes bigint,
	m_seq bigint[], m_id text[], m_sender text[], m_lane text[], m_domain text[], m_urgent bool[], m_received bigint[], m_client text[],
	m_bounce_of text[], m_account text[], m_size bigint[], m_kept bool[], m_done bigint[], m_sum bigint[], m_raw bytea[],
	r_mail int[], r_n int[], r_state int[], r_bounced bool[], r_attempts int[], r_due bigint[], r_since bigint[], r_ended bigint[],
	r_turn text[], r_addr text[],
	a_mail int[], a_n int[], a_started bigint[], a_unknown bool[], a_not_counted bool[], a_kind int[], a_status int[],
	a_message_id text[], a_detail text[], a_cause text[], a_retry_after bigint[], a_took bigint[])
RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	seqs bigint[];
	there record;
	more record;
	none smtp2rest.counted := (0, 0, 0, 0, 0, 0, 0, 0, 0);
	sums smtp2rest.counted;
BEGIN
	IF max_mails > 0 OR max_bytes > 0 THEN
		SELECT coalesce(sum(mails - failed_mails), 0) AS mails, coalesce(sum(bytes), 0) AS bytes INTO there FROM smtp2rest.counts;
		SELECT count(*) AS mails, coalesce(sum(size), 0) AS bytes INTO more FROM unnest(m_size, m_kept) AS x(size, kept) WHERE kept;
		IF max_mails > 0 AND there.mails + more.mails > max_mails OR max_bytes > 0 AND there.bytes + more.bytes > max_bytes THEN
			-- Mail that is there already needs none.
			SELECT count(*) AS mails, coalesce(sum(x.size), 0) AS bytes INTO more FROM unnest(m_id, m_size, m_kept) AS x(id, size, kept)
				WHERE x.kept AND NOT EXISTS (SELECT 1 FROM smtp2rest.mails m WHERE m.id = x.id);
			IF more.mails > 0 AND (max_mails > 0 AND there.mails + more.mails > max_mails OR max_bytes > 0 AND there.bytes + more.bytes > max_bytes) THEN
				RETURN NULL;
			END IF;
		END IF;
	END IF;
	WITH x AS MATERIALIZED (
		SELECT coalesce(nullif(y.seq, 0), nextval('smtp2rest.arrivals')) AS seq, id, sender, lane, domain, urgent, received, client, bounce_of, account, size, kept, done, sum, ord
		FROM (SELECT * FROM unnest(m_seq, m_id, m_sender, m_lane, m_domain, m_urgent, m_received, m_client, m_bounce_of, m_account, m_size, m_kept, m_done, m_sum)
			WITH ORDINALITY AS u(seq, id, sender, lane, domain, urgent, received, client, bounce_of, account, size, kept, done, sum, ord) ORDER BY ord) y
	), i AS (
		INSERT INTO smtp2rest.mails (seq, id, sender, lane, domain, urgent, received, client, bounce_of, account, size, kept, done, damaged, sum)
		SELECT seq, id, sender, lane, domain, urgent, received, client, bounce_of, account, size, kept, done, false, sum FROM x ORDER BY ord
		ON CONFLICT (id) DO NOTHING RETURNING seq
	)
	SELECT array_agg(coalesce(i.seq, 0) ORDER BY x.ord) INTO seqs FROM x LEFT JOIN i ON i.seq = x.seq;

	INSERT INTO smtp2rest.bodies SELECT s, 0, raw FROM unnest(seqs, m_raw) AS x(s, raw) WHERE s > 0 AND raw IS NOT NULL;

	INSERT INTO smtp2rest.recipients (mail, n, state, hold, bounced, attempts, owner, due, since, started, ended, fence, settled, account, turn, lane, addr)
	SELECT seqs[x.m], x.n, x.state, false, x.bounced, x.attempts, 0, x.due, x.since, 0, x.ended, 0, 0, m_account[x.m], x.turn, m_lane[x.m], x.addr
	FROM unnest(r_mail, r_n, r_state, r_bounced, r_attempts, r_due, r_since, r_ended, r_turn, r_addr)
		AS x(m, n, state, bounced, attempts, due, since, ended, turn, addr) WHERE seqs[x.m] > 0;

	INSERT INTO smtp2rest.attempts (mail, n, fence, started, unknown, not_counted, kind, status, message_id, detail, cause, retry_after, took)
	SELECT seqs[y.m], y.n, nextval('smtp2rest.fences'), y.started, y.unknown, y.not_counted, y.kind, y.status, y.message_id, y.detail, y.cause, y.retry_after, y.took
	FROM (SELECT * FROM unnest(a_mail, a_n, a_started, a_unknown, a_not_counted, a_kind, a_status, a_message_id, a_detail, a_cause, a_retry_after, a_took)
		WITH ORDINALITY AS x(m, n, started, unknown, not_counted, kind, status, message_id, detail, cause, retry_after, took, ord) ORDER BY ord) y
	WHERE seqs[y.m] > 0;

	SELECT count(*) FILTER (WHERE state <= 1), count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4), count(*) FILTER (WHERE state = 5),
		count(*) FILTER (WHERE state = 5 AND NOT bounced)
		INTO sums.open, sums.held, sums.sent, sums.failed, sums.unbounced
		FROM unnest(r_mail, r_state, r_bounced) AS x(m, state, bounced) WHERE seqs[x.m] > 0;
	SELECT count(*), coalesce(sum(x.size), 0), count(*) FILTER (WHERE NOT x.open), coalesce(sum(x.size) FILTER (WHERE NOT x.open), 0)
		INTO sums.mails, sums.bytes, sums.failed_mails, sums.failed_bytes
		FROM (SELECT u.size, u.ord IN (SELECT r.m FROM unnest(r_mail, r_state) AS r(m, state) WHERE r.state <= 3) AS open
			FROM unnest(seqs, m_size, m_kept) WITH ORDINALITY AS u(s, size, kept, ord) WHERE u.s > 0 AND u.kept) x;
	PERFORM smtp2rest.count_1(of_relay, of_part, sums, none);
	RETURN seqs;
END $$;
`
