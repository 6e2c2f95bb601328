// Command smtp2rest takes mail over SMTP and sends it through the NexusProMail
// REST API. Its commands are in internal/cli; what they run is in relay/app and
// below.
package main

import (
	"os"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

func main() { os.Exit(cli.Main(version)) }
