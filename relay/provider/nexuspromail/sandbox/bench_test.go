package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkCalls measures the sandbox over real sockets with keep-alive, with a small
// client. ns/op is that of all connections together.
func BenchmarkCalls(b *testing.B) {
	for _, size := range []int{100, 3 << 10, 18 << 10} {
		b.Run(fmt.Sprintf("html=%d", size), func(b *testing.B) {
			s := start(b, Options{})
			html := strings.Repeat(`<p class=\"x\">Grüße</p>\n`, size/27)
			body := strings.Replace(good, "<p>Hi</p>", html, 1)
			b.SetBytes(int64(len(body)))
			b.SetParallelism(16)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) { callRaw(b, pb, s.Addr(), body) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			if got := s.Stats().Accepted; got != b.N {
				b.Fatalf("%d accepted of %d", got, b.N)
			}
		})
	}
}

// callRaw makes calls on a connection of its own.
func callRaw(b *testing.B, pb *testing.PB, addr, body string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	head := fmt.Sprintf("POST %s%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nIdempotency-Key: %p-",
		base, defaultPath, defaultKey, len(body), in)
	for n := 0; pb.Next(); n++ {
		if _, err := fmt.Fprintf(conn, "%s%d\r\n\r\n%s", head, n, body); err != nil {
			b.Error(err)
			return
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusOK {
			b.Errorf("status %d", resp.StatusCode)
			return
		}
	}
}

func BenchmarkParse(b *testing.B) {
	body := []byte(strings.Replace(good, "<p>Hi</p>", strings.Repeat(`<p class=\"x\">Grüße</p>\n`, 700), 1))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := parse(body); err != nil {
			b.Fatal(err)
		}
	}
}
