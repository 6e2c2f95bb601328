//go:build race

package mail_test

// underRace: the race detector makes everything ten times slower.
const underRace = true
