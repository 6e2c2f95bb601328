package cli

import "testing"

// An account has no setting for the secret before, so nobody is told to set one.
func TestPreviousNote(t *testing.T) {
	for _, tt := range []struct {
		setting, previous string
		replaced          bool
		want              string
	}{
		{defaultSecretSetting, "", false, ""},
		{defaultSecretSetting, "/p", true, " The one before it is in /p."},
		{defaultSecretSetting, "", true, " The one before it is gone: set webhook.previous_secret_file to keep it the next time."},
		{"webhook_secret_file of the account", "", true, " The one before it is gone."},
	} {
		if got := (registering{setting: tt.setting, previous: tt.previous}).previousNote(tt.replaced); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}
