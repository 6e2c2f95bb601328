//go:build race

package payload

// underRace: the race detector makes everything ten times slower.
const underRace = true
