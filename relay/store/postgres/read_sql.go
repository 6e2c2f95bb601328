package postgres

// readFunctions are what is asked often, with the indexes that they go by.
const readFunctions = `
CREATE FUNCTION smtp2rest.next_1(of_account text, closed text[], OUT is_ready bool, OUT first bigint, OUT last bigint) LANGUAGE plpgsql
	SET enable_seqscan = off SET jit = off SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	at_turn text COLLATE "C";
BEGIN
	is_ready := false;
	SELECT r.turn INTO at_turn FROM smtp2rest.recipients r WHERE r.state = 0 AND r.account = of_account ORDER BY r.account, r.turn LIMIT 1;
	WHILE at_turn IS NOT NULL LOOP
		IF at_turn <> ALL(closed) THEN
			is_ready := true;
			RETURN;
		END IF;
		SELECT r.turn INTO at_turn FROM smtp2rest.recipients r WHERE r.state = 0 AND r.account = of_account AND r.turn > at_turn ORDER BY r.account, r.turn LIMIT 1;
	END LOOP;
	SELECT min(r.due), max(r.due) INTO first, last FROM smtp2rest.recipients r WHERE r.state = 1 AND r.account = of_account;
END $$;

CREATE FUNCTION smtp2rest.stats_1(since_seq bigint, OUT open bigint, OUT claimed bigint, OUT held bigint, OUT sent bigint, OUT failed bigint, OUT unbounced bigint,
	OUT mails bigint, OUT bytes bigint, OUT failed_mails bigint, OUT failed_bytes bigint, OUT oldest bigint, OUT received bigint) LANGUAGE sql
	SET enable_seqscan = off SET jit = off SET enable_sort = off AS $$
	SELECT c.open, c.claimed, c.held, c.sent, c.failed, c.unbounced, c.mails, c.bytes, c.failed_mails, c.failed_bytes, o.seq, o.received FROM
	(SELECT coalesce(sum(n.open), 0)::bigint, (SELECT count(*) FROM smtp2rest.recipients WHERE state = 2), coalesce(sum(n.held), 0)::bigint, coalesce(sum(n.sent), 0)::bigint,
		coalesce(sum(n.failed), 0)::bigint, coalesce(sum(n.unbounced), 0)::bigint, coalesce(sum(n.mails), 0)::bigint, coalesce(sum(n.bytes), 0)::bigint,
		coalesce(sum(n.failed_mails), 0)::bigint, coalesce(sum(n.failed_bytes), 0)::bigint, coalesce(sum(n.open + n.held), 0) > 0 AS has_open FROM smtp2rest.counts n)
		AS c (open, claimed, held, sent, failed, unbounced, mails, bytes, failed_mails, failed_bytes, has_open)
	LEFT JOIN LATERAL (SELECT m.seq, m.received FROM smtp2rest.recipients r JOIN smtp2rest.mails m ON m.seq = r.mail
		WHERE c.has_open AND r.mail >= since_seq AND r.state <= 3 ORDER BY r.mail, r.n LIMIT 1) o ON true
$$;
`
