package sendmail

import "testing"

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		code     int
		enhanced [3]int
		want     int
	}{
		{421, [3]int{4, 3, 2}, TempFail}, {450, [3]int{}, TempFail}, {451, [3]int{4, 7, 1}, TempFail}, {452, [3]int{4, 3, 1}, TempFail}, {454, [3]int{}, TempFail},
		{550, [3]int{5, 1, 1}, NoUser}, {550, [3]int{}, NoUser}, {550, [3]int{-1, 0, 0}, Unavailable}, {550, [3]int{5, 1, 2}, NoHost}, {553, [3]int{5, 1, 3}, DataErr}, {553, [3]int{}, DataErr},
		{550, [3]int{5, 7, 1}, NoPerm}, {554, [3]int{5, 7, 1}, NoPerm}, {553, [3]int{5, 7, 1}, NoPerm}, {530, [3]int{5, 7, 0}, NoPerm}, {535, [3]int{}, NoPerm},
		{552, [3]int{5, 3, 4}, DataErr}, {552, [3]int{}, DataErr}, {554, [3]int{5, 6, 0}, DataErr}, {554, [3]int{5, 6, 1}, DataErr}, {552, [3]int{5, 2, 3}, DataErr},
		{500, [3]int{5, 5, 2}, Protocol}, {502, [3]int{}, Protocol}, {503, [3]int{5, 5, 1}, Protocol}, {555, [3]int{}, Protocol},
		{554, [3]int{}, Unavailable}, {554, [3]int{5, 4, 6}, Unavailable}, {552, [3]int{5, 2, 2}, DataErr}, {550, [3]int{5, 2, 1}, Unavailable}, {571, [3]int{}, Unavailable},
		{220, [3]int{}, TempFail}, // an answer that means nothing here
	} {
		if got := ExitCode(c.code, c.enhanced); got != c.want {
			t.Errorf("%d %v: %d, want %d", c.code, c.enhanced, got, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	s, err := ParseSettings("# ours\n\nserver = /run/smtp2rest.sock # here\ndomain=\"web1.example.com\"\n")
	if err != nil || s.Server != "/run/smtp2rest.sock" || s.Domain != "web1.example.com" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := ParseSettings(""); err != nil || s.Server != DefaultServer || s.Domain != "" {
		t.Errorf("%+v, %v", s, err)
	}
	for text, want := range map[string]string{
		"server":               "line 1: write name = value",
		"\nserver = ":          "line 2: write name = value",
		"port = 25":            "line 1: unknown setting; the settings are server, domain and spool",
		"root:$6$secret:19000": "line 1: write name = value",
		"domain = a b":         `domain: "a b" is not a domain name`,
	} {
		if _, err := ParseSettings(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestServerAddress(t *testing.T) {
	for server, want := range map[string]string{
		"127.0.0.1:2525": "tcp 127.0.0.1:2525", "[::1]:25": "tcp [::1]:25", "relay:25": "tcp relay:25",
		"/run/s.sock": "unix /run/s.sock", "unix:/run/s.sock": "unix /run/s.sock", "unix:s": "unix s",
	} {
		if network, address, err := ServerAddress(server); err != nil || network+" "+address != want {
			t.Errorf("%s: %s %s %v", server, network, address, err)
		}
	}
	for _, server := range []string{"", "relay", "127.0.0.1", "::1", "relay:"} {
		if _, _, err := ServerAddress(server); err == nil {
			t.Errorf("%q was taken", server)
		}
	}
}

// Mail is not kept for a server that does not look there.
func TestSpoolOf(t *testing.T) {
	for _, c := range []struct {
		server, setting, named string
		chosen                 bool
		want                   string
	}{
		{DefaultServer, "", "", false, "/default"},
		{"/run/smtp", "", "", false, "/default"},
		{"localhost:25", "", "", false, "/default"},
		{"[::1]:25", "", "", false, "/default"},
		{"relay.example.com:25", "", "", false, ""},
		{"10.1.0.5:25", "", "", false, ""},
		{"10.1.0.5:25", "/srv/spool", "", false, "/srv/spool"},
		{DefaultServer, "none", "", false, ""},
		{DefaultServer, "", "", true, ""},
		{DefaultServer, "/srv/spool", "", true, ""},
		{DefaultServer, "/srv/spool", "/other", true, "/other"},
		{DefaultServer, "/srv/spool", "none", false, ""},
	} {
		if got := (Settings{Server: c.server, Spool: c.setting}).SpoolOf(c.named, c.chosen, "/default"); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if _, err := ParseSettings("spool = srv/spool"); err == nil {
		t.Error("a relative path was taken")
	}
}
