package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// Find implements history.Store.
func (s *Records) Find(ctx context.Context, q history.Query) (found []history.Mail, cursor string, err error) {
	text, args, err := dialect().Find(mailColumns+", r.addr, r.named, r.state, r.ended, r.api_id, '', r.key", q)
	if err != nil {
		return nil, "", err
	}
	text, args = numbered(text, args)
	err = s.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		key := ""
		err := eachRow(ctx, c, func(r pgx.Rows) error {
			var one history.Recipient
			m, k, err := scanMail(r, &one)
			m.Recipients = []history.Recipient{one}
			found, key = append(found, m), k
			return err
		}, text, args...)
		if err != nil {
			return err
		}
		all := make([]*history.Recipient, len(found))
		for i := range found {
			all[i] = &found[i].Recipients[0]
		}
		if err := addEvents(ctx, c, all); err != nil {
			return err
		}
		for _, r := range all {
			r.Steps = nil
		}
		if n := len(found); n == stored.FindLimit(q) {
			cursor = stored.FindCursor(found[n-1], key)
		}
		return nil
	})
	return found, cursor, err
}
