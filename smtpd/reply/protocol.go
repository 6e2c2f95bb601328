package reply

// The replies here are about the protocol itself, not about a mail: what
// smtpd answers on its own because go-smtp would answer wrongly or not at all.

// BadCommand: not a command of ours, or a line that cannot be one.
func BadCommand(why string) *Reply { return newReply(500, 5, 2, "%s", why) }

// LineTooLong: a command line beyond our limit.
func LineTooLong() *Reply { return newReply(500, 5, 2, "line too long") }

// BodyLineTooLong: a line of a mail's content beyond our limit.
func BodyLineTooLong() *Reply { return newReply(554, 6, 0, "a line is too long") }

// BadArgument: a known command with an argument that cannot be read.
func BadArgument(why string) *Reply { return newReply(501, 5, 4, "%s", why) }

// NotImplemented: a command we know of and do not have here.
func NotImplemented(command string) *Reply {
	return newReply(502, 5, 1, "%s is not available here", command)
}

// BadSequence: a command at a time when it has no meaning.
func BadSequence(why string) *Reply { return newReply(503, 5, 1, "%s", why) }

// UnknownParameter: MAIL or RCPT with an extension we did not offer (RFC 5321
// section 4.1.1.11).
func UnknownParameter(name string) *Reply {
	return newReply(555, 5, 4, "parameter %s is not supported", name)
}

// ReadyForTLS: the answer to STARTTLS, the last one in the clear.
func ReadyForTLS() *Reply { return newReply(220, 0, 0, "ready to start TLS") }

// LoggedIn: the password was right.
func LoggedIn() *Reply { return newReply(235, 7, 0, "authentication succeeded") }

// UnknownMechanism: a way of AUTH that we do not have (RFC 4954 section 4).
func UnknownMechanism() *Reply { return newReply(504, 5, 4, "unknown authentication mechanism") }

// BadLogin: AUTH with what is no base64, or not what the mechanism asks for.
func BadLogin() *Reply { return newReply(501, 5, 2, "cannot read the authentication data") }

// LoginCancelled: the client said "*".
func LoginCancelled() *Reply { return newReply(501, 7, 0, "authentication cancelled") }

// ChunkTaken: a BDAT that is not the last one.
func ChunkTaken(size int64) *Reply { return newReply(250, 0, 0, "%d octets received", size) }

// TooSlow: the client said nothing, or did not finish its message, in time.
func TooSlow() *Reply { return newReply(421, 4, 2, "timeout, closing the connection") }

// BelowRate: the client's message came more slowly than we wait for.
func BelowRate() *Reply { return newReply(421, 4, 2, "too slow, closing the connection") }

// TooManyErrors: wrong commands or wrong recipients, one after the other.
func TooManyErrors() *Reply { return newReply(421, 7, 0, "too many errors, closing the connection") }

// WrongProtocol: a web browser or the like that was sent to our port.
func WrongProtocol() *Reply {
	return newReply(554, 5, 1, "this server speaks SMTP, closing the connection")
}

// TooEarly: a client that did not wait for what it had to wait for.
func TooEarly(what string) *Reply {
	return newReply(554, 5, 1, "wait for %s before you send more, closing the connection", what)
}
