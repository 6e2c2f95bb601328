package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// freeAddress is an address for a program that cannot say which one it took, or
// that others must know before. It is below the ports that the kernel gives to
// whoever asks for any, so that nobody gets it meanwhile by chance.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

func freePort(t *testing.T) string {
	t.Helper()
	_, port := hostPort(t, freeAddress(t))
	return port
}
