package postgres

// operatorFunctions are the changes of a person, on recipients that were selected. Each
// locks its mails in their order, and counts what they were before and what they are after.
const operatorFunctions = `
CREATE FUNCTION smtp2rest.operate_1(of_relay bigint, of_part int, change text, x_mail bigint[], x_n int[], moment bigint, forget bool, to_account text)
RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
	seqs bigint[];
	before smtp2rest.counted;
	changed int := 0;
	s bigint;
BEGIN
	SELECT array_agg(l.seq) INTO seqs FROM (SELECT m.seq FROM smtp2rest.mails m WHERE m.seq = ANY(x_mail) ORDER BY m.seq FOR UPDATE) l;
	IF seqs IS NULL THEN
		RETURN 0;
	END IF;
	before := smtp2rest.summary_1(seqs);
	IF change = 'hold' THEN
		UPDATE smtp2rest.recipients r SET state = CASE WHEN r.state <= 1 THEN 3 ELSE r.state END, hold = r.state = 2
			FROM unnest(x_mail, x_n) AS x(mail, n) WHERE r.mail = x.mail AND r.n = x.n AND r.state <= 2;
		GET DIAGNOSTICS changed = ROW_COUNT;
	ELSIF change = 'release' THEN
		UPDATE smtp2rest.recipients r SET state = CASE WHEN r.state = 2 THEN 2 WHEN r.due > 0 THEN 1 ELSE 0 END, hold = false
			FROM unnest(x_mail, x_n) AS x(mail, n) WHERE r.mail = x.mail AND r.n = x.n AND (r.state = 3 OR r.state = 2 AND r.hold);
		GET DIAGNOSTICS changed = ROW_COUNT;
	ELSIF change = 'retry' THEN
		UPDATE smtp2rest.recipients r SET state = 0, due = 0, ended = 0, attempts = CASE WHEN r.state = 5 THEN 0 ELSE r.attempts END,
				since = CASE WHEN r.state = 5 THEN moment ELSE r.since END
			FROM unnest(x_mail, x_n) AS x(mail, n), smtp2rest.mails m WHERE r.mail = x.mail AND r.n = x.n AND m.seq = r.mail
				AND (r.state <= 1 OR r.state = 5 AND NOT m.damaged);
		GET DIAGNOSTICS changed = ROW_COUNT;
	ELSIF change = 'drop' THEN
		DELETE FROM smtp2rest.recipients r USING unnest(x_mail, x_n) AS x(mail, n) WHERE r.mail = x.mail AND r.n = x.n AND r.state <> 4;
		GET DIAGNOSTICS changed = ROW_COUNT;
		DELETE FROM smtp2rest.attempts a USING unnest(x_mail, x_n) AS x(mail, n) WHERE a.mail = x.mail AND a.n = x.n
			AND NOT EXISTS (SELECT 1 FROM smtp2rest.recipients r WHERE r.mail = x.mail AND r.n = x.n);
		PERFORM smtp2rest.remove_1(array_agg(q)) FROM unnest(seqs) q WHERE NOT EXISTS (SELECT 1 FROM smtp2rest.recipients r WHERE r.mail = q);
		FOREACH s IN ARRAY seqs LOOP
			PERFORM smtp2rest.finish_1(ARRAY[s], forget, (SELECT max(r.ended) FROM smtp2rest.recipients r WHERE r.mail = s));
		END LOOP;
	ELSIF change = 'reassign' THEN
		WITH u AS (
			UPDATE smtp2rest.mails m SET account = to_account WHERE m.seq = ANY(seqs) AND m.account <> to_account
				AND EXISTS (SELECT 1 FROM unnest(x_mail, x_n) AS x(mail, n) JOIN smtp2rest.recipients r ON r.mail = x.mail AND r.n = x.n WHERE x.mail = m.seq AND r.state <> 4)
			RETURNING m.seq
		), v AS (
			UPDATE smtp2rest.recipients r SET account = to_account FROM u WHERE r.mail = u.seq
		)
		SELECT count(*) INTO changed FROM u;
	END IF;
	IF change <> 'reassign' THEN
		PERFORM smtp2rest.count_1(of_relay, of_part, smtp2rest.summary_1(seqs), before);
	END IF;
	RETURN changed;
END $$;

-- Marks a mail as damaged and gives up those of its recipients that wait.
CREATE FUNCTION smtp2rest.damage_1(of_relay bigint, of_part int, damaged_id text, moment bigint, word text) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	s bigint;
	before smtp2rest.counted;
	changed int;
BEGIN
	SELECT seq INTO s FROM smtp2rest.mails WHERE id = damaged_id AND kept FOR UPDATE;
	IF NOT FOUND THEN
		RETURN 0;
	END IF;
	before := smtp2rest.summary_1(ARRAY[s]);
	UPDATE smtp2rest.mails SET damaged = true WHERE seq = s;
	WITH u AS (
		UPDATE smtp2rest.recipients SET state = 5, ended = moment WHERE mail = s AND state <= 1 RETURNING n
	), i AS (
		INSERT INTO smtp2rest.attempts SELECT s, n, nextval('smtp2rest.fences'), moment, false, true, 0, 0, '', word, '', 0, 0 FROM u
	)
	SELECT count(*) INTO changed FROM u;
	PERFORM smtp2rest.count_1(of_relay, of_part, smtp2rest.summary_1(ARRAY[s]), before);
	RETURN changed;
END $$;

-- Marks recipients as bounced. It says how many were still to be, and -1 when the mail is not there.
CREATE FUNCTION smtp2rest.bounced_1(of_relay bigint, of_part int, of_id text, x_n int[]) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	s bigint;
	changed int;
BEGIN
	SELECT seq INTO s FROM smtp2rest.mails WHERE id = of_id FOR UPDATE;
	IF NOT FOUND THEN
		RETURN -1;
	END IF;
	UPDATE smtp2rest.recipients SET bounced = true WHERE mail = s AND n = ANY(x_n) AND state = 5 AND NOT bounced;
	GET DIAGNOSTICS changed = ROW_COUNT;
	IF changed > 0 THEN
		PERFORM smtp2rest.count_1(of_relay, of_part, (0, 0, 0, 0, -changed, 0, 0, 0, 0)::smtp2rest.counted, (0, 0, 0, 0, 0, 0, 0, 0, 0)::smtp2rest.counted);
	END IF;
	RETURN changed;
END $$;

CREATE FUNCTION smtp2rest.purge_1(of_relay bigint, of_part int, until bigint, most int) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	seqs bigint[];
	before smtp2rest.counted;
BEGIN
	SELECT array_agg(x.seq) INTO seqs FROM (
		SELECT y.seq, sum(y.n) OVER (ORDER BY y.done, y.seq) - y.n AS earlier FROM (
			SELECT m.seq, m.done, (SELECT count(*) FROM smtp2rest.recipients r WHERE r.mail = m.seq) AS n FROM (
				SELECT seq, done FROM smtp2rest.mails WHERE done > 0 AND done < until ORDER BY done LIMIT most FOR UPDATE SKIP LOCKED) m) y) x
		WHERE x.earlier < most;
	IF seqs IS NULL THEN
		RETURN 0;
	END IF;
	before := smtp2rest.summary_1(seqs);
	PERFORM smtp2rest.remove_1(seqs);
	PERFORM smtp2rest.count_1(of_relay, of_part, (0, 0, 0, 0, 0, 0, 0, 0, 0)::smtp2rest.counted, before);
	RETURN before.sent;
END $$;

CREATE FUNCTION smtp2rest.purge_failed_1(of_relay bigint, of_part int, until bigint, most int) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	seqs bigint[];
	before smtp2rest.counted;
BEGIN
	SELECT array_agg(x.seq) INTO seqs FROM (
		SELECT m.seq FROM smtp2rest.mails m JOIN (SELECT DISTINCT mail FROM smtp2rest.recipients WHERE state = 5) f ON f.mail = m.seq
		WHERE m.received < until AND NOT EXISTS (SELECT 1 FROM smtp2rest.recipients r
			WHERE r.mail = m.seq AND (r.state < 4 OR r.state = 5 AND NOT r.bounced OR r.ended >= until))
		ORDER BY m.seq LIMIT most) x;
	SELECT array_agg(x.seq) INTO seqs FROM (SELECT m.seq FROM smtp2rest.mails m WHERE m.seq = ANY(seqs) ORDER BY m.seq FOR UPDATE) x;
	SELECT array_agg(q) INTO seqs FROM unnest(seqs) q WHERE NOT EXISTS (SELECT 1 FROM smtp2rest.recipients r -- not retried meanwhile
		WHERE r.mail = q AND (r.state < 4 OR r.state = 5 AND NOT r.bounced OR r.ended >= until));
	IF seqs IS NULL THEN
		RETURN 0;
	END IF;
	before := smtp2rest.summary_1(seqs);
	PERFORM smtp2rest.remove_1(seqs);
	PERFORM smtp2rest.count_1(of_relay, of_part, (0, 0, 0, 0, 0, 0, 0, 0, 0)::smtp2rest.counted, before);
	RETURN cardinality(seqs);
END $$;
`
