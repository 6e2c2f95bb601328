//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// large measures large bodies alone, and how long small mail takes meanwhile.
func (b *bench) large() error {
	for _, size := range []int{64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 10 << 20} {
		var rates, small []float64
		for range b.rounds {
			rate, p50, err := b.largeRound(size)
			if err != nil {
				return err
			}
			rates, small = append(rates, rate), append(small, p50)
		}
		fmt.Printf("%5d KiB, 4 writers: %6.0f/s = %4.0f MiB/s; 4 KiB beside it: median %.2f ms\n",
			size>>10, median(rates), median(rates)*float64(size)/(1<<20), median(small))
	}
	return nil
}

func (b *bench) largeRound(size int) (rate, p50 float64, err error) {
	err = b.inStore(func(dir string) error {
		s, err := open(dir)
		if err != nil {
			return err
		}
		big := bytes.Repeat([]byte("x"), size)
		stop := make(chan struct{})
		var took []float64
		var smallErr error
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				begin := time.Now()
				if smallErr = s.Enqueue(context.Background(), b.mail(1)); smallErr != nil {
					return
				}
				took = append(took, time.Since(begin).Seconds()*1000)
			}
		})
		rate, err = b.parallel(4, func() error {
			m := b.mail(1)
			m.Message.Raw = big
			return s.Enqueue(context.Background(), m)
		})
		close(stop)
		wg.Wait()
		if len(took) > 0 {
			slices.Sort(took)
			p50 = took[len(took)/2]
		}
		return errors.Join(err, smallErr, s.Close())
	})
	return rate, p50, err
}
