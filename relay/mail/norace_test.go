//go:build !race

package mail

const underRace = false
