package app

import (
	"io"
	"log/slog"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// NewLog returns the program log as the configuration wants it.
func NewLog(w io.Writer, c config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
