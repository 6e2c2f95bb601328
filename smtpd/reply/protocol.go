package reply

// The replies in this file are about the protocol, not about a mail. smtpd gives them
// where go-smtp would answer wrongly or not at all.

// BadCommand: a command that we do not know, or a line that cannot be one.
func BadCommand(why string) *Reply { return newReply(500, 5, 2, "%s", why) }

// LineTooLong: a command line beyond our limit.
func LineTooLong() *Reply { return newReply(500, 5, 2, "line too long") }

// BodyLineTooLong: a line of a mail's content beyond our limit.
func BodyLineTooLong() *Reply { return newReply(554, 6, 0, "a line is too long") }

// BadArgument: a known command with an argument that cannot be read.
func BadArgument(why string) *Reply { return newReply(501, 5, 4, "%s", why) }

// NotImplemented: a command that we know and do not offer here.
func NotImplemented(command string) *Reply {
	return newReply(502, 5, 1, "%s is not available here", command)
}

// BadSequence: a command out of order.
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

// UnknownMechanism: AUTH with a mechanism that we do not offer (RFC 4954 section 4).
func UnknownMechanism() *Reply { return newReply(504, 5, 4, "unknown authentication mechanism") }

// BadLogin: AUTH with data that is no base64, or not what the mechanism requires.
func BadLogin() *Reply { return newReply(501, 5, 2, "cannot read the authentication data") }

// LoginCancelled: the client said "*".
func LoginCancelled() *Reply { return newReply(501, 7, 0, "authentication cancelled") }

// ChunkTaken: a BDAT that is not the last one.
func ChunkTaken(size int64) *Reply { return newReply(250, 0, 0, "%d octets received", size) }

// TooSlow: the client said nothing, or did not finish its message, in time.
func TooSlow() *Reply { return newReply(421, 4, 2, "timeout, closing the connection") }

// BelowRate: the client's message came more slowly than Limits.MinRate.
func BelowRate() *Reply { return newReply(421, 4, 2, "too slow, closing the connection") }

// TooManyErrors: wrong commands or wrong recipients, one after the other.
func TooManyErrors() *Reply { return newReply(421, 7, 0, "too many errors, closing the connection") }

// WrongProtocol: a web browser or the like was made to connect to our port.
func WrongProtocol() *Reply {
	return newReply(554, 5, 1, "this server speaks SMTP, closing the connection")
}

// TooEarly: the client did not wait for the greeting or for the reply to EHLO.
func TooEarly(what string) *Reply {
	return newReply(554, 5, 1, "wait for %s before you send more, closing the connection", what)
}
