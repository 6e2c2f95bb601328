package web

import (
	"net/http"
	"strings"
	"time"
)

// Setting is one setting in force.
type Setting struct {
	Path, Value, Origin string // of a secret Value says only whether it is set
	Doc                 string
}

// Certificate is one that this relay shows to others.
type Certificate struct {
	Use     string // what it is for
	File    string
	Names   []string
	Until   time.Time
	Problem string // it cannot be read
}

// Ends reports whether the certificate ends soon.
func (c Certificate) Ends() bool { return !c.Until.IsZero() && time.Until(c.Until) < 14*24*time.Hour }

// Facts are what the relay is made from.
type Facts struct {
	Settings     []Setting
	Certificates []Certificate
}

// table is the settings of one table of the file.
type table struct {
	Name     string
	Settings []Setting
}

func (s *Site) settings(v *visit) error {
	facts := s.opt.Facts()
	changed := v.r.URL.Query().Get("only") == "changed"
	var tables []table
	for _, one := range facts.Settings {
		if changed && (one.Origin == "default" || one.Origin == "") {
			continue
		}
		name := ""
		if i := strings.LastIndexByte(one.Path, '.'); i >= 0 {
			name = one.Path[:i]
		}
		if len(tables) == 0 || tables[len(tables)-1].Name != name {
			tables = append(tables, table{Name: name})
		}
		last := &tables[len(tables)-1]
		last.Settings = append(last.Settings, one)
	}
	v.show(http.StatusOK, "settings", struct {
		Tables       []table
		Certificates []Certificate
		Changed      bool
	}{tables, facts.Certificates, changed})
	return nil
}
