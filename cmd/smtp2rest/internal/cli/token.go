package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin/web"
)

func tokenCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token with which somebody logs in at the page.",
		Long: `Makes a random token for the page on admin.address, and prints it with the lines for
the configuration. These have only its hash: the token is shown this once and stored
nowhere. After 'smtp2rest reload' it is valid.

A token has a role: "read" sees everything but the content of mail, "operate" can
also change the queue and the suppressions, and "bodies" can also see the content of
mail.`,
		Example: terminal.Examples("smtp2rest token alice", "smtp2rest token bob --role operate", "smtp2rest token bob --role operate --json"),
		Args:    terminal.Args(1, 1, "name the operator that the token is for"),
	}
	fs := c.Flags()
	role := fs.String("role", web.Read.String(), "`role` of the token: "+strings.Join(web.Roles(), ", "))
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(_ *cobra.Command, args []string) error {
		name := args[0]
		switch {
		case web.RoleOf(*role) == 0:
			return terminal.Usagef("there is no role %q%s", *role, terminal.NoSuch(*role, web.Roles()))
		case name == "" || strings.ContainsAny(name, ":\r\n\"\\") || strings.TrimSpace(name) != name || strings.HasPrefix(name, "#"):
			return terminal.Usagef("an operator's name has no colon, quote or line end in it, no space around it and no # before it")
		}
		token := web.NewToken()
		if *asJSON {
			return terminal.PrintJSON(t.Out, struct {
				Name  string `json:"name"`
				Role  string `json:"role"`
				Token string `json:"token"`
				Hash  string `json:"token_hash"`
			}{name, *role, token, web.Hash(token)})
		}
		_, err := fmt.Fprintf(t.Out, "# The token of %s, which is not shown again:\n#\n#   %s\n#\n# For the configuration:\n\n[[operator]]\nname = \"%[1]s\"\nrole = \"%[3]s\"\ntoken_hash = \"%[4]s\"\n",
			name, token, *role, web.Hash(token))
		return err
	}
	return c
}
