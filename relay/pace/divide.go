package pace

import "math"

// want is what a relay could do with its share.
type want struct {
	Used   float64 `json:"used"`   // calls per second that it makes
	Line   float64 `json:"line"`   // callers in line
	Lacked bool    `json:"lacked"` // calls waited because its share was used up
}

const (
	// smallest is the part of the rate that a relay has at least, so that its first call
	// need not wait: a hundredth, but of many relays together a twentieth.
	smallest    = 0.01
	allSmallest = 0.05
	// room is how much more than it uses a relay has while others lack calls.
	room = 1.25
	// steady is the part of it by which a share has to be too large before some is given
	// back. That costs a little of the rate: what one gives, another has later.
	steady = 0.03
)

// divide divides a rate by what relays want. A relay whose calls do not wait has what it
// uses and some room. The others have the rest: equal parts, and more for each call that
// waits. If no calls wait anywhere, what is left is divided equally. The sum is
// the rate.
func divide(rate float64, wants []want) []float64 {
	shares := make([]float64, len(wants))
	n := float64(len(wants))
	least := rate * min(smallest, allSmallest/n)
	weights, most := make([]float64, len(wants)), make([]float64, len(wants))
	left := rate
	for i, w := range wants {
		shares[i] = least
		left -= least
		weights[i], most[i] = max(w.Used, least), max(room*w.Used, least)
		if w.Lacked {
			// What it used says nothing: that was as much as it had.
			weights[i], most[i] = rate/n+w.Line, math.Inf(1)
		}
	}
	for left > rate*1e-9 {
		sum := 0.0
		for i := range wants {
			if shares[i] < most[i] {
				sum += weights[i]
			}
		}
		if sum == 0 {
			break
		}
		given := 0.0
		for i := range wants {
			if shares[i] < most[i] {
				more := min(left*weights[i]/sum, most[i]-shares[i])
				shares[i] += more
				given += more
			}
		}
		if left -= given; given < rate*1e-9 {
			break
		}
	}
	for i := range shares {
		shares[i] += max(left, 0) / n
	}
	return shares
}

// next returns the share to take instead of the current one, of what the others leave
// free.
func next(current, fair, free float64) float64 {
	if fair < current && current-fair <= steady*current {
		fair = current
	}
	return max(min(fair, free), 0)
}
