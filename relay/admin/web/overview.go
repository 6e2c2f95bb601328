package web

import (
	"net/http"

	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func (s *Site) overview(v *visit) error {
	status, err := s.opt.Admin.Status(v.r.Context())
	if err != nil {
		return err
	}
	v.show(http.StatusOK, "overview", struct {
		admin.Status
		Tone string
	}{status, tone(status)})
	return nil
}

// tone is how urgent the state of the relay is.
func tone(s admin.Status) string {
	switch {
	case s.State == admin.StateFine:
		return "fine"
	case len(s.Warnings) > 0 && s.Warnings[0].Level == admin.LevelTrouble, s.State == admin.StateStopped:
		return "trouble"
	}
	return "warning"
}
