package sendmail

// ExitCode is what a caller is told of a refusal: of its code, such as 550, and
// its enhanced status code (RFC 3463), such as 5.1.1, of which the first number
// may be 0 when the server gave none.
func ExitCode(code int, enhanced [3]int) int {
	if code/100 != 5 {
		return TempFail
	}
	if enhanced[0] == 5 {
		if exit := byEnhanced(enhanced[1], enhanced[2]); exit != 0 {
			return exit
		}
	}
	switch code {
	case 500, 501, 502, 503, 504, 555:
		return Protocol
	case 530, 534, 535, 538:
		return NoPerm
	case 552:
		return DataErr
	case 553:
		return DataErr
	case 550, 551:
		if enhanced[0] == 0 {
			return NoUser // all that such a server says
		}
	}
	return Unavailable
}

func byEnhanced(subject, detail int) int {
	switch subject {
	case 1:
		switch detail {
		case 1, 6, 10:
			return NoUser
		case 2:
			return NoHost
		case 3, 7, 8:
			return DataErr
		}
	case 2:
		if detail == 3 {
			return DataErr // too large for the mailbox
		}
	case 3:
		if detail == 4 {
			return DataErr // too large for the system
		}
	case 5:
		return Protocol
	case 6:
		return DataErr
	case 7:
		return NoPerm
	}
	return 0
}
