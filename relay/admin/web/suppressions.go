package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// suppressionsView is the page of the list.
type suppressionsView struct {
	Address, Domain, Account string
	Reason                   []string
	Reasons                  []string
	Accounts                 []admin.Account
	Entries                  []admin.Suppression
	Next, Export, Done       string
	Looked                   bool // for one address
}

// suppressions lists addresses, or looks one up.
func (s *Site) suppressions(v *visit) error {
	q := v.r.URL.Query()
	view := suppressionsView{
		Address: strings.TrimSpace(q.Get("address")), Domain: strings.TrimSpace(q.Get("domain")), Account: q.Get("account"), Done: done(v),
	}
	for _, r := range suppress.Reasons() {
		view.Reasons = append(view.Reasons, r.String())
	}
	status, err := s.opt.Admin.Status(v.r.Context())
	if err != nil {
		return err
	}
	view.Accounts = status.Accounts
	view.Looked = view.Address != ""
	if view.Looked {
		one, err := s.in(view.Account).GetSuppression(v.r.Context(), view.Address)
		if err != nil && !errors.Is(err, admin.ErrNotSuppressed) {
			return err
		}
		if err == nil {
			view.Entries = []admin.Suppression{one}
		}
		v.show(http.StatusOK, "suppressions", view)
		return nil
	}
	f := suppressionFilter(q)
	view.Reason = f.Reasons
	page, err := s.opt.Suppressions.ListSuppressions(v.r.Context(), f)
	if err != nil {
		return err
	}
	view.Entries = page.Entries
	link := url.Values{}
	for name, value := range map[string]string{"domain": view.Domain, "account": view.Account, "reason": q.Get("reason")} {
		if value != "" {
			link.Set(name, value)
		}
	}
	view.Export = "export?" + link.Encode()
	if page.Next != "" {
		link.Set("after", page.Next)
		view.Next = "suppressions?" + link.Encode()
	}
	v.show(http.StatusOK, "suppressions", view)
	return nil
}

func suppressionFilter(q url.Values) admin.SuppressionFilter {
	f := admin.SuppressionFilter{Domain: strings.TrimPrefix(strings.TrimSpace(q.Get("domain")), "@"), After: q.Get("after"), Limit: pageSize, Account: q.Get("account")}
	if r := q.Get("reason"); r != "" {
		f.Reasons = []string{r}
	}
	return f
}

// in is the list of an account.
func (s *Site) in(account string) admin.Suppressions {
	if account == "" {
		return s.opt.Suppressions
	}
	return s.opt.Suppressions.InAccount(account)
}

// changeSuppressions adds or removes addresses.
func (s *Site) changeSuppressions(v *visit) error {
	form, ctx := v.r.PostForm, v.r.Context()
	account := form.Get("account")
	back := url.Values{}
	if account != "" {
		back.Set("account", account)
	}
	switch form.Get("change") {
	case "add":
		address := strings.TrimSpace(form.Get("address"))
		if _, err := s.in(account).AddSuppressions(ctx, []admin.Suppression{{Address: address, Note: strings.TrimSpace(form.Get("note"))}}); err != nil {
			return err
		}
		v.audit("suppress", "address", address, "account", account)
		back.Set("address", address)
		back.Set("done", "added")
		back.Set("n", "1")
	case "remove":
		items := form["item"]
		if len(items) == 0 {
			return fmt.Errorf("%w: choose at least one address", admin.ErrNothingSelected)
		}
		n, err := s.in(account).RemoveSuppressions(ctx, items)
		if err != nil {
			return err
		}
		v.audit("unsuppress", "addresses", strings.Join(items[:min(len(items), 10)], " "), "removed", n, "account", account)
		back.Set("done", "removed")
		back.Set("n", strconv.Itoa(n))
	default:
		return fmt.Errorf("%w: choose what to do", admin.ErrBadRequest)
	}
	return v.goTo("suppressions", back)
}

