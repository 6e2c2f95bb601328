package warm

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Prefix begins the name of every mark of this package.
const Prefix = "warm/"

// Mark names the durable counter of a domain on the day of at, for
// queue.Settlement.Count. It is "" when the domain has no cap on that day and
// nothing is to be counted.
func (m *Meter) Mark(domain string, at time.Time) string {
	k, _, bounded := m.today(domain, at)
	if !bounded {
		return ""
	}
	return k.mark()
}

// Load takes over the counts of an earlier run: all marks that begin with
// Prefix. It is meant for a Meter that has counted nothing yet. Marks that are
// not as Mark and the queue write them are left alone.
func (m *Meter) Load(marks map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, value := range marks {
		k, ok := parseMark(name)
		if !ok {
			continue
		}
		n, _ := strconv.ParseInt(value, 10, 64) // 0 if it is not a number, as for the queue
		c := m.counts[k]
		c.sent = int(min(max(n, 0), most))
		m.counts[k] = c
	}
}

// Expired forgets the counts that are not needed any more, and returns their
// marks for removal. A clock that was wrong can come back to any day, so a
// domain keeps its latest keptDays days, by their dates, and yesterday and
// later ones in any case; one that has no plan any more keeps only the latter.
func (m *Meter) Expired(now time.Time) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]key, 0, len(m.counts))
	for k := range m.counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { // latest first
		return cmp.Or(cmp.Compare(b.day, a.day), cmp.Compare(a.domain, b.domain))
	})
	var expired []string
	plans := m.all()
	later := map[string]int{} // days after this one, by domain
	for _, k := range keys {
		n := later[k.domain]
		later[k.domain]++
		recent := k.day >= dayOf(now)-1
		_, followed := plans[k.domain]
		kept := n < keptDays && followed
		if recent || kept || m.counts[k].reserved > 0 {
			continue
		}
		delete(m.counts, k)
		expired = append(expired, k.mark())
	}
	return expired
}

func (k key) mark() string {
	return Prefix + startOf(k.day).Format(time.DateOnly) + "/" + k.domain
}

// parseMark is the reverse of mark.
func parseMark(name string) (key, bool) {
	rest, ok := strings.CutPrefix(name, Prefix)
	if !ok {
		return key{}, false
	}
	date, domain, ok := strings.Cut(rest, "/")
	if !ok || domain == "" {
		return key{}, false
	}
	day, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return key{}, false
	}
	return key{day: dayOf(day), domain: domain}, true
}
