package config

import "time"

// Queue is where mail is kept that could not be settled at once.
type Queue struct {
	Mode     QueueMode
	DataDir  string        // absolute, or relative to where the process runs
	MaxMails int           // 0 is no bound
	MaxSize  int64         // bytes; 0 is no bound
	MinFree  int64         // bytes that are left free on the disk
	KeepSent time.Duration // how long sent mail stays listed
}

// QueueMode is whether there is a queue.
type QueueMode string

// OnDisk keeps mail in DataDir; NoQueue answers with a temporary error what
// cannot be settled while the client waits.
const (
	OnDisk  QueueMode = "disk"
	NoQueue QueueMode = "none"
)

// Retry is when queued mail is tried again and given up.
type Retry struct {
	First  time.Duration // after the first attempt
	Max    time.Duration // the longest between two attempts
	MaxAge time.Duration // after which it is given up
}

// Nobody is Bounce.Postmaster where nobody is to be told.
const Nobody = "none"

// Bounce is how senders are told what could not be delivered.
type Bounce struct {
	Postmaster string        // for senders who cannot receive mail; "none" is nobody
	PerHour    int           // to one address; 0 is no bound
	Grace      time.Duration // the longest wait for a mail's other recipients
}

func queueSettings(q *Queue) []setting {
	return []setting{
		{path: "queue.mode", value: wordValue[QueueMode]{&q.Mode, []QueueMode{OnDisk, NoQueue}}, def: "disk",
			doc: "\"disk\" keeps mail that could not be sent at once in data_dir until it can. \"none\"\nanswers it with a temporary error: the client has to try again."},
		{path: "queue.data_dir", value: textValue{&q.DataDir, checkDir}, env: "SMTP2REST_DATA_DIR", example: `"/var/lib/smtp2rest"`,
			defWord: "systemd's STATE_DIRECTORY, or the user's own",
			doc:     "The directory for it, on a disk that outlives the process: in a container, a\nvolume. Without systemd it is smtp2rest in ~/.local/state, or in /var/lib for root."},
		{path: "queue.max_mails", value: countValue{&q.MaxMails, 0, 1e9}, def: int64(1_000_000),
			doc: "The most mails that wait at once, and the most that are kept because they failed;\nwhat comes then is told to try later. 0 is no bound."},
		{path: "queue.max_size", value: sizeValue{&q.MaxSize, 0, 1 << 50}, def: "10GiB",
			doc: "The most both may take together. 0 is no bound."},
		{path: "queue.min_free", value: sizeValue{&q.MinFree, 0, 1 << 50}, def: "256MiB",
			doc: "How much of the disk is left free, for what sends and removes mail to go on.\nAt least 32MiB are, whatever is set."},
		{path: "queue.keep_sent", value: timeValue{&q.KeepSent, 0, 366 * day}, def: "1d",
			doc: "How long mail stays listed after it was sent, without its content."},
	}
}

func retrySettings(r *Retry) []setting {
	return []setting{
		{path: "delivery.retry_first", value: timeValue{&r.First, time.Millisecond, day}, def: "5s",
			doc: "How long after a failed first attempt the second one is made. Each further wait\nis twice as long as the one before, less up to half by chance."},
		{path: "delivery.retry_max", value: timeValue{&r.Max, time.Millisecond, 7 * day}, def: "15m",
			doc: "The longest wait between two attempts."},
		{path: "delivery.max_age", value: timeValue{&r.MaxAge, time.Second, 366 * day}, def: "2d",
			doc: "How long a mail is tried before it is given up and its sender told."},
	}
}

func bounceSettings(b *Bounce) []setting {
	return []setting{
		{path: "bounce.postmaster", value: textValue{&b.Postmaster, checkPostmaster}, defWord: "postmaster at the domain of sender.email", example: `"postmaster@mail.example.com"`,
			doc: "Who is told when the sender is an address that cannot receive mail, such as\nroot@localhost. \"none\" is nobody."},
		{path: "bounce.per_hour", value: countValue{&b.PerHour, 0, 1_000_000}, def: int64(20),
			doc: "The most bounces to one address in an hour. 0 is no bound."},
		{path: "bounce.grace", value: timeValue{&b.Grace, 0, 7 * day}, def: "4h",
			doc: "A mail's failed recipients are told of together, once none is waiting any more,\nand at the latest after this time."},
	}
}
