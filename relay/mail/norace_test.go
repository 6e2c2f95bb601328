//go:build !race

package mail_test

const underRace = false
