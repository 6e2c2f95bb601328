//go:build !race

package payload

const underRace = false
