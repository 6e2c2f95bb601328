package kill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// killAccount is an account's name; "" is the default one.
type killAccount string

func (a killAccount) domain() string {
	if a == "" {
		a = "mail"
	}
	return string(a) + ".example.com"
}

// sender is what the account rewrites foreign mail to.
func (a killAccount) sender() string { return "hello@" + a.domain() }

// killAccountOf is the account of whose domain a mail is: "shop-m3-7" is from shop's.
func killAccountOf(id string) killAccount {
	if name, _, _ := strings.Cut(id, "-"); name == "shop" || name == "news" {
		return killAccount(name)
	}
	return ""
}

// killRewritten reports whether an address is an account's own sender.
func killRewritten(from string) bool { return strings.HasPrefix(from, "hello@") }

func killKey(account string) string { return "key-of-" + account }

const wrongKey = "wrong-"

// killAccountOfKey is whose key a call has, right or wrong.
func killAccountOfKey(authorization string) string {
	key := strings.TrimPrefix(authorization, "Bearer ")
	name, _ := strings.CutPrefix(strings.TrimPrefix(key, wrongKey), killKey(""))
	if name == key {
		return ""
	}
	return name
}

// killAccounts is what is known of each life's accounts. Its methods do nothing for nil.
type killAccounts struct {
	names []string

	gone  string // which account the next life has not
	wrong string // which account has a wrong key now

	mu      sync.Mutex
	without map[int]string       // by life
	lives   map[string]int       // in which life a mail was handed over, by its id
	moved   map[killAccount]bool // to which accounts 'queue reassign' moved shop's mail
	times   map[string]int       // how often each of the disturbances was made
}

func newKillAccounts(names []string) *killAccounts {
	return &killAccounts{names: names, without: map[int]string{}, lives: map[string]int{}, moved: map[killAccount]bool{}, times: map[string]int{}}
}

func (a *killAccounts) all() []string {
	if a == nil {
		return nil
	}
	return a.names
}

// id draws the account of a mail, which is the beginning of its id.
func (a *killAccounts) id(r *rand.Rand, id string) string {
	if a == nil {
		return id
	}
	if n := r.IntN(len(a.names) + 1); n < len(a.names) {
		return a.names[n] + "-" + id
	}
	return id
}

// handed notes which life a mail is handed over to.
func (a *killAccounts) handed(id string, life int) {
	if a != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.lives[id] = life
	}
}

// tables are the accounts in the configuration, without those that are named.
func (a *killAccounts) tables(dir string, without ...string) string {
	var b strings.Builder
	for _, name := range a.names {
		if !slices.Contains(without, name) {
			fmt.Fprintf(&b, "[[account]]\nname = %q\nemail = %q\nkey_file = %q\nconcurrency = 16\n", name, killAccount(name).sender(), filepath.Join(dir, "key-"+name))
		}
	}
	return b.String()
}

// begin writes the keys and returns the accounts of the next life.
func (a *killAccounts) begin(rig *killRig) string {
	rig.t.Helper()
	if a == nil {
		return ""
	}
	a.mu.Lock()
	a.without[rig.life] = a.gone
	a.mu.Unlock()
	a.writeKeys(rig)
	return a.tables(rig.dir, a.gone)
}

func (a *killAccounts) writeKeys(rig *killRig) {
	rig.t.Helper()
	for _, name := range a.names {
		key := killKey(name)
		if name == a.wrong {
			key = wrongKey + key
		}
		if err := os.WriteFile(filepath.Join(rig.dir, "key-"+name), []byte(key), 0o600); err != nil {
			rig.t.Fatal(err)
		}
	}
}

// mend has the next life all accounts, with the right keys.
func (a *killAccounts) mend(*killRig) {
	if a != nil {
		a.gone, a.wrong = "", ""
	}
}

// any draws an account, or none.
func (a *killAccounts) any(r *rand.Rand) string {
	if n := r.IntN(len(a.names) + 1); n < len(a.names) {
		return a.names[n]
	}
	return ""
}

// notTaken is what the log says of a reload that was refused.
const notTaken = "reload: the configuration was not taken; the one from before stays in force"

