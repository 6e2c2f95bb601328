package relay

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// Every kind has its line here; TestKindsAreComplete sees to it.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		kind               Kind
		name               string
		permanent, settled bool
	}{
		{Unavailable, "unavailable", false, false},
		{Accepted, "accepted", false, true},
		{Suppressed, "suppressed", true, true},
		{Refused, "refused", true, true},
		{TooLarge, "too_large", true, true},
		{Unauthorized, "unauthorized", false, false}, // the operator's fault must never bounce mail
		{RateLimited, "rate_limited", false, false},
		{Ambiguous, "ambiguous", false, false},
	} {
		if got := tt.kind.String(); got != tt.name {
			t.Errorf("kind %d is called %q, want %q", tt.kind, got, tt.name)
		}
		if got := tt.kind.Permanent(); got != tt.permanent {
			t.Errorf("Permanent of %s is %v", tt.name, got)
		}
		if got := tt.kind.Settled(); got != tt.settled {
			t.Errorf("Settled of %s is %v", tt.name, got)
		}
	}
}

// The zero Outcome must be one that keeps the mail.
func TestTheZeroOutcomeSettlesNothing(t *testing.T) {
	if (Outcome{}).Kind.Settled() {
		t.Error("an outcome that nobody filled in would lose the mail")
	}
}

// Replies, metrics and the queue are tables over Kinds.
func TestKindsAreComplete(t *testing.T) {
	declared := constantsOf(t, "outcome.go", "Kind")
	kinds := Kinds()
	if len(kinds) != declared {
		t.Errorf("outcome.go declares %d kinds, Kinds lists %d", declared, len(kinds))
	}
	seen := map[string]bool{}
	for i, k := range kinds {
		if int(k) != i {
			t.Errorf("Kinds lists %s at %d", k, i)
		}
		if seen[k.String()] {
			t.Errorf("two kinds are called %s", k)
		}
		seen[k.String()] = true
	}
}

// constantsOf counts the constants of a file's block that begins with the type.
func constantsOf(t *testing.T, name, typ string) int {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		if id, ok := g.Specs[0].(*ast.ValueSpec).Type.(*ast.Ident); ok && id.Name == typ {
			return len(g.Specs)
		}
	}
	t.Fatalf("%s declares no constants of type %s", name, typ)
	return 0
}
