package app

import (
	"fmt"
	"testing"
)

// BenchmarkHistory measures what the history costs mail that the API takes at
// once: the same relay with it and without. Its writing shares the machine with
// relay, load and sandbox. Compare the two within one run:
//
//	go test ./relay/app -run '^$' -bench History -benchtime 3s -count 5
func BenchmarkHistory(b *testing.B) {
	for _, clients := range []int{1, 10, 50} {
		for _, keep := range []string{"30d", "0s"} {
			b.Run(fmt.Sprintf("%d/keep=%s", clients, keep), func(b *testing.B) {
				b.ReportAllocs()
				drive(b, benchRelayWith(b, "[history]\nkeep = \""+keep+"\"\n"), plainMail(1<<10), clients)
			})
		}
	}
}
