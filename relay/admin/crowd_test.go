package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A crowd on admin.address makes few pages at once, and who asks with the token is
// answered all the same.
func TestACrowdOnTheAddress(t *testing.T) {
	var now, most atomic.Int64
	pages := prometheus.NewRegistry()
	pages.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "at_once", Help: "Pages that are made now."}, func() float64 {
		at := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); at > m && !most.CompareAndSwap(m, at); m = most.Load() {
		}
		<-time.After(20 * time.Millisecond) // so that others can come meanwhile
		return float64(at)
	}))
	s := NewServer(ServerOptions{Admin: fake{}, Metrics: pages, Address: "127.0.0.1:0", Access: Access{Token: "token", OpenMetrics: true}})
	must(t, s.Start(t.Context()))
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	var crowd sync.WaitGroup
	for range 900 {
		c, err := net.Dial("tcp", s.Addr().String())
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		crowd.Go(func() {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = c.Read(make([]byte, 1)) // some are refused
		})
	}
	crowd.Wait()
	if n := most.Load(); n == 0 || n > 32 {
		t.Errorf("%d pages were made at once", n)
	}
	// All that are left keep their connections, and are of the same address.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for begin := time.Now(); ; {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr().String()+Livez, nil)
		must(t, err)
		r.Header.Set("Authorization", "Bearer token")
		resp, err := client.Do(r)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Since(begin) > time.Minute {
			t.Fatal(resp, err)
		}
	}
}
