package mail

import (
	"strings"
	"unicode/utf8"
)

// link is a stretch of text that can be clicked, and what its address has
// before it.
type link struct {
	start, end int
	prefix     string
}

// findLink returns the first link in text; its end is 0 when there is none.
// The time is linear: what is looked at around a mark is bounded.
func findLink(text string) link {
	for i := 0; i < len(text); i++ {
		var l link
		switch text[i] {
		case ':':
			l = urlAt(text, i)
		case '.':
			l = wwwAt(text, i)
		case '@':
			l = emailAt(text, i)
		}
		if l.end > 0 {
			return l
		}
	}
	return link{}
}

// urlAt returns the URL whose scheme ends at i.
func urlAt(text string, i int) link {
	if !strings.HasPrefix(text[i:], "://") {
		return link{}
	}
	for _, scheme := range []string{"https", "http", "ftp"} {
		start := i - len(scheme)
		if start < 0 || !strings.EqualFold(text[start:i], scheme) {
			continue
		}
		if end := linkEnd(text, i+3); end > i+3 {
			return link{start, end, ""}
		}
	}
	return link{}
}

// wwwAt returns the link that begins with www at the dot at i.
func wwwAt(text string, i int) link {
	start := i - 3
	if start < 0 || !strings.EqualFold(text[start:i], "www") || start > 0 && isWord(text[start-1]) || i+1 < len(text) && text[i+1] == '.' {
		return link{}
	}
	end := linkEnd(text, i+1)
	if strings.IndexByte(text[i+1:end], '.') <= 0 {
		return link{}
	}
	return link{start, end, "http://"}
}

// emailAt returns the address around the "@" at i.
func emailAt(text string, i int) link {
	start, end := i, i+1
	for start > 0 && i-start < 64 && (isWord(text[start-1]) || strings.IndexByte(".+-_", text[start-1]) >= 0) {
		start--
	}
	for end < len(text) && end-i < 253 && (isWord(text[end]) || text[end] == '.' || text[end] == '-') {
		end++
	}
	domain := strings.TrimRight(text[i+1:end], ".-")
	if start == i || strings.IndexByte(domain, '.') <= 0 {
		return link{}
	}
	return link{start, i + 1 + len(domain), "mailto:"}
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// maxLink bounds a link's length, as browsers do.
const maxLink = 2000

// linkEnd returns where the link that goes on at from ends: at a blank, quote
// or angle, without the punctuation that ends the sentence and not the link,
// and without a closing parenthesis that was not opened in it.
func linkEnd(text string, from int) int {
	end, open := from, 0
	for end < len(text) && end-from < maxLink && text[end] > ' ' && strings.IndexByte(`<>"`, text[end]) < 0 {
		switch text[end] {
		case '(':
			open++
		case ')':
			open--
		}
		end++
	}
	for end > from && end < len(text) && !utf8.RuneStart(text[end]) {
		end--
	}
	for ; end > from; end-- {
		switch text[end-1] {
		case '.', ',', ';', ':', '!', '?', '\'', '*', ']', '}':
		case ')':
			if open >= 0 {
				return end
			}
			open++
		default:
			return end
		}
	}
	return end
}
