package load

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process and its children use. It is read from /proc, and so is all
// zero on other systems than Linux.
type Usage struct {
	CPU      time.Duration // used so far, in steps of 10 ms
	Resident int64         // bytes, of all processes added up
	Peak     int64         // the most each ever had, added up
	Read     int64         // bytes, from files and sockets
	Written  int64
}

// Since returns what was used after an earlier Usage. Memory stays as it is.
func (u Usage) Since(before Usage) Usage {
	u.CPU, u.Read, u.Written = u.CPU-before.CPU, u.Read-before.Read, u.Written-before.Written
	return u
}

// UsageOf returns what a process and those it started use.
func UsageOf(pid int) (u Usage, err error) {
	parents := map[int]int{}
	stats := map[int][]string{}
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range names {
		fields, err := statOf(name)
		if err != nil || len(fields) < 15 {
			continue // it has ended
		}
		one, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parents[one], _ = strconv.Atoi(fields[1])
		stats[one] = fields
	}
	if stats[pid] == nil {
		return u, fmt.Errorf("there is no process %d to read in /proc", pid)
	}
	for one := range parents {
		if one == pid || isBelow(parents, one, pid) {
			u.add(one, stats[one])
		}
	}
	return u, nil
}

func isBelow(parents map[int]int, one, pid int) bool {
	for range 64 { // no tree is deeper
		if one = parents[one]; one == pid || one <= 1 {
			break
		}
	}
	return one == pid
}

// add adds one process, with the processor time of its children that have ended.
func (u *Usage) add(pid int, stat []string) {
	for _, field := range stat[11:15] {
		ticks, _ := strconv.ParseInt(field, 10, 64)
		u.CPU += time.Duration(ticks) * 10 * time.Millisecond
	}
	status := fieldsOf(fmt.Sprintf("/proc/%d/status", pid))
	u.Resident += status["VmRSS"] << 10
	u.Peak += status["VmHWM"] << 10
	io := fieldsOf(fmt.Sprintf("/proc/%d/io", pid))
	u.Read += io["rchar"]
	u.Written += io["wchar"]
}

// statOf returns the fields of /proc/PID/stat after the name.
func statOf(name string) ([]string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])), nil
}

// fieldsOf reads lines such as "VmRSS: 123 kB".
func fieldsOf(name string) map[string]int64 {
	text, _ := os.ReadFile(name) // it may have ended
	fields := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if words := strings.Fields(value); len(words) > 0 {
			fields[key], _ = strconv.ParseInt(words[0], 10, 64)
		}
	}
	return fields
}
