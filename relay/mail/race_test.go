//go:build race

package mail

// underRace: the race detector makes everything ten times slower.
const underRace = true
