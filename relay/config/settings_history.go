package config

import "time"

// History is the record of what became of each mail.
type History struct {
	Keep     time.Duration // 0: there is none
	MaxSize  int64         // bytes; 0 is no bound
	Subjects bool          // are part of it
}

func historySection() section {
	return section{"history", "What became of each mail, for 'smtp2rest trace' (docs/history.md). It is kept in\n" +
		"queue.data_dir, and so only with a queue. Bodies are never part of it."}
}

func historySettings(h *History) []setting {
	return []setting{
		{path: "history.keep", value: timeValue{&h.Keep, 0, 3660 * day}, def: "30d",
			doc: "How long it is kept after a mail came. \"0s\" keeps none, and removes what there is."},
		{path: "history.max_size", value: sizeValue{&h.MaxSize, 0, 1 << 50}, def: "1GiB",
			doc: "The most it may take on the disk; the oldest goes first. 0 is no bound."},
		{path: "history.subjects", value: flagValue{&h.Subjects}, def: false,
			doc: "Whether subjects are part of it, to be searched for. They often say what is private."},
	}
}
