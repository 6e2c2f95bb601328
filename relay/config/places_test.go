package config

import (
	"net"
	"testing"
)

// What counts as the same address is what the system cannot open twice.
func TestSameTCP(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"127.0.0.1", "127.0.0.1", true},
		{"127.0.0.1", "127.0.0.2", false},
		{"127.0.0.1", "localhost", true},
		{"127.0.0.1", "::ffff:127.0.0.1", true},
		{"127.0.0.1", "0.0.0.0", true},
		{"127.0.0.1", "::", true},
		{"127.0.0.1", "", true},
		{"0.0.0.0", "::", true},
		{"localhost", "LOCALHOST", true},
	} {
		l, err := net.Listen("tcp", net.JoinHostPort(tt.a, "0"))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		second, err := net.Listen("tcp", net.JoinHostPort(tt.b, port))
		if (err != nil) != tt.same {
			t.Errorf("the system says of %s beside %s: %v", tt.b, tt.a, err)
		}
		if err == nil {
			_ = second.Close()
		}
		_ = l.Close()
		for _, pair := range [][2]string{{tt.a, tt.b}, {tt.b, tt.a}} {
			if got := sameTCP(net.JoinHostPort(pair[0], port), net.JoinHostPort(pair[1], port)); got != tt.same {
				t.Errorf("%s beside %s: %t", pair[1], pair[0], got)
			}
		}
	}
	if sameTCP("127.0.0.1:0", "127.0.0.1:0") || sameTCP("127.0.0.1:25", "127.0.0.1:26") {
		t.Error("other ports or free ports count as the same")
	}
}