// export sends the list as a file that import reads.
func (s *Site) export(v *visit) error {
	h := v.w.Header()
	f := suppressionFilter(v.r.URL.Query())
	f.Limit = 0
	if _, err := s.opt.Suppressions.ListSuppressions(v.r.Context(), f); err != nil {
		return err
	}
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="suppressions.csv"`)
	if err := admin.WriteSuppressions(v.w, admin.AllSuppressions(v.r.Context(), s.opt.Suppressions, f)); err != nil {
		s.opt.Log.Warn("a list of suppressions was not sent whole", "operator", v.who.name, "cause", err)
		cut(v.w)
	}
	return nil
}

// cut ends the connection in the middle of an answer, because one that ended as usual
// would look like a whole list.
func cut(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// importView is what an import would do, line by line where a line is wrong.
type importView struct {
	Good     []admin.Suppression
	Shown    []admin.Suppression
	Bad      []badLine
	Expired  int
	Text     string
	Account  string
	Reason   string
	Accounts []admin.Account
	Reasons  []string
	Asked    bool
}

type badLine struct {
	Line int
	Text string
}

// What one import may have: addresses, and bytes. A longer list is for the command line.
// The list comes again with the confirmation, in which a browser ends each line with CR LF.
const (
	mostLines = 50_000
	mostBytes = maxImport - 64<<10
)

var errTooLarge = errors.New("the list is too large for the page; use 'smtp2rest suppressions import' for such a list")

func (s *Site) askImport(v *visit) error {
	status, err := s.opt.Admin.Status(v.r.Context())
	if err != nil {
		return err
	}
	view := importView{Accounts: status.Accounts}
	for _, r := range suppress.Reasons() {
		view.Reasons = append(view.Reasons, r.String())
	}
	v.show(http.StatusOK, "import", view)
	return nil
}

// importList shows what a list would do, and takes it when that was seen.
func (s *Site) importList(v *visit) error {
	form := v.r.PostForm
	view := importView{Text: form.Get("text"), Account: form.Get("account"), Reason: form.Get("reason"), Asked: true}
	if view.Reason == "" {
		view.Reason = suppress.Operator.String()
	}
	if file, _, err := v.r.FormFile("file"); err == nil {
		defer func() { _ = file.Close() }() // it was only read
		var b bytes.Buffer
		if _, err := io.Copy(&b, file); err != nil {
			return err
		}
		if b.Len() > 0 {
			view.Text = b.String()
		}
	}
	if strings.TrimSpace(view.Text) == "" {
		return fmt.Errorf("%w: choose a file, or paste a list", admin.ErrBadRequest)
	}
	if len(view.Text)+strings.Count(view.Text, "\n") > mostBytes {
		return errTooLarge
	}
	if err := view.read(time.Now()); err != nil {
		return err
	}
	if form.Get("sure") != "yes" || len(view.Good) == 0 {
		view.Shown = view.Good[:min(len(view.Good), 20)]
		v.show(http.StatusOK, "import", view)
		return nil
	}
	added := 0
	for part := view.Good; len(part) > 0; part = part[min(len(part), admin.MaxSuppressions):] {
		n, err := s.in(view.Account).AddSuppressions(v.r.Context(), part[:min(len(part), admin.MaxSuppressions)])
		added += n
		if err != nil {
			v.audit("import suppressions", "added", added, "account", view.Account)
			return fmt.Errorf("%d were added before that: %w", added, err)
		}
	}
	v.audit("import suppressions", "added", added, "account", view.Account)
	back := url.Values{"done": {"added"}, "n": {strconv.Itoa(added)}}
	if view.Account != "" {
		back.Set("account", view.Account)
	}
	return v.goTo("suppressions", back)
}

// read takes the lines of the text apart. A line that is wrong is shown and left out.
func (view *importView) read(now time.Time) error {
	next := admin.ReadSuppressions(strings.NewReader(view.Text))
	for {
		e, line, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if len(view.Good)+len(view.Bad) >= mostLines {
			return fmt.Errorf("%w: more than %d lines; use 'smtp2rest suppressions import' for such a list", admin.ErrBadRequest, mostLines)
		}
		if err == nil {
			if e.Reason == "" {
				e.Reason = view.Reason
			}
			err = e.Check(now)
		}
		switch {
		case !e.Expires.IsZero() && !e.Expires.After(now):
			view.Expired++
		case err != nil:
			view.Bad = append(view.Bad, badLine{line, strings.TrimPrefix(err.Error(), admin.ErrBadRequest.Error()+": ")})
		default:
			view.Good = append(view.Good, e)
		}
	}
}
