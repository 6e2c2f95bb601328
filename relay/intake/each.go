package intake

import (
	"context"
	"slices"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

var _ smtpd.EachBackend = (*Intake)(nil)

// MessageEach is Message for a client that hears of each recipient (LMTP). A
// recipient that is refused here is the client's to tell of: it gets no bounce.
func (in *Intake) MessageEach(ctx context.Context, env *smtpd.Envelope, data []byte) []*reply.Reply {
	return in.handle(ctx, env, data, true).each
}

// verdict is what a client is told of a message: each is in the order in which
// it named the recipients, or has one reply for all of them.
type verdict struct {
	each []*reply.Reply
	of   []string // whom each is about; nil: all of them
	kept bool     // some of it is to be sent later
}

func forAll(r *reply.Reply) verdict { return verdict{each: []*reply.Reply{r}} }

// main is the reply that stands for the message: the first that takes any of
// it, or the first.
func (v verdict) main() *reply.Reply {
	if i := slices.IndexFunc(v.each, (*reply.Reply).Positive); i >= 0 {
		return v.each[i]
	}
	return v.each[0]
}

// to is the verdict again, for a client that named these recipients. It is
// false when one of them was not named before.
func (v verdict) to(recipients []string) (verdict, bool) {
	each := make([]*reply.Reply, len(recipients))
	for i, rcpt := range recipients {
		switch at := slices.Index(v.of, rcpt); {
		case v.of == nil:
			each[i] = v.each[0]
		case at < 0:
			return verdict{}, false
		default:
			each[i] = v.each[at]
		}
	}
	v.each, v.of = each, recipients
	return v, true
}

// partsOf are what came of a message, for each recipient as it was named.
func partsOf(r relay.Remainder, list []named) []relay.Remainder {
	parts := make([]relay.Remainder, len(list))
	for i, n := range list {
		is := map[string]bool{}
		for _, to := range n.to {
			is[suppress.Normalise(to)] = true
		}
		part := only(r, func(to string) bool { return is[suppress.Normalise(to)] })
		part.Message.Aliases = nil
		if n.alias {
			part.Message.Aliases = map[string]string{}
			for _, to := range part.Message.Recipients {
				part.Message.Aliases[to] = n.rcpt
			}
		}
		parts[i] = part
	}
	return parts
}
