package admin

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Suppressions is the list of suppressed addresses. Like Admin it has two
// implementations: LocalSuppressions and Client.
type Suppressions interface {
	// ListSuppressions returns one page, sorted by address. Next leads to the next one.
	ListSuppressions(ctx context.Context, f SuppressionFilter) (SuppressionPage, error)
	// GetSuppression returns the entry of an address.
	GetSuppression(ctx context.Context, address string) (Suppression, error)
	// AddSuppressions writes entries, replaces what the list has of them, and returns
	// their number. It adds all of them or, with an error, none.
	AddSuppressions(ctx context.Context, list []Suppression) (int, error)
	// RemoveSuppressions takes addresses off the list and returns how many were on it.
	// An event about something that happened before does not put them on it again.
	RemoveSuppressions(ctx context.Context, addresses []string) (int, error)
	// InAccount returns the list of another account; "" or "default" is the default one.
	InAccount(account string) Suppressions
}

// Suppression is one address to which no mail is sent. Scripts read it, like the types
// in types.go.
type Suppression struct {
	Address string    `json:"address"`
	Reason  string    `json:"reason"` // see suppress.Reason
	Source  string    `json:"source"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires,omitzero"` // missing: never
	Event   string    `json:"event,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Note    string    `json:"note,omitempty"`
	Account string    `json:"account,omitempty"` // whose list has it, in a list of several accounts
}

// SuppressionFilter selects entries. They match all fields that are set.
type SuppressionFilter struct {
	Reasons []string `json:"reasons,omitempty"`
	Sources []string `json:"sources,omitempty"`
	Domain  string   `json:"domain,omitempty"`
	After   string   `json:"after,omitempty"` // SuppressionPage.Next
	Limit   int      `json:"limit,omitempty"` // entries on a page; 0 is 1000, the most
	Account string   `json:"account,omitempty"`
}

// SuppressionPage is one page of a list.
type SuppressionPage struct {
	Entries []Suppression `json:"entries"`
	Next    string        `json:"next,omitempty"` // "" at the end
}

// MaxSuppressions is how many addresses one call can add or remove.
const MaxSuppressions = 500

// AllSuppressions lists everything that matches, page by page. An error is the last
// thing it yields.
func AllSuppressions(ctx context.Context, s Suppressions, f SuppressionFilter) iter.Seq2[Suppression, error] {
	return pages(f.After, func(after string) ([]Suppression, string, error) {
		f.After = after
		page, err := s.ListSuppressions(ctx, f)
		return page.Entries, page.Next, err
	})
}

// LocalSuppressions works on a store in this process.
type LocalSuppressions struct {
	all   *suppress.Split
	known []string       // accounts; nil: any
	store suppress.Store // the account's
	err   error          // there is no such account
}

var (
	_ Suppressions = (*LocalSuppressions)(nil)
	_ Suppressions = (*Client)(nil)
)

// NewSuppressions returns Suppressions for a store that is open in this process. It need
// not be closed. Only the known accounts can be asked for; without any, every name can.
func NewSuppressions(s *suppress.Split, known ...string) *LocalSuppressions {
	return &LocalSuppressions{all: s, known: known, store: s.Of("")}
}

// InAccount implements Suppressions.
func (l *LocalSuppressions) InAccount(account string) Suppressions {
	account = accountKey(account)
	return &LocalSuppressions{all: l.all, known: l.known, store: l.all.Of(account), err: checkAccount(l.known, account)}
}

// accountKey returns the key of an account in the store: "" for the default account.
func accountKey(name string) string {
	if name == relay.DefaultAccount {
		return ""
	}
	return name
}

// checkAccount refuses an unknown account. A stopped relay knows no accounts, so any name
// is accepted.
func checkAccount(known []string, account string) error {
	if strings.Contains(account, "/") || len(known) > 0 && !slices.Contains(known, account) {
		return fmt.Errorf("%w: there is no account %q", ErrBadRequest, account)
	}
	return nil
}

// ListSuppressions implements Suppressions.
func (l *LocalSuppressions) ListSuppressions(ctx context.Context, f SuppressionFilter) (SuppressionPage, error) {
	if f.Account != "" {
		account := f.Account
		f.Account = ""
		return l.InAccount(account).ListSuppressions(ctx, f)
	}
	sf, err := f.suppress()
	if err == nil {
		err = l.err
	}
	if err != nil {
		return SuppressionPage{}, err
	}
	list, err := l.store.Entries(ctx, sf)
	if err != nil {
		return SuppressionPage{}, err
	}
	page := SuppressionPage{Entries: make([]Suppression, len(list))}
	for i, e := range list {
		page.Entries[i] = suppressionOf(e)
	}
	if len(list) == sf.Limit {
		page.Next = list[len(list)-1].Address
	}
	return page, nil
}

// GetSuppression implements Suppressions.
func (l *LocalSuppressions) GetSuppression(ctx context.Context, address string) (Suppression, error) {
	if l.err != nil {
		return Suppression{}, l.err
	}
	e, ok, err := l.store.Entry(ctx, suppress.Normalise(address))
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s", ErrNotSuppressed, text(address))
	}
	if err != nil {
		return Suppression{}, err
	}
	return suppressionOf(e), nil
}

// AddSuppressions implements Suppressions.
func (l *LocalSuppressions) AddSuppressions(ctx context.Context, list []Suppression) (int, error) {
	if len(list) > MaxSuppressions {
		return 0, fmt.Errorf("%w: %d addresses, at most %d at once", ErrBadRequest, len(list), MaxSuppressions)
	}
	if l.err != nil {
		return 0, l.err
	}
	entries := make([]suppress.Entry, len(list))
	for i, s := range list {
		e, err := s.entry(time.Now())
		if err != nil {
			return 0, err
		}
		entries[i] = e
	}
	if err := l.store.Put(ctx, entries); err != nil {
		return 0, err
	}
	return len(entries), nil
}

// RemoveSuppressions implements Suppressions.
func (l *LocalSuppressions) RemoveSuppressions(ctx context.Context, addresses []string) (int, error) {
	if len(addresses) > MaxSuppressions {
		return 0, fmt.Errorf("%w: %d addresses, at most %d at once", ErrBadRequest, len(addresses), MaxSuppressions)
	}
	if l.err != nil {
		return 0, l.err
	}
	normal := make([]string, len(addresses))
	for i, a := range addresses {
		normal[i] = suppress.Normalise(a)
	}
	return l.store.Remove(ctx, normal, time.Now())
}

func (f SuppressionFilter) suppress() (suppress.Filter, error) {
	out := suppress.Filter{After: f.After, Limit: min(max(f.Limit, 0), MaxPage)}
	if out.Limit == 0 {
		out.Limit = MaxPage
	}
	if f.Domain != "" {
		out.Domain = suppress.Domain(f.Domain)
	}
	for _, name := range f.Reasons {
		r, ok := suppress.ParseReason(name)
		if !ok {
			return out, fmt.Errorf("%w: there is no reason %q", ErrBadRequest, name)
		}
		out.Reasons = append(out.Reasons, r)
	}
	for _, name := range f.Sources {
		s, ok := suppress.ParseSource(name)
		if !ok {
			return out, fmt.Errorf("%w: there is no source %q", ErrBadRequest, name)
		}
		out.Sources = append(out.Sources, s)
	}
	return out, nil
}

func suppressionOf(e suppress.Entry) Suppression {
	return Suppression{
		Address: text(e.Address), Reason: e.Reason.String(), Source: e.Source.String(), Since: utc(e.Since), Expires: utc(e.Expires),
		Event: text(e.Event), Detail: text(e.Detail), Note: text(e.Note),
	}
}

// maxNote bounds the texts of an entry, in bytes.
const maxNote = 1000

// Check says what is wrong with an entry that is to be added, or nil.
func (s Suppression) Check(now time.Time) error {
	_, err := s.entry(now)
	return err
}

// entry checks a Suppression and converts it. An address alone is suppressed by the
// operator from now on.
func (s Suppression) entry(now time.Time) (suppress.Entry, error) {
	e := suppress.Entry{
		Address: suppress.Normalise(s.Address), Reason: suppress.Operator, Source: suppress.ByOperator,
		Since: s.Since, Expires: s.Expires, Event: s.Event, Detail: s.Detail, Note: s.Note,
	}
	// Nobody would see a typing error on the list.
	if domain := suppress.DomainOf(e.Address); len(e.Address) > 320 || domain == "" || len(domain)+1 >= len(e.Address) {
		return e, fmt.Errorf("%w: %q is no mail address", ErrBadRequest, e.Address)
	}
	if len(e.Event)+len(e.Detail)+len(e.Note) > maxNote {
		return e, fmt.Errorf("%w: %s: its event, detail and note are longer than %d bytes", ErrBadRequest, e.Address, maxNote)
	}
	var ok bool
	if s.Reason != "" {
		if e.Reason, ok = suppress.ParseReason(s.Reason); !ok {
			return e, fmt.Errorf("%w: there is no reason %q", ErrBadRequest, s.Reason)
		}
	}
	if s.Source != "" {
		if e.Source, ok = suppress.ParseSource(s.Source); !ok {
			return e, fmt.Errorf("%w: there is no source %q", ErrBadRequest, s.Source)
		}
	}
	if e.Since.IsZero() {
		e.Since = now
	}
	if e.Expired(now) {
		return e, fmt.Errorf("%w: %s would have expired on %s", ErrBadRequest, e.Address, e.Expires.UTC().Format(time.DateOnly))
	}
	return e, nil
}

// adding and removing are the requests that change the list.
type adding struct {
	Entries []Suppression `json:"entries"`
	Account string        `json:"account,omitempty"`
}

type removing struct {
	Addresses []string `json:"addresses"`
	Account   string   `json:"account,omitempty"`
}

// ofAccount is the request for one address of an account's list.
type ofAccount struct {
	ID      string `json:"id"`
	Account string `json:"account,omitempty"`
}

// in returns the list that a request means: the one it has, if it names no account.
func in(s Suppressions, account string) Suppressions {
	if account == "" {
		return s
	}
	return s.InAccount(account)
}

// handleSuppressions passes calls on to Suppressions. Client makes them.
func handleSuppressions(mux *http.ServeMux, s Suppressions) {
	handle(mux, "suppressions/list", s.ListSuppressions)
	handle(mux, "suppressions/get", func(ctx context.Context, r ofAccount) (Suppression, error) {
		return in(s, r.Account).GetSuppression(ctx, r.ID)
	})
	handle(mux, "suppressions/add", func(ctx context.Context, r adding) (changed, error) {
		n, err := in(s, r.Account).AddSuppressions(ctx, r.Entries)
		return changed{n}, err
	})
	handle(mux, "suppressions/remove", func(ctx context.Context, r removing) (changed, error) {
		n, err := in(s, r.Account).RemoveSuppressions(ctx, r.Addresses)
		return changed{n}, err
	})
}

// InAccount implements Suppressions.
func (c *Client) InAccount(account string) Suppressions {
	of := *c
	of.account = account
	return &of
}

// ListSuppressions implements Suppressions.
func (c *Client) ListSuppressions(ctx context.Context, f SuppressionFilter) (SuppressionPage, error) {
	if f.Account == "" {
		f.Account = c.account
	}
	return call[SuppressionPage](ctx, c, "suppressions/list", f)
}

// GetSuppression implements Suppressions.
func (c *Client) GetSuppression(ctx context.Context, address string) (Suppression, error) {
	return call[Suppression](ctx, c, "suppressions/get", ofAccount{address, c.account})
}

// AddSuppressions implements Suppressions.
func (c *Client) AddSuppressions(ctx context.Context, list []Suppression) (int, error) {
	return c.change(ctx, "suppressions/add", adding{list, c.account})
}

// RemoveSuppressions implements Suppressions.
func (c *Client) RemoveSuppressions(ctx context.Context, addresses []string) (int, error) {
	return c.change(ctx, "suppressions/remove", removing{addresses, c.account})
}
