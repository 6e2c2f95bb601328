package settings

import "strings"

// Nearest returns the candidate that word was probably meant to be: the one with the
// fewest letters to add, drop, change or swap. It allows at most a third of the word's letters, but at least
// one, and otherwise returns "".
func Nearest(word string, candidates []string) string {
	best, fewest := "", max(1, len([]rune(word))/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < fewest {
			best, fewest = c, d
		}
	}
	return best
}

// distance returns the number of edits between a and b. Swapping two neighbours is one
// edit (the optimal string alignment distance).
func distance(as, bs string) int {
	a, b := []rune(as), []rune(bs)
	// Words of such different lengths are never near. This also keeps the table
	// small, however long a key in a file is.
	if len(a) > 2*len(b)+3 || len(b) > 2*len(a)+3 {
		return len(a) + len(b)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
