package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// Admin is where an operator, a supervisor and monitoring reach the daemon.
type Admin struct {
	Socket     string // as set; "" is the usual place
	RuntimeDir string // where the socket is, when there is no data directory
	Address    string // host:port; "" is none
	Token      Secret // what Address asks for; not set only where Address is loopback
	TokenFile  string // as written; what is in it is in Token
	Open       Open
}

// Open is what Address shows without the token.
type Open string

// The steps: nothing, whether the relay is well, and its metrics besides.
const (
	OpenNothing Open = "nothing"
	OpenHealth  Open = "health"
	OpenMetrics Open = "metrics"
)

func adminToken() secretSource {
	return secretSource{"admin.token", "SMTP2REST_ADMIN_TOKEN", "admin.token_file", []string{"smtp2rest_admin_token"}}
}

func adminSettings(a *Admin) []setting {
	return []setting{
		{path: "admin.socket", value: textValue{&a.Socket, checkSocket}, env: "SMTP2REST_ADMIN_SOCKET", def: "",
			doc: "Unix socket of 'smtp2rest status' and 'queue', for the daemon's user alone. \"\" is\nadmin.sock in queue.data_dir, or without a queue in RUNTIME_DIRECTORY, or the like."},
		{path: "admin.address", value: textValue{&a.Address, checkAdminAddress}, def: "", env: "SMTP2REST_ADMIN_ADDRESS",
			doc: "Address for /livez, /readyz, /metrics and /status, as in \"127.0.0.1:9090\". \"\" is none.\nFor other machines there must be a token, and to see or change the queue as well."},
		{path: "admin.token", value: secretValue{&a.Token, adminToken()}, env: adminToken().env,
			doc: "What clients of the address have to send as \"Authorization: Bearer\". It is a secret\nand not set in the file."},
		{path: "admin.token_file", value: textValue{&a.TokenFile, checkSecretPath}, def: "",
			doc: "File that holds the token: a path that begins with /, or with ./ for the directory of\nthis file."},
		{path: "admin.open", value: wordValue[Open]{&a.Open, []Open{OpenNothing, OpenHealth, OpenMetrics}}, def: "health",
			doc: "What the address shows without the token: \"nothing\"; \"health\", which is /livez and\n/readyz; or \"metrics\" besides."},
	}
}

func checkSocket(s string) error {
	// sun_path of unix(7) has 108 octets, with a NUL at the end.
	if s != "" && (!filepath.IsAbs(s) || len(s) > 107 || checkText(s) != nil) {
		return fmt.Errorf(`found %s; write a path of at most 107 bytes that begins with /, as in "/run/smtp2rest/admin.sock"`, show(s))
	}
	return nil
}

func checkAdminAddress(s string) error {
	if s == "" {
		return nil
	}
	if err := checkAddress(s); err != nil {
		return fmt.Errorf(`%w; for this machine alone, "127.0.0.1:9090"`, err)
	}
	return nil
}

// minToken is what a token has at least: what can be guessed is none.
const minToken = 16

func (l *loader) validateAdmin() {
	a := l.cfg.Admin
	if a.Token.IsSet() && len(a.Token.Reveal()) < minToken {
		l.problem("admin.token", "has %d letters; %d are needed so that nobody guesses it, as 'openssl rand -hex 16' makes them", len(a.Token.Reveal()), minToken)
	}
	if a.Address == "" || l.bad["admin.address"] || a.Token.IsSet() || l.secretRefused(adminToken()) {
		return
	}
	if host, _, _ := net.SplitHostPort(a.Address); !loopbackHost(host) {
		l.problem("admin.address", "found %s, which other machines reach, and no token; write 127.0.0.1, or %s", show(a.Address), l.ways(adminToken()))
	}
}

// runtimeDir is where a program of this user has its sockets.
func (l *loader) runtimeDir() string {
	env := func(name string) string { v, _ := l.src.Env(name); return v }
	if dir, _, _ := strings.Cut(env("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir
	}
	if dir := env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "smtp2rest")
	}
	return "/run/smtp2rest"
}
