package smtpd

import (
	"net"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// fakeConn is a connection that can be dropped.
func fakeConn() *conn {
	inner, _ := net.Pipe()
	return &conn{socket: &socket{Conn: inner}, cancel: func() {}}
}

func at(addr string, p *port) source { return source{origin(netip.MustParseAddrPort(addr)), p} }

// Connections forgets addresses that have no connections.
func TestConnectionsForgets(t *testing.T) {
	r := newConnections(Limits{Connections: 10, ConnectionsPerAddress: 2}, newMetrics(nil))
	var in []*conn
	for i, addr := range []string{"[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8::3]:3", "192.0.2.1:1"} {
		w := fakeConn()
		if refused := r.enter(w, at(addr, nil), stranger); (refused != nil) != (i == 2) {
			t.Errorf("connection %d, from %s: %v", i, addr, refused)
		} else if refused == nil {
			in = append(in, w)
		}
	}
	for _, w := range in {
		r.leave(w)
	}
	if len(r.conns) != 0 || len(r.from) != 0 || len(r.strangers) != 0 || r.byClass != [classes]int{} {
		t.Errorf("left over: %+v", r)
	}
}

// Whoever comes, logs in, is moved by a proxy and goes, in whatever order: no
// more than are allowed are in, what is reserved is there for clients inside,
// who are turned away only where there is no stranger, and all counts are right.
func TestConnectionsKeepsItsBounds(t *testing.T) {
	ports := []*port{{}, {}, {}}
	addrs := []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"}
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Connections: rapid.IntRange(1, 16).Draw(t, "connections"), ConnectionsPerAddress: rapid.IntRange(1, 16).Draw(t, "per address")}
		r := newConnections(limits, newMetrics(nil))
		r.apply(limits, rapid.Bool().Draw(t, "somebody inside"))
		var in []*conn
		somewhere := func() source {
			return at(rapid.SampledFrom(addrs).Draw(t, "address"), rapid.SampledFrom(ports).Draw(t, "port"))
		}
		one := func(t *rapid.T) *conn {
			if len(in) == 0 {
				t.Skip("nobody is in")
			}
			return rapid.SampledFrom(in).Draw(t, "who")
		}
		strangers := func() (n int) {
			for _, w := range in {
				if w.entry.counted && w.entry.class == stranger {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				w, c, where, before := fakeConn(), rapid.SampledFrom([]class{unknown, stranger, stranger, trusted}).Draw(t, "class"), somewhere(), strangers()
				crowded := c != unknown && r.from[where].all >= limits.ConnectionsPerAddress
				refused := r.enter(w, where, c)
				switch {
				case refused == nil:
					in = append(in, w)
				case c != stranger && before > 0 && !crowded:
					t.Fatalf("class %d was turned away for %d strangers", c, before)
				}
				if lost := before - strangers(); lost > 1 || lost == 1 && refused != nil {
					t.Fatalf("%d strangers made room, and %v", lost, refused)
				}
			},
			"log in": func(t *rapid.T) {
				if w := one(t); w.entry.class == stranger {
					r.classify(w, user)
				}
			},
			"log out": func(t *rapid.T) {
				if w := one(t); w.entry.class == user {
					r.classify(w, stranger)
				}
			},
			"move": func(t *rapid.T) {
				if w := one(t); w.entry.class == unknown {
					_ = r.move(w, somewhere(), rapid.SampledFrom([]class{stranger, trusted}).Draw(t, "class"))
				}
			},
			"leave": func(t *rapid.T) {
				w := one(t)
				r.leave(w)
				for i := range in {
					if in[i] == w {
						in = append(in[:i], in[i+1:]...)
						break
					}
				}
			},
			"": func(t *rapid.T) {
				var count [classes]int
				from, at := map[source]tally{}, map[*port]int{}
				for _, w := range in {
					if !w.entry.counted {
						continue
					}
					count[w.entry.class]++
					f := from[w.entry.source]
					f.all++
					if w.entry.class == stranger {
						f.strangers++
						at[w.entry.source.port]++
					}
					from[w.entry.source] = f
					if w.dropped {
						t.Fatal("one that was dropped counts")
					}
				}
				all := count[unknown] + count[stranger] + count[user] + count[trusted]
				if count != r.byClass || len(from) != len(r.from) || len(at) != len(r.strangers) || len(in) != len(r.conns) {
					t.Fatalf("counted %v, there are %v", r.byClass, count)
				}
				for p, f := range from {
					if r.from[p] != f || r.strangers[p.port] != at[p.port] {
						t.Fatalf("at %v counted %v and %d, there are %v and %d", p, r.from[p], r.strangers[p.port], f, at[p.port])
					}
				}
				if all > limits.Connections {
					t.Fatalf("%d are in", all)
				}
				if outside := count[stranger] + count[user]; outside > limits.Connections-r.reserved {
					t.Fatalf("%d are outside, and %d are reserved", outside, r.reserved)
				}
			},
		})
	})
}