// disturb does to a life under load what an operator may do, and draws the accounts of
// the next life.
func (rig *killRig) disturb(r *killRelay) {
	rig.t.Helper()
	a := rig.accounts
	what := []string{"nothing", "key", "less", "renamed", "reassign"}[rig.r.IntN(5)]
	a.times[what]++
	config, err := os.ReadFile(r.config)
	if err != nil {
		rig.t.Fatal(err)
	}
	have := string(config)
	switch what {
	case "key": // wrong, or right again
		a.wrong = a.any(rig.r)
		a.writeKeys(rig)
		rig.reload(r, have, "reloaded")
	case "less":
		head, _, _ := strings.Cut(have, "[[account]]")
		rig.reload(r, head, notTaken)
	case "renamed":
		rig.reload(r, strings.ReplaceAll(have, "name = \"news\"", "name = \"letters\""), map[bool]string{false: notTaken, true: "reloaded"}[a.gone == "news"])
	case "reassign":
		rig.reassign(r, "shop", "news")
	}
	<-time.After(rig.upTo(300 * time.Millisecond))
	a.gone = a.any(rig.r)
}

// reload has a life take a configuration, and says what must come of it.
func (rig *killRig) reload(r *killRelay, config, want string) {
	rig.t.Helper()
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		rig.t.Fatal(err)
	}
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		rig.fail("life %d ended by itself: %v", r.life, err)
	}
	select {
	case got := <-r.log.reloads:
		if got != want {
			rig.fail("life %d: %q instead of %q", r.life, got, want)
		}
	case <-r.ended:
		rig.fail("life %d ended by a reload: %v", r.life, r.err)
	case <-time.After(30 * time.Second):
		rig.fail("life %d does not reload", r.life)
	}
}

// reassign moves the mail of an account as an operator does, while it is tried.
func (rig *killRig) reassign(r *killRelay, from, to string) {
	rig.t.Helper()
	a := rig.accounts
	a.moved[killAccount(to)] = true
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, rig.binary, "queue", "reassign", "--config", r.config, "--account", from, "--to", to)
	c.Env = r.cmd.Env
	out, err := c.CombinedOutput()
	gone := a.gone == to
	if refused := err != nil && strings.Contains(string(out), "there is no account"); refused != gone || err != nil && !refused {
		rig.fail("life %d, without %q: queue reassign: %v\n%s", r.life, a.gone, err, out)
	}
}

// judge says by which accounts a recipient's mail went out that may not send it: the one
// of its domain in the life that it was handed over to, or the one it was moved to.
func (a *killAccounts) judge(to string, s *killSeen) (bad []string) {
	if a == nil {
		return nil
	}
	local, domain, _ := strings.Cut(to, "@")
	id, toSender := strings.CutPrefix(local, "s-")
	if !toSender {
		id = strings.TrimSuffix(domain, ".example")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	life, known := a.lives[id]
	if !known {
		return []string{"nobody handed over what came for " + to}
	}
	own := killAccountOf(id)
	if a.without[life] == string(own) {
		own = ""
	}
	for _, c := range s.calls {
		by := killAccount(c.account)
		if by != own && (own != "shop" || !a.moved[by]) {
			bad = append(bad, fmt.Sprintf("%s was called for by account %q in life %s; it is of %q, from life %d", to, c.account, c.life, own, life))
		}
		if c.from != by.sender() && (toSender || c.from != killSender(id) || killAccountOf(id) != by) {
			bad = append(bad, fmt.Sprintf("%s was called for by account %q from %s", to, c.account, c.from))
		}
	}
	return bad
}

// TestKillAccounts kills a relay with three accounts as TestKill does. Before some kills
// an account gets a wrong key or the right one by a reload, a reload that would remove or
// rename an account is refused, or mail is moved to another account; and some lives begin
// without one of the accounts. No mail may go out by an account that is not its own.
func TestKillAccounts(t *testing.T) {
	rounds := *killRounds
	switch {
	case rounds > 0:
	case harness.All():
		rounds = 30
	default:
		rounds = 5
	}
	rig := newKillRig(t, "shop", "news")
	for range rounds {
		rig.round()
	}
	rig.drain()
	rig.judge(rounds)
	by := map[string]int{}
	for _, s := range rig.provider.seen {
		for _, c := range s.calls {
			if c.accepted {
				by[c.account]++
			}
		}
	}
	t.Logf("accepted by account: %v; lives without: %v; disturbances: %v", by, rig.accounts.without, rig.accounts.times)
}
